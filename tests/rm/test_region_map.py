"""The region map and its regions, on real memory."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from l4re._native.leaf import Lease
from l4re.dataspace import Dataspace
from l4re.errors import (
    AddressNotAvailable,
    Closed,
    Err,
    InvalidArgument,
    L4Error,
    NotFound,
    NotSupported,
    OutOfMemory,
    OutOfRange,
    PermissionDenied,
)
from l4re.factory import MemAlloc
from l4re.linux.memfd import PAGE_SIZE as PAGE
from l4re.linux.memfd import Mapping
from l4re.rm import Region, RegionMap, RegionMapStats
from support.alarms import alarms
from support.processes import Child, Link, processes

F = RegionMap.F
alloc = MemAlloc().alloc


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


def mapped(name: str = "test") -> int:
    with open("/proc/self/maps") as maps:
        return sum(f"/memfd:{name} " in line for line in maps)


def hole(pages: int) -> int:
    """An address where that many pages are free (until somebody else maps something)."""
    with mmap.mmap(-1, pages * PAGE) as reserved:
        return ctypes.addressof(ctypes.c_char.from_buffer(reserved))


def free_range(rm: RegionMap, ds: Dataspace) -> int:
    """Where a region of the size of ``ds`` was a moment ago."""
    with rm.attach(ds) as region:
        return region.addr


# ---- attaching ----


def test_a_region_shows_the_dataspace(rm: RegionMap, ds: Dataspace) -> None:
    ds.write(0, b"before")
    with rm.attach(ds) as region:
        view = memoryview(region)
        assert len(region) == region.size == len(view) == ds.size
        assert view.format == "B"
        assert region.addr % PAGE == 0
        assert not region.readonly
        assert not view.readonly
        assert region.dataspace is ds
        assert region.offset == 0
        assert region.flags == F.RW
        assert bytes(view[:6]) == b"before"
        view[:5] = b"after"
        assert ds.read(0, 5) == b"after"
        view.release()


def test_size_and_buffer_are_exact_while_the_range_is_whole_pages(rm: RegionMap) -> None:
    with alloc(5000) as ds:
        for size, offset, pages in ((None, 0, 2), (1, 0, 1), (4097, 0, 2), (None, PAGE, 1), (900, PAGE, 1)):
            with rm.attach(ds, size, offset=offset) as region:
                assert region.size == (5000 - offset if size is None else size)
                assert memoryview(region).nbytes == region.size
                assert region.mapped_size == pages * PAGE


def test_attaching_beyond_the_end_is_refused_with_the_sizes(rm: RegionMap, ds: Dataspace) -> None:
    for size, offset in ((ds.size + 1, 0), (ds.size, PAGE), (1, ds.size), (None, ds.size), (1 << 70, 0), (1, 1 << 62)):
        with pytest.raises(OutOfRange, match=str(ds.size)):
            rm.attach(ds, size, offset=offset)
    with pytest.raises(OutOfRange):
        rm.attach(ds, 1, offset=-PAGE)


@pytest.mark.parametrize("size", [0, -1, -PAGE])
def test_an_empty_part_is_refused(rm: RegionMap, ds: Dataspace, size: int) -> None:
    with pytest.raises(InvalidArgument):
        rm.attach(ds, size)


def test_an_offset_inside_a_page_is_refused(rm: RegionMap, ds: Dataspace) -> None:
    with pytest.raises(InvalidArgument, match=str(PAGE)):
        rm.attach(ds, 1, offset=5)


def test_only_dataspaces_are_attached(rm: RegionMap) -> None:
    with pytest.raises(TypeError, match="dataspace"):
        rm.attach(5)  # type: ignore[arg-type]


def test_rights_come_from_the_dataspace_and_only_shrink(rm: RegionMap, ds: Dataspace) -> None:
    with rm.attach(ds.ro) as region, rm.attach(ds, flags=F.R) as other:
        for reader in (region, other):
            assert reader.readonly
            assert reader.flags == F.R
            with pytest.raises(TypeError):
                memoryview(reader)[0] = 1
            with pytest.raises(TypeError):
                ctypes.c_char.from_buffer(reader)
    with pytest.raises(PermissionDenied):
        rm.attach(ds.ro, flags=F.RW)
    with rm.attach(ds, flags=F.W) as writer:
        assert not writer.readonly


def test_a_read_only_region_cannot_become_writable(rm: RegionMap, ds: Dataspace) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    with rm.attach(ds, flags=F.R) as region:
        assert libc.mprotect(region.addr, region.size, mmap.PROT_READ | mmap.PROT_WRITE) == -1


@pytest.mark.parametrize("flags", [1 << 30, 1 << 25 | F.RW, 1 << 6 | F.RESERVED])
def test_flags_that_are_not_known_are_refused(rm: RegionMap, ds: Dataspace, flags: int) -> None:
    with pytest.raises(InvalidArgument, match="does not know"):
        rm.attach(ds, flags=flags)


def test_nobody_is_asked_at_page_faults(rm: RegionMap, ds: Dataspace) -> None:
    with pytest.raises(NotSupported, match="PAGER"):
        rm.attach(ds, flags=F.PAGER | F.R)


def test_flags_without_a_right_are_refused(rm: RegionMap, ds: Dataspace) -> None:
    with pytest.raises(InvalidArgument, match="right"):
        rm.attach(ds, flags=F.SEARCH_ADDR)


def test_memory_is_not_executable(rm: RegionMap, ds: Dataspace) -> None:
    with pytest.raises(PermissionDenied, match="executable"):
        rm.attach(ds, flags=F.RX)


def test_upstream_flags_without_a_meaning_here_are_accepted(rm: RegionMap, ds: Dataspace) -> None:
    flags = F.RW | F.SEARCH_ADDR | F.NO_EAGER_MAP | F.BUFFERABLE
    with rm.attach(ds, flags=flags), rm.attach(ds, addr=0, flags=flags):
        pass
    with rm.attach(ds, addr=(1 << 64) - 1, flags=flags):  # beyond the end: anywhere
        pass


def test_eager_mapping_makes_the_pages_present(rm: RegionMap) -> None:
    with alloc(64 * PAGE) as ds, rm.attach(ds, flags=F.RW | F.EAGER_MAP):
        assert os.fstat(ds.fileno()).st_blocks * 512 == ds.size


@pytest.mark.parametrize("align", [12, 16, 21, 25, 30, 38, 44])
def test_an_alignment_is_kept_and_leaves_nothing_else_mapped(rm: RegionMap, ds: Dataspace, align: int) -> None:
    def occupied() -> int:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[0])

    occupied()
    before = occupied()
    with rm.attach(ds, align=align) as region:
        assert region.addr % (1 << align) == 0
        assert occupied() - before <= 4 + 256  # pages; the interpreter may take an arena
    assert mapped() == 0


@pytest.mark.parametrize("align", [-1, 0, 11, 64, 1000])
def test_an_alignment_out_of_range_is_refused(rm: RegionMap, ds: Dataspace, align: int) -> None:
    with pytest.raises(InvalidArgument, match="log2"):
        rm.attach(ds, align=align)


@pytest.mark.parametrize("align", [47, 60, 61, 62, 63])
def test_an_alignment_that_no_address_has_finds_no_room(rm: RegionMap, ds: Dataspace, align: int) -> None:
    with pytest.raises(OutOfMemory, match="no room"):
        rm.attach(ds, align=align)
    assert rm.regions() == []


def test_the_allocators_alignment_is_the_least(rm: RegionMap) -> None:
    with alloc(PAGE, align=24) as ds, rm.attach(ds) as region, rm.attach(ds, align=25) as other:
        assert region.addr % (1 << 24) == 0
        assert other.addr % (1 << 25) == 0
        with rm.attach(ds, flags=F.R | F.SEARCH_ADDR, addr=region.addr) as third:
            assert third.addr > region.addr
            assert third.addr % (1 << 24) == 0


def test_a_search_from_an_address_checks_the_part_as_any_attach(rm: RegionMap, ds: Dataspace) -> None:
    with rm.attach(ds) as region:
        for size, offset in ((None, 4 * PAGE), (5 * PAGE, 0), (1, 1 << 62)):
            with pytest.raises(OutOfRange):
                rm.attach(ds, size, offset=offset, addr=region.addr, flags=F.R | F.SEARCH_ADDR)
        with pytest.raises(AddressNotAvailable, match="no room"):
            rm.attach(ds, addr=(1 << 47) - PAGE, flags=F.R | F.SEARCH_ADDR)


# ---- fixed addresses ----


def test_a_fixed_address_is_kept(rm: RegionMap, ds: Dataspace) -> None:
    addr = free_range(rm, ds)
    with rm.attach(ds, addr=addr) as region:
        assert region.addr == addr
        assert rm.find(addr) is region
        region.detach()
        with rm.attach(ds, PAGE, addr=addr + PAGE + 17) as other:
            assert other.addr == addr + PAGE


def test_a_fixed_address_in_use_is_refused_and_says_what_is_there(rm: RegionMap, ds: Dataspace) -> None:
    with rm.attach(ds) as region:
        for addr in (region.addr, region.addr + 3 * PAGE, region.addr - PAGE):
            with pytest.raises(AddressNotAvailable, match="memfd:test") as caught:
                rm.attach(ds, addr=addr)
            assert caught.value.code == Err.EADDRNOTAVAIL
        memoryview(region)[0] = 1
    heap = id(object())  # something that is not ours
    with pytest.raises(AddressNotAvailable, match="0x"):
        rm.attach(ds, addr=heap)


@pytest.mark.parametrize("addr", [0, -PAGE, 1, (1 << 47) - PAGE, 1 << 47, (1 << 62) - PAGE, 1 << 62, 1 << 64])
def test_an_impossible_address_is_refused(rm: RegionMap, addr: int) -> None:
    with alloc(2 * PAGE) as ds, pytest.raises(AddressNotAvailable, match="0x"):
        rm.attach(ds, addr=addr)


# ---- detaching ----


def test_detaching_twice_is_harmless_and_the_region_is_dead(rm: RegionMap, ds: Dataspace) -> None:
    region = rm.attach(ds)
    addr = region.addr
    region.detach()
    region.detach()
    assert mapped() == 0
    assert repr(region) == f"<Region {ds.size} bytes detached>"
    uses: list[Callable[[], object]] = [
        lambda: region.addr,
        lambda: memoryview(region),
        lambda: bytes(region),
        region.ndarray,
        region.__enter__,
    ]
    for use in uses:
        with pytest.raises(Closed):
            use()
    with pytest.raises(NotFound):
        rm.detach(region)
    with pytest.raises(NotFound):
        rm.detach(addr)


def test_any_address_inside_detaches_the_whole_region(rm: RegionMap, ds: Dataspace) -> None:
    region = rm.attach(ds)
    assert rm.detach(region.addr + 2 * PAGE + 5) is ds
    assert not region.mapped
    assert rm.regions() == []


def test_a_region_of_another_map_is_not_found(rm: RegionMap, ds: Dataspace) -> None:
    with rm.attach(ds) as region:
        other = RegionMap()
        with pytest.raises(NotFound):
            other.detach(region)
        with pytest.raises(NotFound):
            other.find(region.addr)


def test_detaching_under_live_views_is_refused_and_changes_nothing(rm: RegionMap, ds: Dataspace) -> None:
    region = rm.attach(ds)
    one, two = memoryview(region), memoryview(region)
    assert region.exports == 2
    ways: list[Callable[[], object]] = [
        region.detach,
        lambda: rm.detach(region),
        lambda: rm.detach(region.addr),
        lambda: rm.detach_range(region.addr + PAGE, PAGE),
    ]
    for detach in ways:
        with pytest.raises(BufferError, match="2 views"):
            detach()
    assert rm.find(region.addr) is region
    one.release()
    with pytest.raises(BufferError, match="1 view of"):
        region.detach()
    two[0] = 7
    two.release()
    region.detach()


def test_a_region_dropped_without_detach_goes_with_its_last_view(rm: RegionMap, ds: Dataspace) -> None:
    region = rm.attach(ds)
    addr = region.addr
    view = memoryview(region)
    del region
    gc.collect()
    assert mapped() == 1
    assert rm.find(addr).exports == 1
    view[0] = 1
    del view
    gc.collect()
    assert mapped() == 0
    assert rm.regions() == []
    with pytest.raises(NotFound):
        rm.find(addr)


def test_a_region_in_a_garbage_cycle_is_unmapped(rm: RegionMap, ds: Dataspace) -> None:
    class Holder:
        pass

    holder = Holder()
    holder.region = rm.attach(ds)  # type: ignore[attr-defined]
    holder.me = holder  # type: ignore[attr-defined]
    gone = weakref.ref(holder)
    del holder
    gc.collect()
    assert gone() is None
    assert mapped() == 0
    assert rm.stats() == RegionMapStats(0, 0)


def test_a_region_works_after_its_dataspace_was_closed(rm: RegionMap, ds: Dataspace) -> None:
    with rm.attach(ds) as region:
        ds.close()
        memoryview(region)[0] = 9
        assert bytes(region)[0] == 9
        assert region.dataspace.closed


# ---- looking ----


def test_find_and_regions_know_what_is_attached(rm: RegionMap, ds: Dataspace) -> None:
    regions = sorted((rm.attach(ds, PAGE + 1) for _ in range(20)), key=lambda region: region.addr)
    assert rm.regions() == regions
    assert rm.stats() == RegionMapStats(20, 40 * PAGE)
    assert rm.regions(regions[7].addr + PAGE) == regions[7:]
    assert rm.regions(regions[-1].addr + 2 * PAGE) == []
    for region in regions:
        assert rm.find(region.addr) is region
        assert rm.find(region.addr + 2 * PAGE - 1) is region
    with pytest.raises(NotFound, match="0x10"):
        rm.find(0x10)
    for region in regions[::2]:
        region.detach()
    assert rm.regions() == regions[1::2]
    for region in regions[1::2]:
        region.detach()
    assert rm.regions() == []


def test_many_short_lives_leave_no_entries(rm: RegionMap, ds: Dataspace) -> None:
    kept = rm.attach(ds)
    for count in range(1000):
        region = rm.attach(ds, PAGE * (1 + count % 4))
        if count % 3:
            region.detach()
        if count % 7 == 0:
            assert rm.find(kept.addr) is kept
    del region
    assert rm.regions() == [kept]
    assert len(rm._regions) < 300
    kept.detach()


def test_many_dropped_at_once_are_swept(rm: RegionMap, ds: Dataspace) -> None:
    regions = [rm.attach(ds, PAGE) for _ in range(2000)]
    assert len(rm.regions()) == 2000
    regions.clear()
    for _ in range(3000):
        rm.attach(ds, PAGE)
    assert rm.regions() == []
    assert len(rm._regions) < 5000


CHOICES = st.integers(0, 1 << 16)


class MapAgainstModel(RuleBasedStateMachine):
    """Attach, detach, drop and look, beside a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.rm = RegionMap()
        self.spaces = [alloc(size) for size in (1, PAGE, 3 * PAGE + 5)]
        self.model: list[tuple[Region, int, int]] = []

    def teardown(self) -> None:
        for region, _, _ in self.model:
            region.detach()
        for ds in self.spaces:
            ds.close()

    def covers(self, addr: int) -> Region | None:
        return next((r for r, start, end in self.model if start <= addr < end), None)

    @rule(which=st.integers(0, 2), writable=st.booleans(), align=st.sampled_from([12, 16]), offset=st.integers(0, 4))
    def attach(self, which: int, writable: bool, align: int, offset: int) -> None:
        ds = self.spaces[which]
        if offset * PAGE >= ds.size:
            with pytest.raises(OutOfRange):
                self.rm.attach(ds, offset=offset * PAGE)
            return
        region = self.rm.attach(ds, flags=F.RW if writable else F.R, align=align, offset=offset * PAGE)
        end = region.addr + region.mapped_size
        assert region.addr % (1 << align) == 0
        assert not any(start < end and region.addr < after for _, start, after in self.model)
        self.model.append((region, region.addr, end))

    def pick(self, choice: int) -> tuple[Region, int, int]:
        return self.model[choice % len(self.model)]  # addresses are the kernel's: they must not steer the drawing

    @precondition(lambda self: self.model)
    @rule(choice=CHOICES, distance=CHOICES)
    def attach_at_a_taken_place(self, choice: int, distance: int) -> None:
        _, start, end = self.pick(choice)
        with pytest.raises(AddressNotAvailable):
            self.rm.attach(self.spaces[0], addr=start + distance % (end - start))

    @precondition(lambda self: self.model)
    @rule(choice=CHOICES, distance=CHOICES, how=st.integers(0, 3))
    def detach(self, choice: int, distance: int, how: int) -> None:
        entry = region, start, end = self.pick(choice)
        self.model.remove(entry)
        del entry
        match how:
            case 0:
                region.detach()
            case 1:
                self.rm.detach(region)
            case 2:
                self.rm.detach(start + distance % (end - start))
        del region
        assert self.covers(start) is None
        with pytest.raises(NotFound):
            self.rm.find(start)

    @precondition(lambda self: self.model)
    @rule(choice=CHOICES, distance=st.integers(-1, 5 * PAGE))
    def find(self, choice: int, distance: int) -> None:
        addr = self.pick(choice)[1] + distance
        expected = self.covers(addr)
        if expected is None:
            with pytest.raises(NotFound):
                self.rm.find(addr)
        else:
            assert self.rm.find(addr) is expected

    @invariant()
    def same_regions(self) -> None:
        assert self.rm.regions() == [r for r, _, _ in sorted(self.model, key=lambda entry: entry[1])]


