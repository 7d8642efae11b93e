"""The factory for what the kernel gives: gates, IRQs and semaphores (L4Re's ``Env::factory``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from l4re.errors import InvalidArgument, NotSupported
from l4re.gate import Channel, new_channel
from l4re.irq import Irq

if TYPE_CHECKING:
    from l4re.irq import Semaphore
    from l4re.wire.vargs import Varg

__all__ = ["KernelFactory"]

#: Of `Proto`, which a start need not load.
_NONE, _KOBJECT, _IRQ_SENDER, _SEMAPHORE = 0, -10, -18, -20


class KernelFactory:
    """Makes gates, IRQs and semaphores. Owns nothing; may be used by several threads."""

    __slots__ = ()

    #: The protocols of what `create` makes; a gate has none of its own.
    kinds: Final = frozenset((_NONE, _KOBJECT, _IRQ_SENDER, _SEMAPHORE))

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
        from l4re.irq import Semaphore

        return Semaphore.create(value)

    def create(self, protocol: int, *args: Varg) -> Channel | Irq | Semaphore:
        """Return a new object by the number of its protocol, as upstream's ``create`` does.

        `Proto.KOBJECT` or 0: a gate with the right to serve it. `Proto.IRQ_SENDER`: an IRQ. `Proto.SEMAPHORE`: a
        semaphore; with one argument, so many tokens.

        Raises:
            NotSupported: any other; programs are started by ``l4re.spawn``, memory comes from ``env.mem_alloc``.
            InvalidArgument: arguments that such an object does not have.
        """
        if protocol not in self.kinds:
            from l4re.wire.protocols import Proto

            name = Proto(protocol).name if protocol in list(Proto) else "unknown"
            raise NotSupported(
                f"this factory makes gates, IRQs and semaphores, no objects of protocol {protocol} ({name})"
            )
        if protocol == _SEMAPHORE and len(args) == 1 and isinstance(args[0], int):
            return self.create_semaphore(args[0])
        if args:
            raise InvalidArgument(f"an object of protocol {protocol} is not made with the arguments {args!r}")
        if protocol == _SEMAPHORE:
            return self.create_semaphore()
        return self.create_irq() if protocol == _IRQ_SENDER else self.create_gate()

    def __repr__(self) -> str:
        return "<KernelFactory>"
