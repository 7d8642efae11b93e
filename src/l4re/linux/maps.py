"""What occupies this address space, as the kernel tells it: for error messages, and for where to try.

By the time the answer is read another thread may have changed it. So nothing rests on it: whoever maps where
there was a hole asks the kernel to refuse if there is none.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from typing import NamedTuple

from l4re.errors import AddressNotAvailable, L4Error, OutOfMemory

__all__ = ["Occupant", "holes", "occupants", "parse", "refusal", "writers_of"]

_PATH = "/proc/self/maps"
_LIMIT = "/proc/sys/vm/max_map_count"
_NEARLY = 8  # the kernel counts a little differently, and one mapping may take several
_PIECE = 1 << 14
_LOWEST = 1 << 16
_DEEPEST_STACK = 1 << 30


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
    except (OSError, MemoryError):
        return iter(())  # no procfs, or no room for so long a list: the message will say less
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


def holes(start: int, size: int, align: int) -> Iterator[int]:
    """Yield, from ``start`` up, the first multiple of ``align`` in each hole where ``size`` bytes fit.

    Neither where the main thread's stack may grow to, nor so low that the kernel gives it to nobody. Without procfs
    ``start`` alone.
    """
    at = max(start, _LOWEST)
    for entry in _all():
        first = -(-at // align) * align
        limit = entry.start - _stack_limit() if entry.name == "[stack]" else entry.start
        if first + size <= limit:
            yield first
        at = max(at, entry.end)
    yield -(-at // align) * align


def _stack_limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_STACK)
    return _DEEPEST_STACK if soft == resource.RLIM_INFINITY else min(soft, _DEEPEST_STACK)


def refusal(error: OSError, size: int, addr: int = 0) -> L4Error:
    """Return what to say of a mapping of ``size`` bytes that failed; ``addr`` 0: the place was free to choose."""
    if error.errno == errno.EADDRNOTAVAIL:
        return AddressNotAvailable(f"no room for {size} bytes in this area" + (f", from {addr:#x}" if addr else ""))
    if error.errno == errno.EEXIST:
        there = occupants(addr, addr + size)
        what = ": there is " + ", ".join(map(str, there[:3])) if there else ""
        return AddressNotAvailable(f"{size} bytes at {addr:#x} are taken{what}")
    if error.errno == errno.ENOMEM and (full := _full()):
        return OutOfMemory(f"no room to map {size} bytes: {full}")
    if addr and error.errno != errno.EAGAIN:
        return AddressNotAvailable(f"{size} bytes at {addr:#x} cannot be mapped: {error.strerror}")
    return OutOfMemory(f"no room to map {size} bytes: {error.strerror}")


def _full() -> str:
    """Say that this process has as many mappings as it may have; empty if it has not."""
    try:
        limit = int(b"".join(_pieces(_LIMIT)))
        count = sum(piece.count(b"\n") for piece in _pieces(_PATH))
    except (OSError, MemoryError):
        return ""
    if count < limit - _NEARLY:
        return ""
    return (
        f"this process has {count} mappings, and vm.max_map_count allows {limit}; detach some, map fewer and larger "
        "parts, or have the limit raised (sysctl vm.max_map_count)"
    )


def _pieces(path: str) -> Iterator[bytes]:
    """Yield a file in small pieces: who has no mapping left has no large buffers either."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while piece := os.read(fd, _PIECE):
            yield piece
    finally:
        os.close(fd)
