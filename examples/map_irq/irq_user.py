"""What server and client agree on: the client hands over an IRQ, and says when to trigger it."""

import l4re

__all__ = ["ROUNDS", "IrqUser"]

#: How often the server triggers the IRQ.
ROUNDS = 3


class IrqUser(l4re.Interface):
    """Triggers the IRQ of a client."""

    protocol = 0x77

    @l4re.rpc
    def map_irq(self, irq: l4re.Irq) -> None:
        """Keep ``irq``."""
        raise NotImplementedError

    @l4re.rpc(oneway=True)
    def start(self) -> None:
        """Trigger it `ROUNDS` times."""
        raise NotImplementedError
