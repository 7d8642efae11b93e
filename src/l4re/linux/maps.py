"""What occupies this address space, as the kernel tells it; for error messages, never for decisions.

By the time the answer is read another thread may have changed it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Occupant", "occupants", "parse", "writers_of"]

_PATH = "/proc/self/maps"


class Occupant(NamedTuple):
    """One line of ``/proc/self/maps``: addresses ``[start, end)``."""

    start: int
    end: int
    access: str
    device: int
    inode: int
    name: str

    def __str__(self) -> str:
        return f"{self.name or 'anonymous memory'} at {self.start:#x}-{self.end:#x}"


def parse(text: str) -> Iterator[Occupant]:
    """Yield one entry per line."""
    for line in text.splitlines():
        addresses, access, _, device, inode, *name = line.split(maxsplit=5)
        start, _, end = addresses.partition("-")
        major, _, minor = device.partition(":")
        number = os.makedev(int(major, 16), int(minor, 16))
        yield Occupant(int(start, 16), int(end, 16), access, number, int(inode), name[0] if name else "")


def _all() -> Iterator[Occupant]:
    try:
        with open(_PATH, encoding="utf-8", errors="backslashreplace") as file:
            text = file.read()
    except OSError:
        return iter(())  # no procfs: the message will say less
    return parse(text)


def occupants(start: int, end: int) -> list[Occupant]:
    """Return what this process maps in ``[start, end)``; empty without procfs."""
    return [entry for entry in _all() if entry.start < end and start < entry.end]


def writers_of(fd: int) -> list[Occupant]:
    """Return the mappings of this process that may write to the file behind ``fd``; empty without procfs."""
    about = os.fstat(fd)
    return [
        entry
        for entry in _all()
        if entry.inode == about.st_ino
        and entry.device == about.st_dev
        and entry.access[1] == "w"
        and entry.access[3] == "s"
    ]