MapAgainstModel.TestCase.settings = settings(deadline=None)
TestMapAgainstModel = MapAgainstModel.TestCase


# ---- numpy and other views ----


def test_an_array_is_a_view_that_keeps_the_memory(rm: RegionMap, ds: Dataspace) -> None:
    region = rm.attach(ds)
    array = region.ndarray((4, 8), "f4")
    array[1] = 2.5
    assert np.frombuffer(ds.read(32, 32), "f4").tolist() == [2.5] * 8
    assert array.flags.writeable
    part = array[2:, ::2]
    del array
    with pytest.raises(BufferError, match="1 view"):
        region.detach()
    addr = region.addr
    del region
    part[:] = 1
    assert rm.find(addr).exports == 1
    del part
    assert mapped() == 0


def test_an_array_is_read_only_where_the_region_is(rm: RegionMap, ds: Dataspace) -> None:
    with rm.attach(ds, flags=F.R) as region:
        array = region.ndarray(10, "u1")
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True
        del array


def test_array_shapes_have_defaults_and_limits(rm: RegionMap, ds: Dataspace) -> None:
    with rm.attach(ds, 4097) as region:
        assert region.ndarray().shape == (4097,)
        assert region.ndarray(dtype="f8").shape == (512,)
        assert region.ndarray(dtype="f8", offset=8).shape == (511,)
        assert region.ndarray(3, np.dtype([("a", "i4"), ("b", "f8")])).shape == (3,)
        assert region.ndarray((), "i8").shape == ()
        assert region.ndarray((0, 5)).size == 0
        for shape, dtype, offset in (
            ((513,), "f8", 0),
            ((4097,), "u1", 1),
            ((-1,), "u1", 0),
            ((1,), "u1", -1),
            (1, "u1", 9999),
        ):
            with pytest.raises(OutOfRange):
                region.ndarray(shape, dtype, offset=offset)
        with pytest.raises(OutOfRange, match=r"takes 80000 bytes, there are 4097"):
            region.ndarray((100, 100), "f8")
        with pytest.raises(InvalidArgument, match="Python objects"):
            region.ndarray(1, object)


