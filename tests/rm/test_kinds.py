"""Kinds of regions (private, anonymous, reserved), pages made present, ranges taken out, regions left to the map."""

from __future__ import annotations

import ctypes
import errno
import faulthandler
import gc
import os
import re
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from l4re.dataspace import Dataspace
from l4re.errors import (
    AccessDenied,
    Closed,
    InvalidArgument,
    NotFound,
    NotSupported,
    OutOfMemory,
    OutOfRange,
    PermissionDenied,
)
from l4re.factory import MemAlloc
from l4re.linux import maps
from l4re.linux.memfd import PAGE_SIZE as PAGE
from l4re.rights import DetachResult
from l4re.rm import Detached, Region, RegionMap
from support.processes import Child, Link, processes

F = RegionMap.F
alloc = MemAlloc().alloc


@pytest.fixture
def ds() -> Iterator[Dataspace]:
    with alloc(4 * PAGE, name="test", flags=MemAlloc.F.SEALABLE) as ds:
        yield ds


@pytest.fixture
def rm() -> RegionMap:
    return RegionMap()


@pytest.fixture
def start() -> Iterator[Callable[..., Child]]:
    with processes() as fork:
        yield fork


def touch(addr: int, how: str) -> Callable[[Link], None]:
    """A program that touches an address and has to die of it."""

    def program(link: Link) -> None:
        faulthandler.disable()
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)  # a sanitizer has its own
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        link.say("here")
        ctypes.string_at(addr, 1) if how == "r" else ctypes.memset(addr, 1, 1)

    return program


def pages_of_its_own(region: Region) -> int:
    """How many pages of a mapping are this process's alone."""
    entry = re.compile(rf"^{region.addr:x}-.*?^Anonymous: +(\d+) kB", re.MULTILINE | re.DOTALL)
    found = entry.search(Path("/proc/self/smaps").read_text())
    assert found is not None
    return int(found[1]) * 1024 // PAGE


def used(ds: Dataspace) -> int:
    """How many pages of a dataspace exist."""
    return os.fstat(ds.fileno()).st_blocks * 512 // PAGE


# ---- private ----


def test_a_private_region_starts_as_the_dataspace_and_keeps_what_is_written(rm: RegionMap, ds: Dataspace) -> None:
    ds.write(0, b"original")
    with rm.attach(ds, flags=F.PRIVATE | F.RW) as one, rm.attach(ds, flags=F.PRIVATE | F.RW) as two:
        assert one.flags == F.PRIVATE | F.RW
        assert not one.readonly
        assert one.dataspace is ds
        assert "rw private of <Dataspace 'test'" in repr(one)
        memoryview(one)[:4] = b"mine"
        assert bytes(one)[:8] == b"mineinal"
        assert bytes(two)[:8] == ds.read(0, 8) == b"original"
        ds.write(PAGE, b"later")  # a page that nobody has copied yet shows it
        assert bytes(one)[PAGE : PAGE + 5] == b"later"
        assert pages_of_its_own(one) == 1
        array = two.ndarray(4, "u1")
        array[:] = 9
        assert bytes(two)[:4] == b"\x09" * 4
        del array


@pytest.mark.parametrize("how", ["read-only", "frozen", "published"])
def test_a_private_region_needs_no_right_to_write(rm: RegionMap, ds: Dataspace, how: str) -> None:
    ds.write(0, b"text")
    lent = ds.ro if how == "read-only" else ds
    if how == "frozen":
        ds.freeze()
    elif how == "published":
        ds.publish()
    with rm.attach(lent, flags=F.PRIVATE | F.RW) as region:
        memoryview(region)[:4] = b"note"
        assert ds.read(0, 4) == b"text"
    with rm.attach(lent, flags=F.PRIVATE | F.R) as region:
        assert region.readonly
        assert region.flags == F.PRIVATE | F.R
    with pytest.raises(PermissionDenied):
        rm.attach(lent, flags=F.RW)
    with pytest.raises(OutOfRange):
        rm.attach(lent, 5 * PAGE, flags=F.PRIVATE | F.RW)


def test_private_regions_do_not_keep_memory_from_being_frozen(rm: RegionMap, ds: Dataspace) -> None:
    with rm.attach(ds, flags=F.PRIVATE | F.RW) as region:
        ds.freeze()
        memoryview(region)[0] = 1
        assert ds.read(0, 1) == b"\0"


