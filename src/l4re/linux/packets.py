"""Pipes that keep what one ``write()`` wrote together, and the order of the writes of many processes.

Each pipe holds one packet: who writes a second one waits until the first was read. So the order in which the
kernel reports the pipes (each exactly once per packet, in the order they became readable) is the order in which
the packets were written, whichever process wrote them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import termios

from l4re.linux.ends import pipe
from l4re.linux.fd import Fd

__all__ = ["PacketReader", "packet_pipe", "waker", "write_packet"]

_MAX_READ = 1 << 16
_O_DIRECT = getattr(os, "O_DIRECT", 0)
_SET_SIZE = getattr(fcntl, "F_SETPIPE_SZ", 1031)


def packet_pipe() -> tuple[Fd, Fd]:
    """Return the read end (ours: non-blocking, not kept by a forked child) and the write end (blocking)."""
    try:
        reader, writer = os.pipe2(os.O_CLOEXEC | _O_DIRECT)
    except OSError as error:  # some sandboxed kernels know no packet mode; lines still come out whole
        if error.errno != errno.EINVAL:
            raise
        reader, writer = os.pipe2(os.O_CLOEXEC)
    ends = Fd(reader, guarded=True, what="log"), Fd(writer, what="log")
    os.set_blocking(reader, False)
    try:
        fcntl.fcntl(writer, _SET_SIZE, 4096)
    except OSError:  # a large one only loosens the order under load
        pass
    return ends


def write_packet(fd: int, data: bytes) -> None:
    """Write what comes out in one piece, up to 4096 bytes of it; waits for a reader that is behind.

    Raises:
        BrokenPipeError: nobody reads any more.
    """
    os.write(fd, data)


def waker() -> tuple[Fd, Fd]:
    """Return the two ends of a pipe that wakes a `PacketReader`: (read, write)."""
    return pipe()


class PacketReader:
    """Waits for many pipes and reads one packet at a time, oldest first. One thread waits; others may add."""

    def __init__(self) -> None:
        self._epoll = select.epoll(flags=select.EPOLL_CLOEXEC)
        self._again: list[int] = []

    def add(self, fd: int) -> None:
        """Watch a read end from now on."""
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLET)

    def remove(self, fd: int) -> None:
        """Forget one before it is closed."""
        self._epoll.unregister(fd)
        self._again = [other for other in self._again if other != fd]

    @property
    def more(self) -> bool:
        """Whether the next `wait` is known to return at once."""
        return bool(self._again)

    def wait(self) -> list[tuple[int, bool]]:
        """Return the ones that became readable or came to their end, in that order; True: nobody writes any more."""
        events = [(fd, bool(mask & select.EPOLLHUP)) for fd, mask in self._epoll.poll(0 if self._again else None)]
        again, self._again = self._again, []
        ended = {fd for fd, at_end in events if at_end}
        return [(fd, fd in ended) for fd in again] + [event for event in events if event[0] not in again]

    def read(self, fd: int, at_end: bool = False) -> bytes | None:
        """Return one packet, empty at the end of the stream, None if there is nothing now."""
        try:
            data = os.read(fd, _MAX_READ)
        except BlockingIOError:
            return None
        if data and (at_end or self._left(fd)):
            self._again.append(fd)  # an edge is reported once: what is left must not wait for the next
        return data

    def close(self) -> None:
        """Stop watching."""
        self._epoll.close()

    @staticmethod
    def _left(fd: int) -> bool:
        return fcntl.ioctl(fd, termios.FIONREAD, bytes(4)) != bytes(4)
