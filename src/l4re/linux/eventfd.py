"""An event between threads of one process: a descriptor that can be waited for."""

from __future__ import annotations

import os
import threading

from l4re.linux.fd import Fd
from l4re.linux.limit import exhausted

__all__ = ["EventFd"]


class EventFd:
    """Readable after :meth:`ring` until :meth:`clear`. A forked child does not keep it."""

    __slots__ = ("_fd", "_lock")

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
        self._lock = threading.RLock()  # a signal handler may ring while we do

    def ring(self) -> None:
        """Make it readable, unless it is closed; any thread may, also while another closes it."""
        if not self.closed:
            with self._lock:
                if not self.closed:
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
        with self._lock:
            self._fd.close()
