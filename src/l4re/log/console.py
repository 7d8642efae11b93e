"""The console: where lines come out, each in one piece.

When nobody reads any more (``EPIPE``), that is not an error of the programs: the console says so once to who
asked, and swallows the rest, so that no program ever waits for a reader that is gone.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable
from typing import TextIO

from l4re.log.lines import Line
from l4re.log.tag import Tag

__all__ = ["Console", "wants_colour"]


def wants_colour(stream: TextIO) -> bool:
    """Whether to colour: on a terminal, unless ``NO_COLOR`` is set or the terminal is a dumb one."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    try:
        return stream.isatty()
    except ValueError:
        return False


class Console:
    """Prints tagged and plain lines to a text stream, ``sys.stdout`` as it is at that moment by default.

    Thread-safe. ``error`` is what the stream said when it broke; ``on_broken`` is called then, once, by whoever
    printed.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        colours: bool | None = None,
        on_broken: Callable[[], None] | None = None,
    ) -> None:
        self._stream = stream
        self._colours = colours
        self._on_broken = on_broken
        self._lock = threading.Lock()
        self.error: Exception | None = None

    @property
    def interactive(self) -> bool:
        """Whether somebody looks on: it prints to a terminal."""
        try:
            return (self._stream or sys.stdout).isatty()
        except (ValueError, AttributeError):
            return False

    def lines(self, tag: Tag, lines: Iterable[Line]) -> None:
        """Print lines of one program, nothing of another in between."""
        stream = self._stream or sys.stdout
        coloured = wants_colour(stream) if self._colours is None else self._colours
        self._write(stream, "".join(tag.line(line.text, coloured=coloured, continued=line.continued) for line in lines))

    def plain(self, text: str) -> None:
        """Print our own words, without a tag; the newline is the caller's."""
        self._write(self._stream or sys.stdout, text)

    def _write(self, stream: TextIO, text: str) -> None:
        with self._lock:
            if self.error is not None:
                return
            try:
                try:
                    stream.write(text)
                except UnicodeEncodeError:
                    encoding = stream.encoding or "ascii"
                    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
                stream.flush()
                return
            except (OSError, ValueError, AttributeError) as error:  # broken, closed, or none at all
                self.error = error
        if self._on_broken is not None:
            self._on_broken()
