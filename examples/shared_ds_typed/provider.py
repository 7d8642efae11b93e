"""The server, typed: its class is checked against the interface, and no message is read by hand."""

from shared_memory import SharedMemory

import l4re


class Provider(SharedMemory, l4re.Epiface):
    """Hands out one dataspace and one IRQ."""

    def __init__(self, ds: l4re.Dataspace, irq: l4re.Irq) -> None:
        self.ds = ds
        self.irq = irq

    def get_shared_buffer(self) -> tuple[l4re.Dataspace, l4re.Irq]:
        """Return both, the memory read-write."""
        return self.ds.rw, self.irq


class Observer(l4re.IrqHandler):
    """Shows what a client wrote."""

    def __init__(self, region: l4re.Region) -> None:
        self.region = region

    def dispatch(self) -> None:
        """A client has triggered the IRQ."""
        text = bytes(self.region).split(b"\0", 1)[0]
        print(f"Client sent us: {text.decode(errors='replace')}")


def main() -> None:
    """Share the memory until nobody can reach it any more."""
    env = l4re.env()
    ds = env.mem_alloc.alloc(4 * 4096)
    region = env.rm.attach(ds)
    print("Attached DS")
    greeting = b"[DS] Hello from server!\0"
    memoryview(region)[: len(greeting)] = greeting

    server = l4re.RegistryServer()
    irq = server.registry.register_irq_obj(Observer(region))
    server.registry.register_obj(Provider(ds, irq), "shm")
    server.loop()


if __name__ == "__main__":
    main()
