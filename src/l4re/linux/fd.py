"""Descriptors with one owner.

The one rule: after :meth:`Fd.close` the number is forgotten, because the kernel
gives it to the next comer at once; a capability that went on using it would
speak to a stranger.
"""

from __future__ import annotations

import resource
from collections.abc import Iterable

from l4re._native import leaf
from l4re.closing import Closing
from l4re.errors import Closed
from l4re.linux.limit import exhausted

__all__ = ["Fd", "dup_all", "duplicate", "plenty_left", "take"]


class Fd(leaf.Owner, Closing):
    """The owner of one descriptor: ``fileno()`` lends it, ``detach()`` gives it away, ``close()`` closes it.

    ``guarded`` descriptors (server ends, session sockets, epoll) are closed in a
    forked child by the native leaf, so there the owner counts as closed. Dropping
    the last reference closes. Not for use by two threads while one of them closes.
    """

    __slots__ = ()
    closed_error = Closed

    def dup(self) -> Fd:
        """Return a second owner of the same open file, guarded as this one is.

        Raises:
            OutOfMemory: no descriptor is left.
        """
        return duplicate(self.fileno(), guarded=self.guarded, what=self.what)

    def __repr__(self) -> str:
        return f"<Fd {'closed' if self.closed else self.fileno()} {self.what}>"


def duplicate(number: int, *, guarded: bool = False, what: str = "descriptor") -> Fd:
    """Return an owner of the same open file, whoever owns ``number``.

    Raises:
        OutOfMemory: no descriptor is left.
    """
    import fcntl

    try:
        return Fd(fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3), guarded, what)
    except OSError as error:
        raise exhausted("cannot duplicate a descriptor", error) from error


def dup_all(numbers: Iterable[int]) -> tuple[int, ...]:
    """Return descriptors of one's own for the same open files: all, or none.

    Raises:
        OutOfMemory: there are not so many left.
    """
    made = [duplicate(number) for number in numbers]  # owned: if one fails, those before it are closed
    return tuple(fd.detach() for fd in made)


def plenty_left(fd: int) -> bool:
    """Return whether, after ``fd`` came in, a good part of the descriptors this process may have is still free.

    The kernel gives the lowest free number, so a high one means that most below it are in use.
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return most == resource.RLIM_INFINITY or fd < most - most // 4


def take(fds: tuple[int, ...], *, guarded: bool = False, what: str = "received descriptor") -> tuple[Fd, ...]:
    """Own what :func:`leaf.recv` returned, so that nothing of it can leak."""
    return tuple([Fd(fd, guarded, what) for fd in fds])
