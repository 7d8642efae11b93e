"""The local memory allocator: dataspaces made by this process, of the memory the machine has."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Final, TypeAlias

from l4re.dataspace import NO_HINTS, Dataspace, Hints
from l4re.errors import InvalidArgument, NotSupported, OutOfMemory, OutOfRange
from l4re.linux import memfd
from l4re.linux.memory import MemoryGauge
from l4re.rights import MemAllocFlags

if TYPE_CHECKING:
    from l4re.wire.vargs import Varg

__all__ = ["MemAlloc"]

_DATASPACE: Final = 0x4000  # of `Proto`, which a start need not load
_NONE: Final = MemAllocFlags.NONE  # truth of an enum flag is a slow question
_RESERVE: Final = int(MemAllocFlags.CONTINUOUS | MemAllocFlags.PINNED | MemAllocFlags.SUPER_PAGES)
_SUPER_PAGES: Final = int(MemAllocFlags.SUPER_PAGES)
_SEALABLE: Final = int(MemAllocFlags.SEALABLE)
_FIXED_PADDR: Final = int(MemAllocFlags.FIXED_PADDR)
_KNOWN: Final = _RESERVE | _SEALABLE
_MAX_ALIGN: Final = 30


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
        """Return a new object by the number of its protocol: `Proto.DATASPACE`, with size, flags and alignment.

        It is what upstream's ``alloc`` is made of; see :meth:`alloc` for what else can go wrong.

        Raises:
            NotSupported: any other protocol.
            InvalidArgument: other arguments than one to three numbers.
        """
        if protocol not in self.kinds:
            raise NotSupported(f"a memory allocator makes dataspaces, no objects of protocol {protocol}")
        if not 1 <= len(args) <= 3 or not all(isinstance(arg, int) for arg in args):
            raise InvalidArgument(f"a dataspace is made with a size, flags and an alignment, not {args!r}")
        size, flags, align = (int(arg or 0) for arg in (*args, 0, 0)[:3])
        return self.alloc(size, flags=flags, align=align)

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
        elif (there := gauge.missing(size)) is not None:
            raise OutOfMemory(f"wanted {size} bytes of memory, this machine or its cgroup can give {there}")
        fd = memfd.create(size, name)
        if wishes & _RESERVE:
            try:
                memfd.reserve(fd.fileno(), size)
                if wishes & _SUPER_PAGES:
                    memfd.make_large_pages(fd.fileno(), size)
            except BaseException:
                fd.close()
                raise
        return Dataspace(fd, size, name=name, hints=hints)

    def _hints(self, wishes: int, align: int) -> Hints:
        if wishes & _FIXED_PADDR:
            raise NotSupported("FIXED_PADDR: a Linux process cannot choose physical addresses")
        if wishes & ~_KNOWN:
            raise InvalidArgument(f"alloc() does not know the flags {wishes & ~_KNOWN:#x}")
        if not 0 <= operator.index(align) <= _MAX_ALIGN:
            raise InvalidArgument(f"align is given as log2, 0 to {_MAX_ALIGN}, not {align}")
        huge = bool(wishes & _SUPER_PAGES)
        return Hints(max(align, memfd.SUPER_PAGE_LOG2) if huge else align, huge, bool(wishes & _SEALABLE))
