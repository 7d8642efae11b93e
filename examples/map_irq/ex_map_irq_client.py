"""The client: makes an IRQ, hands it to the server, and waits for it three times."""

import sys

from irq_user import ROUNDS, IrqUser

import l4re


def main() -> int:
    """Hand it over and wait."""
    print("Hello from ex_map_irq_client.")
    env = l4re.env()
    try:
        server = env.get_cap("irq_server", IrqUser)
        with env.factory.create_irq() as irq:
            print("Mapping IRQ cap to server.")
            server.map_irq(irq)
            server.start()
            for _ in range(ROUNDS):
                irq.receive()
                print("Received IRQ.")
    except l4re.L4Error as error:
        print(f"Runtime error: {error}.", file=sys.stderr)
        return 1
    print("ex_map_irq_client finished.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
