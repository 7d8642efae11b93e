"""The factory for what the kernel gives: gates, IRQs and semaphores (L4Re's ``Env::factory``)."""

from __future__ import annotations

from l4re.errors import NotSupported
from l4re.gate import Channel, new_channel
from l4re.irq import Irq, Semaphore
from l4re.wire.protocols import Proto

__all__ = ["Factory"]


class Factory:
    """Makes gates, IRQs and semaphores. Owns nothing; may be used by several threads."""

    __slots__ = ()

    def create_gate(self) -> Channel:
        """Return a new gate and the right to serve it; the caller owns both."""
        return new_channel()

    def create_irq(self) -> Irq:
        """Return a new IRQ that its owner can trigger, hand out and wait for."""
        return Irq.create()

    def create_semaphore(self, value: int = 0) -> Semaphore:
        """Return a new semaphore with so many tokens.

        Raises:
            InvalidArgument: a negative number, or more than it can hold.
        """
        return Semaphore.create(value)

    def create(self, protocol: int) -> Channel | Irq | Semaphore:
        """Return a new object by the number of its protocol, as upstream's ``create`` does.

        `Proto.KOBJECT` or 0: a gate with the right to serve it. `Proto.IRQ_SENDER`: an IRQ. `Proto.SEMAPHORE`.

        Raises:
            NotSupported: any other; programs are started by ``l4re.spawn``, memory comes from ``env.mem_alloc``.
        """
        if protocol in (Proto.KOBJECT, Proto.NONE):
            return self.create_gate()
        if protocol == Proto.IRQ_SENDER:
            return self.create_irq()
        if protocol == Proto.SEMAPHORE:
            return self.create_semaphore()
        name = Proto(protocol).name if protocol in list(Proto) else "unknown"
        raise NotSupported(f"this factory makes gates, IRQs and semaphores, no objects of protocol {protocol} ({name})")

    def __repr__(self) -> str:
        return "<Factory>"
