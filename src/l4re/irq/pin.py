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
from l4re.linux.fd import Fd, take
from l4re.wire.port import PortKind, PortMessage

__all__ = ["IrqSource", "Pin"]

#: Holders one IRQ can have; each costs the receiver two descriptors.
MAX_PINS = 4096


class Pin:
    """One holder of the right to trigger, seen from the receiver."""

    __slots__ = ("_derive", "_pipe", "counts", "source", "watch")

    def __init__(self, source: IrqSource, pipe: Fd, derive: Fd, *, counts: bool) -> None:
        self.source = source
        self._pipe = pipe
        self._derive = derive
        #: Whether it is a holder in the sense of orphanhood: the receiver's own is not.
        self.counts = counts
        #: Its place in the loop that looks at it.
        self.watch: leaf.Source | None = None

    def fileno(self) -> int:
        """The descriptor to watch."""
        return self._pipe.fileno()

    def drain(self) -> tuple[bool, bool]:
        """Take what is there: (it was triggered, the holder is gone). New pins join the source."""
        try:
            got = leaf.drain(self._pipe.fileno())
        except OSError:  # not a pipe that can be read without waiting: worth nothing
            return False, True
        if got is None:
            return False, False
        triggers, control, end = got
        while control:
            try:
                said = leaf.recv(self._derive.fileno())
            except OSError:
                break
            if said is None or not said[0]:
                break
            self._adopt(said[0], take(said[1], guarded=True))
        return triggers > 0, end

    def _adopt(self, data: bytes, fds: tuple[Fd, ...]) -> None:
        message = PortMessage.unpack(data, len(fds) - 1)
        sound = (
            message is not None
            and message.kind is PortKind.DERIVE
            and len(fds) == 2
            and leaf.what(fds[0].fileno()) == "pipe-read"
            and leaf.what(fds[1].fileno()) == "seqpacket"
        )
        if sound and len(self.source.pins) < MAX_PINS:
            self.source.add(Pin(self.source, fds[0], fds[1], counts=True))
        else:
            for fd in fds:
                fd.close()

    def close(self) -> None:
        """Forget the holder; its triggers fail from now on."""
        if self.watch is not None:
            self.watch.close()
        self._pipe.close()
        self._derive.close()


class IrqSource:
    """All pins of one IRQ, and who wants to know of new ones."""

    def __init__(self) -> None:
        self.pins: set[Pin] = set()
        self.on_added: Callable[[Pin], None] | None = None
        self.closed = False

    def add(self, pin: Pin) -> None:
        """Take a pin in; the receiver hears of it."""
        self.pins.add(pin)
        if self.on_added is not None:
            self.on_added(pin)

    def remove(self, pin: Pin) -> None:
        """Drop a pin whose holder is gone."""
        self.pins.discard(pin)
        pin.close()

    def new_holder(self, *, counts: bool = True) -> tuple[Fd, Fd]:
        """Return what a new holder needs: the pipe's write end and its side of the derive socket.

        Raises:
            OutOfMemory: the IRQ has as many holders as it may have, or descriptors ran out.
        """
        if len(self.pins) >= MAX_PINS:
            raise OutOfMemory(f"this IRQ has {MAX_PINS} holders, no more are allowed")
        try:
            read, write = leaf.pipe()
        except OSError as error:
            raise OutOfMemory(f"cannot make a pipe for the IRQ: {error.strerror}") from error
        pipe, trigger = Fd(read, guarded=True), Fd(write)
        try:
            client, server = leaf.channel()
        except OSError as error:
            raise OutOfMemory(f"cannot make a socket for the IRQ: {error.strerror}") from error
        self.add(Pin(self, pipe, Fd(server, guarded=True), counts=counts))
        return trigger, Fd(client)

    def close(self) -> None:
        """Drop every pin: nobody can trigger any more."""
        self.closed = True
        self.on_added = None
        for pin in self.pins:
            pin.close()
        self.pins.clear()
