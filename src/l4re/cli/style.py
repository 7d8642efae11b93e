"""Colour and weight, where they are wanted."""

from __future__ import annotations

from typing import NamedTuple, TextIO

from l4re.log.console import wants_colour

__all__ = ["Style"]


class Style(NamedTuple):
    """Marks text for a terminal, or leaves it as it is."""

    on: bool

    @classmethod
    def of(cls, stream: TextIO, *, wanted: bool = True) -> Style:
        """Return the style for what is printed to ``stream``."""
        return cls(wanted and wants_colour(stream))

    def bold(self, text: str) -> str:
        return self._marked("1", text)

    def red(self, text: str) -> str:
        return self._marked("31", text)

    def green(self, text: str) -> str:
        return self._marked("32", text)

    def yellow(self, text: str) -> str:
        return self._marked("33", text)

    def dim(self, text: str) -> str:
        return self._marked("2", text)

    def _marked(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.on else text
