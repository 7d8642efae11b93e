"""The capability to trigger, and to receive where it was made.

An :class:`Irq` that arrived from elsewhere can trigger and be handed on. One
made here (:meth:`Irq.create`, or ``register_irq_obj``) also owns the receiving
side; it is local, and each hand-over makes a fresh pipe.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from typing import ClassVar, Self

from l4re._native import leaf
from l4re.cap import Capability, Export, register_kind
from l4re.errors import (
    Busy,
    Closed,
    Exists,
    InvalidArgument,
    IpcTimeout,
    NotFound,
    PeerGone,
    PermissionDenied,
)
from l4re.irq.pin import IrqSource, Pin
from l4re.linux.clock import deadline_after, nanoseconds_left
from l4re.linux.ends import open_loop, pipe, sockets
from l4re.linux.fd import Fd
from l4re.linux.limit import exhausted
from l4re.rights import Rights
from l4re.wire.items import ItemKind
from l4re.wire.port import PortKind, PortMessage

__all__ = ["Irq", "IrqHandler"]


_R = int(Rights.R)
_IRQ = ItemKind.IRQ
#: What a holder is given, by the bits of what there is.
_GIVEN = tuple(Rights.RW & Rights(bits) for bits in range(Rights.RWSD + 1))

#: Pins looked at before a receiver hears of what came; a holder that floods cannot keep it from returning.
ROUNDS = 64


class IrqHandler(ABC):
    """What a server runs when an IRQ arrives; register it with ``registry.register_irq_obj``."""

    @abstractmethod
    def dispatch(self) -> int | None:
        """Handle the IRQ. Triggers that came together arrive as one. The result is ignored, nobody waits for it."""


class Irq(Capability):
    """A capability to notify somebody (L4Re's ``Irq``, trigger side), or to be notified.

    ``trigger`` is thread-safe; ``receive`` is for one thread at a time.
    """

    __slots__ = ("_derive", "_handled", "_loop", "_rights", "_source", "_trigger")

    kind: ClassVar[str] = "irq"

    def __init__(
        self, trigger: Fd | None, derive: Fd | None, rights: Rights, *, source: IrqSource | None = None
    ) -> None:
        """Take the descriptors of a holder, or the source of an IRQ of this process."""
        self._trigger = trigger
        self._derive = derive
        self._rights = rights
        self._source = source
        self._loop: leaf.Loop | None = None
        self._handled = False

    @classmethod
    def create(cls) -> Irq:
        """Return a new IRQ: trigger it, hand it out, wait for it.

        Raises:
            OutOfMemory: no descriptors are left.
        """
        source = IrqSource()
        irq = cls(None, None, Rights.RWSD, source=source)
        irq._loop = loop = open_loop()
        source.on_added = lambda pin: pin.watched(loop, pin)
        return irq

    @classmethod
    def of_handler(cls, source: IrqSource) -> Irq:
        """Return the local capability of an IRQ whose triggers a server loop handles."""
        irq = cls(None, None, Rights.RWSD, source=source)
        irq._handled = True
        return irq

    def serve_by(self, watch: Callable[[Pin], None]) -> IrqSource:
        """Let a server's loop receive from now on: it watches each pin, those there are and those to come.

        Raises:
            PermissionDenied: this capability can only trigger.
            Exists: a handler receives it already.
            OutOfMemory: no descriptors are left; nothing changed.
        """
        if self._source is None or self.closed:
            self.fileno()
            raise PermissionDenied(f"{self!r} cannot be received here: this capability can only trigger")
        if self._handled or self._loop is None:
            raise Exists(f"{self!r} has a handler already")
        self._source.move(watch)
        self._loop.close()
        self._loop, self._handled = None, True
        return self._source

    def detach(self) -> bool:
        """Take it away from its handler, to wait for it here or to register another: True if a trigger is pending.

        A trigger that came and was not handled is kept, as are those who hold the IRQ. For the thread that runs the
        handler's loop, or while none does.

        Raises:
            PermissionDenied: this capability can only trigger.
            NotFound: it has no handler.
            OutOfMemory: no descriptors are left; nothing changed.
        """
        source = self._source
        if self.closed:
            raise Closed("this irq is closed")
        if source is None:
            raise PermissionDenied(f"{self!r} cannot be detached here: this capability can only trigger")
        if not self._handled or source.on_detach is None:
            raise NotFound(f"{self!r} has no handler")
        loop = open_loop()
        pending = source.move(lambda pin: pin.watched(loop, pin))
        self._loop, self._handled = loop, False
        return pending

    # ---- triggering ----

    def trigger(self) -> None:
        """Notify the receiver; never blocks. Triggers it has not seen yet count as one.

        Raises:
            PeerGone: nobody can receive it any more.
            Closed: this capability is closed.
        """
        try:
            (self._trigger or self._own_trigger()).notify()  # a full pipe is a pending trigger
        except BrokenPipeError:
            raise PeerGone(f"{self!r}: the receiver is gone") from None

    def _own_trigger(self) -> Fd:
        if self._source is None or self._source.closed:
            raise Closed("this irq is closed")
        self._trigger, self._derive = self._source.new_holder(counts=False)
        return self._trigger

    # ---- receiving ----

    def fileno(self) -> int:
        """The descriptor that is readable when a trigger waits (or, for one that can only trigger, its pipe)."""
        if self._loop is not None and not self.closed:
            return self._loop.fileno()
        if self._trigger is not None:
            return self._trigger.fileno()
        if self._handled:
            return self._own_trigger().fileno()
        raise Closed("this irq is closed")

    def _take(self, deadline: int | None) -> bool:
        """Collect what is pending, waiting for a first trigger until then; None: without end."""
        if self.closed:
            raise Closed("this irq is closed")
        loop, source = self._loop, self._source
        if loop is None or source is None:
            why = "a handler receives it" if self._handled else "this capability can only trigger"
            raise PermissionDenied(f"cannot receive: {why}")
        triggered = False
        for _ in range(ROUNDS):
            wait = 0 if triggered or source.deserted else -1 if deadline is None else nanoseconds_left(deadline)
            event = loop.next(wait)
            if event is None:
                break
            pin: Pin = event[0]
            hit, gone = pin.look()
            triggered |= hit
            if gone:
                source.remove(pin)
        if source.deserted and not triggered:
            raise PeerGone(f"{self!r}: everybody who could trigger it is gone")
        return triggered

    def receive(self, timeout: float | None = None) -> None:
        """Wait for a trigger. It returns at once if one is pending.

        Who triggered and ended at once was heard: the end of the last holder is told after all triggers. An IRQ
        that nobody was given yet, or that was triggered through this very object, is waited for all the same.

        Raises:
            PeerGone: everybody who was given this IRQ is gone, so nobody could trigger it.
            IpcTimeout: none came within ``timeout`` seconds.
            PermissionDenied: this capability can only trigger, or a handler is registered.
        """
        deadline = deadline_after(timeout)
        while not self._take(deadline):
            if deadline is not None and not nanoseconds_left(deadline):
                raise IpcTimeout(f"{self!r}: no trigger in the time given")

    async def wait(self) -> None:
        """Wait for a trigger in an asyncio program.

        Raises:
            PeerGone: everybody who was given this IRQ is gone, see :meth:`receive`.
            PermissionDenied: this capability can only trigger, or a handler is registered.
        """
        from l4re.linux.readable import readable

        while not self._take(0):
            await readable(self.fileno())

    # ---- the capability ----

    @property
    def rights(self) -> Rights:
        return self._rights

    @property
    def closed(self) -> bool:
        if self._source is not None:
            return self._source.closed
        return self._trigger is None or self._trigger.closed

    @property
    def gone(self) -> bool:
        if self._source is not None:
            return self._source.closed
        return leaf.wait((self.fileno(),), 0) >= 0  # a pipe that nobody reads

    def close(self) -> None:
        """Drop the capability; of an IRQ made with :meth:`create`, also the receiving side."""
        if self._source is not None and not self._handled:
            self._source.close()
        if self._loop is not None:
            self._loop.close()
            self._loop = None
        for fd in (self._trigger, self._derive):
            if fd is not None:
                fd.close()
        self._source = self._trigger = self._derive = None

    def dup(self) -> Self:
        export = self.export()
        owned, export.owned = export.owned, ()
        return type(self)(owned[0], owned[1], export.rights)

    def dup_local(self) -> Self:
        if not self._handled or self._source is None:
            return self.dup()
        local = type(self)(None, None, self._rights, source=self._source)
        local._handled = True
        return local

    def export(self, rights: Rights | None = None) -> Export:
        """Make the receiver a holder of its own, who may trigger and hand on.

        Raises:
            PeerGone: nobody can receive it any more.
            Busy: too many were handed on before the receiver looked.
        """
        weaker = _GIVEN[self._rights if rights is None else int(self._rights) & (int(rights) | _R)]
        if self._source is not None:
            if self._source.closed:
                raise Closed("this irq is closed")
            trigger, derive = self._source.new_holder()
        else:
            trigger, derive = self._derived()
        return Export(_IRQ, weaker, 0, (trigger.fileno(), derive.fileno()), owned=(trigger, derive))

    def _derived(self) -> tuple[Fd, Fd]:
        """Send the receiver a new pipe's read end through our own derive socket."""
        own, socket = self._trigger, self._derive
        if own is None or socket is None:
            raise Closed("this irq is closed")
        own.fileno()
        read, trigger = pipe()
        derive, end = sockets()
        message = PortMessage(PortKind.DERIVE).pack()
        try:
            queued = leaf.send(socket.fileno(), message, (read.fileno(), end.fileno()))
            leaf.trigger(own.fileno(), leaf.DERIVE_BYTE)
        except (BrokenPipeError, ConnectionResetError):
            raise PeerGone(f"{self!r}: the receiver is gone") from None
        except OSError as error:
            raise exhausted(f"{self!r}: cannot be handed on now", error) from error
        finally:
            read.close()
            end.close()
        if not queued:
            raise Busy(f"{self!r}: too many were handed on before the receiver looked")
        return trigger, derive

    def _key(self) -> Hashable:
        return id(self._source) if self._source is not None else os.fstat(self.fileno()).st_ino

    def __repr__(self) -> str:
        if self.closed:
            return "<Irq closed>"
        what = "handled here" if self._handled else "received here" if self._source is not None else "trigger"
        return f"<Irq {self._rights.letters()} {what}>"


def _import_irq(rights: Rights, value: int, fds: tuple[Fd, ...]) -> Irq:
    if len(fds) != 2 or leaf.what(fds[0].fileno()) != "pipe-write" or leaf.what(fds[1].fileno()) != "seqpacket":
        raise InvalidArgument("what arrived as an irq is not the write end of a pipe and its socket")
    return Irq(fds[0], fds[1], rights)


register_kind(ItemKind.IRQ, _import_irq)
