"""Descriptors with one owner.

The one rule: after :meth:`Fd.close` the number is forgotten, because the kernel
gives it to the next comer at once; a capability that went on using it would
speak to a stranger.
"""

from __future__ import annotations

import os
import resource
from types import TracebackType
from typing import Self

from l4re._native import leaf
from l4re.errors import Closed

__all__ = ["Fd", "plenty_left", "take"]


class Fd:
    """The owner of one descriptor.

    ``guarded`` descriptors (server ends, session sockets, epoll) are closed in a
    forked child by the native leaf, so there the owner counts as closed. Dropping
    the last reference closes. Not for use by two threads while one of them closes.
    """

    __slots__ = ("_fd", "_generation", "what")

    def __init__(self, fd: int, *, guarded: bool = False, what: str = "descriptor") -> None:
        self._fd = fd
        self._generation = leaf.generation() if guarded else -1
        self.what = what
        if guarded:
            leaf.guard(fd)
        else:
            leaf.unguard(fd)

    @property
    def closed(self) -> bool:
        """Whether the descriptor is gone (closed here, or left behind by a fork)."""
        return self._fd < 0 or (self._generation >= 0 and self._generation != leaf.generation())

    def fileno(self) -> int:
        """Return the number, lent for one system call.

        Raises:
            Closed: there is none any more.
        """
        if self._fd < 0:
            raise Closed(f"this {self.what} is closed")
        if self._generation >= 0 and self._generation != leaf.generation():
            raise Closed(f"this {self.what} belongs to the process before the fork; a child does not keep it")
        return self._fd

    def dup(self) -> Fd:
        """Return a second owner of the same open file, guarded as this one is."""
        import fcntl

        number = fcntl.fcntl(self.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)
        return Fd(number, guarded=self._generation >= 0, what=self.what)

    def detach(self) -> int:
        """Give the number away, guarded if it was; the caller owns it now."""
        fd = self.fileno()
        self._fd = -1
        return fd

    def close(self) -> None:
        """Close; a second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        if self._generation >= 0:
            if self._generation != leaf.generation():
                return  # closed by the fork; the number may be somebody else's by now
            leaf.unguard(fd)
        os.close(fd)

    def __del__(self, _close: object = os.close) -> None:
        try:
            self.close()
        except (AttributeError, TypeError, OSError):  # half-made, or the interpreter is going down
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Fd {'closed' if self.closed else self._fd} {self.what}>"


def plenty_left(fd: int) -> bool:
    """Return whether, after ``fd`` came in, a good part of the descriptors this process may have is still free.

    The kernel gives the lowest free number, so a high one means that most below it are in use.
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return most == resource.RLIM_INFINITY or fd < most - most // 4


def take(fds: tuple[int, ...], *, guarded: bool = False, what: str = "received descriptor") -> tuple[Fd, ...]:
    """Own what :func:`leaf.recv` returned, so that nothing of it can leak."""
    return tuple(Fd(fd, guarded=guarded, what=what) for fd in fds)
