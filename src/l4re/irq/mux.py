"""Multiplexers: one IRQ that triggers several."""

from __future__ import annotations

import threading

from l4re.closing import Closing
from l4re.errors import Closed, Exists, NotFound, PeerGone
from l4re.irq.irq import Irq, IrqHandler

__all__ = ["IrqMux"]


class IrqMux(IrqHandler, Closing):
    """Triggers every IRQ that was chained to it when it is triggered itself (L4's ``Irq_mux``).

    It is an IRQ handler: what ``registry.register_irq_obj(mux)`` returns can be handed to whoever shall trigger all,
    and those come to hear of it when the loop runs. :meth:`trigger` does the same at once, and needs no loop. An IRQ
    that nobody receives any more, or that was closed, is unchained when that is noticed.

    Thread-safe. Multiplexers that are chained in a circle go on triggering each other without end.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._chained: dict[int, Irq] = {}

    def chain(self, irq: Irq) -> None:
        """Trigger ``irq`` as well from now on. It is lent: keep it open, or leave it to the multiplexer alone.

        Raises:
            Exists: this capability is chained already.
            Closed: it is closed.
        """
        if irq.closed:
            raise Closed("this irq is closed")
        with self._lock:
            if id(irq) in self._chained:
                raise Exists(f"{irq!r} is chained already")
            self._chained[id(irq)] = irq

    def unchain(self, irq: Irq) -> None:
        """Leave ``irq`` out from now on; it stays open.

        Raises:
            NotFound: this capability is not chained.
        """
        with self._lock:
            if self._chained.pop(id(irq), None) is None:
                raise NotFound(f"{irq!r} is not chained")

    def trigger(self) -> int:
        """Trigger all that are chained; never blocks. Return how many there are who can receive it."""
        reached = 0
        for irq in self.chained:
            try:
                irq.trigger()
                reached += 1
            except (PeerGone, Closed):
                with self._lock:
                    self._chained.pop(id(irq), None)
        return reached

    def dispatch(self) -> None:
        """Handle a trigger of the multiplexer itself."""
        self.trigger()

    @property
    def chained(self) -> tuple[Irq, ...]:
        """What is triggered, in the order it was chained."""
        with self._lock:
            return tuple(self._chained.values())

    def close(self) -> None:
        """Unchain all; a second call does nothing."""
        with self._lock:
            self._chained.clear()

    def __repr__(self) -> str:
        return f"<IrqMux with {len(self._chained)} chained>"
