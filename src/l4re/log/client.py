"""The log a program was given: its own output, or a console, line by line."""

from __future__ import annotations

import sys
from typing import Protocol

__all__ = ["Log", "Output"]


class Output(Protocol):
    """Where a log can write to, but for standard output: a console, such as `Vcon`."""

    def write(self, text: str, /) -> object:
        """Write ``text``."""


class Log:
    """Writes to what the parent made of our standard output, or to a console.

    Thread-safe as far as ``sys.stdout`` is, or the console.
    """

    __slots__ = ("_vcon", "tag")

    def __init__(self, tag: str = "", *, vcon: Output | None = None) -> None:
        self.tag = tag
        self._vcon = vcon

    def printn(self, text: str) -> None:
        """Write ``text`` as it is."""
        if self._vcon is not None:
            self._vcon.write(text)
            return
        sys.stdout.write(text)
        sys.stdout.flush()

    def print(self, text: str) -> None:
        """Write ``text`` and a newline, in one piece; a console takes pieces of 488 bytes."""
        self.printn(f"{text}\n")

    def __repr__(self) -> str:
        return f"<Log {self.tag!r}>" if self.tag else "<Log>"
