"""The checkable claims on L4Re's dataspaces, region map and allocator, by number.

Where this package differs from L4Re the test says what happens instead and why; claims that belong to later parts
(quotas, services) are not here yet.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import os
import resource
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest

from l4re import DataspaceServer, Proto, RegistryServer, RemoteDataspace
from l4re.dataspace import Dataspace
from l4re.errors import (
    AccessDenied,
    AddressNotAvailable,
    Closed,
    Err,
    InvalidArgument,
    L4Error,
    NotFound,
    OutOfRange,
    PermissionDenied,
)
from l4re.factory import MemAlloc
from l4re.linux.memfd import PAGE_SIZE as PAGE
from l4re.linux.memfd import Mapping
from l4re.rights import DetachResult, DsFlags, Rights
from l4re.rm import Region, RegionMap
from support.processes import Child, Link, Running, processes

F = RegionMap.F
alloc = MemAlloc().alloc
SIZE = 3 * PAGE + 10


@pytest.fixture
def ds() -> Iterator[Dataspace]:
    with alloc(SIZE) as ds:
        yield ds


@pytest.fixture
def rm() -> RegionMap:
    return RegionMap()


@pytest.fixture
def start() -> Iterator[Callable[..., Child]]:
    with processes() as fork:
        yield fork


def die_quietly() -> None:
    """For a child that is about to fault."""
    faulthandler.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@contextmanager
def another_provider(memory: Dataspace | None = None, rights: Rights = Rights.RW) -> Iterator[RemoteDataspace]:
    """A dataspace that a server provides, through a capability with these rights."""
    with RegistryServer() as server, memory or alloc(SIZE) as shown:
        local: Any = server.registry.register_obj(DataspaceServer(shown))
        with local.mint(rights=rights) as gate, Running(server):
            yield RemoteDataspace(gate)


def code_of(call: Callable[[], object]) -> int:
    """The error code of a call that must fail."""
    with pytest.raises(L4Error) as caught:
        call()
    return int(caught.value.code)


# ---- dataspace ----


def test_claim_01_a_fresh_dataspace_reads_as_zeros(rm: RegionMap, ds: Dataspace) -> None:
    assert ds.read(0, SIZE) == bytes(SIZE)
    with rm.attach(ds) as region:
        assert bytes(region) == bytes(SIZE)


def test_claim_02_the_size_is_the_one_asked_for(ds: Dataspace) -> None:
    assert ds.size == SIZE


def test_claim_03_size_and_flags_of_a_void_capability_raise_here_instead_of_being_zero(ds: Dataspace) -> None:
    ds.close()
    with pytest.raises(Closed):
        _ = ds.size
    with pytest.raises(Closed):
        _ = ds.flags


def test_claim_04_a_fresh_dataspace_has_r_and_w_but_never_x_here(ds: Dataspace) -> None:
    assert ds.flags == DsFlags.RW


def test_claim_05_without_w_no_w_is_reported(ds: Dataspace) -> None:
    assert ds.ro.flags == ds.ro.info().flags == DsFlags.R
    for rights, flags in ((Rights.RW, DsFlags.RW), (Rights.R, DsFlags.R)):
        with another_provider(rights=rights) as remote:
            assert remote.flags == remote.info().flags == flags


def test_claim_06_clear_without_w_gives_eaccess_and_changes_nothing(ds: Dataspace) -> None:
    ds.write(0, b"keep")
    assert code_of(lambda: ds.ro.clear(0, 4)) == Err.EACCESS
    with another_provider(ds.dup(), Rights.R) as remote:
        assert code_of(lambda: remote.clear(0, 4)) == Err.EACCESS
    assert ds.read(0, 4) == b"keep"


def test_claim_07_clear_of_a_huge_size_zeroes_to_the_end(ds: Dataspace) -> None:
    ds.write(0, b"x" * SIZE)
    ds.clear(0, 1 << 62)
    assert ds.read(0, SIZE) == bytes(SIZE)
    ds.write(0, b"x" * SIZE)
    with another_provider(ds.dup()) as remote:
        remote.clear(0, (1 << 64) - 1)
    assert ds.read(0, SIZE) == bytes(SIZE)


def test_claim_08_clear_behind_the_last_page_gives_erange(ds: Dataspace) -> None:
    assert code_of(lambda: ds.clear(4 * PAGE, 1)) == Err.ERANGE
    assert ds.clear(4 * PAGE - 1, 1) == 0
    with another_provider() as remote:
        assert code_of(lambda: remote.clear(4 * PAGE, 1)) == Err.ERANGE
        remote.clear(4 * PAGE - 1, 1)


def test_claim_09_copy_in_without_w_gives_eaccess(ds: Dataspace) -> None:
    assert code_of(lambda: ds.ro.copy_in(0, ds, 0, 1)) == Err.EACCESS
    assert code_of(lambda: ds.ro.copy_in(0, None, 0, 1)) == Err.EACCESS  # type: ignore[arg-type]
    with another_provider(rights=Rights.R) as remote:
        assert code_of(lambda: remote.copy_in(0, ds, 0, 1)) == Err.EACCESS


def test_claim_10_copy_in_from_another_provider_gives_einval(ds: Dataspace) -> None:
    assert code_of(lambda: ds.copy_in(0, object(), 0, 1)) == Err.EINVAL  # type: ignore[arg-type]
    with another_provider() as remote:
        assert code_of(lambda: ds.copy_in(0, remote, 0, 1)) == Err.EINVAL  # type: ignore[arg-type]
        assert code_of(lambda: remote.copy_in(0, remote, 0, 1)) == Err.EINVAL  # type: ignore[arg-type]
        request = struct.pack("=i4xQQQ", 3, 0, 0, 1)
        label, *_ = remote._l4_transact(Proto.DATASPACE, request, b"", (remote.cap,))
        assert label == -Err.EINVAL


@pytest.mark.parametrize("size", [SIZE, (3 << 20) + 5])
def test_claim_11_copy_in_is_a_snapshot(rm: RegionMap, size: int) -> None:
    with alloc(size) as ds, alloc(size) as source, rm.attach(ds) as copy, rm.attach(source) as original:
        for at in range(0, size, PAGE):
            memoryview(original)[at] = 1
        ds.copy_in(0, source, 0, size)
        for at in range(0, size, PAGE):
            memoryview(original)[at] = 2
        assert set(bytes(memoryview(copy)[::PAGE])) == {1}
        for at in range(0, size, PAGE):
            memoryview(copy)[at] = 3
        assert set(bytes(memoryview(original)[::PAGE])) == {2}


@pytest.mark.processes
def test_claim_11_holds_against_the_process_that_the_source_is_from(
    rm: RegionMap, ds: Dataspace, start: Callable[..., Child]
) -> None:
    def owner(link: Link) -> None:
        with alloc(SIZE) as mine, RegionMap().attach(mine) as region:
            with memoryview(region) as view:
                view[:5] = b"first"
                link.give(mine)
                link.hear()
                view[:5] = b"later"
            link.say("changed")

    child = start(owner)
    (source,) = child.take()
    with source:
        ds.copy_in(0, source, 0, SIZE)
        child.say("copied")
        assert child.hear() == "changed"
        assert (ds.read(0, 5), source.read(0, 5)) == (b"first", b"later")
    child.end()


def test_claim_12_copy_in_copies_exactly_those_bytes(ds: Dataspace) -> None:
    with alloc(100) as source:
        source.write(0, bytes(range(100)))
        ds.write(0, b"\xee" * SIZE)
        assert ds.copy_in(PAGE - 7, source, 13, 20) == 20
        assert ds.read(PAGE - 8, 22) == b"\xee" + bytes(range(13, 33)) + b"\xee"
        assert ds.copy_in(SIZE - 5, source, 0, 100) == 5  # cut at the end, silently as there
        assert ds.copy_in(0, source, 95, 100) == 5


def test_claim_13_mapping_for_writing_without_w_gives_eperm(ds: Dataspace) -> None:
    assert code_of(lambda: ds.ro.map(Mapping, writable=True)) == Err.EPERM
    with another_provider(rights=Rights.R) as remote:
        for flags in (DsFlags.W, DsFlags.RW):
            assert code_of(lambda flags=flags: remote.map(0, 0, flags, PAGE)) == Err.EPERM  # type: ignore[misc]
        assert code_of(lambda: RegionMap().attach(remote, flags=F.RW)) == Err.EPERM
        assert remote.map(0, 0, DsFlags.R, PAGE).dataspace.rights == Rights.R


def test_claim_14_mapping_behind_the_end_gives_erange(ds: Dataspace) -> None:
    assert code_of(lambda: ds.map(Mapping, PAGE, 4 * PAGE)) == Err.ERANGE
    with another_provider() as remote:
        assert code_of(lambda: remote.map(4 * PAGE, 0, DsFlags.R, PAGE)) == Err.ERANGE
        assert code_of(lambda: RegionMap().attach(remote, PAGE, offset=4 * PAGE)) == Err.ERANGE
        assert remote.map(3 * PAGE, 0, DsFlags.R, PAGE).size == 10


@pytest.mark.processes
def test_claim_15_two_processes_share_one_dataspace_and_nothing_else(
    rm: RegionMap, ds: Dataspace, start: Callable[..., Child]
) -> None:
    def other(link: Link) -> None:
        got, second = link.take()
        with RegionMap().attach(got) as region:
            view = memoryview(region)
            link.say(bytes(view[:5]).decode())
            view[:5] = b"there"
            view.release()
        second.write(0, b"other")

    child = start(other)
    with rm.attach(ds) as region, alloc(SIZE) as second:
        memoryview(region)[:5] = b"here!"
        child.give(ds, second)
        assert child.hear() == "here!"
        child.end()
        assert bytes(region)[:5] == b"there"
        assert second.read(0, 5) == b"other"


def test_claim_16_what_is_inside_can_be_reserved_and_no_byte_more(ds: Dataspace) -> None:
    assert ds.allocate(0, SIZE) is None  # type: ignore[func-returns-value]
    assert os.fstat(ds.fileno()).st_blocks * 512 == 4 * PAGE
    assert code_of(lambda: ds.allocate(SIZE, 1)) == Err.ERANGE
    assert code_of(lambda: ds.allocate(0, SIZE + 1)) == Err.ERANGE


def test_claim_17_a_custom_dataspace_neither_copies_nor_reserves_by_default(ds: Dataspace) -> None:
    with another_provider() as remote:
        assert code_of(lambda: remote.copy_in(0, ds, 0, 1)) == Err.ENODEV
        assert code_of(lambda: remote.allocate(0, 1)) == Err.ENODEV


# ---- region map ----


def test_claim_18_a_search_finds_a_free_page_aligned_range(rm: RegionMap, ds: Dataspace) -> None:
    regions = [rm.attach(ds) for _ in range(10)]
    ends = sorted((region.addr, region.addr + region.mapped_size) for region in regions)
    assert all(start % PAGE == 0 for start, _ in ends)
    assert all(end <= start for (_, end), (start, _) in pairwise(ends))
    for region in regions:
        region.detach()


def test_claim_19_align_21_gives_a_multiple_of_two_mebibytes(rm: RegionMap, ds: Dataspace) -> None:
    with rm.attach(ds, align=21) as region:
        assert region.addr % (2 << 20) == 0


def test_claim_20_attaching_nothing_gives_einval(rm: RegionMap, ds: Dataspace) -> None:
    assert code_of(lambda: rm.attach(ds, 0)) == Err.EINVAL


def test_claim_21_attaching_one_byte_takes_one_page(rm: RegionMap, ds: Dataspace) -> None:
    with rm.attach(ds, 1) as region:
        assert region.mapped_size == PAGE
        assert rm.find(region.addr + PAGE - 1) is region
        assert len(memoryview(region)) == 1  # the buffer is exact here


def free_address(rm: RegionMap, ds: Dataspace) -> int:
    with rm.attach(ds) as region:
        return region.addr


def test_claim_22_a_fixed_attach_starts_at_its_page(rm: RegionMap, ds: Dataspace) -> None:
    addr = free_address(rm, ds)
    with rm.attach(ds, addr=addr + 5) as region:
        assert region.addr == addr


def test_claim_23_a_fixed_attach_over_a_region_gives_eaddrnotavail(rm: RegionMap, ds: Dataspace) -> None:
    with rm.attach(ds) as region:
        for addr in (region.addr, region.addr + PAGE):
            assert code_of(lambda addr=addr: rm.attach(ds, addr=addr)) == Err.EADDRNOTAVAIL  # type: ignore[misc]
        with pytest.raises(AddressNotAvailable):
            rm.attach(ds, addr=region.addr - PAGE)
        memoryview(region)[0] = 1
        assert bytes(region)[0] == 1


def test_claim_24_a_fixed_attach_in_an_area_takes_in_area(rm: RegionMap, ds: Dataspace) -> None:
    with rm.reserve_area(16 * PAGE) as area:
        addr = area.addr + PAGE
        assert code_of(lambda: rm.attach(ds, addr=addr)) == Err.EADDRNOTAVAIL
        with rm.attach(ds, addr=addr, flags=F.RW | F.IN_AREA) as region:
            assert region.addr == addr
            memoryview(region)[0] = 1


def test_claim_25_searches_stay_outside_or_inside_of_areas(rm: RegionMap, ds: Dataspace) -> None:
    with rm.reserve_area(64 * PAGE) as area:
        inside = range(area.addr, area.addr + area.size)
        outer = [rm.attach(ds, flags=F.RW | F.SEARCH_ADDR) for _ in range(40)]
        outer += [rm.attach(ds, flags=F.RW | F.SEARCH_ADDR, addr=inside.start) for _ in range(4)]
        inner = [rm.attach(ds, flags=F.RW | F.SEARCH_ADDR | F.IN_AREA, addr=inside.start + 5 * PAGE) for _ in range(14)]
        assert not any(region.addr in inside or region.addr + SIZE in inside for region in outer)
        assert all(region.addr in inside and region.addr + SIZE in inside for region in inner)
        for region in (*outer, *inner):
            region.detach()


def test_claim_26_a_full_area_gives_eaddrnotavail(rm: RegionMap, ds: Dataspace) -> None:
    with rm.reserve_area(4 * PAGE) as area, area.attach(ds):
        flags = F.RW | F.SEARCH_ADDR | F.IN_AREA
        assert code_of(lambda: rm.attach(ds, PAGE, flags=flags, addr=area.addr)) == Err.EADDRNOTAVAIL


def test_claim_27_unknown_flags_give_einval(rm: RegionMap, ds: Dataspace) -> None:
    assert code_of(lambda: rm.attach(ds, flags=F.RW | 1 << 25)) == Err.EINVAL


def test_claim_28_attaching_a_closed_capability_raises_closed_here(rm: RegionMap, ds: Dataspace) -> None:
    ds.close()
    with pytest.raises(Closed):
        rm.attach(ds)
    assert code_of(lambda: rm.attach(None, PAGE)) == Err.ENOENT


def test_claim_29_a_reserved_region_needs_no_dataspace(rm: RegionMap) -> None:
    with rm.attach(None, PAGE, flags=F.RESERVED) as region:
        assert rm.find(region.addr).flags == F.RESERVED
        with pytest.raises(BufferError):
            memoryview(region)


@pytest.mark.processes
def test_claim_29_touching_a_reserved_region_faults(rm: RegionMap, start: Callable[..., Child]) -> None:
    with rm.attach(None, PAGE, flags=F.RESERVED) as region:

        def peek(link: Link) -> None:
            die_quietly()
            ctypes.string_at(region.addr, 1)

        assert start(peek).join() == -signal.SIGSEGV


def test_claim_30_a_read_only_region_cannot_be_written(rm: RegionMap, ds: Dataspace) -> None:
    ds.write(0, b"data")
    with rm.attach(ds, flags=F.R) as region:
        assert bytes(region)[:4] == b"data"
        with pytest.raises(TypeError):
            memoryview(region)[0] = 1


@pytest.mark.processes
def test_claim_30_writing_past_the_buffer_protocol_faults(
    rm: RegionMap, ds: Dataspace, start: Callable[..., Child]
) -> None:
    def poke(link: Link) -> None:
        die_quietly()
        region = rm.attach(ds, flags=F.R)
        ctypes.memset(region.addr, 1, 1)

    assert start(poke).join() == -signal.SIGSEGV
    assert ds.read(0, 1) == b"\0"


def test_claim_31_an_offset_shows_a_later_page(rm: RegionMap, ds: Dataspace) -> None:
    ds.write(PAGE, b"second")
    with rm.attach(ds, offset=PAGE) as region:
        assert bytes(region)[:6] == b"second"
        assert region.size == SIZE - PAGE


def test_claim_32_two_regions_of_one_dataspace_show_the_same(rm: RegionMap, ds: Dataspace) -> None:
    with rm.attach(ds) as one, rm.attach(ds) as two:
        assert one.addr != two.addr
        memoryview(one)[3] = 42
        assert bytes(two)[3] == 42


def test_claim_33_a_region_outlives_the_capability(rm: RegionMap, ds: Dataspace) -> None:
    with rm.attach(ds) as region:
        ds.close()
        memoryview(region)[0] = 1
        assert bytes(region)[0] == 1


def test_claim_34_find_tells_all_about_a_region(rm: RegionMap, ds: Dataspace) -> None:
    with rm.attach(ds, 2 * PAGE, offset=PAGE, flags=F.R) as region:
        found = rm.find(region.addr + PAGE + 7)
        assert (found.addr, found.size, found.offset, found.flags) == (region.addr, 2 * PAGE, PAGE, F.R)
        assert found.dataspace is ds


def test_claim_35_find_in_a_hole_gives_enoent_and_in_an_empty_area_the_area(rm: RegionMap, ds: Dataspace) -> None:
    assert code_of(lambda: rm.find(free_address(rm, ds))) == Err.ENOENT
    with rm.reserve_area(2 * PAGE) as area:
        found = rm.find(area.addr + PAGE)
        assert (found.addr, found.size, found.offset) == (area.addr, 2 * PAGE, 0)
        assert found.flags & F.IN_AREA


def test_claim_36_an_address_in_the_middle_detaches_the_whole(rm: RegionMap, ds: Dataspace) -> None:
    region = rm.attach(ds)
    assert rm.detach(region.addr + PAGE + 9) is ds
    assert not region.mapped


def test_claim_37_detaching_a_hole_gives_enoent(rm: RegionMap, ds: Dataspace) -> None:
    assert code_of(lambda: rm.detach(free_address(rm, ds))) == Err.ENOENT
    with pytest.raises(NotFound):
        rm.detach(0)


def pages(count: int) -> Dataspace:
    """A dataspace whose pages say their number."""
    ds = alloc(count * PAGE)
    for number in range(count):
        ds.write(number * PAGE, b"%d" % number)
    return ds


def test_claim_38_a_range_that_covers_a_region_detaches_it(rm: RegionMap, ds: Dataspace) -> None:
    region = rm.attach(ds)
    done = rm.detach_range(region.addr, region.size)
    assert done.result.value == DetachResult.DETACHED_DS.value == 0
    assert done.dataspace is ds
    assert not region.mapped


def test_claim_39_detaching_the_first_page_keeps_the_others(rm: RegionMap) -> None:
    with pages(3) as ds, rm.attach(ds) as region:
        addr = region.addr
        assert rm.detach_range(addr, PAGE).result.value == DetachResult.KEPT_DS.value == 1
        found = rm.find(addr + PAGE)
        assert (found.addr, found.offset) == (addr + PAGE, PAGE)
        assert bytes(found)[:1] == b"1"
        assert code_of(lambda: rm.find(addr)) == Err.ENOENT


def test_claim_40_detaching_the_last_page_keeps_the_others(rm: RegionMap) -> None:
    with pages(3) as ds, rm.attach(ds) as region:
        assert rm.detach_range(region.addr + 2 * PAGE, PAGE).result == DetachResult.KEPT_DS
        assert (region.size, region.offset) == (2 * PAGE, 0)
        assert bytes(region)[::PAGE] == b"01"
        memoryview(region)[PAGE] = 9
        assert ds.read(PAGE, 1) == b"\x09"


def test_claim_41_a_range_over_two_regions_is_detached_in_two_steps(rm: RegionMap) -> None:
    with pages(2) as ds, rm.reserve_area(4 * PAGE) as area:
        one, two = area.attach(ds), area.attach(ds)
        done = rm.detach_range(area.addr, 4 * PAGE)
        assert done.result == DetachResult.DETACH_AGAIN == DetachResult(4)
        assert (one.mapped, two.mapped) == (False, True)
        assert rm.detach_range(area.addr, 4 * PAGE).result == DetachResult.DETACHED_DS
        assert not two.mapped


def test_claim_42_detaching_no_bytes_gives_einval(rm: RegionMap, ds: Dataspace) -> None:
    with rm.attach(ds) as region:
        assert code_of(lambda: rm.detach_range(region.addr, 0)) == Err.EINVAL


@pytest.mark.processes
def test_claim_43_detached_memory_is_not_readable(rm: RegionMap, ds: Dataspace, start: Callable[..., Child]) -> None:
    def peek(link: Link) -> None:
        die_quietly()
        region = rm.attach(ds, align=30)
        addr = region.addr
        region.detach()
        ctypes.string_at(addr, 1)

    assert start(peek).join() == -signal.SIGSEGV


def test_claim_44_an_area_with_other_flags_or_without_bytes_gives_einval(rm: RegionMap) -> None:
    for flags in (F.EAGER_MAP, F.IN_AREA):
        assert code_of(lambda flags=flags: rm.reserve_area(PAGE, flags=flags)) == Err.EINVAL  # type: ignore[misc]
    assert code_of(lambda: rm.reserve_area(0)) == Err.EINVAL


def test_claim_45_an_area_over_an_area_gives_eaddrnotavail(rm: RegionMap) -> None:
    with rm.reserve_area(4 * PAGE) as area:
        assert code_of(lambda: rm.reserve_area(PAGE, addr=area.addr + PAGE)) == Err.EADDRNOTAVAIL
        assert code_of(lambda: rm.reserve_area(8 * PAGE, addr=area.addr - PAGE)) == Err.EADDRNOTAVAIL


def test_claim_46_a_freed_area_is_free_for_searches(rm: RegionMap, ds: Dataspace) -> None:
    area = rm.reserve_area(4 * PAGE)
    addr = area.addr
    assert code_of(lambda: rm.free_area(addr - 1)) == Err.ENOENT
    rm.free_area(addr)
    assert code_of(lambda: rm.free_area(addr)) == Err.ENOENT
    with rm.attach(ds, flags=F.RW | F.SEARCH_ADDR, addr=addr) as region:
        assert region.addr == addr


def test_claim_47_regions_come_in_the_order_of_addresses_as_objects_here(rm: RegionMap, ds: Dataspace) -> None:
    regions: list[Region] = [rm.attach(ds) for _ in range(5)]
    regions.sort(key=lambda region: region.addr)
    assert rm.regions() == regions
    assert rm.regions(regions[2].addr + PAGE) == regions[2:]
    for region in regions:
        region.detach()


def test_claim_105_a_region_that_ends_detaches_and_one_that_was_released_does_not(rm: RegionMap, ds: Dataspace) -> None:
    with rm.attach(ds) as one, rm.attach(ds) as two:
        ended, stays = one.addr, two.release()
    del one, two
    gc.collect()
    assert code_of(lambda: rm.find(ended)) == Err.ENOENT
    assert bytes(rm.find(stays)) == bytes(SIZE)
    assert [each.addr for each in rm.regions()] == [stays]
    rm.detach(stays)
    assert rm.regions() == []


@pytest.mark.parametrize("error", [AccessDenied, PermissionDenied])
def test_missing_rights_are_permission_errors_to_python(error: type[Exception]) -> None:
    assert issubclass(error, PermissionError)


def test_bad_arguments_are_value_errors_to_python() -> None:
    assert issubclass(InvalidArgument, ValueError)
    assert issubclass(OutOfRange, ValueError)
