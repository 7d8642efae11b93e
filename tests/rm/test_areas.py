"""Areas: nobody gets in uninvited, and what was lent comes back."""

from __future__ import annotations

import gc
import mmap
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from l4re._native.leaf import Mapping
from l4re.dataspace import Dataspace
from l4re.errors import (
    AddressNotAvailable,
    Closed,
    InvalidArgument,
    NotFound,
    OutOfMemory,
    OutOfRange,
    PermissionDenied,
)
from l4re.factory import MemAlloc
from l4re.linux import maps
from l4re.linux.memfd import PAGE_SIZE as PAGE
from l4re.rm import Area, Region, RegionMap, RegionMapStats
from support.alarms import alarms
from support.processes import Child, Link, processes

F = RegionMap.F
alloc = MemAlloc().alloc
IN = F.RW | F.IN_AREA
LARGE = 8 << 20  # mapped and unmapped without the GIL
MAPPINGS = int(Path("/proc/sys/vm/max_map_count").read_text())


@pytest.fixture
def ds() -> Iterator[Dataspace]:
    with alloc(4 * PAGE, name="test") as ds:
        yield ds


@pytest.fixture
def rm() -> RegionMap:
    return RegionMap()


@pytest.fixture
def start() -> Iterator[Callable[..., Child]]:
    with processes() as fork:
        yield fork


def access(area: Area) -> str:
    """What the kernel allows in each part of an area, in order; nothing may be missing."""
    first, last = area.address, area.address + area.mapped_size
    found = maps.occupants(first, last)
    ends = [first, *(min(each.end, last) for each in found)]
    assert all(max(each.start, first) == end for each, end in zip(found, ends, strict=False)), found
    assert ends[-1] == last
    return " ".join(each.access for each in found)


def is_free(addr: int, size: int) -> bool:
    return maps.occupants(addr, addr + size) == []


# ---- nobody gets in ----


def test_an_area_has_addresses_and_no_memory(rm: RegionMap) -> None:
    with rm.reserve_area(5000) as area:
        assert (area.size, area.mapped_size, area.flags) == (5000, 2 * PAGE, F.IN_AREA)
        assert access(area) == "---p"
        assert repr(area) == f"<Area at {area.addr:#x}, 5000 bytes>"
        assert rm.areas() == [area]
        assert rm.find(area.addr + PAGE) is area
        assert rm.regions() == area.regions() == []
        assert rm.stats() == RegionMapStats(0, 0, 1)
        with pytest.raises(BufferError, match="reserved"):
            memoryview(area)
        with pytest.raises(BufferError):
            area.ndarray(1)
        with pytest.raises(NotFound, match="no dataspace"):
            _ = area.dataspace
    assert is_free(area.address, area.mapped_size)
    assert repr(area) == "<Area 5000 bytes freed>"


def test_an_area_may_be_as_large_as_the_address_space_allows(rm: RegionMap, ds: Dataspace) -> None:
    with rm.reserve_area(1 << 42, align=30) as area:
        assert area.addr % (1 << 30) == 0
        with area.attach(ds, addr=area.addr + (1 << 41)) as region:
            memoryview(region)[0] = 1
    with pytest.raises(OutOfMemory):
        rm.reserve_area(1 << 60)
    with pytest.raises(OutOfMemory):
        rm.reserve_area(1 << 70)


def test_searches_and_fixed_attaches_stay_out(rm: RegionMap, ds: Dataspace) -> None:
    # Where the kernel would put the next mapping, so that it is tempted.
    with rm.reserve_area(64 * PAGE) as area:
        first, last = area.addr, area.addr + area.size
        regions = [rm.attach(ds, align=align) for align in (12, 12, 16, 21) for _ in range(20)]
        others = [mmap.mmap(-1, PAGE) for _ in range(50)]
        for region in regions:
            assert not first <= region.addr < last
        for addr in (first, first + PAGE + 3, last - PAGE, first - PAGE):
            with pytest.raises(AddressNotAvailable):
                rm.attach(ds, addr=addr)
        assert access(area) == "---p"
        for region in regions:
            region.detach()
        for other in others:
            other.close()


