"""The local allocator: sizes, flags, and memory that is not there."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from l4re.dataspace import Dataspace
from l4re.errors import Err, InvalidArgument, NotSupported, OutOfMemory, OutOfRange
from l4re.factory import MemAlloc
from l4re.linux import memfd
from l4re.linux.fd import Fd
from l4re.linux.memfd import PAGE_SIZE as PAGE
from l4re.linux.memfd import Seal
from l4re.linux.memory import MemoryGauge, available
from l4re.rm import RegionMap

F = MemAlloc.F
alloc = MemAlloc().alloc


def test_a_fresh_dataspace_is_the_callers_own() -> None:
    with alloc(5000) as ds:
        assert ds.size == 5000 == os.fstat(ds.fileno()).st_size
        assert ds.read(0, 5000) == bytes(5000)
        assert ds.name == "l4re"
        assert not os.get_inheritable(ds.fileno())
        assert memfd.get_seals(ds.fileno()) & ~Seal.EXEC == Seal.FIXED_SIZE


def test_the_memory_is_not_executable_where_the_kernel_can_promise_it() -> None:
    with alloc(PAGE) as ds:
        mode = os.fstat(ds.fileno()).st_mode & 0o111
        assert not mode or not memfd.get_seals(ds.fileno()) & Seal.EXEC


@pytest.mark.parametrize("size", [0, -1, -PAGE, -(1 << 70)])
@pytest.mark.parametrize("flags", [F.NONE, F.CONTINUOUS])
def test_a_size_below_one_is_out_of_range(size: int, flags: MemAlloc.F) -> None:
    with pytest.raises(OutOfRange, match=str(size)) as caught:
        alloc(size, flags=flags)
    assert caught.value.code == Err.ERANGE


@pytest.mark.parametrize("size", [1.0, "1", None, b"1"])
def test_a_size_is_an_integer(size: object) -> None:
    with pytest.raises(TypeError):
        alloc(size)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1 << 50, (1 << 63) - 1, 1 << 63, 1 << 100])
def test_more_than_the_machine_has_is_refused_naming_both(size: int) -> None:
    with pytest.raises(OutOfMemory, match=f"wanted {size} bytes .* can give [0-9]+") as caught:
        alloc(size)
    assert caught.value.code == Err.ENOMEM
    assert isinstance(caught.value, MemoryError)


def test_what_was_refused_leaves_nothing_and_the_next_one_works() -> None:
    allocator = MemAlloc(MemoryGauge(lambda: 10 * PAGE))
    with pytest.raises(OutOfMemory, match=f"can give {10 * PAGE}"):
        allocator.alloc(11 * PAGE)
    allocator.alloc(10 * PAGE).close()


def test_names_are_for_people() -> None:
    with alloc(1, name="camera 0") as ds:
        assert ds.name == "camera 0"
        assert "camera 0" in os.readlink(f"/proc/self/fd/{ds.fileno()}")
    with pytest.raises(InvalidArgument, match="NUL"):
        alloc(1, name="a\0b")
    with pytest.raises(InvalidArgument, match="249"):
        alloc(1, name="ä" * 125)
    alloc(1, name="x" * 249).close()


def test_pinned_memory_is_there_at_once() -> None:
    for flags in (F.PINNED, F.CONTINUOUS):
        with alloc(16 * PAGE, flags=flags) as ds:
            assert os.fstat(ds.fileno()).st_blocks * 512 == ds.size
    with alloc(16 * PAGE) as ds:
        assert os.fstat(ds.fileno()).st_blocks == 0


def test_pinned_memory_that_cannot_be_reserved_is_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(OutOfMemory, match="reserve"):
        alloc(PAGE, flags=F.PINNED)


def test_super_pages_are_reserved_and_bring_their_alignment() -> None:
    for size in (1, (4 << 20) + 5):
        with alloc(size, flags=F.SUPER_PAGES) as ds, RegionMap().attach(ds) as region:
            assert memfd.reserved(ds.fileno()) == region.mapped_size
            assert region.addr % (2 << 20) == 0
            assert bytes(region) == bytes(size)
            region.ndarray()[:] = 1
            assert memfd.validate(ds.fileno(), size=size, writable=True)


def large_pages(address: int) -> int:
    """The bytes of the mapping at an address that are in large pages."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    assert any(line.startswith(f"{address:x}-") for line in lines)
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("ShmemPmdMapped:"))


