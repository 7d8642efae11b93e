"""The wire between two workers: how a peer hands its descriptors over before the measurement begins."""

from __future__ import annotations

import socket
from collections.abc import Sequence

__all__ = ["Wire", "wire_pair"]

_MAX_FDS = 16


class Wire:
    """One end of a socket pair; messages keep their boundaries and carry descriptors."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    @classmethod
    def of_descriptor(cls, fd: int) -> Wire:
        """Take a descriptor that was inherited."""
        return cls(socket.socket(fileno=fd))

    def fileno(self) -> int:
        """The descriptor, lent."""
        return self._socket.fileno()

    def send(self, data: bytes = b"-", fds: Sequence[int] = ()) -> None:
        """Send one message."""
        socket.send_fds(self._socket, [data], list(fds))

    def receive(self) -> tuple[bytes, list[int]]:
        """Receive one message; the descriptors are the caller's.

        Raises:
            EOFError: the other side is gone.
        """
        data, fds, _, _ = socket.recv_fds(self._socket, 1 << 16, _MAX_FDS)
        if not data:
            raise EOFError("the other process of this measurement is gone")
        return data, fds

    def close(self) -> None:
        """Close this end."""
        self._socket.close()


def wire_pair() -> tuple[Wire, Wire]:
    """Return both ends of a new wire."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Wire(here), Wire(there)
