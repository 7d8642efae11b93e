"""The books on this address space: what we attached, and where.

The kernel is the authority on what is free: it places what is searched, and refuses a fixed address that anybody
uses. The map keeps the order, so that an address finds its region.

What is attached is only noted, in a queue that takes no lock, and entered into the table when somebody looks. So
what lives briefly costs next to nothing. That a region was detached or died is not noted at all: whatever overlaps
a region that is mapped cannot be mapped itself, so it is taken out when the new one is entered.
"""

from __future__ import annotations

import operator
import os
import weakref
from collections import deque
from functools import cache
from threading import RLock
from typing import NamedTuple, TypeAlias

from l4re.dataspace import Dataspace
from l4re.errors import AddressNotAvailable, InvalidArgument, NotFound, PermissionDenied
from l4re.linux.memfd import PAGE_SIZE
from l4re.rights import Rights, RmFlags
from l4re.rm.ranges import RangeTable, page_floor
from l4re.rm.region import Region

__all__ = ["RegionMap", "RegionMapStats"]

_R, _W, _X = int(RmFlags.R), int(RmFlags.W), int(RmFlags.X)
_SEARCH = int(RmFlags.SEARCH_ADDR)
_EAGER = int(RmFlags.EAGER_MAP)
#: What is understood. Caching is the machine's business here, so its bits ask for nothing.
_KNOWN = _R | _W | _X | int(RmFlags.CACHING_MASK) | _SEARCH | _EAGER | int(RmFlags.NO_EAGER_MAP)
_MIN_ALIGN, _MAX_ALIGN = 12, 30
_TOP = 1 << 62
_MANY_NOTES = 64


class RegionMapStats(NamedTuple):
    """What is attached: the number of regions and the address space they occupy."""

    regions: int
    bytes: int


_maps: weakref.WeakSet[RegionMap] = weakref.WeakSet()


@cache
def _renew_in_children() -> None:
    """See to it that a forked child can use its maps even if another thread held a lock at that moment."""
    os.register_at_fork(after_in_child=_renew_all)


def _renew_all() -> None:
    for each in _maps:
        each._lock = RLock()
        each._reading = False


