"""Pairs of ends: sockets and pipes, each end with its owner, and the loops that watch them."""

from __future__ import annotations

from l4re._native import leaf
from l4re.linux.fd import Fd
from l4re.linux.limit import exhausted

__all__ = ["open_loop", "pipe", "sockets"]


def sockets() -> tuple[Fd, Fd]:
    """Return the ends of a new packet socket: the client's, and the server's, which no forked child keeps.

    Raises:
        OutOfMemory: no descriptors are left.
    """
    try:
        client, server = leaf.channel()
    except OSError as error:
        raise exhausted("cannot make a socket", error) from error
    return Fd(client), Fd(server, guarded=True)


def pipe() -> tuple[Fd, Fd]:
    """Return the ends of a new pipe: the one to read, which no forked child keeps, and the one to write.

    Raises:
        OutOfMemory: no descriptors are left.
    """
    try:
        read, write = leaf.pipe()
    except OSError as error:
        raise exhausted("cannot make a pipe", error) from error
    return Fd(read, guarded=True), Fd(write)


def open_loop(spin_us: float = -1) -> leaf.Loop:
    """Return a new loop; -1: it spins as long as this process's loops do.

    Raises:
        OutOfMemory: no descriptors are left.
    """
    try:
        return leaf.open_loop(spin_us)
    except OSError as error:
        raise exhausted("cannot make a loop", error) from error
