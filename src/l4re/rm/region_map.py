"""The region map of this process: attaching, detaching, finding.

The kernel is the authority on what is free: it places what is searched, and refuses a fixed address that anybody
uses. Inside an area, where nobody but this map places anything, the area's own books are. The map keeps the order,
so that an address finds its region.
"""

from __future__ import annotations

import errno
import operator
from collections.abc import Callable
from functools import lru_cache
from itertools import takewhile
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

from l4re.dataspace import Dataspace
from l4re.errors import (
    AccessDenied,
    AddressNotAvailable,
    Closed,
    InvalidArgument,
    L4Error,
    NotFound,
    NotSupported,
    OutOfMemory,
    PermissionDenied,
)
from l4re.linux import maps
from l4re.linux.memfd import PAGE_SIZE, Mapping
from l4re.rights import DetachResult, Rights, RmFlags
from l4re.rm.area import Area
from l4re.rm.books import Books
from l4re.rm.ranges import page_ceil, page_floor
from l4re.rm.region import Region

__all__ = ["Attachable", "Detached", "RegionMap", "RegionMapStats"]

_R, _W, _X = int(RmFlags.R), int(RmFlags.W), int(RmFlags.X)
_SEARCH, _IN_AREA = int(RmFlags.SEARCH_ADDR), int(RmFlags.IN_AREA)
_PRIVATE, _ANONYMOUS = int(RmFlags.PRIVATE), int(RmFlags.ANONYMOUS)
_RESERVED, _KERNEL, _PAGER = int(RmFlags.RESERVED), int(RmFlags.KERNEL), int(RmFlags.PAGER)
_EAGER = int(RmFlags.EAGER_MAP)
#: What keeps a place and has no memory.
_HOLLOW = _RESERVED | _KERNEL
#: What needs no dataspace.
_ALONE = _HOLLOW | _ANONYMOUS
_KIND = _ALONE | _PRIVATE
#: What is understood. Caching is the machine's business here, so its bits ask for nothing.
_KNOWN = (
    _R | _W | _X | int(RmFlags.CACHING_MASK) | _KIND | _PAGER | _SEARCH | _IN_AREA | _EAGER | int(RmFlags.NO_EAGER_MAP)
)
_AREA_FLAGS = _SEARCH | _HOLLOW
_MIN_ALIGN, _MAX_ALIGN = 12, 63
_TOP = 1 << 62
_WRAP = 1 << 64

M = TypeVar("M", bound=Mapping)


class RegionMapStats(NamedTuple):
    """What is attached: regions, the address space they occupy in bytes, and the number of areas."""

    regions: int
    bytes: int
    areas: int = 0


class Detached(NamedTuple):
    """What `RegionMap.detach_range` did: to whom, and which addresses are free now.

    ``rest`` is the part behind the hole, after SPLIT_DS. It is a region of its own, and lives at least as long as
    the object of the region that it was a part of.
    """

    result: DetachResult
    dataspace: Dataspace | None
    addr: int
    size: int
    rest: Region | None


class _Wish(NamedTuple):
    """What the flags of an attach ask for."""

    writable: bool | None = None
    eager: bool = False
    kind: int = 0
    search: bool = False
    inside: bool = False
    special: bool = False  # needs more than shared memory of a dataspace


_PLAIN = _Wish()


class Attachable(Protocol):
    """What knows itself how it is attached: a dataspace that a program serves, or a window on one."""

    @property
    def size(self) -> int: ...

    @property
    def rights(self) -> Rights: ...

    def _l4_attach_to(
        self, rm: RegionMap, size: int | None, flags: RmFlags | int | None, offset: int, addr: int | None, align: int
    ) -> Region: ...


