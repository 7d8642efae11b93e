"""Pages that nobody can change any more: how one process tells another something for good."""

from __future__ import annotations

import fcntl
import os

from l4re._native import leaf
from l4re.linux.fd import Fd

__all__ = ["MAX_SIZE", "keep_from_programs", "make", "read"]

MAX_SIZE = 1 << 20
_ALL = 0x1 | 0x2 | 0x4 | 0x8


def make(data: bytes, name: str) -> Fd:
    """Return a memfd that holds ``data`` and is of fixed size; the writes are still open, for a last touch.

    Raises:
        OutOfMemory: there is no memory or no descriptor.
    """
    from l4re.linux import memfd  # for the one who writes a page; its reader does without

    fd = memfd.create(len(data), name)
    try:
        memfd.write_at(fd.fileno(), 0, data)
    except BaseException:
        fd.close()
        raise
    return fd


def read(fd: int) -> bytes | None:
    """Return what a descriptor of a completely sealed memfd holds; None if it is anything else."""
    try:
        size, seals, _ = leaf.memfd_info(fd)
        if seals & _ALL != _ALL or size > MAX_SIZE:
            return None
        return os.pread(fd, size, 0)
    except OSError:
        return None


def keep_from_programs(fd: int) -> None:
    """Mark an inherited descriptor so that programs this one runs do not get it; unknown ones are left alone."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    except OSError:
        pass