def test_a_search_from_an_address_passes_over_an_area(rm: RegionMap, ds: Dataspace) -> None:
    with rm.reserve_area(8 * PAGE) as area, rm.attach(ds, flags=F.RW | F.SEARCH_ADDR, addr=area.addr + 5) as region:
        assert region.addr >= area.addr + area.size
        with rm.attach(ds, flags=F.RW | F.SEARCH_ADDR, addr=region.addr, align=21) as other:
            assert other.addr > region.addr
            assert other.addr % (1 << 21) == 0


# ---- who is invited ----


def test_regions_go_to_the_lowest_free_place(rm: RegionMap, ds: Dataspace) -> None:
    with rm.reserve_area(16 * PAGE) as area:
        regions = [area.attach(ds) for _ in range(4)]
        assert [region.addr - area.addr for region in regions] == [0, 4 * PAGE, 8 * PAGE, 12 * PAGE]
        with pytest.raises(AddressNotAvailable, match="no room for 16384 bytes in this area"):
            area.attach(ds)
        regions[1].detach()
        with area.attach(ds, PAGE) as small, area.attach(ds, 2 * PAGE, align=13) as aligned:
            assert small.addr == area.addr + 4 * PAGE
            assert aligned.addr % (2 * PAGE) == 0
            assert area.addr + 4 * PAGE < aligned.addr < area.addr + 8 * PAGE
            assert area.regions() == [regions[0], small, aligned, *regions[2:]]
        memoryview(regions[3])[:5] = b"hello"
        assert ds.read(0, 5) == b"hello"
        for region in regions:
            region.detach()
        assert access(area) == "---p"


def test_flags_and_an_address_say_which_area(rm: RegionMap, ds: Dataspace) -> None:
    with rm.reserve_area(8 * PAGE) as area:
        with (
            rm.attach(ds, PAGE, flags=IN | F.SEARCH_ADDR, addr=area.addr + 2 * PAGE) as searched,
            rm.attach(ds, PAGE, flags=IN, addr=area.addr + 5 * PAGE + 7) as fixed,
        ):
            assert searched.addr == area.addr + 2 * PAGE
            assert fixed.addr == area.addr + 5 * PAGE
            assert (searched.flags, fixed.flags) == (F.RW, F.RW)
            for addr in (fixed.addr, area.addr + 7 * PAGE):
                with pytest.raises(AddressNotAvailable):
                    rm.attach(ds, 2 * PAGE, flags=IN, addr=addr)
        with pytest.raises(AddressNotAvailable, match="no area"):
            rm.attach(ds, PAGE, flags=IN | F.SEARCH_ADDR, addr=area.addr + 8 * PAGE)
        with pytest.raises(AddressNotAvailable, match=r"area\.attach"):
            rm.attach(ds, PAGE, flags=IN | F.SEARCH_ADDR)
        with pytest.raises(AddressNotAvailable, match="not in"):
            area.attach(ds, addr=area.addr + 8 * PAGE)


def test_a_region_in_an_area_has_the_rights_of_its_dataspace(rm: RegionMap, ds: Dataspace) -> None:
    with rm.reserve_area(32 * PAGE) as area:
        with area.attach(ds.ro) as reader, area.attach(ds) as writer, area.attach(ds, flags=F.R) as other:
            assert (reader.flags, writer.flags, other.flags) == (F.R, F.RW, F.R)
            assert access(area) == "r--s rw-s r--s ---p"
        ds.freeze()
        with area.attach(ds) as frozen:
            assert frozen.readonly


def test_a_reserved_area_takes_nobody(rm: RegionMap, ds: Dataspace) -> None:
    with rm.reserve_area(8 * PAGE, flags=F.RESERVED) as area:
        assert area.flags == F.RESERVED | F.IN_AREA
        with pytest.raises(AddressNotAvailable, match="RESERVED"):
            area.attach(ds)
        with pytest.raises(AddressNotAvailable, match="RESERVED"):
            rm.attach(ds, flags=IN | F.SEARCH_ADDR, addr=area.addr)
    with rm.reserve_area(8 * PAGE, flags=F.KERNEL) as area, area.attach(ds):
        assert area.flags == F.KERNEL | F.IN_AREA