class RegionMap:
    """Attaches dataspaces to this process's address space.

    The map refers to regions weakly: a region that its program drops is unmapped as soon as no view of it is left.
    All methods may be called from several threads, from signal handlers and from finalizers.
    """

    F: TypeAlias = RmFlags

    def __init__(self) -> None:
        self._table: RangeTable[weakref.ref[Region]] = RangeTable()
        self._notes: deque[weakref.ref[Region]] = deque()
        self._sweep_at = _MANY_NOTES
        self._reading = False
        self._lock = RLock()
        _maps.add(self)
        _renew_in_children()

    # ---- attaching ----

    def attach(
        self,
        ds: Dataspace,
        size: int | None = None,
        *,
        flags: RmFlags | int | None = None,
        offset: int = 0,
        addr: int | None = None,
        align: int = _MIN_ALIGN,
    ) -> Region:
        """Map a part of a dataspace and return the region; the dataspace may be closed afterwards.

        Without ``size``: all from ``offset`` to the end. Without ``flags``: with the rights ``ds`` has. Without
        ``addr``: wherever there is room, at a multiple of ``1 << align`` bytes. A given ``addr`` is rounded down
        to its page. `RmFlags.EAGER_MAP` makes all pages present now.

        Raises:
            PermissionDenied: write access to a read-only, frozen or published dataspace; execution of any.
            OutOfRange: the part reaches beyond the end.
            InvalidArgument: an empty part, an offset that is no multiple of the page size, a wrong alignment,
                flags that are unknown or ask for no right.
            AddressNotAvailable: something is at ``addr``, ours or not; the text says what.
            OutOfMemory: no address space left.
            Closed: ``ds`` is closed.
        """
        if not isinstance(ds, Dataspace):
            raise TypeError(f"attach() takes a dataspace, not {ds!r}")
        writable: bool | None = None
        eager = False
        if flags is not None:
            writable, eager = self._wishes(int(flags), addr)
            if addr == 0 and int(flags) & _SEARCH:  # as upstream's programs say it
                addr = None
        if offset:
            offset = operator.index(offset)
        if size is not None:
            size = operator.index(size)
        if addr is None:
            where = 0
            if align != _MIN_ALIGN and not _MIN_ALIGN <= operator.index(align) <= _MAX_ALIGN:
                raise InvalidArgument(f"align is given as log2, {_MIN_ALIGN} to {_MAX_ALIGN}, not {align!r}")
        else:
            where = page_floor(operator.index(addr), PAGE_SIZE)
            if not 0 < where < _TOP:
                raise AddressNotAvailable(f"nothing can be attached at {addr:#x}")
        region = ds.map(Region, size, offset, writable, where, align, eager)
        region._dataspace = ds
        region._offset = offset
        region._map = self
        self._notes.append(weakref.ref(region))
        if len(self._notes) > _MANY_NOTES:
            self._update()
        return region

    def _wishes(self, flags: int, addr: int | None) -> tuple[bool, bool]:
        if flags & ~_KNOWN:
            raise InvalidArgument(f"attach() does not know {RmFlags(flags & ~_KNOWN)!r}")
        if flags & _X:
            raise PermissionDenied("the memory of a dataspace is not executable", wanted=Rights.R, held=Rights.R)
        if not flags & (_R | _W):
            raise InvalidArgument(
                "flags ask for no right: every access would fault; say RegionMap.F.R or RW, or leave the flags out"
            )
        if flags & _SEARCH and addr:
            raise InvalidArgument("SEARCH_ADDR lets the map choose: leave addr out, or leave SEARCH_ADDR out")
        return bool(flags & _W), bool(flags & _EAGER)

    # ---- detaching ----

    def detach(self, region_or_addr: Region | int) -> Dataspace:
        """Take a region out of the address space; any address inside names it. Return its dataspace.

        Raises:
            NotFound: nothing is attached there by this map.
            BufferError: views of it are alive; the text says how many. Nothing changed.
        """
        region = region_or_addr if isinstance(region_or_addr, Region) else self.find(region_or_addr)
        if region._map is not self or not region.mapped:
            raise NotFound(f"{region!r} is not attached here")
        region.unmap()
        return region.dataspace

    # ---- looking ----

    def find(self, addr: int) -> Region:
        """Return the region that covers an address.

        Raises:
            NotFound: none does.
        """
        addr = operator.index(addr)
        with self._lock:
            self._read_notes()
            there = self._table.at(addr)
        region = there[2]() if there is not None else None
        if region is not None and region.mapped:
            return region
        for region in self._noted():
            if region.address <= addr < region.address + region.mapped_size:
                return region
        raise NotFound(f"no region covers the address {addr:#x}")

    def regions(self, start: int = 0) -> list[Region]:
        """Return the regions in the order of their addresses, from the one that covers or follows ``start``."""
        with self._lock:
            self._read_notes()
            there = self._table.since(start)
        found = [region for *_, entry in there if (region := entry()) is not None and region.mapped]
        noted = [region for region in self._noted() if region.address + region.mapped_size > start]
        return sorted(found + noted, key=lambda region: region.address) if noted else found

    def stats(self) -> RegionMapStats:
        """Return how much is attached."""
        regions = self.regions()
        return RegionMapStats(len(regions), sum(region.mapped_size for region in regions))

    # ---- the table ----

    def _update(self) -> None:
        with self._lock:
            self._read_notes()

    def _noted(self) -> list[Region]:
        """Regions still on notes: of other threads just now, or all of them inside a signal handler."""
        return [region for entry in list(self._notes) if (region := entry()) is not None and region.mapped]

    def _read_notes(self) -> None:
        """Bring the table up to date; the caller holds the lock."""
        if self._reading:  # a signal handler or finalizer in the middle of the loop below
            return
        self._reading = True
        try:
            while self._notes:
                self._enter(self._notes.popleft())
            if len(self._table) > self._sweep_at:
                for start, _, entry in self._table.since():
                    if (region := entry()) is None or not region.mapped:
                        self._table.remove(start)
                self._sweep_at = 2 * len(self._table) + _MANY_NOTES
        finally:
            self._reading = False

    def _enter(self, entry: weakref.ref[Region]) -> None:
        region = entry()
        if region is None or not region.mapped:
            return
        start = region.address
        end = start + region.mapped_size
        for old, _, _ in self._table.overlapping(start, end):
            self._table.remove(old)
        self._table.add(start, end, entry)
