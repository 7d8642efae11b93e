"""A console: what other programs print comes here, and is shown line by line with a number in front."""

import sys

import l4re


class Console(l4re.VconServer):
    """Numbers the lines of its clients. What one writes comes in pieces of a few hundred bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.rest = b""
        self.count = 0

    def write(self, data: bytes) -> None:
        """Take a piece."""
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            self.count += 1
            print(f"{self.count}: {line.decode(errors='replace')}")


def main() -> int:
    """Serve until nobody prints any more."""
    server = l4re.RegistryServer()
    console = Console()
    try:
        server.registry.register_obj(console, "console")
    except l4re.L4Error as error:
        print(f"Could not register my service, is there a 'console' in the caps table? {error}", file=sys.stderr)
        return 1
    server.loop()
    print(f"These were {console.count} lines.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
