"""The server: gets an IRQ from its client, and triggers it three times.

    ex_map_irq_server [SECONDS]

It pauses a second between them; SECONDS says how long.
"""

import sys

from irq_user import ROUNDS, IrqUser

import l4re


class Server(IrqUser, l4re.Epiface):
    """Triggers what it was handed, from a timeout of the loop, so that it can be called meanwhile."""

    def __init__(self, server: l4re.RegistryServer, pause: float) -> None:
        self.server = server
        self.pause = pause
        self.irq: l4re.Irq | None = None
        self.left = ROUNDS

    def map_irq(self, irq: l4re.Irq) -> None:
        print("Received IRQ from client.")
        self.irq = irq

    def start(self) -> None:
        self.trigger()

    def trigger(self) -> None:
        """Trigger once, and again later."""
        if self.irq is None:
            raise l4re.InvalidArgument("there is no IRQ: call map_irq first")
        print("Triggering IRQ.")
        self.irq.trigger()
        self.left -= 1
        if self.left:
            self.server.timeouts.add(self.pause, self.trigger)
        else:
            self.server.stop()


def main() -> int:
    """Serve one client."""
    print("Hello from ex_map_irq_server.")
    server = l4re.RegistryServer()
    try:
        server.registry.register_obj(Server(server, float(sys.argv[1]) if sys.argv[1:] else 1.0), "irq_server")
        server.loop()
    except l4re.L4Error as error:
        print(f"Runtime error: {error}.", file=sys.stderr)
        return 1
    print("ex_map_irq_server finished.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
