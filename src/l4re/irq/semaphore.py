"""Semaphores: a pipe of tokens. To go up is to write a byte, to go down is to read one.

All holders share the pipe, since its tokens are for whoever comes first. What a holder may do is which ends it has:
W the writing one, S the reading one. What arrives is opened anew, so that no flag is shared with whoever sent it; and
where that is not possible each read and each write asks the kernel not to wait all the same.
"""

from __future__ import annotations

import os
from collections.abc import Hashable
from typing import ClassVar, Self

from l4re._native import leaf
from l4re.cap import Capability, Export, register_kind
from l4re.errors import Busy, Closed, InvalidArgument, IpcTimeout, PeerGone, PermissionDenied
from l4re.linux.clock import deadline_after, nanoseconds_left
from l4re.linux.ends import pipe
from l4re.linux.fd import Fd
from l4re.linux.pipes import capacity, put, reopened
from l4re.rights import Rights
from l4re.wire.items import ItemKind

__all__ = ["Semaphore"]

_W, _S = int(Rights.W), int(Rights.S)
_RIGHTS = {_W: Rights.R | Rights.W, _S: Rights.R | Rights.S, _W | _S: Rights.RWS}


class Semaphore(Capability):
    """A counter that several programs raise, and lower or wait for (L4Re's ``Semaphore``).

    It starts at 0. Each token is taken by one of those who wait. A holder that dies takes no token along but those it
    had; the others go on. Thread-safe.

    W is the right to go up, S the right to go down; ``up_only`` and ``down_only`` are weaker capabilities to hand out.
    A pipe holds about 65,000 tokens; the default of the system, ``/proc/sys/fs/pipe-max-size`` bounds it.
    """

    __slots__ = ("_read", "_write")

    kind: ClassVar[str] = "semaphore"

    def __init__(self, write: Fd | None, read: Fd | None) -> None:
        """Take the ends there are, at least one."""
        self._write = write
        self._read = read

    @classmethod
    def create(cls, value: int = 0) -> Self:
        """Return a new semaphore with so many tokens.

        Raises:
            OutOfMemory: no descriptors are left.
            InvalidArgument: ``value`` is negative, or more than a pipe holds.
        """
        if value < 0:
            raise InvalidArgument(f"a semaphore starts at 0 or more, not at {value}")
        read, write = pipe()
        made = cls(write, Fd(read.detach()))  # not guarded: a forked child is a holder like its parent
        if value > (most := capacity(write.fileno())):
            raise InvalidArgument(f"a semaphore cannot hold {value} tokens, {most} at most")
        if value:
            put(write.fileno(), bytes(value))
        return made

    # ---- up and down ----

    def up(self) -> None:
        """Add a token; never blocks.

        Raises:
            PermissionDenied: without W.
            Busy: there are as many as the pipe holds, which nobody takes.
            PeerGone: nobody is left who could take it.
        """
        try:
            if leaf.trigger(self._end(self._write, Rights.W).fileno()):
                return
        except BrokenPipeError:
            raise PeerGone(f"{self!r}: nobody is left who could take a token") from None
        raise Busy(f"{self!r}: full; nobody takes the tokens there are")

    def try_down(self) -> bool:
        """Take a token if there is one; never blocks.

        Raises:
            PermissionDenied: without S.
            PeerGone: there is none, and nobody is left who could add one.
        """
        taken = leaf.take_token(self._end(self._read, Rights.S).fileno())
        if taken is None:
            raise PeerGone(f"{self!r}: nobody is left who could go up")
        return taken

    def down(self, timeout: float | None = None) -> None:
        """Take a token, waiting for one.

        Whoever may go up itself is somebody who could: so only a capability without W (``down_only``) learns
        that all others are gone.

        Raises:
            PermissionDenied: without S.
            IpcTimeout: there was none within ``timeout`` seconds.
            PeerGone: nobody is left who could add one.
        """
        deadline = deadline_after(timeout)
        while not self.try_down():
            left = -1 if deadline is None else nanoseconds_left(deadline)
            if leaf.wait((self._end(self._read, Rights.S).fileno(),), left) < 0:
                raise IpcTimeout(f"{self!r}: nobody went up in the time given")

    async def wait(self) -> None:
        """Take a token in an asyncio program, waiting for one.

        Raises:
            PermissionDenied: without S.
            PeerGone: nobody is left who could add one.
        """
        from l4re.linux.readable import readable

        while not self.try_down():
            await readable(self.fileno())

    def _end(self, end: Fd | None, right: Rights) -> Fd:
        if end is not None:
            return end
        if self.closed:
            raise Closed("this semaphore is closed")
        raise PermissionDenied(wanted=right, held=self.rights)

    # ---- the capability ----

    @property
    def up_only(self) -> Semaphore:
        """A capability of its own that can only go up; the caller owns it.

        Raises:
            PermissionDenied: without W.
        """
        return Semaphore(self._end(self._write, Rights.W).dup(), None)

    @property
    def down_only(self) -> Semaphore:
        """A capability of its own that can only go down; the caller owns it.

        Raises:
            PermissionDenied: without S.
        """
        return Semaphore(None, self._end(self._read, Rights.S).dup())

    @property
    def rights(self) -> Rights:
        """R, with W who may go up, with S who may go down."""
        held = (_W if self._write is not None else 0) | (_S if self._read is not None else 0)
        return _RIGHTS.get(held, Rights(0))

    @property
    def closed(self) -> bool:
        return self._write is None and self._read is None

    def fileno(self) -> int:
        """The descriptor that is readable when a token is there (or, for one that can only go up, the other end)."""
        end = self._read or self._write
        if end is None:
            raise Closed("this semaphore is closed")
        return end.fileno()

    def close(self) -> None:
        self._write = self._read = None

    def dup(self) -> Self:
        self.fileno()
        return type(self)(self._write and self._write.dup(), self._read and self._read.dup())

    def export(self, rights: Rights | None = None) -> Export:
        """Prepare a hand-over, weakened to ``rights``.

        Raises:
            InvalidArgument: neither W nor S would be left, so nothing would arrive.
        """
        held = int(self.rights) if rights is None else int(self.rights) & int(rights)
        self.fileno()
        if not held & (_W | _S):
            raise InvalidArgument(f"a semaphore handed over with neither w nor s is none: {self!r}")
        ends = [end for bit, end in ((_W, self._write), (_S, self._read)) if held & bit and end is not None]
        owned = tuple(end.dup() for end in ends)  # whoever closes us meanwhile does not close these
        return Export(
            ItemKind.SEMAPHORE, _RIGHTS[held & (_W | _S)], 0, tuple(end.fileno() for end in owned), owned=owned
        )

    def _key(self) -> Hashable:
        return os.fstat(self.fileno()).st_ino

    def __repr__(self) -> str:
        return "<Semaphore closed>" if self.closed else f"<Semaphore {self.rights.letters()} fd {self.fileno()}>"


def _import_semaphore(rights: Rights, value: int, fds: tuple[Fd, ...]) -> Semaphore:
    wanted = [kind for right, kind in ((_W, "pipe-write"), (_S, "pipe-read")) if int(rights) & right]
    found = [leaf.what(fd.fileno()) for fd in fds]
    if not wanted or found != wanted or len({os.fstat(fd.fileno()).st_ino for fd in fds}) != 1:
        raise InvalidArgument("what arrived as a semaphore is not the ends of one pipe that its rights say")
    ends = iter(fds)
    write = reopened(next(ends), write=True) if int(rights) & _W else None
    read = reopened(next(ends), write=False) if int(rights) & _S else None
    return Semaphore(write, read)


register_kind(ItemKind.SEMAPHORE, _import_semaphore)
