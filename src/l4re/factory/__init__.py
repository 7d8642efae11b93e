"""Factories: where new objects come from.

Here lives :class:`MemAlloc`, which makes dataspaces. The room promises that memory which cannot be had is refused
when it is asked for, not by a signal when it is touched. What a dataspace is and where it is mapped is left to
``dataspace`` and ``rm``; quotas are the business of the root task.
"""

from l4re.factory.mem_alloc import MemAlloc, MemoryInfo, process_allocator, use_allocator

__all__ = ["MemAlloc", "MemoryInfo", "process_allocator", "use_allocator"]
