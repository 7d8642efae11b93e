"""Copying inside the kernel: the bytes never pass through this process.

Between memfds ``copy_file_range`` is the fastest way there is, mapped memory included, since it takes no page faults.
Whatever it does not want to copy goes through a buffer.
"""

from __future__ import annotations

import errno
import os

from l4re.errors import OutOfMemory
from l4re.linux import memfd

__all__ = ["copy", "copy_buffered", "copy_file"]

#: Bytes in one system call, between which signals are handled.
_STEP = 64 << 20
_CHUNK = 1 << 20
_NO_MEMORY = (errno.ENOMEM, errno.ENOSPC)


def copy(source: int, src: int, target: int, dst: int, size: int) -> None:
    """Copy ``size`` bytes, which the caller knows to be in both memfds; the ranges do not overlap.

    Raises:
        PermissionError: the target is sealed against writing.
        OutOfMemory: the pages cannot be had; a part may have been copied.
    """
    end = src + size
    while src < end:
        try:
            done = os.copy_file_range(source, target, min(_STEP, end - src), src, dst)
        except OSError as error:
            if error.errno in _NO_MEMORY:
                raise OutOfMemory(f"no memory for {size} bytes: {error.strerror}") from error
            if error.errno == errno.EPERM:
                raise
            done = 0  # the target is in append mode, or a kernel without this call
        if not done:
            copy_buffered(source, src, target, dst, end - src)
            return
        src += done
        dst += done


def copy_buffered(source: int, src: int, target: int, dst: int, size: int) -> None:
    """Copy ``size`` bytes as if through one buffer, also if the ranges overlap; for the rest see `copy`."""
    steps = range(0, size, _CHUNK)
    for at in reversed(steps) if dst > src else steps:
        memfd.write_at(target, dst + at, memfd.read_at(source, src + at, min(_CHUNK, size - at)))


def copy_file(source: int, target: int, size: int) -> int:
    """Copy the first ``size`` bytes of any file to the start of a new memfd; return how many there were.

    Raises:
        OSError: the file cannot be read.
        OutOfMemory: the pages cannot be had.
    """
    at = 0
    try:
        while at < size and (done := os.sendfile(target, source, at, min(_STEP, size - at))):
            at += done
    except OSError as error:
        if error.errno in _NO_MEMORY:
            raise OutOfMemory(f"no memory for {size} bytes: {error.strerror}") from error
        if error.errno != errno.EINVAL:
            raise
        # A file system that cannot splice.
        while at < size and (data := os.pread(source, min(_CHUNK, size - at), at)):
            memfd.write_at(target, at, data)
            at += len(data)
    return at
