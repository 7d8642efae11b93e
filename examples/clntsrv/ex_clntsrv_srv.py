"""The server: calculates for whoever has the capability."""

import sys

from calculator import Calculator

import l4re

WORD = 1 << 32


class Server(Calculator, l4re.Epiface):
    """Calculates as a machine word of 32 bits does."""

    def sub(self, a: l4re.U32, b: l4re.U32) -> l4re.U32:
        return l4re.U32((a - b) % WORD)

    def neg(self, a: l4re.U32) -> l4re.U32:
        return l4re.U32(-a % WORD)


def main() -> int:
    """Serve until nobody can reach this server any more."""
    server = l4re.RegistryServer()
    try:
        server.registry.register_obj(Server(), "calc_server")
    except l4re.L4Error as error:
        print(f"Could not register my service, is there a 'calc_server' in the caps table? {error}", file=sys.stderr)
        return 1
    print("Welcome to the calculation server!")
    print("I can do subtractions and negations.")
    server.loop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
