"""The receiving side: one pin for each holder.

A pin is the read end of the holder's pipe and the server end of its derive
socket. The holder writes a byte to trigger, and a ``D`` after it queued a new
pin in the socket; so only the pipe is watched. An end of the pipe is believed
once the socket is empty, too.
"""

from __future__ import annotations

from collections.abc import Callable

from l4re._native import leaf
from l4re.errors import OutOfMemory
from l4re.linux.ends import pipe, sockets
from l4re.linux.fd import Fd, duplicate, plenty_left, take
from l4re.linux.limit import exhausted
from l4re.wire.port import PortKind, PortMessage

__all__ = ["Family", "IrqSource", "Pin"]

#: Holders one IRQ can have; each costs the receiver two descriptors.
MAX_PINS = 4096

#: Of these, how many may come from one holder that hands on, whoever of them is gone.
MAX_FAMILY = 1024

#: More hand-overs than a socket holds. Whoever sends them faster than they can be taken is not waited for.
MAX_QUEUED = 4096


class Pin:
    """One holder of the right to trigger, seen from the receiver."""

    __slots__ = ("_derive", "_number", "_pipe", "counts", "family", "source", "watch")

    def __init__(
        self, source: IrqSource, pipe: Fd, derive: Fd | None, *, counts: bool, family: Family | None = None
    ) -> None:
        self.source = source
        self.family = family or Family()
        self._pipe = pipe
        self._number = -1  # of the pipe while a loop has it
        self._derive = derive
        #: Whether it is a holder in the sense of orphanhood: the receiver's own is not.
        self.counts = counts
        #: Its place in the loop that looks at it.
        self.watch: leaf.Source | None = None

    def watched(self, loop: leaf.Loop, owner: object) -> None:
        """Give the pipe to a loop, which says ``owner`` is ready.

        Raises:
            OSError: the loop cannot watch it; it stays ours.
        """
        self.watch = loop.watch_pipe(self._pipe.fileno(), owner)
        self._number = self._pipe.detach()

    def spare(self) -> Fd | None:
        """Return another descriptor of the pipe, if a loop has it.

        Raises:
            OutOfMemory: none is left.
        """
        return None if self.watch is None else duplicate(self._number, guarded=True)

    def unwatched(self, pipe: Fd | None) -> bool:
        """Take the pipe back from its loop, as `spare` gave it; whether a trigger was taken out and not handled.

        New pins that it told of join the source.
        """
        if self.watch is None or pipe is None:
            return False
        self._pipe = pipe
        self.watch.close()
        triggered, _ = self.look()
        self.watch = None
        return triggered

    @property
    def pending(self) -> bool:
        """Whether something is in the pipe, while no loop watches it."""
        from l4re.linux.pipes import unread

        return unread(self._pipe.fileno()) > 0

    def look(self) -> tuple[bool, bool]:
        """See what the loop found in the pipe: (it was triggered, the holder is gone). New pins join the source."""
        assert self.watch is not None
        triggered, control, end = self.watch.held()
        for _ in range(MAX_QUEUED if control and self._derive is not None else 0):
            try:
                assert self._derive is not None
                said = leaf.recv(self._derive.fileno())
            except OSError:
                return triggered, True  # more than any honest holder sends
            if said is None or not said[0]:
                return triggered, end
            self._adopt(said[0], take(said[1], guarded=True))
        return triggered, end or control

    def _adopt(self, data: bytes, fds: tuple[Fd, ...]) -> None:
        message = PortMessage.unpack(data, len(fds) - 1)
        sound = (
            message is not None
            and message.kind is PortKind.DERIVE
            and len(fds) == 2
            and leaf.what(fds[0].fileno()) == "pipe-read"
            and leaf.what(fds[1].fileno()) == "seqpacket"
        )
        room = len(self.source.pins) < MAX_PINS and self.family.members < MAX_FAMILY
        if sound and room and plenty_left(fds[1].fileno()):
            try:
                self.source.add(Pin(self.source, fds[0], fds[1], counts=True, family=self.family))
                return
            except OSError:  # the kernel will not watch one more; it was not added
                pass
        for fd in fds:
            fd.close()

    def close(self) -> None:
        """Forget the holder; its triggers fail from now on."""
        if self.watch is not None:
            self.watch.close()
        self._pipe.close()
        if self._derive is not None:
            self._derive.close()


class Family:
    """A first holder and everybody it handed the IRQ on to."""

    __slots__ = ("members",)

    def __init__(self) -> None:
        self.members = 0


class IrqSource:
    """All pins of one IRQ, and who wants to know of new ones."""

    def __init__(self) -> None:
        self.pins: set[Pin] = set()
        self.on_added: Callable[[Pin], None] | None = None
        #: What lets go of it: the registry whose handler receives, until it is detached.
        self.on_detach: Callable[[], object] | None = None
        self._closed = False
        self._ever_held = False
        self._generation = leaf.generation()

    @property
    def closed(self) -> bool:
        """Whether nobody receives here any more; so in a forked child, too."""
        return self._closed or self._generation != leaf.generation()

    @property
    def deserted(self) -> bool:
        """Whether nobody is left who could trigger, though somebody was given it."""
        return self._ever_held and not self.pins

    def add(self, pin: Pin) -> None:
        """Take a pin in; the receiver hears of it.

        Raises:
            OSError: the receiver's loop cannot watch it; it was not taken in.
        """
        if self.on_added is not None:
            self.on_added(pin)
        self.pins.add(pin)
        self._ever_held |= pin.counts
        pin.family.members += 1

    def move(self, watch: Callable[[Pin], None]) -> bool:
        """Let ``watch`` have each pin, those there are and those to come; whether a trigger is pending.

        Whoever received before lets go of it. What that loop has taken out of a pipe and did not handle is put into
        one of its own, which ends then.

        Raises:
            OutOfMemory: no descriptors are left for that; nothing changed.
        """
        pins = list(self.pins)
        rest, again = pipe()
        spares = [pin.spare() for pin in pins]
        if self.on_detach is not None:
            self.on_detach()
        self.on_detach, self.on_added = None, watch
        unhandled = [pin.unwatched(spare) for pin, spare in zip(pins, spares, strict=True)]
        pending = any(unhandled) or any(pin.pending for pin in pins)
        if any(unhandled):
            again.notify()
            self.add(Pin(self, rest, None, counts=False))
        else:
            rest.close()
        again.close()
        for pin in pins:
            watch(pin)
        return pending

    def remove(self, pin: Pin) -> None:
        """Drop a pin whose holder is gone."""
        if pin in self.pins:
            self.pins.discard(pin)
            pin.family.members -= 1
        pin.close()

    def new_holder(self, *, counts: bool = True) -> tuple[Fd, Fd]:
        """Return what a new holder needs: the pipe's write end and its side of the derive socket.

        Raises:
            OutOfMemory: the IRQ has as many holders as it may have, or descriptors ran out.
        """
        if len(self.pins) >= MAX_PINS:
            raise OutOfMemory(f"this IRQ has {MAX_PINS} holders, no more are allowed")
        read, trigger = pipe()
        derive, end = sockets()
        try:
            self.add(Pin(self, read, end, counts=counts))
        except OSError as error:
            raise exhausted("cannot watch one more holder of the IRQ", error) from error
        return trigger, derive

    def close(self) -> None:
        """Drop every pin: nobody can trigger any more."""
        self._closed = True
        self.on_added = self.on_detach = None
        for pin in self.pins:
            pin.close()
        self.pins.clear()
