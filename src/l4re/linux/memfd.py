"""Memory without a name: making memfds, sealing them, and checking those that others made.

The one rule: what may be mapped is a regular file on tmpfs that can neither shrink nor grow. Then no page of a
mapping can vanish, and the size read once stays true. A descriptor from outside is believed in nothing else.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from enum import IntFlag
from fcntl import F_GETFL, fcntl

from l4re._native import leaf
from l4re.errors import InvalidArgument, NotSupported, OutOfMemory
from l4re.linux.fd import Fd
from l4re.linux.limit import exhausted

__all__ = [
    "PAGE_SIZE",
    "SUPER_PAGE_LOG2",
    "Mapping",
    "Seal",
    "add_seals",
    "create",
    "extents",
    "get_seals",
    "identity",
    "make_large_pages",
    "name_of",
    "populate",
    "read_at",
    "reopen_readonly",
    "reserve",
    "reserved",
    "validate",
    "write_at",
]

Mapping = leaf.Mapping

_ADD_SEALS = 1033
_GET_SEALS = 1034
_FIXED_SIZE = 0x2 | 0x4
_ANY_WRITE = 0x8 | 0x10
_WHAT = "memory"
_MAX_NAME = 249
_POPULATE_READ = 22
PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
#: Of the large pages that the kernel makes where small ones have 4 KiB.
SUPER_PAGE_LOG2 = 21


class Seal(IntFlag):
    """What nobody can do to a memfd any more."""

    SEAL = 0x1
    SHRINK = 0x2
    GROW = 0x4
    WRITE = 0x8
    FUTURE_WRITE = 0x10
    EXEC = 0x20
    FIXED_SIZE = 0x6
    ANY_WRITE = 0x18


def create(size: int, name: str = "l4re") -> Fd:
    """Return new zeroed memory of exactly ``size`` bytes whose size nobody can change.

    Raises:
        InvalidArgument: the name is too long or holds a NUL.
        OutOfMemory: the kernel cannot make a file of this size, or has no descriptor left.
    """
    try:
        return Fd(leaf.memfd(name, size), False, _WHAT)
    except ValueError as error:
        raise InvalidArgument(f"the name {name!r} of a dataspace cannot hold a NUL character") from error
    except (OSError, OverflowError) as error:
        if len(os.fsencode(name)) > _MAX_NAME:
            raise InvalidArgument(f"the name of a dataspace has at most {_MAX_NAME} bytes: {name!r}") from error
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            raise exhausted(f"no memory object of {size} bytes", error) from error
        raise OutOfMemory(f"no memory object of {size} bytes: {error}") from error


def reserve(fd: int, size: int, offset: int = 0) -> None:
    """Make the kernel set aside every page of a range now; the descriptor is open for writing.

    Raises:
        OutOfMemory: it cannot, and gave back what it had by then.
    """
    try:
        os.posix_fallocate(fd, offset, size)
    except OSError as error:
        raise OutOfMemory(f"could not reserve {size} bytes: {error.strerror}") from error


def populate(fd: int, size: int, offset: int = 0) -> None:
    """Do what `reserve` does, through a descriptor that is open for reading only; keeps what it had if it fails.

    Raises:
        OutOfMemory: it cannot.
        NotSupported: the kernel is older than 5.14.
    """
    import mmap  # for few, and a start need not load it

    below = offset % PAGE_SIZE
    try:
        with mmap.mmap(fd, below + size, mmap.MAP_SHARED, mmap.PROT_READ, offset=offset - below) as window:
            window.madvise(_POPULATE_READ)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise NotSupported("reserving memory through a read-only capability takes Linux 5.14") from error
        raise OutOfMemory(f"could not reserve {size} bytes: {error.strerror}") from error


def make_large_pages(fd: int, size: int) -> None:
    """Make large pages of new memory, as many as the kernel has: it belongs to the memory, whoever maps it.

    Where nothing comes of it (before Linux 6.1, or all memory is in pieces) the small pages stay.
    """
    if size >> SUPER_PAGE_LOG2:
        try:
            Mapping(fd, size, 0, True, 0, SUPER_PAGE_LOG2, True, True).unmap()
        except OSError:
            pass  # no room to map it once


def get_seals(fd: int) -> int:
    """Return the seals as a number, see `Seal`."""
    return fcntl(fd, _GET_SEALS)


def add_seals(fd: int, seals: int) -> None:
    """Add seals, for everybody and for good.

    Raises:
        PermissionError: the seals are sealed, or this descriptor is open for reading only.
        OSError: ``EBUSY``: somebody maps it for writing (`Seal.WRITE` only).
    """
    fcntl(fd, _ADD_SEALS, int(seals))


def reopen_readonly(fd: int) -> Fd:
    """Return a descriptor of its own that can only read the same memory.

    Other users lose the chance to reopen what they receive for writing (our own user keeps it; only seals
    stop that).

    Raises:
        NotSupported: it takes procfs, and there is none here.
        OutOfMemory: this process has no descriptor left.
        L4Error: the kernel refused for another reason.
    """
    path = f"/proc/self/fd/{fd}"
    try:
        os.fchmod(fd, 0o644)
    except OSError:
        pass  # not ours: whoever made it decides
    try:
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise NotSupported("making a read-only descriptor takes procfs, which is not mounted here") from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise NotSupported(f"this memory cannot be opened read-only here: {error.strerror}") from error
        raise exhausted("cannot reopen memory read-only", error) from error
    return Fd(number, what=_WHAT)


def reserved(fd: int) -> int:
    """Return how many bytes of the memory there are pages for, reserved or touched; the rest may come, or not."""
    return os.fstat(fd).st_blocks * 512


def identity(fd: int) -> tuple[int, int]:
    """Return what tells this file from every other."""
    about = os.fstat(fd)
    return about.st_dev, about.st_ino


def read_at(fd: int, offset: int, size: int) -> bytes:
    """Return ``size`` bytes from ``offset``; the caller knows that they are there."""
    data = os.pread(fd, size, offset)
    if len(data) == size:
        return data
    parts = [data]  # the kernel moves at most 2 GiB at a time
    done = len(data)
    while done < size and (data := os.pread(fd, size - done, offset + done)):
        parts.append(data)
        done += len(data)
    return b"".join(parts)


def write_at(fd: int, offset: int, data: bytes | memoryview) -> None:
    """Write all of ``data``, which must be bytes, at ``offset``; the caller knows that there is room.

    Raises:
        PermissionError: sealed against writing.
        OutOfMemory: the pages cannot be had.
    """
    try:
        done = os.pwrite(fd, data, offset)
        view = memoryview(data)
        while done < len(view):
            done += os.pwrite(fd, view[done:], offset + done)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.ENOMEM):
            raise OutOfMemory(f"no memory for {len(data)} bytes: {error.strerror}") from error
        if error.errno != errno.EPERM or not fcntl(fd, F_GETFL) & os.O_APPEND:
            raise
        # Somebody we share the open file with set O_APPEND: pwrite() ignores the offset then, a mapping does not.
        below = offset % PAGE_SIZE
        window = Mapping(fd, below + len(data), offset - below, True)
        memoryview(window)[below:] = data
        window.unmap()


def extents(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the parts ``[start, end)`` of a range that hold anything; all else reads as zeros."""
    while start < end:
        try:
            begin = os.lseek(fd, start, os.SEEK_DATA)
            after = os.lseek(fd, begin, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                return
            raise
        if begin >= end:
            return
        yield begin, min(after, end)
        start = after


def name_of(fd: int) -> str:
    """Return the name its maker gave it, for people to read; empty where procfs does not tell."""
    try:
        target = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""
    return target.removeprefix("/memfd:").removesuffix(" (deleted)") if target.startswith("/memfd:") else ""


def validate(fd: int, *, size: int, writable: bool) -> int:
    """Return the seals of a received descriptor, if it is the memory that its sender says.

    Raises:
        InvalidArgument: it is not; the text says what was wrong.
    """
    try:
        real, seals, mode = leaf.memfd_info(fd)
    except OSError as error:
        raise InvalidArgument(f"received something else than a memfd on tmpfs as memory: {error.strerror}") from error
    if seals & _FIXED_SIZE != _FIXED_SIZE:
        raise InvalidArgument("received memory that may shrink or grow: it lacks the seals against that")
    if real != size or size <= 0:
        raise InvalidArgument(f"received memory of {real} bytes that claims {size}")
    if mode != (os.O_RDWR if writable else os.O_RDONLY):
        wanted = "read-write" if writable else "read-only"
        raise InvalidArgument(f"received memory that claims to be {wanted} and is not")
    if writable and seals & _ANY_WRITE:
        raise InvalidArgument("received memory that claims to be writable and is sealed against writing")
    return seals