# ---- reserving ----


def test_a_place_can_be_asked_for(rm: RegionMap, ds: Dataspace) -> None:
    with rm.reserve_area(16 * PAGE) as area:
        at = area.addr
    with rm.reserve_area(4 * PAGE, addr=at) as first:
        assert first.addr == at
        with pytest.raises(AddressNotAvailable):
            rm.reserve_area(4 * PAGE, addr=at + 3 * PAGE)
        with rm.reserve_area(PAGE, addr=at, flags=F.SEARCH_ADDR) as second:
            assert second.addr == at + 4 * PAGE
        with rm.reserve_area(PAGE, addr=at + 5 * PAGE + 100) as third:  # all bytes asked for, from the page's start
            assert (third.addr, third.size, third.mapped_size) == (at + 5 * PAGE, PAGE + 100, 2 * PAGE)
    with rm.attach(ds) as region, pytest.raises(AddressNotAvailable):
        rm.reserve_area(PAGE, addr=region.addr)
    with pytest.raises(AddressNotAvailable):
        rm.reserve_area(PAGE, addr=id(object()))  # something that is not ours


@pytest.mark.parametrize("flags", [F.EAGER_MAP, F.IN_AREA, F.R, F.PRIVATE, 1 << 30])
def test_other_flags_are_refused(rm: RegionMap, flags: int) -> None:
    with pytest.raises(InvalidArgument, match="does not take"):
        rm.reserve_area(PAGE, flags=flags)


@pytest.mark.parametrize("size", [0, -1])
def test_an_empty_area_is_refused(rm: RegionMap, size: int) -> None:
    with pytest.raises(InvalidArgument, match="reserve"):
        rm.reserve_area(size)


def test_an_alignment_out_of_range_is_refused(rm: RegionMap) -> None:
    for align in (0, 11, 64):
        with pytest.raises(InvalidArgument, match="log2"):
            rm.reserve_area(PAGE, align=align)


# ---- freeing ----


def test_regions_outlive_their_area(rm: RegionMap, ds: Dataspace) -> None:
    area = rm.reserve_area(12 * PAGE)
    at = area.addr
    region = area.attach(ds, 2 * PAGE, addr=at + 4 * PAGE)
    memoryview(region)[0] = 7
    rm.free_area(at + 4 * PAGE)  # an address of the region, too
    assert rm.areas() == []
    assert is_free(at, 4 * PAGE)
    assert is_free(at + 6 * PAGE, 6 * PAGE)
    assert rm.find(at + 5 * PAGE) is region
    assert bytes(region)[0] == 7
    for call in (lambda: area.attach(ds), lambda: area.addr):
        with pytest.raises(Closed):
            call()
    with rm.attach(ds, PAGE, addr=at + 3 * PAGE):
        done = rm.detach_range(at + 5 * PAGE, PAGE)
        assert done.addr == at + 5 * PAGE
        assert is_free(at + 5 * PAGE, PAGE)
    region.detach()
    assert is_free(at, 12 * PAGE)


def test_only_areas_of_this_map_are_freed(rm: RegionMap, ds: Dataspace) -> None:
    with rm.reserve_area(PAGE) as area, rm.attach(ds) as region:
        for wrong in (region.addr, area.addr + PAGE, 0):
            with pytest.raises(NotFound):
                rm.free_area(wrong)
        with pytest.raises(NotFound):
            RegionMap().free_area(area)
        for way in (area, area.addr):
            with pytest.raises(NotFound):
                rm.detach(way)
        with pytest.raises(NotFound):
            rm.detach_range(area.addr, PAGE)
        rm.free_area(area)
        with pytest.raises(NotFound):
            rm.free_area(area)


