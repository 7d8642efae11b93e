"""The client: asks for a subtraction and a negation."""

import sys

from calculator import Calculator

import l4re


def signed(word: int) -> int:
    """Return what a word of 32 bits means as a signed number."""
    return word - (word >> 31 << 32)


def main() -> int:
    """Ask twice."""
    try:
        server = l4re.env().get_cap("calc_server", Calculator)
    except l4re.NotFound as error:
        print(f"Could not get server capability! {error}", file=sys.stderr)
        return 1
    try:
        print("Asking for 8 - 5")
        result = server.sub(l4re.U32(8), l4re.U32(5))
        print(f"Result of subtract call: {result}")
        print(f"Asking for -{result}")
        print(f"Result of negate call: {signed(server.neg(result))}")
    except l4re.L4Error as error:
        print(f"Error talking to server: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
