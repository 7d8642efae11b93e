"""Lines out of packets: a program may write half a line, half a character, or a line without end. Pure.

`LineAssembler` never keeps more than `LONGEST` characters, whatever a program writes.
"""

from __future__ import annotations

import codecs
from typing import NamedTuple

__all__ = ["LONGEST", "Farewell", "Line", "LineAssembler"]

LONGEST = 1 << 16


class Line(NamedTuple):
    """The text without its newline; ``continued``: the beginning was handed out before."""

    text: str
    continued: bool = False


class LineAssembler:
    """Turns what one program writes into lines. Bytes that are no UTF-8 become U+FFFD."""

    def __init__(self, longest: int = LONGEST) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._longest = longest
        self._parts: list[str] = []
        self._size = 0
        self._continued = False

    def feed(self, data: bytes) -> list[Line]:
        """Return the lines that ``data`` completes, and pieces of one that grows too long."""
        return self._take(self._decoder.decode(data))

    def end(self) -> list[Line]:
        """Return what the program wrote last, if it did not end in a newline."""
        lines = self._take(self._decoder.decode(b"", True))
        return [*lines, self._finish()] if self._size else lines

    def _take(self, text: str) -> list[Line]:
        lines: list[Line] = []
        *whole, rest = text.split("\n")
        for piece in whole:
            self._add(piece, lines)
            lines.append(self._finish())
        self._add(rest, lines)
        return lines

    def _add(self, piece: str, lines: list[Line]) -> None:
        while self._size + len(piece) > self._longest:
            cut = self._longest - self._size
            self._parts.append(piece[:cut])
            lines.append(Line("".join(self._parts), self._continued))
            self._parts, self._size, self._continued = [], 0, True
            piece = piece[cut:]
        if piece:
            self._parts.append(piece)
            self._size += len(piece)

    def _finish(self) -> Line:
        line = Line("".join(self._parts).removesuffix("\r"), self._continued)
        self._parts, self._size, self._continued = [], 0, False
        return line


class Farewell:
    """What a program says when Ctrl-C ends it: everything but the traceback of an uncaught KeyboardInterrupt.

    From the first line of a traceback on, lines are held back until the program has ended; only then is known
    whether an interrupt was what it died of.
    """

    _OPENINGS = ("Traceback (most recent call last):", "Exception ignored in", "Exception in thread")

    def __init__(self, limit: int = 2000) -> None:
        self._held: list[Line] = []
        self._limit = limit

    def feed(self, line: Line) -> list[Line]:
        """Return the lines to print now."""
        if not self._held and not line.text.startswith(self._OPENINGS):
            return [line]
        self._held.append(line)
        return self.release() if len(self._held) > self._limit else []

    def end(self) -> list[Line]:
        """Return what was held back for nothing."""
        last = next((line.text for line in reversed(self._held) if line.text.strip()), "")
        if last.strip().rstrip(":") == "KeyboardInterrupt":
            self._held = []
        return self.release()

    def release(self) -> list[Line]:
        """Return all that is held back."""
        held, self._held = self._held, []
        return held
