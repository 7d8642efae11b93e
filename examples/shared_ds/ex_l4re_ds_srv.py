"""The server: makes a dataspace, shares it, and shows what a client writes into it.

A raw server object, as in the original: it looks at the tag of each message itself.
"""

import sys

import l4re
from interface import SIZE, SharedMemory


def get_ds() -> tuple[l4re.Dataspace, l4re.Region]:
    """Return a new dataspace and where it is attached, read-write; end the program if it cannot be had."""
    env = l4re.env()
    try:
        ds = env.mem_alloc.alloc(SIZE)
    except l4re.L4Error as error:
        print(f"Dataspace allocation failed: {error}", file=sys.stderr)
        sys.exit(2)
    try:
        region = env.rm.attach(ds)
    except l4re.L4Error as error:
        print(f"Error attaching data space: {error}", file=sys.stderr)
        sys.exit(2)
    print("Attached DS")
    return ds, region


class Observer(l4re.IrqHandler):
    """Runs when a client has triggered the IRQ."""

    def __init__(self, region: l4re.Region) -> None:
        self.region = region

    def dispatch(self) -> None:
        """Show what the client wrote."""
        text = bytes(self.region).split(b"\0", 1)[0]
        print(f"Client sent us: {text.decode(errors='replace')}")


class Server(l4re.ServerObject):
    """Answers META and label 0, and refuses every other protocol."""

    def __init__(self, ds: l4re.Dataspace, irq: l4re.Irq) -> None:
        self.ds = ds
        self.irq = irq

    def dispatch(self, rights: l4re.Rights, ios: l4re.Iostream) -> int:
        """Answer one message."""
        match ios.tag.label:
            case l4re.Meta.PROTOCOL:
                return l4re.handle_meta_request(SharedMemory, ios)
            case SharedMemory.protocol:
                ios << self.ds.rw << self.irq
                return 0
            case _:
                return -l4re.Err.EBADPROTO


def main() -> int:
    """Share the memory until nobody can reach this server any more."""
    ds, region = get_ds()
    greeting = b"[DS] Hello from server!\0"
    memoryview(region)[: len(greeting)] = greeting

    server = l4re.RegistryServer()
    irq = server.registry.register_irq_obj(Observer(region))
    try:
        server.registry.register_obj(Server(ds, irq), "shm")
    except l4re.L4Error as error:
        print(f"Could not register my service, is there a 'shm' in the caps table? {error}", file=sys.stderr)
        return 1
    server.loop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
