"""Does something every few seconds, in a server loop that could serve objects beside.

    ex_periodic_task [SECONDS]

SECONDS is the period, 5 by default.
"""

import sys

import l4re

ROUNDS = 5


class Periodic:
    """Prints a line each time, and stops the loop after the last."""

    def __init__(self, server: l4re.RegistryServer, period: float) -> None:
        self.server = server
        self.period = period
        self.left = ROUNDS
        server.timeouts.add(period, self.expired)

    def expired(self) -> None:
        """Take one turn."""
        print("Timeout expired.")
        self.left -= 1
        if self.left:
            self.server.timeouts.add(self.period, self.expired)
        else:
            self.server.stop()


def main() -> None:
    """Run the loop."""
    print("Hello from ex_periodic_task")
    server = l4re.RegistryServer()
    Periodic(server, float(sys.argv[1]) if sys.argv[1:] else 5.0)
    server.loop()
    print("Bye bye from ex_periodic_task!")


if __name__ == "__main__":
    main()