@pytest.mark.processes
def test_a_forked_child_has_a_copy_of_a_private_region(
    rm: RegionMap, ds: Dataspace, start: Callable[..., Child]
) -> None:
    with rm.attach(ds, flags=F.PRIVATE | F.RW) as region:
        memoryview(region)[:5] = b"here!"

        def child(link: Link) -> None:
            assert bytes(region)[:5] == b"here!"
            memoryview(region)[:5] = b"there"

        start(child).end()
        assert bytes(region)[:5] == b"here!"


# ---- anonymous ----


def test_anonymous_memory_is_zeroed_and_nobody_elses(rm: RegionMap, ds: Dataspace) -> None:
    with rm.attach(None, 5000, flags=F.ANONYMOUS | F.RW) as region:
        assert (region.size, region.mapped_size, region.flags) == (5000, 2 * PAGE, F.ANONYMOUS | F.RW)
        assert bytes(region) == bytes(5000)
        memoryview(region)[4999] = 1
        assert rm.find(region.addr) is region
        with pytest.raises(NotFound, match="no dataspace"):
            _ = region.dataspace
        assert rm.detach(region.addr) is None
    with rm.attach(ds, flags=F.ANONYMOUS | F.RW, offset=PAGE) as region:  # as upstream: what was given is not looked at
        assert region.size == ds.size - PAGE
        memoryview(region)[0] = 1
        assert ds.read(0, ds.size) == bytes(ds.size)
    for size in (None, 0, -1):
        with pytest.raises(InvalidArgument):
            rm.attach(None, size, flags=F.ANONYMOUS | F.RW)
    with pytest.raises(OutOfMemory):
        rm.attach(None, 1 << 70, flags=F.ANONYMOUS | F.RW)
    with pytest.raises(InvalidArgument, match="right"):
        rm.attach(None, PAGE, flags=F.ANONYMOUS)


# ---- reserved ----


@pytest.mark.parametrize("flag", [F.RESERVED, F.KERNEL])
def test_a_reserved_region_keeps_its_place_and_has_no_memory(rm: RegionMap, ds: Dataspace, flag: F) -> None:
    with rm.attach(None, 3 * PAGE, flags=flag) as region:
        assert (region.size, region.offset, region.flags) == (3 * PAGE, 0, flag)
        assert rm.regions() == [region]
        assert repr(region) == f"<Region at {region.addr:#x}, {3 * PAGE} bytes reserved>"
        looks: list[Callable[[], object]] = [lambda: memoryview(region), lambda: bytes(region), region.ndarray]
        for look in looks:
            with pytest.raises(BufferError, match="reserved"):
                look()
        assert [each.access for each in maps.occupants(region.addr, region.addr + region.size)] == ["---p"]
        assert rm.detach(region) is None
    with rm.attach(ds, flags=flag | F.RWX) as region:
        assert region.size == ds.size
        assert used(ds) == 0


@pytest.mark.processes
@pytest.mark.parametrize("how", ["r", "w"])
def test_touching_a_reserved_region_ends_the_program(rm: RegionMap, start: Callable[..., Child], how: str) -> None:
    with rm.attach(None, PAGE, flags=F.RESERVED) as region:
        child = start(touch(region.addr, how))
        assert child.hear() == "here"
        assert child.join() == -signal.SIGSEGV


def test_without_a_dataspace_the_flags_have_to_say_so(rm: RegionMap) -> None:
    for flags in (None, F.RW, F.PRIVATE | F.RW):
        with pytest.raises(NotFound, match="no dataspace"):
            rm.attach(None, PAGE, flags=flags)


# ---- present pages ----


def test_pages_are_made_present(rm: RegionMap, ds: Dataspace) -> None:
    with rm.attach(ds) as region:
        rm.page_in(region.addr + PAGE + 5, 1)
        assert used(ds) == 1
        rm.page_in(region.addr, 2 * PAGE + 1, F.RW)
        assert used(ds) == 3
    with rm.attach(ds, flags=F.PRIVATE | F.RW) as region:
        rm.page_in(region.addr, ds.size, F.R)
        assert pages_of_its_own(region) == 0
        rm.page_in(region.addr, ds.size - 1, F.RW)
        assert pages_of_its_own(region) == 4