def can_make_large_pages() -> bool:
    """Whether this kernel makes large pages of shared memory when it is asked to."""
    policy = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
    release = tuple(map(int, os.uname().release.split("-")[0].split(".")[:2]))
    return release >= (6, 1) and policy.exists() and "[deny]" not in policy.read_text() and PAGE == 4096


@pytest.mark.skipif(not can_make_large_pages(), reason="it takes Linux 6.1 with large pages for shared memory")
def test_super_pages_are_large_for_everybody_who_attaches_them_where_it_fits() -> None:
    size = (16 << 20) + PAGE
    with alloc(size, flags=F.SUPER_PAGES) as ds:
        received = Dataspace(Fd(os.dup(ds.ro.fileno())), size, writable=False)  # without our hints
        with RegionMap().attach(ds) as mine, RegionMap().attach(received, align=21) as theirs:
            for region in (mine, theirs):
                bytes(memoryview(region)[:: 2 << 20])
                assert large_pages(region.addr) >= 2 << 20
        received.close()


def test_without_room_to_make_large_pages_the_small_ones_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> object:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    with monkeypatch.context() as patched:
        patched.setattr(memfd, "Mapping", refuse)
        ds = alloc(2 << 20, flags=F.SUPER_PAGES)
    with ds, RegionMap().attach(ds) as region:
        assert memfd.reserved(ds.fileno()) == 2 << 20
        assert region.addr % (2 << 20) == 0


@pytest.mark.parametrize("flags", [0x10, 1 << 20, -1 & ~int(F.FIXED_PADDR)])
def test_unknown_flags_are_refused(flags: int) -> None:
    with pytest.raises(InvalidArgument, match="flags"):
        alloc(PAGE, flags=flags)


def test_physical_addresses_are_not_supported() -> None:
    with pytest.raises(NotSupported):
        alloc(PAGE, flags=F.FIXED_PADDR)


@pytest.mark.parametrize("align", [-1, 31, 64])
def test_an_alignment_out_of_range_is_refused(align: int) -> None:
    with pytest.raises(InvalidArgument, match="log2"):
        alloc(PAGE, align=align)


def test_older_kernels_make_memory_without_the_noexec_seal() -> None:
    """What 5.10 to 6.2 give: no seal against execution. Everything else must work all the same."""
    fd = os.memfd_create("old", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, PAGE)
    memfd.add_seals(fd, Seal.FIXED_SIZE)
    with Dataspace(Fd(fd), PAGE) as ds, RegionMap().attach(ds):
        assert memfd.validate(fd, size=PAGE, writable=True) == Seal.FIXED_SIZE


def test_threads_share_an_allocator() -> None:
    allocator = MemAlloc()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for size in range(1, 300):
                with allocator.alloc(size) as ds:
                    assert ds.size == size
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


# ---- the gauge ----


class Machine:
    """Memory and a clock under the test's control."""

    def __init__(self, there: int) -> None:
        self.there = there
        self.now = 1000.0
        self.readings = 0

    def read(self) -> int:
        self.readings += 1
        return self.there

    def gauge(self) -> MemoryGauge:
        return MemoryGauge(self.read, lambda: self.now)


def test_small_requests_rest_on_one_reading() -> None:
    machine = Machine(64 << 30)
    gauge = machine.gauge()
    for _ in range(1000):
        assert gauge.missing(16 << 10) is None
        machine.now += 1
    assert machine.readings == 1


def test_a_reading_grows_old_for_large_requests() -> None:
    machine = Machine(1 << 30)
    gauge = machine.gauge()
    assert gauge.missing(100 << 20) is None
    assert gauge.missing(100 << 20) is None
    assert machine.readings == 1
    machine.now += 1
    machine.there = 50 << 20
    assert gauge.missing(100 << 20) == 50 << 20
    assert machine.readings == 2


def test_a_refusal_rests_on_a_fresh_reading() -> None:
    machine = Machine(100)
    gauge = machine.gauge()
    assert gauge.missing(80) is None
    assert gauge.missing(80) is None  # what was granted and given back meanwhile is seen
    assert machine.readings == 2
    machine.there = 60
    assert gauge.missing(80) == 60
    assert gauge.missing(60) is None


def test_grants_are_charged_between_readings() -> None:
    machine = Machine(1 << 20)
    gauge = machine.gauge()
    granted = 0
    for _ in range(64):
        assert gauge.missing(16 << 10) is None
        granted += 16 << 10
    before = machine.readings
    assert gauge.missing(16 << 10) is None
    assert machine.readings == before + 1


# ---- what the machine says ----