@lru_cache(maxsize=64)
def _wish(flags: int) -> _Wish:
    if flags & ~_KNOWN:
        raise InvalidArgument(f"attach() does not know {RmFlags(flags & ~_KNOWN)!r}")
    if flags & _PAGER:
        raise NotSupported("PAGER asks a capability at every page fault; here memory comes from dataspaces only")
    kind, search, inside = flags & _KIND, bool(flags & _SEARCH), bool(flags & _IN_AREA)
    if kind & _HOLLOW:
        return _Wish(False, False, kind & _HOLLOW, search, inside, True)
    if flags & _X:
        raise PermissionDenied("the memory of a dataspace is not executable", wanted=Rights.R, held=Rights.R)
    if not flags & (_R | _W):
        raise InvalidArgument(
            "flags ask for no right: every access would fault; say RegionMap.F.R or RW, or leave the flags out"
        )
    return _Wish(bool(flags & _W), bool(flags & _EAGER), kind, search, inside, bool(kind or inside))


def _size_alone(ds: Dataspace | Attachable | None, size: int | None, wish: _Wish, offset: int) -> int:
    """Return the size of a region without a dataspace, if it may be one."""
    if ds is not None and not isinstance(ds, Dataspace) and not hasattr(ds, "_l4_attach_to"):
        raise TypeError(f"attach() takes a dataspace, not {ds!r}")
    if not wish.kind & _ALONE:
        raise NotFound("no dataspace to attach; only RESERVED, KERNEL and ANONYMOUS regions do without")
    if size is None:
        if ds is None:
            raise InvalidArgument("a region without a dataspace needs a size")
        size = ds.size - offset
    _check_size(size)
    return size


def _check_size(size: int) -> None:
    if size <= 0:
        raise InvalidArgument(f"cannot reserve {size} bytes")
    if size > _TOP:
        raise OutOfMemory(f"no room to map {size} bytes: no address space has so many")


def _check_align(align: int) -> None:
    if not _MIN_ALIGN <= operator.index(align) <= _MAX_ALIGN:
        raise InvalidArgument(f"align is given as log2, {_MIN_ALIGN} to {_MAX_ALIGN}, not {align!r}")


def _placed(place: Callable[[int], M], size: int, addr: int | None, search: bool, align: int) -> M:
    """Map outside of areas: anywhere (``place(0)``), at an address, or at the lowest free one from there."""
    where = 0 if addr is None else page_floor(operator.index(addr), PAGE_SIZE)
    inside = 0 < where < _TOP
    if addr is None or (search and not inside):  # upstream's programs say 0 for anywhere
        return place(0)
    if not inside:
        raise AddressNotAvailable(f"nothing can be attached at {addr:#x}")
    if not search:
        return place(where)
    for hole in takewhile(_TOP.__gt__, maps.holes(where, size, 1 << align)):
        try:
            return place(hole)
        except AddressNotAvailable:  # somebody came first, or the address space ends before
            pass
    raise AddressNotAvailable(f"no room for {size} bytes from {where:#x} up")


def _map_alone(
    kind: type[M], size: int, wish: _Wish, addr: int, align: int, area: Area | None = None, search: bool = False
) -> M:
    """Map without a dataspace: nothing, or memory of this process."""
    private = bool(wish.kind & _ANONYMOUS)
    try:
        return kind(-1, size, 0, bool(wish.writable), addr, align, wish.eager, False, private, area, search)
    except OSError as error:
        raise maps.refusal(error, size, addr) from error