def test_what_cannot_be_made_present_is_refused(rm: RegionMap, ds: Dataspace) -> None:
    with rm.reserve_area(16 * PAGE) as area:
        writer = area.attach(ds)
        reader = area.attach(ds.ro, PAGE)
        rm.page_in(writer.addr, 5 * PAGE)  # over both
        with pytest.raises(AccessDenied, match="not for this"):
            rm.page_in(writer.addr, 5 * PAGE, F.RW)
        with pytest.raises(AccessDenied):
            rm.page_in(writer.addr, 1, F.RX)
        with pytest.raises(NotFound):
            rm.page_in(writer.addr, 5 * PAGE + 1)
        with pytest.raises(NotSupported, match="no memory"), area.attach(None, PAGE, flags=F.RESERVED) as hollow:
            rm.page_in(hollow.addr, 1)
        for flags in (F.EAGER_MAP, F.R | 8, F.PRIVATE | F.R):
            with pytest.raises(InvalidArgument, match="rights"):
                rm.page_in(writer.addr, 1, flags)
        for addr, size in (((1 << 64) - PAGE, PAGE + 1), (-1, 1), (0, -1)):
            with pytest.raises(InvalidArgument, match="there are no"):
                rm.page_in(addr, size)
        rm.page_in(0, 0)  # nothing to do
        rm.page_in(0, PAGE, F.W)
        reader.detach()
        writer.detach()


@pytest.mark.parametrize(
    ("why", "error"),
    [
        (OSError(errno.EINVAL, "an older kernel"), NotSupported),
        (OSError(errno.ENOMEM, "no memory"), OutOfMemory),
        (Closed("detached by another thread just now"), NotFound),
    ],
)
def test_why_pages_cannot_be_had_is_said(
    rm: RegionMap, ds: Dataspace, monkeypatch: pytest.MonkeyPatch, why: Exception, error: type[Exception]
) -> None:
    def populate(self: Region, *args: object) -> None:
        raise why

    monkeypatch.setattr(Region, "populate", populate)
    with rm.attach(ds) as region, pytest.raises(error):
        rm.page_in(region.addr, 1)


def test_eager_mapping_copies_what_a_private_region_will_write(rm: RegionMap, ds: Dataspace) -> None:
    with rm.attach(ds, flags=F.PRIVATE | F.RW | F.EAGER_MAP) as region:
        assert pages_of_its_own(region) == 4


# ---- ranges taken out ----


def test_sizes_and_offsets_stay_exact_around_a_hole(rm: RegionMap) -> None:
    with alloc(5 * PAGE + 100) as ds:
        ds.write(0, bytes(range(1, 6)) * (PAGE + 20))
        region = rm.attach(ds, offset=PAGE)  # 4 pages and 100 bytes
        at = region.addr
        done = rm.detach_range(at + 2 * PAGE + 7, 1)
        assert done == Detached(DetachResult.SPLIT_DS, ds, at + 2 * PAGE, PAGE, done.rest)
        rest = done.rest
        assert rest is not None
        assert (region.addr, region.size, region.offset) == (at, 2 * PAGE, PAGE)
        assert (rest.addr, rest.size, rest.offset) == (at + 3 * PAGE, PAGE + 100, 4 * PAGE)
        assert (rest.flags, rest.dataspace) == (F.RW, ds)
        assert bytes(region) == ds.read(PAGE, 2 * PAGE)
        assert bytes(rest) == ds.read(4 * PAGE, PAGE + 100)
        assert len(memoryview(rest)) == PAGE + 100
        assert rm.detach_range(rest.addr + PAGE, PAGE).result == DetachResult.KEPT_DS
        assert (rest.addr, rest.size, rest.mapped_size) == (at + 3 * PAGE, PAGE, PAGE)
        assert rm.detach_range(at, 1).result == DetachResult.KEPT_DS
        assert (region.addr, region.size, region.offset) == (at + PAGE, PAGE, 2 * PAGE)
        assert rm.detach_range(at - PAGE, 10 * PAGE).result == DetachResult.DETACHED_DS | DetachResult.DETACH_AGAIN
        assert not region.mapped
        assert rm.detach_range(at - PAGE, 10 * PAGE).result == DetachResult.DETACHED_DS
        assert rm.regions() == []


