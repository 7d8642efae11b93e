"""The server: puts its object into a namespace, where whoever can read that finds it."""

import sys

from subtractor import NAME, Subtractor

import l4re


class Server(Subtractor, l4re.Epiface):
    """Calculates."""

    def sub(self, a: l4re.S32, b: l4re.S32) -> l4re.S32:
        return l4re.S32(a - b)

    def neg(self, a: l4re.S32) -> l4re.S32:
        return l4re.S32(-a)


def main() -> int:
    """Serve until nobody can find this server any more."""
    server = l4re.RegistryServer()
    obj = Server()
    server.registry.register_obj(obj)
    try:
        namespace = l4re.env().get_cap("namespace", l4re.Namespace)
    except l4re.NotFound as error:
        print(f"Could not find namespace: {error}", file=sys.stderr)
        return 1
    try:
        with namespace:  # not needed any more afterwards, so that it does not live as long as we do
            namespace.register_obj(NAME, obj)
    except l4re.L4Error as error:
        print(f"Error registering object in namespace: {error}", file=sys.stderr)
        return 1
    print("Welcome to the calculation server!")
    print("I can do substractions and negations.")
    server.loop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