def test_without_numpy_the_error_says_what_to_install(
    rm: RegionMap, ds: Dataspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    with rm.attach(ds) as region, pytest.raises(L4Error, match="pip install"):
        region.ndarray(1)


def test_the_package_does_not_import_numpy() -> None:
    code = "import l4re, sys; assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_arrays_made_by_numpy_itself_count_as_views(rm: RegionMap, ds: Dataspace) -> None:
    makers: list[Callable[[Region], object]] = [
        lambda region: np.frombuffer(region, "u1"),  # type: ignore[call-overload]
        lambda region: np.asarray(memoryview(region)),
        lambda region: np.ndarray((8,), "u1", buffer=memoryview(region)),  # releases the buffer at once
        lambda region: ctypes.c_char.from_buffer(region),
    ]
    for make in makers:
        with rm.attach(ds) as region:
            view = make(region)
            with pytest.raises(BufferError):
                region.detach()
            del view
            gc.collect()


def test_a_view_keeps_the_mapping_of_the_bare_leaf(ds: Dataspace) -> None:
    mapping = ds.map(Mapping)
    view = memoryview(mapping)
    lease = view.obj
    assert isinstance(lease, Lease)
    assert lease.mapping is mapping
    again = memoryview(lease)
    del lease
    again[0] = 3
    view.release()
    assert mapping.exports == 1
    again.release()
    assert mapping.unmap()
    assert not mapping.unmap()
    with pytest.raises(ValueError, match="unmapped"):
        memoryview(mapping)


def test_the_leaf_maps_nothing_that_could_fault(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "file")
    with open(path, "w+b") as file:
        file.truncate(PAGE)
        with pytest.raises(OSError, match="Invalid argument"):
            Mapping(file.fileno(), PAGE)
    fd = os.memfd_create("loose", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, PAGE)
    with pytest.raises(ValueError, match="shrink"):
        Mapping(fd, PAGE)
    os.close(fd)
    with alloc(PAGE) as ds:
        with pytest.raises(ValueError, match="beyond the end"):
            Mapping(ds.fileno(), PAGE + 1)
        with pytest.raises(ValueError, match="beyond the end"):
            Mapping(ds.fileno(), 1, PAGE * 4)
        for wrong in ((0, 0), (-1, 0), (1, 7), (1, -PAGE), (sys.maxsize, 0)):
            with pytest.raises(ValueError, match=r"cannot map|multiple|beyond"):
                Mapping(ds.fileno(), *wrong)
        with pytest.raises(ValueError, match="multiple"):
            Mapping(ds.fileno(), 1, 0, False, 5)
        with pytest.raises(ValueError, match="log2"):
            Mapping(ds.fileno(), 1, 0, False, 0, 64)


def test_no_address_space_left_is_out_of_memory() -> None:
    code = """
import resource
from l4re import MemAlloc, RegionMap, OutOfMemory
ds = MemAlloc().alloc(1 << 20)
used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, ((used << 10) + (256 << 20),) * 2)
rm, regions = RegionMap(), []
try:
    while True:
        regions.append(rm.attach(ds))
except OutOfMemory as error:
    assert "1048576" in str(error)
    try:
        rm.attach(ds, align=28)
    except OutOfMemory:
        print("refused")
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "refused\n"
    assert issubclass(OutOfMemory, MemoryError)


# ---- threads, signals, forks ----


def test_threads_attach_find_and_detach_at_once(rm: RegionMap, ds: Dataspace) -> None:
    barrier = threading.Barrier(8)
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            barrier.wait()
            for count in range(150):
                region = rm.attach(ds, PAGE * (1 + (number + count) % 4))
                assert rm.find(region.addr + region.size - 1) is region
                if count % 3 == 0:
                    rm.detach(region.addr)
                elif count % 3 == 1:
                    region.detach()
                else:
                    del region
                rm.regions()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert rm.regions() == []
    assert mapped() == 0


def _unmap_into(region: Region, results: list[bool]) -> None:
    results.append(region.unmap())


def test_two_threads_that_detach_one_region_do_it_once(rm: RegionMap, ds: Dataspace) -> None:
    for _ in range(50):
        region = rm.attach(ds)
        results: list[bool] = []
        work = partial(_unmap_into, region, results)
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(results) == [False, False, True]


def test_a_signal_handler_may_use_the_map_at_any_point(rm: RegionMap, ds: Dataspace) -> None:
    def handler() -> None:
        with rm.attach(ds, PAGE) as region:
            assert rm.find(region.addr) is region
            assert region in rm.regions(region.addr)

    with alarms(handler) as seen:
        while seen() < 300:
            regions = [rm.attach(ds, PAGE) for _ in range(70)]
            assert rm.find(regions[0].addr) is regions[0]
            for region in regions:
                region.detach()
    assert rm.regions() == []


@pytest.mark.processes
def test_a_forked_child_goes_on_with_the_map(rm: RegionMap, ds: Dataspace, start: Callable[..., Child]) -> None:
    with rm.attach(ds) as region:
        memoryview(region)[:2] = b"up"
        locked, done = threading.Event(), threading.Event()

        def hold() -> None:
            with rm._regions.lock:
                locked.set()
                done.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        locked.wait()

        def child(link: Link) -> None:
            found = rm.find(region.addr)
            link.say(bytes(found)[:2].decode())
            memoryview(found)[:2] = b"dn"
            rm.attach(ds).detach()

        try:
            other = start(child)
            assert other.hear() == "up"
            other.end()
        finally:
            done.set()
            thread.join()
        assert bytes(region)[:2] == b"dn"


def test_500_rounds_leave_descriptors_and_mappings_unchanged(rm: RegionMap) -> None:
    def census() -> tuple[int, int]:
        with open("/proc/self/maps") as maps:
            return len(os.listdir("/proc/self/fd")), sum("memfd" in line for line in maps)

    allocator = MemAlloc()
    before = census()
    for count in range(500):
        ds = allocator.alloc(16 << 10)
        region = rm.attach(ds)
        reader = rm.attach(ds.ro, align=16)
        memoryview(region)[count] = 1
        if count % 2:
            rm.detach(region)
            ds.close()
        else:
            ds.close()
            region.detach()
        reader.detach()
    del reader, ds, region
    assert census() == before
    assert rm.stats() == RegionMapStats(0, 0)