def test_a_region_with_views_is_not_cut(rm: RegionMap, ds: Dataspace) -> None:
    with rm.attach(ds) as region:
        view = memoryview(region)[:1]  # of the first page, but views are of the region
        for size in (PAGE, 4 * PAGE):
            with pytest.raises(BufferError, match="1 view of"):
                rm.detach_range(region.addr + 4 * PAGE - size, size)
        assert region.size == 4 * PAGE
        assert rm.regions() == [region]
        view.release()
        del view
        gc.collect()
        rm.detach_range(region.addr + PAGE, PAGE)


def test_what_is_behind_a_hole_lives_as_long_as_the_object_it_was_part_of(rm: RegionMap, ds: Dataspace) -> None:
    region = rm.attach(ds)
    at = region.addr
    rm.detach_range(at + 2 * PAGE, PAGE)  # nobody takes the answer
    rm.detach_range(at + PAGE, 1)
    assert [each.addr - at for each in rm.regions()] == [0, 3 * PAGE]
    region.detach()
    rm.find(at + 3 * PAGE)
    del region
    gc.collect()
    assert rm.regions() == []
    assert maps.occupants(at, at + 4 * PAGE) == []


def test_a_region_may_fall_into_thousands_of_parts(rm: RegionMap) -> None:
    with alloc(10_000 * PAGE) as ds:
        region = rm.attach(ds)
        at = region.addr
        for page in range(1, 10_000, 2):
            assert rm.detach_range(at + page * PAGE, PAGE).result == (
                DetachResult.SPLIT_DS if page < 9_999 else DetachResult.KEPT_DS
            )
        assert len(rm.regions()) == 5000
        del region
        gc.collect()
        assert rm.regions() == []


def test_the_parts_of_a_region_that_was_released_stay(rm: RegionMap, ds: Dataspace) -> None:
    at = rm.attach(ds).release()
    rm.detach_range(at + PAGE, PAGE)
    gc.collect()
    assert [each.addr - at for each in rm.regions()] == [0, 2 * PAGE]
    while rm.regions():
        rm.detach_range(at, 4 * PAGE)
    assert maps.occupants(at, at + 4 * PAGE) == []


def test_empty_ranges_and_holes_are_refused(rm: RegionMap, ds: Dataspace) -> None:
    with rm.attach(ds) as region:
        for size in (0, -1):
            with pytest.raises(InvalidArgument):
                rm.detach_range(region.addr, size)
        with pytest.raises(NotFound, match="0x1000"):
            rm.detach_range(PAGE, PAGE)


def _take_pages(rm: RegionMap, at: int, pages: range, done: list[Detached]) -> None:
    for page in pages:
        done.append(rm.detach_range(at + page * PAGE, PAGE))
        rm.regions()


def test_threads_that_take_one_region_apart_share_it_fairly(rm: RegionMap) -> None:
    pages = 64
    with alloc(pages * PAGE) as ds:
        for _ in range(20):
            region = rm.attach(ds)
            at = region.addr
            done: list[Detached] = []
            threads = [threading.Thread(target=_take_pages, args=(rm, at, range(n, pages, 4), done)) for n in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(each.addr for each in done) == [at + page * PAGE for page in range(pages)]
            assert all(each.size == PAGE for each in done)
            assert rm.regions() == []
            assert not any(each.inode for each in maps.occupants(at, at + pages * PAGE))  # malloc may be there by now
            done.clear()


# ---- left to the map ----


def test_a_released_region_stays_until_it_is_detached(rm: RegionMap, ds: Dataspace) -> None:
    with rm.attach(ds) as region:
        at = region.release()
        assert at == region.release() == region.addr
    memoryview(region)[:4] = b"stay"
    del region
    gc.collect()
    found = rm.find(at)
    assert bytes(found)[:4] == b"stay"
    view = memoryview(found)
    with pytest.raises(BufferError):
        rm.detach(at)
    assert (found.kept, found.mapped) == (True, True)
    view.release()
    assert rm.detach(at) is ds
    assert (found.kept, found.mapped) == (False, False)
    with pytest.raises(Closed):
        found.release()
    del found
    gc.collect()
    assert maps.occupants(at, at + ds.size) == []


def test_a_released_region_outlives_its_map(ds: Dataspace) -> None:
    rm = RegionMap()
    at = rm.attach(ds).release()
    del rm
    gc.collect()
    (there,) = maps.occupants(at, at + ds.size)
    assert there.access == "rw-s"
    assert ctypes.string_at(at, 1) == b"\0"
    region = next(each for each in gc.get_objects() if type(each) is Region and each.mapped and each.addr == at)
    region.detach()
