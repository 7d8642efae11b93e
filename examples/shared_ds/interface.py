"""What server and client agree on: one operation, which hands out the memory and the IRQ that tells of changes."""

import l4re

__all__ = ["SIZE", "SharedMemory"]

#: Bytes of the shared memory.
SIZE = 4 * 4096


class SharedMemory(l4re.Interface):
    """An object that shares one piece of memory. As in the original its protocol is 0 and its operation has no
    opcode: an empty message asks, the answer is two capabilities."""

    protocol = 0

    @l4re.rpc(opcode=None)
    def get_shared_buffer(self) -> tuple[l4re.Dataspace, l4re.Irq]:
        """Return the memory, read-write, and the IRQ to trigger after changing it."""
        raise NotImplementedError
