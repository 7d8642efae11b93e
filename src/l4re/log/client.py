"""The log a program was given: its own output, line by line."""

from __future__ import annotations

import sys

__all__ = ["Log"]


class Log:
    """Writes to what the parent made of our standard output. Thread-safe as far as ``sys.stdout`` is."""

    __slots__ = ("tag",)

    def __init__(self, tag: str = "") -> None:
        self.tag = tag

    def printn(self, text: str) -> None:
        """Write ``text`` as it is."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def print(self, text: str) -> None:
        """Write ``text`` and a newline, in one piece."""
        self.printn(f"{text}\n")

    def __repr__(self) -> str:
        return f"<Log {self.tag!r}>" if self.tag else "<Log>"
