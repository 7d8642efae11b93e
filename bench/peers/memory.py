"""Shared memory without us: a memfd and `mmap`, and `multiprocessing.shared_memory`."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from multiprocessing.shared_memory import SharedMemory

from .base import Memory

__all__ = ["Memfd", "StdSharedMemory"]

Touch = Callable[[memoryview], None]


class Memfd(Memory):
    """Five system calls from Python: the least there is."""

    name = "memfd+mmap"

    def cycle(self, size: int) -> Callable[[Touch], None]:
        def cycle(touch: Touch) -> None:
            fd = os.memfd_create("bench")
            os.ftruncate(fd, size)
            memory = mmap.mmap(fd, size)
            with memoryview(memory) as view:
                touch(view)
            memory.close()
            os.close(fd)

        return cycle


class StdSharedMemory(Memory):
    """Create to unlink."""

    name = "SharedMemory"

    def cycle(self, size: int) -> Callable[[Touch], None]:
        def cycle(touch: Touch) -> None:
            memory = SharedMemory(create=True, size=size)
            touch(memory.buf)
            memory.close()
            memory.unlink()

        return cycle
