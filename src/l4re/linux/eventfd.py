"""An event between threads of one process: a descriptor that can be waited for."""

from __future__ import annotations

import os

from l4re.linux.fd import Fd
from l4re.linux.limit import exhausted

__all__ = ["EventFd"]


class EventFd:
    """Readable after :meth:`ring` until :meth:`clear`. A forked child does not keep it."""

    __slots__ = ("_fd",)

    def __init__(self) -> None:
        """Make one.

        Raises:
            OutOfMemory: no descriptors are left.
        """
        try:
            number = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except OSError as error:
            raise exhausted("cannot make an event", error) from error
        self._fd = Fd(number, guarded=True, what="eventfd")

    def ring(self) -> None:
        """Make it readable; any thread may."""
        os.eventfd_write(self._fd.fileno(), 1)

    def clear(self) -> None:
        """Make it unreadable, if it was not already."""
        try:
            os.eventfd_read(self._fd.fileno())
        except BlockingIOError:
            pass

    def fileno(self) -> int:
        """Return the number, lent for one system call."""
        return self._fd.fileno()

    @property
    def closed(self) -> bool:
        """Whether the descriptor is gone."""
        return self._fd.closed

    def close(self) -> None:
        """Close; a second call does nothing."""
        self._fd.close()
