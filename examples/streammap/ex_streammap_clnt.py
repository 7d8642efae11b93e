"""The client: asks for a page, attaches it, and reads what stands there."""

import sys

from page_source import PageSource

import l4re


def main() -> int:
    """Ask once."""
    env = l4re.env()
    try:
        server = env.get_cap("smap", PageSource)
    except l4re.NotFound as error:
        print(f"Could not get server capability! {error}", file=sys.stderr)
        return 1
    print("Asking for page from server")
    try:
        page = server.get_page()
        region = env.rm.attach(page)
    except l4re.L4Error as error:
        print(f"Error talking to server: {error}", file=sys.stderr)
        return 1
    text = bytes(region).split(b"\0", 1)[0]
    print(f"String sent by server: {text.decode(errors='replace')}")
    if not region.readonly:
        print("The page can be written!", file=sys.stderr)
        return 1
    print("It worked!")
    return 0


if __name__ == "__main__":
    sys.exit(main())
