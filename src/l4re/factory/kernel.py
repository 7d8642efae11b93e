"""The factory for what the kernel gives: gates and IRQs (L4Re's ``Env::factory``)."""

from __future__ import annotations

from l4re.gate import Channel, new_channel
from l4re.irq import Irq

__all__ = ["Factory"]


class Factory:
    """Makes gates and IRQs. Owns nothing; may be used by several threads."""

    __slots__ = ()

    def create_gate(self) -> Channel:
        """Return a new gate and the right to serve it; the caller owns both."""
        return new_channel()

    def create_irq(self) -> Irq:
        """Return a new IRQ that its owner can trigger, hand out and wait for."""
        return Irq.create()

    def __repr__(self) -> str:
        return "<Factory>"
