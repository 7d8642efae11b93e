"""The server: hands a page with a greeting to whoever asks."""

import sys

from page_source import PAGE, PageSource

import l4re


class Server(PageSource, l4re.Epiface):
    """Has one page, and hands it out read-only."""

    def __init__(self) -> None:
        self.page = l4re.env().mem_alloc.alloc(PAGE)
        self.page.write(0, b"Hello from the server!\0")

    def get_page(self) -> l4re.Dataspace:
        print("Sending to client")
        return self.page


def main() -> int:
    """Serve until nobody can reach this server any more."""
    server = l4re.RegistryServer()
    try:
        server.registry.register_obj(Server(), "smap")
    except l4re.L4Error as error:
        print(f"Could not register my service, is there a 'smap' in the caps table? {error}", file=sys.stderr)
        return 1
    print("Welcome to the memory map example server!")
    server.loop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
