"""One thread triggers an IRQ, another waits for it."""

import sys
import threading

import l4re


def main() -> int:
    """Do it once."""
    print("IRQ triggering example.")
    with l4re.env().factory.create_irq() as irq:
        thread = threading.Thread(target=irq.trigger)
        thread.start()
        try:
            irq.receive(timeout=10)
        except l4re.L4Error as error:
            print(f"Did not receive the irq: {error}", file=sys.stderr)
            return 1
        print("Received irq!")
        thread.join()
    print("Example finished.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