def test_an_area_that_is_dropped_goes_with_the_last_region_inside(rm: RegionMap, ds: Dataspace) -> None:
    area = rm.reserve_area(8 * PAGE)
    at = area.addr
    view = memoryview(area.attach(ds))
    del area
    gc.collect()
    (still,) = rm.areas()
    assert access(still) == "rw-s ---p"
    del still
    view[0] = 1
    del view
    gc.collect()
    assert rm.areas() == rm.regions() == []
    assert is_free(at, 8 * PAGE)


def test_an_area_that_was_released_stays(rm: RegionMap, ds: Dataspace) -> None:
    with rm.reserve_area(4 * PAGE) as area:
        at = area.release()
    del area
    gc.collect()
    with rm.attach(ds, flags=IN, addr=at):
        pass
    rm.free_area(at)
    gc.collect()
    assert is_free(at, 4 * PAGE)


def test_an_array_keeps_its_place_in_a_freed_area(rm: RegionMap, ds: Dataspace) -> None:
    area = rm.reserve_area(8 * PAGE)
    array = area.attach(ds).ndarray(8, "u1")
    at = area.addr
    area.detach()
    array[:] = 3
    assert np.all(array == 3)
    assert not is_free(at, PAGE)
    del array
    assert is_free(at, 8 * PAGE)


def test_an_attach_that_is_refused_leaves_the_area_whole(rm: RegionMap, ds: Dataspace) -> None:
    ds.publish()
    with rm.reserve_area(8 * PAGE) as area:
        for addr in (None, area.addr + PAGE):
            with pytest.raises(PermissionDenied, match="published"):
                area.attach(ds, flags=F.RW, addr=addr)
            with pytest.raises(OutOfRange):
                area.attach(ds, 5 * PAGE, addr=addr)
        assert access(area) == "---p"
        with area.attach(ds) as region:
            assert region.addr == area.addr
    assert is_free(area.address, 8 * PAGE)


