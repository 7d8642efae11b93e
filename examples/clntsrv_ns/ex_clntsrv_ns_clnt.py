"""The client: finds the object by its name, and waits until the server has put it there."""

import sys

from subtractor import NAME, Subtractor

import l4re


def main() -> int:
    """Ask twice."""
    try:
        namespace = l4re.env().get_cap("namespace", l4re.Namespace)
    except l4re.NotFound as error:
        print(f"Could not find namespace: {error}", file=sys.stderr)
        return 1
    try:
        server = namespace.query(NAME, Subtractor)
    except l4re.L4Error as error:
        print(f"Error querying object: {error}", file=sys.stderr)
        return 1
    try:
        print("Asking for 8 - 5")
        result = server.sub(l4re.S32(8), l4re.S32(5))
        print(f"Result of substract call: {result}")
        print(f"Asking for -{result}")
        print(f"Result of negate call: {server.neg(result)}")
    except l4re.L4Error as error:
        print(f"Error talking to server: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
