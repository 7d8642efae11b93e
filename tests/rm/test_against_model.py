"""The region map beside a naive model: a list of regions and a list of areas, searched page by page.

Everything happens in a window of the address space that nobody else uses. After every step the listings, the answers
of ``find``, what the kernel says of each page and what stands in it are compared.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from l4re.errors import AccessDenied, AddressNotAvailable, NotFound, NotSupported
from l4re.factory import MemAlloc
from l4re.linux import maps
from l4re.linux.memfd import PAGE_SIZE as PAGE
from l4re.rights import DetachResult
from l4re.rm import Area, Region, RegionMap

F = RegionMap.F
BASE = 0x3000_0000_0000 if platform.machine() == "x86_64" else 0x30_0000_0000
WINDOW = 12  # pages; a search may go beyond
SPACE = 12  # pages of a dataspace

PAGES = st.integers(0, WINDOW - 1)
SIZES = st.integers(1, 5)
TRIMS = st.sampled_from([0, 1, PAGE - 1])
CHOICES = st.integers(0, 1 << 16)
KINDS = st.sampled_from([F.R, F.RW, F.PRIVATE | F.R, F.PRIVATE | F.RW, F.ANONYMOUS | F.RW, F.RESERVED, F.KERNEL])
ALIGNS = st.sampled_from([12, 12, 12, 13, 14])

HOLLOW = F.RESERVED | F.KERNEL


def address(page: int) -> int:
    return BASE + page * PAGE


@dataclass(eq=False)
class Reserved:
    """What the model knows of an area: pages ``[start, end)``."""

    area: Area
    start: int
    end: int
    size: int
    flags: F


@dataclass(eq=False)
class Attached:
    """What the model knows of a region: pages ``[start, end)``, and what was written only there, by page."""

    region: Region
    start: int
    end: int
    size: int
    space: int | None
    offset: int
    flags: F
    own: dict[int, int] = field(default_factory=dict)
    views: list[memoryview] = field(default_factory=list)

    @property
    def hollow(self) -> bool:
        return bool(self.flags & HOLLOW)


class RegionMapAgainstModel(RuleBasedStateMachine):
    """All that a program can do with a region map, at addresses it can foresee."""

    def __init__(self) -> None:
        super().__init__()
        self.rm = RegionMap()
        alloc = MemAlloc().alloc
        self.spaces = [alloc(SPACE * PAGE, name="model") for _ in range(2)]
        self.inodes = [os.fstat(ds.fileno()).st_ino for ds in self.spaces]
        self.bytes: list[dict[int, int]] = [{}, {}]  # what was written, by space and page
        self.regions: list[Attached] = []
        self.areas: list[Reserved] = []
        self.numbers = count(1)

    def teardown(self) -> None:
        for entry in self.regions:
            for view in entry.views:
                view.release()
            entry.region.detach()
        for area in self.areas:
            area.area.detach()
        for ds in self.spaces:
            ds.close()
        assert maps.occupants(BASE, address(1000)) == []

    # ---- the model ----

    def region_at(self, page: int) -> Attached | None:
        return next((entry for entry in self.regions if entry.start <= page < entry.end), None)

    def area_at(self, page: int) -> Reserved | None:
        return next((area for area in self.areas if area.start <= page < area.end), None)

    def free(self, page: int, pages: int) -> bool:
        return all(self.region_at(each) is None for each in range(page, page + pages))

    def nobodys(self, page: int, pages: int) -> bool:
        return self.free(page, pages) and all(self.area_at(each) is None for each in range(page, page + pages))

    def place(self, page: int, pages: int, search: bool, inside: bool, align: int) -> int | None:
        """Where a region has to go: a page, or nowhere."""
        step = 1 << align - 12
        if not inside:
            if not search:
                return page if self.nobodys(page, pages) else None
            return next(at for at in count(page) if at % step == 0 and self.nobodys(at, pages))
        area = self.area_at(page)
        if area is None or area.flags & F.RESERVED:
            return None
        tries = range(page, area.end) if search else [page]
        fits = (at for at in tries if at + pages <= area.end and self.free(at, pages))
        return next((at for at in fits if not search or at % step == 0), None)

    # ---- attaching, reserving ----

    @rule(
        page=PAGES, pages=SIZES, trim=TRIMS, kind=KINDS, space=st.integers(0, 1), offset=st.integers(0, 4),
        search=st.booleans(), inside=st.booleans(), align=ALIGNS, inner=st.integers(0, PAGE - 1),
    )  # fmt: skip
    def attach_anyhow(
        self, page: int, pages: int, trim: int, kind: F, space: int, offset: int, search: bool, inside: bool,
        align: int, inner: int,
    ) -> None:  # fmt: skip
        self.attach(page, pages, trim, kind, space, offset, search, inside, align, inner)

    @rule(page=PAGES, pages=st.integers(2, 5), space=st.integers(0, 1), kind=st.sampled_from([F.RW, F.PRIVATE | F.RW]))
    def attach_somewhere(self, page: int, pages: int, space: int, kind: F) -> None:
        self.attach(page, pages, 0, kind, space, 1, True, False, 12, 0)

    def attach(
        self, page: int, pages: int, trim: int, kind: F, space: int, offset: int, search: bool, inside: bool,
        align: int, inner: int,
    ) -> None:  # fmt: skip
        size = pages * PAGE - trim
        alone = bool(kind & (HOLLOW | F.ANONYMOUS))
        flags = kind | (F.SEARCH_ADDR if search else 0) | (F.IN_AREA if inside else 0)

        def attach() -> Region:
            return self.rm.attach(
                None if alone else self.spaces[space], size, flags=flags, offset=offset * PAGE,
                addr=address(page) + inner, align=align,
            )  # fmt: skip

        expected = self.place(page, pages, search, inside, align)
        if expected is None:
            with pytest.raises(AddressNotAvailable):
                attach()
            return
        region = attach()
        assert region.addr == address(expected)
        self.regions.append(
            Attached(region, expected, expected + pages, size, None if alone else space, 0 if alone else offset, kind)
        )

    @precondition(lambda self: self.areas)
    @rule(choice=CHOICES, pages=SIZES, space=st.integers(0, 1))
    def attach_through_an_area(self, choice: int, pages: int, space: int) -> None:
        area = self.areas[choice % len(self.areas)]
        expected = self.place(area.start, pages, True, True, 12)
        if expected is None:
            with pytest.raises(AddressNotAvailable):
                area.area.attach(self.spaces[space], pages * PAGE)
            return
        region = area.area.attach(self.spaces[space], pages * PAGE)
        assert region.addr == address(expected)
        self.regions.append(Attached(region, expected, expected + pages, pages * PAGE, space, 0, F.RW))

    @rule(
        page=PAGES, pages=st.integers(1, 8), trim=TRIMS, search=st.booleans(), align=ALIGNS,
        kind=st.sampled_from([F.NONE, F.NONE, F.NONE, F.RESERVED, F.KERNEL]),
    )  # fmt: skip
    def reserve(self, page: int, pages: int, trim: int, search: bool, align: int, kind: F) -> None:
        flags = kind | (F.SEARCH_ADDR if search else 0)
        size = pages * PAGE - trim
        expected = self.place(page, pages, search, False, align)
        if expected is None:
            with pytest.raises(AddressNotAvailable):
                self.rm.reserve_area(size, flags=flags, addr=address(page), align=align)
            return
        area = self.rm.reserve_area(size, flags=flags, addr=address(page), align=align)
        assert area.addr == address(expected)
        self.areas.append(Reserved(area, expected, expected + pages, size, kind))

    @precondition(lambda self: self.areas)
    @rule(choice=CHOICES, how=st.integers(0, 2), distance=CHOICES)
    def free_area(self, choice: int, how: int, distance: int) -> None:
        area = self.areas.pop(choice % len(self.areas))
        match how:
            case 0:
                area.area.detach()
            case 1:
                self.rm.free_area(area.area)
            case 2:
                self.rm.free_area(address(area.start) + distance % ((area.end - area.start) * PAGE))

    # ---- detaching ----

    @precondition(lambda self: self.regions)
    @rule(choice=CHOICES, how=st.integers(0, 4), distance=CHOICES)
    def detach(self, choice: int, how: int, distance: int) -> None:
        entry = self.regions[choice % len(self.regions)]
        if entry.views:
            with pytest.raises(BufferError):
                self.rm.detach(entry.region)
            return
        self.regions.remove(entry)
        inside = address(entry.start) + distance % ((entry.end - entry.start) * PAGE)
        match how:
            case 0:
                entry.region.detach()
            case 1:
                assert self.rm.detach(entry.region) is (None if entry.space is None else self.spaces[entry.space])
            case 2:
                self.rm.detach(inside)
            case 3:  # forgotten by the program, and kept until it is detached
                at = entry.region.release()
                entry.region = None  # type: ignore[assignment]
                assert self.rm.find(at).addr == at
                self.rm.detach(inside)
            case 4:
                with entry.region:
                    pass

    @precondition(lambda self: self.regions)
    @rule(
        choice=CHOICES, before=st.integers(-1, 2), pages=st.integers(1, 8), inner=st.integers(0, PAGE - 1), trim=TRIMS
    )
    def detach_range(self, choice: int, before: int, pages: int, inner: int, trim: int) -> None:
        self.take_out(self.regions[choice % len(self.regions)].start - before, pages, inner, trim)

    @precondition(lambda self: any(entry.end - entry.start > 1 and not entry.views for entry in self.regions))
    @rule(choice=CHOICES, first=CHOICES, pages=SIZES)
    def detach_a_part(self, choice: int, first: int, pages: int) -> None:
        large = [entry for entry in self.regions if entry.end - entry.start > 1 and not entry.views]
        entry = large[choice % len(large)]
        length = entry.end - entry.start
        first %= length
        self.take_out(entry.start + first, min(pages, length - first), 0, 0)

    def take_out(self, page: int, pages: int, inner: int, trim: int) -> None:
        start, last = address(page) + inner, address(page + pages) - trim
        if start >= last:
            return
        hits = sorted((e for e in self.regions if e.start < page + pages and page < e.end), key=lambda e: e.start)
        if not hits:
            with pytest.raises(NotFound):
                self.rm.detach_range(start, last - start)
            return
        entry = hits[0]
        if entry.views:
            with pytest.raises(BufferError):
                self.rm.detach_range(start, last - start)
            return
        done = self.rm.detach_range(start, last - start)
        begin, end = max(page, entry.start), min(page + pages, entry.end)
        assert (done.addr, done.size) == (address(begin), (end - begin) * PAGE)
        assert done.dataspace is (None if entry.space is None else self.spaces[entry.space])
        assert bool(done.result & DetachResult.DETACH_AGAIN) == (len(hits) > 1)
        self.cut(entry, begin, end, done.result & DetachResult.RESULT_MASK, done.rest)

    def cut(self, entry: Attached, begin: int, end: int, result: DetachResult, rest: Region | None) -> None:
        self.regions.remove(entry)
        parts = []
        for first, last in ((entry.start, begin), (end, entry.end)):
            if first < last:
                before = (first - entry.start) * PAGE
                own = {page: value for page, value in entry.own.items() if first <= page < last}
                offset = entry.offset + first - entry.start
                size = min(entry.size - before, (last - first) * PAGE)
                parts.append(Attached(entry.region, first, last, size, entry.space, offset, entry.flags, own))
        expected = (DetachResult.DETACHED_DS, DetachResult.KEPT_DS, DetachResult.SPLIT_DS)[len(parts)]
        assert result == expected
        assert (rest is not None) == (len(parts) == 2)
        if rest is not None:
            parts[1].region = rest
        if not parts:
            assert not entry.region.mapped
        self.regions += parts

    # ---- looking, touching ----

    @precondition(lambda self: self.regions)
    @rule(choice=CHOICES)
    def look(self, choice: int) -> None:
        entry = self.regions[choice % len(self.regions)]
        if entry.hollow:
            with pytest.raises(BufferError, match="reserved"):
                memoryview(entry.region)
        else:
            entry.views.append(memoryview(entry.region))

    @precondition(lambda self: any(entry.views for entry in self.regions))
    @rule(choice=CHOICES)
    def look_away(self, choice: int) -> None:
        seen = [entry for entry in self.regions if entry.views]
        seen[choice % len(seen)].views.pop().release()

    @rule(page=PAGES)
    def write(self, page: int) -> None:
        entry = self.region_at(page)
        if entry is None or entry.hollow:
            return
        value = next(self.numbers) % 251 + 1
        with memoryview(entry.region) as view:
            if not entry.flags & F.W:
                with pytest.raises(TypeError):
                    view[0] = 1
                return
            view[(page - entry.start) * PAGE] = value
        if entry.flags & (F.PRIVATE | F.ANONYMOUS):
            entry.own[page] = value
        else:
            assert entry.space is not None
            self.bytes[entry.space][entry.offset + page - entry.start] = value

    @rule(space=st.integers(0, 1), page=st.integers(0, SPACE - 1))
    def write_below(self, space: int, page: int) -> None:
        value = next(self.numbers) % 251 + 1
        self.spaces[space].write(page * PAGE, bytes([value]))
        self.bytes[space][page] = value

    @rule(page=PAGES, pages=SIZES, flags=st.sampled_from([F.R, F.RW, F.W, F.NONE]))
    def page_in(self, page: int, pages: int, flags: F) -> None:
        def page_in() -> None:
            self.rm.page_in(address(page), pages * PAGE, flags)

        wrong: type[Exception] | None = None
        for each in range(page, page + pages) if flags & F.R else ():
            entry = self.region_at(each)
            if entry is None:
                wrong = NotFound
            elif entry.hollow:
                wrong = NotSupported
            elif flags & F.W and not entry.flags & F.W:
                wrong = AccessDenied
            if wrong is not None:
                break
        if wrong is not None:
            with pytest.raises(wrong):
                page_in()
            return
        page_in()
        for each in range(page, page + pages) if flags == F.RW else ():
            entry = self.region_at(each)
            assert entry is not None
            if entry.flags & F.PRIVATE:  # from here on it has a page of its own
                entry.own.setdefault(each, self.contents(entry, each))

    def contents(self, entry: Attached, page: int) -> int:
        if page in entry.own or entry.space is None:
            return entry.own.get(page, 0)
        return self.bytes[entry.space].get(entry.offset + page - entry.start, 0)

    # ---- what must hold ----

    @invariant()
    def same_regions(self) -> None:
        regions = sorted(self.regions, key=lambda entry: entry.start)
        assert self.rm.regions() == [entry.region for entry in regions]
        for entry in regions:
            region = entry.region
            assert (region.addr, region.size, region.mapped_size, region.offset, region.flags) == (
                address(entry.start), entry.size, (entry.end - entry.start) * PAGE,
                entry.offset * PAGE if entry.space is not None else region.offset, entry.flags,
            )  # fmt: skip
            assert region.exports == len(entry.views)
        areas = sorted(self.areas, key=lambda area: area.start)
        assert self.rm.areas() == [area.area for area in areas]
        for area in areas:
            assert (area.area.addr, area.area.size, area.area.flags) == (
                address(area.start), area.size, area.flags | F.IN_AREA,
            )  # fmt: skip
        assert self.rm.stats() == (
            len(regions), sum(entry.end - entry.start for entry in regions) * PAGE, len(areas)
        )  # fmt: skip

    @invariant()
    def same_answers(self) -> None:
        regions = sorted(self.regions, key=lambda entry: entry.start)
        areas = sorted(self.areas, key=lambda area: area.start)
        for page in range(WINDOW + 2):
            at = address(page)
            entry, area = self.region_at(page), self.area_at(page)
            if entry is not None:
                assert self.rm.find(at) is self.rm.find(at + PAGE - 1) is entry.region
            elif area is not None:
                assert self.rm.find(at) is self.rm.find(at + PAGE - 1) is area.area
            else:
                for call in (self.rm.find, self.rm.detach, self.rm.free_area):
                    with pytest.raises(NotFound):
                        call(at)
            assert self.rm.regions(at) == [entry.region for entry in regions if entry.end > page]
            assert self.rm.areas(at) == [area.area for area in areas if area.end > page]
        for area in areas:
            inside = [entry.region for entry in regions if entry.end > area.start and entry.start < area.end]
            assert area.area.regions() == inside

    @invariant()
    def same_contents(self) -> None:
        for entry in self.regions:
            if entry.hollow:
                continue
            data = bytes(entry.region)
            for page in range(entry.start, entry.end):
                assert data[(page - entry.start) * PAGE] == self.contents(entry, page)

    @invariant()
    def same_pages(self) -> None:
        expected: dict[int, tuple[str, int]] = {}
        for area in self.areas:
            expected |= dict.fromkeys(range(area.start, area.end), ("---p", 0))
        for entry in self.regions:
            rights = "---" if entry.hollow else "rw-" if entry.flags & F.W else "r--"
            shared = "p" if entry.hollow or entry.flags & (F.PRIVATE | F.ANONYMOUS) else "s"
            inode = 0 if entry.space is None else self.inodes[entry.space]
            expected |= dict.fromkeys(range(entry.start, entry.end), (rights + shared, inode))
        found: dict[int, tuple[str, int]] = {}
        for occupant in maps.occupants(BASE, address(1000)):
            pages = range((occupant.start - BASE) // PAGE, (occupant.end - BASE) // PAGE)
            found |= dict.fromkeys(pages, (occupant.access, occupant.inode))
        assert found == expected


RegionMapAgainstModel.TestCase.settings = settings(deadline=None, max_examples=40, stateful_step_count=50)
TestRegionMapAgainstModel = RegionMapAgainstModel.TestCase
