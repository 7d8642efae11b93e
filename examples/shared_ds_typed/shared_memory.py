"""What server and client agree on."""

import l4re

__all__ = ["SharedMemory"]


class SharedMemory(l4re.Interface):
    """An object that shares one piece of memory."""

    protocol = 0x5348

    @l4re.rpc
    def get_shared_buffer(self) -> tuple[l4re.Dataspace, l4re.Irq]:
        """Return the memory, read-write, and the IRQ to trigger after changing it."""
        raise NotImplementedError