@pytest.mark.skipif(MAPPINGS > 300_000, reason="this system allows so many mappings that it takes too long")
def test_at_the_limit_of_mappings_areas_stay_whole_and_the_error_names_it() -> None:
    code = """
import sys
from l4re import MemAlloc, OutOfMemory, RegionMap
from l4re.linux import maps
F, rm, ds = RegionMap.F, RegionMap(), MemAlloc().alloc(4 * 4096)
area = rm.reserve_area(64 * 4096)
region = area.attach(ds)
addr, regions = region.addr, []
joined = [area.attach(ds, 4096, offset=n * 4096, addr=area.addr + (40 + n) * 4096) for n in range(3)]
limit = int(open("/proc/sys/vm/max_map_count").read())
try:
    while len(regions) <= limit:
        regions.append(rm.attach(ds, 4096))
except OutOfMemory as error:
    assert f"vm.max_map_count allows {limit}" in str(error), error
calls = {
    "attach in an area": lambda: area.attach(ds),
    "attach at an address": lambda: rm.attach(ds, addr=area.addr - (1 << 40)),
    "reserve": lambda: rm.reserve_area(1 << 30, align=30),
    "cut": lambda: rm.detach_range(addr + 4096, 4096),
    "detach one of three that are one mapping to the kernel": lambda: joined[1].detach(),
}
for name, call in calls.items():
    try:
        for _ in range(8):
            regions.append(call())
    except OutOfMemory as error:
        assert "max_map_count" in str(error), error
        print(name)
for each in (region, joined[1]):
    assert rm.find(each.addr) is each and bytes(each) == bytes(each.size)
while len(regions) > 100:  # there is no memory for a slice
    regions.pop()
print(area.attach(ds).addr == addr + region.mapped_size)
for each in (region, *joined):
    each.detach()
print({each.access[:3] for each in maps.occupants(area.addr, area.addr + area.size)})
again = [area.attach(ds) for _ in range(16)]
print(bytes(again[0]) == bytes(4 * 4096), len(area.regions()))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "attach in an area",
        "attach at an address",
        "reserve",
        "cut",
        "detach one of three that are one mapping to the kernel",
        "True",
        "{'---'}",
        "True 16",
    ]


# ---- the leaf ----


def test_the_leaf_takes_no_wrong_host(ds: Dataspace) -> None:
    host, memory = Mapping(-1, 8 * PAGE), Mapping(ds.fileno(), PAGE)
    guest = Mapping(-1, 2 * PAGE, host=host, addr=host.address)
    for wrong in (memory, guest):
        with pytest.raises(ValueError, match="without memory"):
            Mapping(ds.fileno(), PAGE, host=wrong, search=True)
    with pytest.raises(TypeError, match="host"):
        Mapping(ds.fileno(), PAGE, host=5)  # type: ignore[arg-type]
    with pytest.raises(FileExistsError):
        Mapping(ds.fileno(), PAGE, host=host, addr=host.address + PAGE)
    for addr, size in (
        (host.address - PAGE, PAGE),
        (host.address + 8 * PAGE, PAGE),
        (host.address + 7 * PAGE, 2 * PAGE),
    ):
        with pytest.raises(OSError, match="Cannot assign"):
            Mapping(ds.fileno(), size, host=host, addr=addr)
    with pytest.raises(ValueError, match="host to other mappings"):
        host.cut(0, PAGE)
    guest.unmap()
    with pytest.raises(ValueError, match="beyond the end"):
        Mapping(ds.fileno(), 5 * PAGE, host=host, search=True)
    host.unmap()
    with pytest.raises(ValueError, match="unmapped"):
        Mapping(ds.fileno(), PAGE, host=host, search=True)
    memory.unmap()


def test_the_leaf_cuts_whole_pages_off_what_is_mapped(ds: Dataspace) -> None:
    mapping = Mapping(ds.fileno(), 4 * PAGE)
    for first, last in ((0, 4 * PAGE), (1, PAGE), (0, 1), (PAGE, PAGE), (2 * PAGE, PAGE), (-PAGE, PAGE), (0, 5 * PAGE)):
        with pytest.raises(ValueError, match="cannot cut"):
            mapping.cut(first, last)
    for first, last in ((0, 5 * PAGE), (1, PAGE), (PAGE, PAGE), (-PAGE, PAGE)):
        with pytest.raises(ValueError, match="no pages"):
            mapping.populate(first, last, False)
    mapping.unmap()
    calls: list[Callable[[], object]] = [
        lambda: mapping.cut(0, PAGE),
        lambda: mapping.populate(0, PAGE, False),
        mapping.keep,
    ]
    for call in calls:
        with pytest.raises(ValueError, match="unmapped"):
            call()


def test_many_guests_are_kept_apart_whatever_comes_and_goes() -> None:
    """The leaf's runs beside a set of pages."""
    draw = random.Random(5)
    pages = 200
    host = Mapping(-1, pages * PAGE)
    taken: dict[int, Mapping] = {}
    occupied: set[int] = set()
    for _ in range(4000):
        if taken and draw.random() < 0.48:
            at = draw.choice(list(taken))
            gone = taken.pop(at)
            occupied -= set(range(at, at + gone.mapped_size // PAGE))
            gone.unmap()
            continue
        length, start, step = draw.randint(1, 6), draw.randrange(pages), draw.choice([1, 1, 2, 8])
        base = host.address // PAGE
        places = (
            at for at in range(start, pages - length + 1)
            if (base + at) % step == 0 and occupied.isdisjoint(range(at, at + length))
        )  # fmt: skip
        expected = next(places, None)
        address, align = host.address + start * PAGE, 12 + step.bit_length() - 1
        if expected is None:
            with pytest.raises(OSError, match="Cannot assign"):
                Mapping(-1, length * PAGE, addr=address, align=align, host=host, search=True)
            continue
        guest = Mapping(-1, length * PAGE, addr=address, align=align, host=host, search=True)
        assert (guest.address - host.address) // PAGE == expected
        taken[expected] = guest
        occupied |= set(range(expected, expected + length))
    host.unmap()
    first, last = host.address, host.address + pages * PAGE
    held = {
        (page - first) // PAGE
        for each in maps.occupants(first, last)
        for page in range(max(each.start, first), min(each.end, last), PAGE)
    }
    assert held == occupied
    taken.clear()
    del guest, gone
    assert is_free(first, pages * PAGE)


# ---- threads, signals, forks ----


def test_threads_share_an_area_and_nobody_loses_memory(rm: RegionMap) -> None:
    """Large regions go without the GIL: a search in another thread must not take what is not given back yet."""
    area = rm.reserve_area(10 * LARGE)
    errors: list[BaseException] = []
    barrier = threading.Barrier(6)

    def work(number: int) -> None:
        try:
            with alloc(LARGE) as ds:
                barrier.wait()
                for turn in range(40):
                    size = LARGE if turn % 3 else PAGE
                    region = area.attach(ds, size)
                    view = memoryview(region)
                    mark = bytes([number, turn])
                    view[:2] = mark
                    view[size - 2 :] = mark
                    assert rm.find(region.addr + size - 1) is region
                    assert bytes(view[:2]) == bytes(view[size - 2 :]) == mark == ds.read(0, 2)
                    view.release()
                    if turn % 2:
                        region.detach()
                    del region
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert area.regions() == []
    assert access(area) == "---p"
    area.detach()
    assert is_free(area.address, area.mapped_size)


def _drop(regions: list[Region], barrier: threading.Barrier) -> None:
    barrier.wait()
    regions.clear()  # each is unmapped here, without the GIL


def test_an_area_that_is_freed_while_its_regions_go_leaves_nothing(rm: RegionMap) -> None:
    with alloc(LARGE) as ds:
        ds.write(0, b"x" * LARGE)
        for turn in range(30):
            area = rm.reserve_area(4 * LARGE)
            regions = [area.attach(ds, flags=F.RW | F.EAGER_MAP) for _ in range(3)]
            barrier = threading.Barrier(2)

            thread = threading.Thread(target=_drop, args=(regions.copy(), barrier))
            thread.start()
            regions.clear()
            barrier.wait()
            if turn % 2:
                area.detach()
            at, size = area.address, area.mapped_size
            del area
            thread.join()
            gc.collect()
            assert is_free(at, size)


def test_a_signal_handler_may_use_areas_at_any_point(rm: RegionMap, ds: Dataspace) -> None:
    area = rm.reserve_area(64 * PAGE)

    def handler() -> None:
        with area.attach(ds, 3 * PAGE) as region, rm.reserve_area(PAGE) as other:
            assert rm.find(region.addr + PAGE) is region
            assert rm.find(other.addr) is other
            take_apart(region)

    def take_apart(region: Region) -> None:
        rest = rm.detach_range(region.addr + PAGE, PAGE).rest
        assert rest is not None
        assert rm.find(region.addr) is region
        assert rm.find(rest.addr) is rest
        rest.detach()

    with alarms(handler) as seen:
        while seen() < 300:
            regions = [area.attach(ds, 3 * PAGE) for _ in range(8)]
            for region in regions:
                take_apart(region)
                region.detach()
            rm.reserve_area(PAGE).detach()
    assert rm.regions() == []
    assert rm.areas() == [area]
    assert access(area) == "---p"
    area.detach()


@pytest.mark.processes
def test_a_forked_child_has_an_area_of_its_own(rm: RegionMap, ds: Dataspace, start: Callable[..., Child]) -> None:
    with rm.reserve_area(16 * PAGE) as area, area.attach(ds) as region:

        def child(link: Link) -> None:
            rm.detach(region)
            first, second = area.attach(ds), area.attach(ds)
            assert (first.addr, second.addr) == (area.addr, area.addr + 4 * PAGE)
            memoryview(second)[:5] = b"child"
            rm.free_area(area)

        start(child).end()
        assert bytes(region)[:5] == b"child"
        assert access(area) == "rw-s ---p"
