"""Pipes: what is in one, and open files of one's own."""

from __future__ import annotations

import fcntl
import os
import sys
import termios

from l4re.linux.fd import Fd
from l4re.linux.limit import exhausted

__all__ = ["capacity", "get", "input_pipe", "put", "put_all", "reopened", "unread"]


def capacity(fd: int) -> int:
    """Return how many bytes a pipe takes, written at once."""
    return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)


def put(fd: int, data: bytes) -> None:
    """Write ``data``, no more than fits, into a pipe of our own.

    Raises:
        BlockingIOError: it did not fit.
    """
    while data:
        data = data[os.write(fd, data) :]


def input_pipe() -> tuple[Fd, Fd]:
    """Return the ends of a pipe as programs expect one at their standard input: to read, and to write, blocking both.

    Raises:
        OutOfMemory: no descriptors are left.
    """
    try:
        reader, writer = os.pipe2(os.O_CLOEXEC)
    except OSError as error:
        raise exhausted("cannot make a pipe", error) from error
    return Fd(reader), Fd(writer, guarded=True)


def put_all(fd: int, data: bytes) -> None:
    """Write all of ``data`` into a blocking pipe.

    Raises:
        BrokenPipeError: nobody reads any more.
    """
    while data:
        data = data[os.write(fd, data) :]


def get(fd: int, most: int) -> bytes:
    """Read what there is, at most so many bytes; empty at the end, and of what cannot be read."""
    try:
        return os.read(fd, most)
    except OSError:
        return b""


def reopened(fd: Fd, *, write: bool) -> Fd:
    """Take an end of what is a pipe, and return it as an open file of our own, whose flags nobody else can change.

    Where procfs does not show it, or does not let us open it, it is returned as it is.
    """
    try:
        own = os.open(f"/proc/self/fd/{fd.fileno()}", (os.O_WRONLY if write else os.O_RDONLY) | os.O_NONBLOCK)
    except OSError:  # no procfs; somebody else's pipe; nobody at the other end
        return fd
    new = Fd(own, what=fd.what)
    if not os.path.samestat(os.fstat(own), os.fstat(fd.fileno())):
        new.close()
        return fd
    fd.close()
    return new


def unread(fd: int) -> int:
    """Return how many bytes wait in a pipe."""
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)