class RegionMap:
    """Attaches dataspaces to this process's address space.

    The map refers to regions and areas weakly: one that its program drops is unmapped as soon as no view of it is
    left; `Region.release` leaves it where it is. All methods may be called from several threads, from signal handlers
    and from finalizers.
    """

    F: TypeAlias = RmFlags

    def __init__(self) -> None:
        self._regions: Books[Region] = Books()
        self._areas: Books[Area] = Books()

    # ---- attaching ----

    def attach(
        self,
        ds: Dataspace | Attachable | None,
        size: int | None = None,
        *,
        flags: RmFlags | int | None = None,
        offset: int = 0,
        addr: int | None = None,
        align: int = _MIN_ALIGN,
    ) -> Region:
        """Map a part of a dataspace and return the region; the dataspace may be closed afterwards.

        A dataspace that another program serves (`RemoteDataspace`) is asked for a window, and so may fail as a call
        does; a `Window` is attached as if it was all there is.

        Without ``size``: all from ``offset`` to the end. Without ``flags``: with the rights ``ds`` has. Without
        ``addr``: wherever there is room, at a multiple of ``1 << align`` bytes. A given ``addr`` is rounded down
        to its page, and the region is there or nowhere; with SEARCH_ADDR it is at the lowest free address from there.

        Flags (`RmFlags`), beside R and W: EAGER_MAP makes all pages present now. IN_AREA places the region in the area
        that ``addr`` is in; without it no region gets into an area. PRIVATE copies what is written, page by page: the
        writes stay in this process and need no right to write. RESERVED and KERNEL need no dataspace: the region has
        no memory and keeps its addresses free. ANONYMOUS needs none either: zeroed memory of this process alone.

        Raises:
            PermissionDenied: write access to a read-only, frozen or published dataspace; execution of any.
            OutOfRange: the part reaches beyond the end.
            InvalidArgument: an empty part, an offset that is no multiple of the page size, a wrong alignment,
                flags that are unknown or ask for no right, no size without a dataspace.
            NotFound: no dataspace, and the flags need one.
            NotSupported: PAGER: nobody is asked at page faults.
            AddressNotAvailable: something is at ``addr``, ours or not (the text says what), no area is there, or the
                area is full.
            OutOfMemory: no address space left, or as many mappings as the kernel allows (the text says so).
            Closed: ``ds`` is closed.
        """
        wish = _PLAIN if flags is None else _wish(int(flags))
        if offset:
            offset = operator.index(offset)
        if size is not None:
            size = operator.index(size)
        if not isinstance(ds, Dataspace) or wish.kind & _ALONE:
            if not wish.kind & _ALONE and (attach_to := getattr(ds, "_l4_attach_to", None)) is not None:
                region: Region = attach_to(self, size, flags, offset, addr, align)
                return region
            size = _size_alone(ds, size, wish, offset)
            ds = None
        if align != _MIN_ALIGN:
            _check_align(align)
        if addr is None and ds is not None and not wish.special:  # what most want, and quickly
            region = ds.map(Region, size, offset, wish.writable, 0, align, wish.eager)
        else:
            region = self._attach_at(ds, size, wish, offset, addr, align)
        region._dataspace = ds
        region._kind = wish.kind
        region._map = self
        self._regions.note(region)
        return region

    def _attach_at(
        self, ds: Dataspace | None, size: int | None, wish: _Wish, offset: int, addr: int | None, align: int
    ) -> Region:
        def place(at: int, inside: Area | None = None, search: bool = False) -> Region:
            if ds is None:
                return _map_alone(Region, size or 0, wish, at, align, inside, search)
            return ds.map(
                Region, size, offset, wish.writable, at, align, wish.eager, wish.kind == _PRIVATE, inside, search
            )

        if not wish.inside:
            if ds is not None:
                align = max(align, ds.hints.align)
            length = ds.size - offset if ds is not None and size is None else size or 0
            return _placed(place, length, addr, wish.search, align)
        area = self._area_at(addr)
        if area._kind & _RESERVED:
            raise AddressNotAvailable(f"{area!r} is RESERVED: no region can be placed in it")
        return place(page_floor(operator.index(addr or 0), PAGE_SIZE), area, wish.search)

    def _area_at(self, addr: int | None) -> Area:
        if addr is None:
            raise AddressNotAvailable(
                "IN_AREA is for the area that addr is in: say addr=area.addr with SEARCH_ADDR, or area.attach(ds)"
            )
        area = self._areas.at(operator.index(addr))
        if area is None:
            raise AddressNotAvailable(f"there is no area at {addr:#x}")
        return area

    # ---- areas ----

    def reserve_area(
        self, size: int, *, flags: RmFlags | int | None = None, addr: int | None = None, align: int = _MIN_ALIGN
    ) -> Area:
        """Keep a range of addresses free for regions that are attached with IN_AREA, and return it.

        Nothing else gets in, neither plain regions nor memory of other libraries. It costs no memory. Place and
        ``align`` as with `attach`; the flags may be SEARCH_ADDR, RESERVED (no regions in it either) and KERNEL.

        Raises:
            InvalidArgument: an empty area, a wrong alignment, other flags.
            AddressNotAvailable: something is at ``addr``: a region, an area, or what is not ours.
            OutOfMemory: no address space left, or as many mappings as the kernel allows.
        """
        bits = 0 if flags is None else int(flags)
        if bits & ~_AREA_FLAGS:
            raise InvalidArgument(f"reserve_area() does not take {RmFlags(bits & ~_AREA_FLAGS)!r}")
        size = operator.index(size)
        _check_size(size)
        _check_align(align)
        if addr is not None:
            size += operator.index(addr) % PAGE_SIZE  # all that was asked for, from the start of its page
        wish = _Wish(writable=False, kind=bits & _HOLLOW)
        area = _placed(lambda at: _map_alone(Area, size, wish, at, align), size, addr, bool(bits & _SEARCH), align)
        area._dataspace = None
        area._kind = wish.kind
        area._map = self
        self._areas.note(area)
        return area

    def free_area(self, area_or_addr: Area | int) -> None:
        """Free an area, named by itself or any address in it. Regions inside stay where they are.

        Raises:
            NotFound: there is none.
        """
        area = area_or_addr if isinstance(area_or_addr, Area) else self._areas.at(operator.index(area_or_addr))
        if area is None or area._map is not self or not area.mapped:
            what = repr(area) if area is not None else f"{area_or_addr:#x}"
            raise NotFound(f"no area of this map: {what}")
        area.detach()

    def areas(self, start: int = 0) -> list[Area]:
        """Return the areas in the order of their addresses, from the one that covers or follows ``start``."""
        return self._areas.since(operator.index(start))

    # ---- detaching ----

    def detach(self, region_or_addr: Region | int) -> Dataspace | None:
        """Take a region out of the address space; any address inside names it.

        Return its dataspace; None for a region that has none.

        Raises:
            NotFound: nothing is attached there by this map.
            BufferError: views of it are alive; the text says how many. Nothing changed.
        """
        region = region_or_addr if isinstance(region_or_addr, Region) else self._region_at(region_or_addr)
        if region._map is not self or not region.mapped or isinstance(region, Area):
            raise NotFound(f"{region!r} is not attached here")
        region.detach()
        return region._dataspace

    def detach_range(self, addr: int, size: int) -> Detached:
        """Take the pages of a range out of the lowest region that it hits, and of no other.

        The region is detached if the range covers it. Otherwise the object goes on as what is left in front of the
        hole, or, if nothing is, behind it: with another address, offset and size. What is left behind a hole in the
        middle is a region of its own. Views show whole regions, so a region with views is not cut. The result has
        DETACH_AGAIN if the range hits another region.

        Raises:
            InvalidArgument: an empty range.
            NotFound: the range hits no region.
            BufferError: views of the region are alive; the text says how many. Nothing changed.
            OutOfMemory: the hole would take one mapping more than the kernel allows. Nothing changed.
        """
        addr, size = operator.index(addr), operator.index(size)
        if size <= 0:
            raise InvalidArgument(f"cannot detach {size} bytes")
        start, end = page_floor(addr, PAGE_SIZE), page_ceil(addr + size, PAGE_SIZE)
        with self._regions.lock:
            while hits := self._regions.first_two(start, end):
                again = DetachResult.DETACH_AGAIN if hits[1:] else DetachResult.DETACHED_DS
                try:
                    return self._cut(hits[0], start, end, again)
                except Closed:  # another thread detached it just now
                    pass
        raise NotFound(f"no region shares an address with {start:#x}-{end:#x}")

    def _cut(self, region: Region, start: int, end: int, again: DetachResult) -> Detached:
        at, length = region.addr, region.mapped_size
        first, last = max(0, start - at), min(length, end - at)
        if last - first == length:
            region.detach()
            return Detached(DetachResult.DETACHED_DS | again, region._dataspace, at, length, None)
        self._regions.note(region)  # for a signal handler that fills the hole; once more for those that looked before
        try:
            rest = region.cut(first, last)
        except OSError as error:
            raise maps.refusal(error, last - first) from error
        self._regions.note(region)
        if rest is not None:
            rest._dataspace, rest._kind, rest._map = region._dataspace, region._kind, self
            if hasattr(region, "_rest"):
                rest._rest = region._rest
            region._rest = rest
            self._regions.note(rest)
        result = DetachResult.KEPT_DS if rest is None else DetachResult.SPLIT_DS
        return Detached(result | again, region._dataspace, at + first, last - first, rest)

    # ---- looking ----

    def find(self, addr: int) -> Region:
        """Return the region that covers an address; where there is none, the area, whose flags have IN_AREA.

        Raises:
            NotFound: neither does.
        """
        addr = operator.index(addr)
        found = self._regions.at(addr) or self._areas.at(addr)
        if found is None:
            raise NotFound(f"no region covers the address {addr:#x}")
        return found

    def _region_at(self, addr: int) -> Region:
        region = self._regions.at(operator.index(addr))
        if region is None:
            raise NotFound(f"no region covers the address {addr:#x}")
        return region

    def regions(self, start: int = 0) -> list[Region]:
        """Return the regions in the order of their addresses, from the one that covers or follows ``start``."""
        return self._regions.since(operator.index(start))

    def page_in(self, addr: int, size: int, flags: RmFlags | int = RmFlags.R) -> None:
        """Make the pages of a range present, for reading (R) or writing (RW), so that no access waits for them.

        A range of no bytes is no work, and so are flags without R. A private region copies the pages it is to write.

        Raises:
            InvalidArgument: flags that are not rights, or addresses that there cannot be.
            NotFound: a part of the range is in no region.
            AccessDenied: a region lacks the right.
            NotSupported: a region is reserved: there is no memory. Or the kernel cannot do it (before Linux 5.14).
            OutOfMemory: the pages cannot be had.
        """
        bits = int(flags)
        addr, size = operator.index(addr), operator.index(size)
        if bits & ~(_R | _W | _X):
            raise InvalidArgument(f"page_in() takes rights only, not {RmFlags(bits)!r}")
        if addr < 0 or size < 0 or addr + size > _WRAP:
            raise InvalidArgument(f"there are no {size} bytes at {addr:#x}")
        if not size or not bits & _R:
            return
        at, end = page_floor(addr, PAGE_SIZE), page_ceil(addr + size, PAGE_SIZE)
        parts: list[tuple[Region, int, int]] = []
        while at < end:
            region = self._region_at(at)
            if region.hollow:
                raise NotSupported(f"there is no memory in {region!r}")
            if bits & _X or (bits & _W and region.readonly):
                raise AccessDenied(f"{region!r} is not for this", wanted=Rights.RW, held=Rights.R)
            start = region.address
            last = min(end - start, region.mapped_size)
            parts.append((region, at - start, last))
            at = start + last
        for region, first, last in parts:
            try:
                region.populate(first, last, bool(bits & _W))
            except (Closed, OSError) as error:
                raise _not_present(error, region) from error

    def stats(self) -> RegionMapStats:
        """Return how much is attached."""
        regions = self.regions()
        return RegionMapStats(len(regions), sum(region.mapped_size for region in regions), len(self.areas()))


def _not_present(error: Closed | OSError, region: Region) -> L4Error:
    if isinstance(error, Closed):
        return NotFound(f"{region!r} was detached meanwhile")
    if error.errno == errno.EINVAL:
        return NotSupported("making pages present takes Linux 5.14")
    return OutOfMemory(f"the pages of {region!r} cannot be had: {error.strerror}")
