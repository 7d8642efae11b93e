"""The local memory allocator: dataspaces made by this process, of the memory the machine has."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from l4re.dataspace import NO_HINTS, Dataspace, Hints
from l4re.errors import InvalidArgument, NotSupported, OutOfRange
from l4re.linux import memfd
from l4re.linux.memory import MemoryGauge, available, total
from l4re.rights import MemAllocFlags

if TYPE_CHECKING:
    from l4re.wire.vargs import Varg

__all__ = ["MemAlloc", "MemoryInfo", "process_allocator", "use_allocator"]

_DATASPACE: Final = 0x4000  # of `Proto`, which a start need not load
_NONE: Final = MemAllocFlags.NONE  # truth of an enum flag is a slow question
_RESERVE: Final = int(MemAllocFlags.CONTINUOUS | MemAllocFlags.PINNED | MemAllocFlags.SUPER_PAGES)
_SUPER_PAGES: Final = int(MemAllocFlags.SUPER_PAGES)
_SEALABLE: Final = int(MemAllocFlags.SEALABLE)
_FIXED_PADDR: Final = int(MemAllocFlags.FIXED_PADDR)
_KNOWN: Final = _RESERVE | _SEALABLE
_MAX_ALIGN: Final = 30


class MemoryInfo(NamedTuple):
    """What ``info`` of an allocator answers, in bytes: its quota, and the memory of the machine or its cgroup.

    Without a quota ``quota`` is None, and ``quota_used`` is 0.
    """

    quota: int | None
    quota_used: int
    mem_limit: int
    mem_used: int
    mem_free: int

    @classmethod
    def now(cls, quota: int | None = None, quota_used: int = 0) -> MemoryInfo:
        """Return this quota beside what the machine has at this moment."""
        limit = total()
        free = min(available(), limit)
        return cls(quota, quota_used, limit, limit - free, free)


class MemAlloc:
    """Makes dataspaces. Owns nothing: each dataspace lives as long as somebody holds or maps it.

    May be used by several threads.
    """

    F: TypeAlias = MemAllocFlags

    #: The protocols of what `create` makes.
    kinds: Final = frozenset((_DATASPACE,))

    def __init__(self, gauge: MemoryGauge | None = None) -> None:
        self._gauge = gauge or MemoryGauge()

    def create(self, protocol: int, *args: Varg) -> Dataspace:
        """Return a new object by the number of its protocol: `Proto.DATASPACE`, with size, flags, alignment and name.

        It is what upstream's ``alloc`` is made of; see :meth:`alloc` for what else can go wrong.

        Raises:
            NotSupported: any other protocol.
            InvalidArgument: other arguments than one to three numbers and a string.
        """
        if protocol not in self.kinds:
            raise NotSupported(f"a memory allocator makes dataspaces, no objects of protocol {protocol}")
        *given, name = args if len(args) == 4 else (*args, None)
        numbers = [int(number) for number in given if isinstance(number, int)]
        if not 1 <= len(given) <= 3 or len(numbers) != len(given):
            raise InvalidArgument(f"a dataspace is made with a size, flags, an alignment and a name, not {args!r}")
        if name is not None and not isinstance(name, str):
            raise InvalidArgument("no process chooses physical addresses on Linux: a fourth argument is a name")
        size, flags, align = (*numbers, 0, 0)[:3]
        return self.alloc(size, flags=flags, align=align, name=name or "l4re")

    def alloc(
        self, size: int, *, flags: MemAllocFlags | int = MemAllocFlags.NONE, align: int = 0, name: str = "l4re"
    ) -> Dataspace:
        """Return a new dataspace of exactly ``size`` zeroed bytes; the caller owns it.

        Pages are had when they are first touched, unless ``flags`` says otherwise:

        - ``PINNED``: all are reserved now. They are not locked: with swap, the kernel may move them there.
        - ``CONTINUOUS``: the same; Linux promises no physical order.
        - ``SUPER_PAGES``: all are reserved now, as pages of 2 MiB where the kernel has some to give, and this process
          attaches them at addresses that fit. Who gets the memory says ``attach(align=21)`` for that.
        - ``SEALABLE``: keeps the choice to `Dataspace.freeze` or `Dataspace.publish` later, by refusing to hand
          the memory out read-write.

        ``align`` (log2) is the least alignment of the addresses where this process attaches it. ``name`` shows in
        ``repr`` and in the kernel's tables, and names nothing.

        Raises:
            OutOfRange: a size of 0 or less.
            OutOfMemory: more than the machine or its cgroup can give; the text says how much that is.
            InvalidArgument: an alignment out of range, unknown flags, a name that is too long.
            NotSupported: ``FIXED_PADDR``; no process chooses physical addresses on Linux.
        """
        size = operator.index(size)
        if size <= 0:
            raise OutOfRange(f"a dataspace has at least one byte, not {size}")
        wishes = 0 if flags is _NONE else int(flags)
        hints = self._hints(wishes, align) if wishes or align else NO_HINTS
        gauge = self._gauge
        if size <= gauge.credit:
            gauge.credit -= size
        else:
            gauge.charge(size)
        fd = memfd.create(size, name)
        ds = Dataspace(fd, size, name=name, hints=hints)
        if wishes:
            self._reserve(ds, wishes)
        return ds

    def _reserve(self, ds: Dataspace, wishes: int) -> None:
        """Make sure of every page now if that is wished, or close it and raise."""
        if not wishes & _RESERVE:
            return
        try:
            memfd.reserve(ds.fileno(), ds.size)
            if wishes & _SUPER_PAGES:
                memfd.make_large_pages(ds.fileno(), ds.size)
        except BaseException:
            ds.close()
            raise

    def info(self) -> MemoryInfo:
        """Return how much there is: quota, and the machine's memory. A reading, not a promise."""
        return MemoryInfo.now()

    def _hints(self, wishes: int, align: int) -> Hints:
        if wishes & _FIXED_PADDR:
            raise NotSupported("FIXED_PADDR: a Linux process cannot choose physical addresses")
        if wishes & ~_KNOWN:
            raise InvalidArgument(f"alloc() does not know the flags {wishes & ~_KNOWN:#x}")
        if not 0 <= operator.index(align) <= _MAX_ALIGN:
            raise InvalidArgument(f"align is given as log2, 0 to {_MAX_ALIGN}, not {align}")
        huge = bool(wishes & _SUPER_PAGES)
        return Hints(max(align, memfd.SUPER_PAGE_LOG2) if huge else align, huge, bool(wishes & _SEALABLE))


_allocator: Callable[[], MemAlloc] = cache(MemAlloc)


def process_allocator() -> MemAlloc:
    """Return the allocator that this process uses where nobody says another: its parent's, or one of its own."""
    return _allocator()


def use_allocator(allocator: Callable[[], MemAlloc]) -> None:
    """Let this process use what ``allocator`` returns from now on."""
    global _allocator
    _allocator = allocator