MEMINFO = """MemTotal:       16000000 kB
MemFree:         1000000 kB
MemAvailable:    8000000 kB
SwapFree:        2000000 kB
CommitLimit:     9000000 kB
Committed_AS:    5000000 kB
HugePages_Total:       0
"""


@pytest.fixture
def proc(tmp_path: os.PathLike[str]) -> Callable[[dict[str, str]], str]:
    """Make a /proc; ``%`` in a file stands for the folder it lies in."""

    def make(files: dict[str, str]) -> str:
        root = os.fspath(tmp_path)
        for name, text in {"meminfo": MEMINFO, **files}.items():
            path = os.path.join(root, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as file:
                file.write(text.replace("%", root))
        return root

    return make


V2 = "30 20 0:27 / %/cg rw - cgroup2 cgroup2 rw\n"
V1 = "40 20 0:28 / %/v1\\040mem rw - cgroup cgroup rw,memory\n41 20 0:29 / %/v1cpu rw - cgroup cgroup rw,cpu\n"
KB = 1024


def test_without_limits_it_is_what_is_available_and_swap(proc: Callable[[dict[str, str]], str]) -> None:
    assert available(proc({})) == 10_000_000 * KB
    assert available(proc({"sys/vm/overcommit_memory": "2\n"})) == 4_000_000 * KB


def test_the_tightest_cgroup_on_the_way_up_counts(proc: Callable[[dict[str, str]], str]) -> None:
    files = {
        "self/mountinfo": V2,
        "self/cgroup": "0::/outer/inner\n",
        "cg/outer/memory.max": f"{1000 * KB}\n",
        "cg/outer/memory.current": f"{900 * KB}\n",
        "cg/outer/memory.stat": f"anon 5\ninactive_file {50 * KB}\nactive_file {20 * KB}\nslab_reclaimable {KB}\n",
        "cg/outer/memory.swap.max": "0\n",
        "cg/outer/inner/memory.max": "max\n",
        "cg/outer/inner/memory.current": "1\n",
    }
    assert available(proc(files)) == 171 * KB
    assert (
        available(proc({**files, "cg/outer/memory.swap.max": f"{300 * KB}\n", "cg/outer/memory.swap.current": "0\n"}))
        == 471 * KB
    )
    assert available(proc({**files, "cg/outer/memory.current": f"{2000 * KB}\n"})) == 0
    os.unlink(os.path.join(proc(files), "cg/outer/memory.stat"))
    assert available(proc({})) == 100 * KB


def test_the_first_version_of_cgroups_counts_too(proc: Callable[[dict[str, str]], str]) -> None:
    files = {
        "self/mountinfo": V1,
        "self/cgroup": "5:cpu:/elsewhere\n4:memory:/box\n",
        "v1 mem/memory.limit_in_bytes": "9223372036854771712\n",
        "v1 mem/memory.usage_in_bytes": "1\n",
        "v1 mem/box/memory.limit_in_bytes": f"{3000 * KB}\n",
        "v1 mem/box/memory.usage_in_bytes": f"{1000 * KB}\n",
        "v1 mem/box/memory.memsw.limit_in_bytes": f"{3000 * KB}\n",
        "v1 mem/box/memory.memsw.usage_in_bytes": f"{1500 * KB}\n",
        "v1 mem/box/memory.stat": f"cache 7\ntotal_inactive_file {10 * KB}\ntotal_active_file {5 * KB}\n",
    }
    assert available(proc(files)) == 1515 * KB


def test_a_container_sees_its_part_of_the_tree(proc: Callable[[dict[str, str]], str]) -> None:
    files = {
        "self/mountinfo": "30 20 0:27 /docker/abc %/cg rw - cgroup2 cgroup2 rw\n",
        "self/cgroup": "0::/docker/abc\n",
        "cg/memory.max": f"{64 * KB}\n",
        "cg/memory.current": "0\n",
    }
    assert available(proc({**files, "cg/memory.swap.max": "0\n"})) == 64 * KB


def test_damaged_or_missing_files_are_no_limit(proc: Callable[[dict[str, str]], str]) -> None:
    files = {
        "self/mountinfo": "nonsense\n\n1 2 3\n" + V2,
        "self/cgroup": "nonsense\n0::/a\n1:name=systemd:/b\n",
        "cg/a/memory.max": "what?\n",
    }
    assert available(proc(files)) == 10_000_000 * KB


def test_without_procfs_the_kernel_still_tells_how_much_there_is() -> None:
    assert available("/nowhere") == os.sysconf("SC_PHYS_PAGES") * PAGE


def test_this_machine_has_memory() -> None:
    assert 0 < available() < 1 << 50
