"""Dataspaces: size, rights, contents, seals, hand-over."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import gc
import mmap
import os
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4re.cap import import_capability
from l4re.dataspace import Dataspace, dataspace
from l4re.errors import (
    AccessDenied,
    Busy,
    Closed,
    InvalidArgument,
    NotSupported,
    OutOfMemory,
    OutOfRange,
    PermissionDenied,
)
from l4re.factory import MemAlloc
from l4re.linux import copying, memfd
from l4re.linux.fd import Fd
from l4re.linux.memfd import Seal
from l4re.linux.memory import MemoryGauge
from l4re.rights import DsFlags, Rights
from l4re.rm import RegionMap
from l4re.wire.items import ItemKind
from support.descriptors import few_descriptors
from support.processes import Child, Link, processes

PAGE = memfd.PAGE_SIZE
alloc = MemAlloc().alloc


@pytest.fixture
def ds() -> Iterator[Dataspace]:
    with alloc(2 * PAGE + 100, name="test") as ds:
        yield ds


@pytest.fixture
def rm() -> RegionMap:
    return RegionMap()


@pytest.fixture
def start() -> Iterator[Callable[..., Child]]:
    with processes() as fork:
        yield fork


def give(ds: Dataspace, rights: Rights | None = None) -> Dataspace:
    """Hand a dataspace over to ourselves."""
    export = ds.export(rights)
    received = tuple(Fd(os.dup(fd)) for fd in export.fds)
    export.done()
    got = import_capability(export.kind, export.rights, export.value, received)
    assert isinstance(got, Dataspace)
    return got


def raw_memfd(size: int = PAGE, seals: int = Seal.FIXED_SIZE, name: str = "raw") -> Fd:
    fd = Fd(os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
    os.ftruncate(fd.fileno(), size)
    if seals:
        memfd.add_seals(fd.fileno(), seals)
    return fd


# ---- what it is ----


def test_a_dataspace_says_what_it_is(ds: Dataspace) -> None:
    assert ds.size == 2 * PAGE + 100
    assert ds.rights == Rights.RW
    assert ds.flags == DsFlags.RW
    assert ds.info() == (ds.size, DsFlags.RW)
    assert ds.name == "test"
    assert ds.enforcement == "advisory"
    assert repr(ds) == f"<Dataspace 'test' {ds.size} bytes rw advisory>"


def test_use_after_close_raises_closed_everywhere(ds: Dataspace, rm: RegionMap) -> None:
    ds.close()
    ds.close()
    assert ds.closed
    assert repr(ds) == "<Dataspace 'test' closed>"
    uses: list[Callable[[], object]] = [
        lambda: ds.size,
        lambda: ds.flags,
        lambda: ds.rights,
        lambda: ds.ro,
        lambda: ds.rw,
        lambda: ds.enforcement,
        ds.info,
        ds.fileno,
        ds.dup,
        ds.freeze,
        ds.publish,
        ds.export,
        ds.__enter__,
        lambda: ds.read(0, 1),
        lambda: ds.write(0, b"x"),
        lambda: ds.clear(0, 1),
        lambda: ds.copy_in(0, ds, 0, 1),
        lambda: ds.allocate(0, 1),
        lambda: rm.attach(ds),
    ]
    for use in uses:
        with pytest.raises(Closed):
            use()


def test_equality_is_about_the_memory_not_the_rights(ds: Dataspace) -> None:
    with alloc(ds.size) as other, ds.dup() as dup, give(ds) as received:
        assert ds == dup == received == ds.ro
        assert hash(ds) == hash(dup)
        assert ds != other
        assert ds != 5
        dup.close()
        assert ds != dup


def test_a_dup_outlives_the_original(ds: Dataspace) -> None:
    with ds.dup() as dup:
        ds.close()
        dup.write(0, b"still here")
        assert dup.read(0, 10) == b"still here"


def test_dropping_the_last_reference_closes_the_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    ds = alloc(PAGE)
    ro = ds.ro
    assert len(os.listdir("/proc/self/fd")) == before + 2
    del ds
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before + 1
    del ro
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_caught_error_does_not_keep_the_descriptor(ds: Dataspace) -> None:
    before = len(os.listdir("/proc/self/fd"))
    errors = []
    doomed = alloc(PAGE)
    for use in (
        lambda: doomed.read(0, 2 * PAGE),
        lambda: doomed.write(PAGE, b"x"),
        lambda: doomed.map(memfd.Mapping, 2 * PAGE),
        lambda: doomed.copy_in(-1, doomed, 0, 1),
        lambda: doomed.attach,  # type: ignore[attr-defined]
    ):
        try:
            use()
        except Exception as error:
            errors.append(error)
    assert len(errors) == 5
    doomed.close()
    assert len(os.listdir("/proc/self/fd")) == before


# ---- contents ----


def test_reading_and_writing_go_exactly_where_they_say(ds: Dataspace) -> None:
    ds.write(PAGE - 2, b"over the edge")
    assert ds.read(PAGE - 3, 15) == b"\0over the edge\0"
    ds.write(ds.size - 3, bytearray(b"end"))
    assert ds.read(ds.size - 3, 3) == b"end"
    ds.write(0, memoryview(b"abcdef")[::1])
    ds.write(ds.size, b"")
    ds.write(0, memoryview(b"")[:0])
    assert ds.read(ds.size, 0) == b""


@pytest.mark.parametrize(("offset", "size"), [(-1, 1), (0, -1), (0, 2 * PAGE + 101), (2 * PAGE + 100, 1), (1 << 70, 1)])
def test_reading_outside_is_refused_with_the_sizes(ds: Dataspace, offset: int, size: int) -> None:
    with pytest.raises(OutOfRange, match=str(ds.size)):
        ds.read(offset, size)


def test_a_write_that_does_not_fit_changes_nothing(ds: Dataspace) -> None:
    with pytest.raises(OutOfRange, match="4 bytes from offset"):
        ds.write(ds.size - 3, b"last")
    with pytest.raises(OutOfRange):
        ds.write(-1, b"x")
    assert ds.read(0, ds.size) == bytes(ds.size)


def test_offsets_are_integers(ds: Dataspace) -> None:
    with pytest.raises(TypeError):
        ds.read(0.5, 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        ds.write("0", b"x")  # type: ignore[arg-type]


def test_reading_and_writing_leave_no_mapping(ds: Dataspace) -> None:
    def mappings() -> int:
        with open("/proc/self/maps") as maps:
            return sum("memfd:test" in line for line in maps)

    ds.write(0, b"x" * ds.size)
    ds.read(0, ds.size)
    ds.clear(10, ds.size)
    ds.copy_in(0, ds, 100, 50)
    assert mappings() == 0


def test_clear_zeroes_the_range_and_tells_how_much(ds: Dataspace) -> None:
    ds.write(0, b"\xff" * ds.size)
    assert ds.clear(5, PAGE) == PAGE
    assert ds.read(0, ds.size) == b"\xff" * 5 + bytes(PAGE) + b"\xff" * (ds.size - 5 - PAGE)
    assert ds.clear(PAGE, 1 << 40) == ds.size - PAGE
    assert ds.clear(ds.size, 1) == 0  # inside the last page, behind the last byte


def test_clearing_untouched_memory_costs_no_memory() -> None:
    with alloc(1 << 30) as ds:
        ds.write(1 << 20, b"x" * PAGE)
        assert ds.clear(0, ds.size) == ds.size
        assert os.fstat(ds.fileno()).st_blocks * 512 == PAGE


def test_clearing_keeps_what_was_reserved() -> None:
    with alloc(16 * PAGE, flags=MemAlloc.F.PINNED) as ds:
        ds.write(0, b"x" * PAGE)
        ds.clear(0, ds.size)
        assert os.fstat(ds.fileno()).st_blocks * 512 == ds.size


@given(
    initial=st.binary(min_size=1, max_size=40),
    operations=st.lists(
        st.one_of(
            st.tuples(st.just("write"), st.integers(0, 50), st.binary(max_size=20)),
            st.tuples(st.just("clear"), st.integers(0, 50), st.integers(0, 60)),
            st.tuples(st.just("copy"), st.integers(0, 50), st.integers(0, 50), st.integers(0, 60)),
        ),
        max_size=12,
    ),
)
def test_contents_behave_like_a_bytearray(initial: bytes, operations: list[tuple[str, int, int | bytes]]) -> None:
    size = len(initial)
    model = bytearray(initial)
    with alloc(size) as ds:
        ds.write(0, initial)
        for name, *arguments in operations:
            match name, arguments:
                case "write", [int(at), bytes(data)]:
                    if at + len(data) > size:
                        with pytest.raises(OutOfRange):
                            ds.write(at, data)
                    else:
                        ds.write(at, data)
                        model[at : at + len(data)] = data
                case "clear", [int(at), int(n)]:
                    end = max(at, min(size, at + n))
                    assert ds.clear(at, n) == end - at
                    model[at:end] = bytes(end - at)
                case "copy", [int(dst), int(src), int(n)]:
                    n = max(0, min(n, size - dst, size - src))
                    assert ds.copy_in(dst, ds, src, n) == n
                    model[dst : dst + n] = bytes(model[src : src + n])
            assert ds.read(0, size) == model


def test_large_overlapping_copies_are_right_in_both_directions() -> None:
    size = (3 << 20) + 17
    pattern = bytes(range(251)) * (size // 251 + 1)
    for src, dst in ((0, 1000), (1000, 0)):
        with alloc(size) as ds:
            ds.write(0, pattern[:size])
            ds.copy_in(dst, ds, src, size - 1000)
            assert ds.read(dst, size - 1000) == pattern[:size][src : src + size - 1000]


@pytest.mark.parametrize("same", [True, False])
def test_parts_of_one_dataspace_that_do_not_overlap_are_copied_like_any_others(same: bool) -> None:
    half = (1 << 20) + 3
    with alloc(2 * half) as ds, alloc(half) as other:
        pattern = os.urandom(half)
        (ds if same else other).write(0, pattern)
        assert ds.copy_in(half, ds if same else other, 0, half) == half
        assert ds.read(half, half) == pattern
        with ds.dup() as dup:  # the same memory by another name
            dup.copy_in(1, ds, 0, half)
            assert ds.read(1, half) == (pattern if same else bytes(half))


EDGES = st.integers(0, 6 * PAGE).flatmap(lambda at: st.sampled_from([at, at - at % PAGE, at | 1]))


@given(
    sizes=st.tuples(st.integers(1, 6 * PAGE), st.integers(1, 6 * PAGE)),
    written=st.lists(st.tuples(st.booleans(), EDGES, st.integers(1, PAGE)), max_size=6),
    copies=st.lists(st.tuples(EDGES, EDGES, st.integers(0, 7 * PAGE)), min_size=1, max_size=3),
    step=st.sampled_from([PAGE // 2 + 1, 3 * PAGE, 64 << 20]),
    works=st.booleans(),
)
def test_a_copy_is_exact_and_what_was_never_written_costs_nothing(
    sizes: tuple[int, int],
    written: list[tuple[bool, int, int]],
    copies: list[tuple[int, int, int]],
    step: int,
    works: bool,
) -> None:
    def never(*_: object) -> int:
        raise OSError(errno.ENOSYS, "not on this kernel")

    with pytest.MonkeyPatch.context() as patched, alloc(sizes[0]) as source, alloc(sizes[1]) as target:
        patched.setattr(dataspace, "_SPARSE", 0)
        patched.setattr(copying, "_STEP", step)
        if not works:
            patched.setattr(os, "copy_file_range", never)
        models = {False: bytearray(sizes[0]), True: bytearray(sizes[1])}
        for which, at, size in written:
            ds = target if which else source
            data = b"\xa5" * max(0, min(size, ds.size - at))
            if data:
                ds.write(at, data)
                models[which][at : at + len(data)] = data
        for dst, src, size in copies:
            size = max(0, min(size, target.size - dst, source.size - src))
            assert target.copy_in(dst, source, src, size) == size
            models[True][dst : dst + size] = models[False][src : src + size]
        assert target.read(0, target.size) == models[True]
        assert source.read(0, source.size) == models[False]

    with alloc(1 << 30) as source, alloc(1 << 30) as target:
        source.write(5 * PAGE, b"x" * PAGE)
        target.write(0, b"y" * PAGE)
        assert target.copy_in(0, source, 0, 1 << 40) == 1 << 30
        assert memfd.reserved(source.fileno()) == PAGE
        assert memfd.reserved(target.fileno()) == 2 * PAGE
        assert target.read(0, 6 * PAGE) == bytes(5 * PAGE) + b"x" * PAGE


def test_reserved_memory_is_copied_as_the_zeros_it_is_and_stays_reserved() -> None:
    with alloc(2 << 20, flags=MemAlloc.F.PINNED) as pinned, alloc(2 << 20) as ds:
        ds.copy_in(0, pinned, 0, pinned.size)
        assert memfd.reserved(ds.fileno()) == 0
        pinned.write(0, b"x" * pinned.size)
        pinned.copy_in(0, ds, 0, ds.size)
        assert pinned.read(0, pinned.size) == bytes(pinned.size)
        assert memfd.reserved(pinned.fileno()) == pinned.size


def test_append_mode_set_by_somebody_else_does_no_harm(ds: Dataspace) -> None:
    ds.write(0, b"0123456789")
    fcntl.fcntl(ds.fileno(), fcntl.F_SETFL, os.O_APPEND)  # who shares the open file can do this
    ds.write(PAGE - 1, b"ab")
    ds.clear(2, 3)
    with alloc(5) as source:
        source.write(0, b"copy!")
        ds.copy_in(PAGE + 5, source, 0, 5)
    ds.allocate(0, ds.size)
    assert ds.read(PAGE - 1, 2) == b"ab"
    assert ds.read(PAGE + 4, 7) == b"\0copy!\0"
    assert ds.read(0, 10) == b"01\0\0\x0056789"


# ---- reserving ----


@pytest.mark.parametrize("rights", [Rights.RW, Rights.R])
def test_a_range_is_reserved_and_keeps_its_contents(rights: Rights) -> None:
    with alloc(32 * PAGE + 5) as ds, ds.dup() if rights & Rights.W else ds.ro as holder:
        ds.write(2 * PAGE - 1, b"ab")
        assert memfd.reserved(ds.fileno()) == 2 * PAGE
        holder.allocate(3 * PAGE - 1, 2)
        assert memfd.reserved(ds.fileno()) == 3 * PAGE
        holder.allocate(0, ds.size)
        holder.allocate(0, ds.size)
        assert memfd.reserved(ds.fileno()) == 33 * PAGE
        assert ds.read(0, ds.size) == bytes(2 * PAGE - 1) + b"ab" + bytes(30 * PAGE + 4)
        holder.allocate(ds.size, 0)
        for offset, size in ((ds.size, 1), (0, ds.size + 1), (-1, 1), (0, -1), (1 << 70, 0)):
            with pytest.raises(OutOfRange, match=str(ds.size)):
                holder.allocate(offset, size)


def test_frozen_memory_can_be_reserved() -> None:
    with alloc(4 * PAGE) as ds:
        ds.freeze()
        ds.allocate(0, PAGE)
        ds.ro.allocate(PAGE, PAGE)
        assert memfd.reserved(ds.fileno()) == 2 * PAGE


def test_reserving_more_than_there_is_is_refused_and_reserves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with alloc(64 * PAGE) as ds, monkeypatch.context() as patched:
        ds.write(0, b"x")
        patched.setattr(dataspace, "_gauge", MemoryGauge(lambda: 16 * PAGE))
        for holder in (ds, ds.ro):
            with pytest.raises(OutOfMemory, match=f"{63 * PAGE} bytes .* can give {16 * PAGE}"):
                holder.allocate(0, ds.size)
        assert memfd.reserved(ds.fileno()) == PAGE
        ds.allocate(0, 8 * PAGE)
        patched.undo()
        ds.allocate(0, ds.size)


def test_readers_of_an_older_kernel_learn_that_they_cannot_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memfd, "_POPULATE_READ", 1 << 20)  # no kernel knows this one
    with alloc(PAGE) as ds:
        with pytest.raises(NotSupported, match=r"Linux 5\.14"):
            ds.ro.allocate(0, PAGE)
        ds.allocate(0, PAGE)


# ---- when it runs out ----


def small_memory(folder: Path, size: int) -> str:
    """Mount a tmpfs that only this process sees, and that ends with it; return why that cannot be done."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_user, new_mounts, private_tree = 0x1000_0000, 0x2_0000, 0x4000 | 0x4_0000
    user, group = os.getuid(), os.getgid()
    if libc.unshare(new_mounts if user == 0 else new_user | new_mounts):
        return os.strerror(ctypes.get_errno())
    if user:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            Path("/proc/self", name).write_text(text)
    for source, target, kind, flags, options in (
        (b"none", b"/", None, private_tree, None),
        (b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=%d" % size),
    ):
        if libc.mount(source, target, kind, ctypes.c_ulong(flags), options):
            return os.strerror(ctypes.get_errno())
    return ""


@pytest.mark.processes
def test_memory_that_runs_out_is_out_of_memory_and_comes_back(start: Callable[..., Child], tmp_path: Path) -> None:
    """In a file system of 1 MiB, since nobody wants to see all of the machine's memory gone."""

    def small(link: Link) -> None:
        if why := small_memory(tmp_path, 1 << 20):
            return link.say(why)

        def memory(size: int) -> Dataspace:
            fd = os.open(tmp_path, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC)
            os.truncate(fd, size)
            return Dataspace(Fd(fd), size)

        with memory(4 << 20) as ds:
            data = os.urandom(700 << 10)
            uses: list[Callable[[], None]] = [
                lambda: ds.write(0, data * 2),
                lambda: ds.allocate(0, ds.size),
                lambda: _fill(ds, data),
            ]
            for use in uses:
                with pytest.raises(OutOfMemory, match="No space left"):
                    use()
            assert memfd.reserved(ds.fileno()) == 1 << 20
            assert ds.read(0, len(data)) == data
        with memory(4 << 20) as ds:  # it came back
            ds.allocate(0, 1 << 19)
            for at in (1 << 20, 2 << 20):
                with pytest.raises(OutOfMemory, match="could not reserve"):
                    ds.allocate(at, (1 << 19) + PAGE)
                assert memfd.reserved(ds.fileno()) == 1 << 19
            ds.allocate(2 << 20, 1 << 19)
            ds.write(0, data[: 1 << 19])
        with memory(len(data)) as source, memory(len(data)) as ds:
            source.write(0, data)
            with pytest.raises(OutOfMemory, match=f"no memory for {len(data)} bytes"):
                ds.copy_in(0, source, 0, len(data))
            part = memfd.reserved(ds.fileno())
            assert 0 < part < len(data)
            assert ds.read(0, part // 2) == data[: part // 2]
        with memory(len(data)) as ds, alloc(len(data)) as source:
            source.write(0, data)
            assert ds.copy_in(0, source, 0, len(data)) == len(data)
            assert ds.read(0, len(data)) == data
        return link.say("recovered")

    child = start(small)
    said = child.hear()
    child.end()
    if said != "recovered":
        pytest.skip(f"no file system of one's own: {said}")


def _fill(ds: Dataspace, data: bytes) -> None:
    ds.clear(0, 1 << 40)
    ds.write(0, data)
    ds.write(2 << 20, data)


@pytest.mark.processes
def test_address_space_that_runs_out_is_out_of_memory_and_comes_back(start: Callable[..., Child]) -> None:
    def small(link: Link) -> None:
        with alloc(64 << 20) as ds, alloc(1 << 20) as little:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE
            resource.setrlimit(resource.RLIMIT_AS, (used + (80 << 20), resource.RLIM_INFINITY))
            rm = RegionMap()
            with rm.attach(ds):
                for use in (lambda: rm.attach(ds), lambda: rm.attach(ds.ro), lambda: ds.ro.allocate(0, ds.size)):
                    with pytest.raises(OutOfMemory):
                        use()
                assert rm.stats().regions == 1
                ds.write(ds.size - 4, b"last")
                ds.copy_in(0, ds, ds.size - 4, 4)  # these take no address space
                little.copy_in(0, ds, 0, 1 << 40)
            with rm.attach(ds) as region:
                assert bytes(memoryview(region)[:4]) == b"last"
            assert little.read(0, 4) == b"last"
            link.say("recovered")

    child = start(small)
    assert child.hear() == "recovered"
    child.end()


def test_descriptors_that_run_out_are_out_of_memory_and_closing_one_makes_room(ds: Dataspace) -> None:
    ds.write(0, b"kept")
    with few_descriptors(1):
        with ds.dup() as dup:
            for use in (ds.dup, lambda: ds.ro, lambda: alloc(PAGE), lambda: ds.export(Rights.R)):
                with pytest.raises(OutOfMemory):
                    use()
            assert dup.read(0, 4) == b"kept"
        assert ds.ro.read(0, 4) == b"kept"


# ---- rights ----


def test_the_read_only_capability_is_one_of_its_own(ds: Dataspace) -> None:
    ro = ds.ro
    assert ro is ds.ro
    assert ro.ro is ro
    assert ro.rights == Rights.R
    assert ro.flags == DsFlags.R
    assert fcntl.fcntl(ro.fileno(), fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    ds.write(0, b"shared")
    ds.close()
    assert ro.read(0, 6) == b"shared"
    ro.close()


def test_a_closed_read_only_capability_is_made_anew(ds: Dataspace) -> None:
    ds.ro.close()
    assert ds.ro.read(0, 1) == b"\0"


def test_read_write_is_itself_or_refused(ds: Dataspace) -> None:
    assert ds.rw is ds
    with pytest.raises(PermissionDenied) as caught:
        _ = ds.ro.rw
    assert caught.value.held == Rights.R


def test_writing_through_a_read_only_capability_is_refused(ds: Dataspace) -> None:
    ro = ds.ro
    for use in (lambda: ro.write(0, b"x"), lambda: ro.clear(0, 1), lambda: ro.copy_in(0, ds, 0, 1)):
        with pytest.raises(AccessDenied):
            use()
    for seal in (ro.freeze, ro.publish):
        with pytest.raises(PermissionDenied, match="read-only"):
            seal()
    assert ds.rights == Rights.RW


def test_other_users_cannot_reopen_a_read_only_capability_for_writing(ds: Dataspace) -> None:
    assert ds.ro.rights == Rights.R
    assert os.fstat(ds.fileno()).st_mode & 0o022 == 0


# ---- seals ----


def reopen_for_writing(ds: Dataspace) -> str:
    """What a hostile holder of the same user gets: "written", or the kernel's refusal."""
    try:
        os.fchmod(ds.fileno(), 0o666)
        fd = os.open(f"/proc/self/fd/{ds.fileno()}", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    try:
        os.pwrite(fd, b"hacked", 0)
    except OSError as error:
        refused = errno.errorcode[error.errno or 0]
    else:
        return "written"
    finally:
        os.close(fd)
    fd = os.open(f"/proc/self/fd/{ds.fileno()}", os.O_RDWR | os.O_CLOEXEC)
    try:
        mmap.mmap(fd, ds.size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE).close()
    except PermissionError:
        return refused
    finally:
        os.close(fd)
    return "mapped for writing"


def test_the_size_can_be_changed_by_nobody(ds: Dataspace) -> None:
    for size in (0, PAGE, 4 * PAGE):
        with pytest.raises(PermissionError):
            os.ftruncate(ds.fileno(), size)


def test_advisory_means_what_it_says(ds: Dataspace) -> None:
    assert ds.ro.enforcement == "advisory"
    assert reopen_for_writing(ds.ro) == "written"


def test_a_frozen_dataspace_is_written_by_nobody(ds: Dataspace, rm: RegionMap) -> None:
    ds.write(0, b"final")
    ds.freeze()
    ds.freeze()
    ds.publish()
    assert ds.enforcement == "sealed"
    assert ds.ro.enforcement == "sealed"
    assert ds.rights == Rights.R
    assert ds.flags == DsFlags.R
    with pytest.raises(PermissionDenied, match="frozen"):
        _ = ds.rw
    for use in (lambda: ds.write(0, b"x"), lambda: ds.clear(0, 1), lambda: ds.copy_in(0, ds, 0, 1)):
        with pytest.raises(AccessDenied, match="frozen"):
            use()
    with pytest.raises(PermissionDenied, match="frozen"):
        rm.attach(ds, flags=RegionMap.F.RW)
    assert reopen_for_writing(ds.ro) == "EPERM"
    with rm.attach(ds) as region:
        assert region.readonly
        assert bytes(region)[:5] == b"final"


def test_a_published_dataspace_is_written_by_the_mappings_there_are(ds: Dataspace, rm: RegionMap) -> None:
    with rm.attach(ds) as region:
        ds.publish()
        ds.publish()
        assert ds.enforcement == "sealed"
        assert ds.rights == Rights.R
        view = memoryview(region)
        view[:4] = b"news"
        view.release()
        assert ds.read(0, 4) == b"news"
        with pytest.raises(AccessDenied, match="published"):
            ds.write(0, b"x")
        with pytest.raises(PermissionDenied, match="published"):
            rm.attach(ds, flags=RegionMap.F.RW)
        with rm.attach(ds) as reader:
            assert reader.readonly
            assert bytes(reader)[:4] == b"news"
        assert reopen_for_writing(ds.ro) == "EPERM"
    ds.freeze()


def test_freezing_names_the_regions_that_still_write(ds: Dataspace, rm: RegionMap) -> None:
    with rm.attach(ds) as region:
        with pytest.raises(Busy, match=f"{region.addr:#x} .*detach"):
            ds.freeze()
        assert ds.rights == Rights.RW
    ds.freeze()


def test_a_read_only_region_does_not_hinder_freezing(ds: Dataspace, rm: RegionMap) -> None:
    with rm.attach(ds, flags=RegionMap.F.R):
        ds.freeze()


@pytest.mark.processes
def test_freezing_says_that_another_process_writes(start: Callable[..., Child]) -> None:
    with alloc(PAGE) as ds:

        def writer(link: Link) -> None:
            with RegionMap().attach(ds):
                link.say("mapped")
                link.wait_for_end()

        child = start(writer)  # inherits the capability: handed over, its seals would be settled
        assert child.hear() == "mapped"
        with pytest.raises(Busy, match="another process"):
            ds.freeze()


# ---- hand-over ----


def test_handing_out_read_write_settles_the_seals(ds: Dataspace) -> None:
    with give(ds) as received:
        assert received.rights == Rights.RW
        received.write(0, b"theirs")
        assert ds.read(0, 6) == b"theirs"
        for holder in (ds, received):
            for seal in (holder.freeze, holder.publish):
                with pytest.raises(PermissionDenied, match="SEALABLE"):
                    seal()
        with pytest.raises(PermissionError):
            memfd.add_seals(received.fileno(), Seal.WRITE)


def test_handing_out_read_only_keeps_the_choice(ds: Dataspace) -> None:
    with give(ds, Rights.R) as weaker, give(ds.ro) as reader:
        assert weaker.rights == reader.rights == Rights.R
        with pytest.raises(PermissionDenied):
            _ = weaker.rw
        ds.freeze()


def test_rights_only_shrink(ds: Dataspace) -> None:
    with give(ds, Rights.RWSD) as strong, give(ds.ro, Rights.RWSD) as weak:
        assert strong.rights == Rights.RW
        assert weak.rights == Rights.R
    with pytest.raises(InvalidArgument, match="without r"):
        ds.export(Rights.W)


def test_a_frozen_dataspace_is_handed_out_read_only(ds: Dataspace) -> None:
    ds.freeze()
    with give(ds) as received:
        assert received.rights == Rights.R
        assert received.enforcement == "sealed"


def test_sealable_memory_is_not_handed_out_read_write() -> None:
    with alloc(PAGE, flags=MemAlloc.F.SEALABLE) as ds:
        for holder in (ds, ds.dup()):
            with pytest.raises(PermissionDenied, match="SEALABLE"):
                holder.export()
        with give(ds.ro), give(ds, Rights.R):
            ds.freeze()
        with give(ds) as received:
            assert received.rights == Rights.R


def test_an_export_survives_the_close_of_its_capability(ds: Dataspace) -> None:
    export = ds.export()
    ds.close()
    assert memfd.identity(export.fds[0])
    export.failed()


def arrives(rights: Rights, value: int, *fds: Fd) -> None:
    """Import what a hostile peer sent; every descriptor must be gone afterwards."""
    with pytest.raises(InvalidArgument) as caught:
        import_capability(ItemKind.DATASPACE, rights, value, fds)
    assert all(fd.closed for fd in fds)
    assert len(str(caught.value)) > 20


@pytest.mark.parametrize("seals", [Seal(0), Seal.SHRINK, Seal.GROW, Seal.SEAL])
def test_memory_that_could_change_its_size_is_refused(seals: Seal) -> None:
    arrives(Rights.RW, PAGE, raw_memfd(seals=seals))


@pytest.mark.parametrize("value", [0, 1, PAGE - 1, PAGE + 1, 1 << 63, (1 << 64) - 1])
def test_a_wrong_size_is_refused(value: int) -> None:
    arrives(Rights.RW, value, raw_memfd())


def test_empty_memory_is_refused() -> None:
    arrives(Rights.RW, 0, raw_memfd(size=0))


@pytest.mark.parametrize("seal", [Seal.WRITE, Seal.FUTURE_WRITE])
def test_writable_memory_that_is_sealed_against_writing_is_refused(seal: Seal) -> None:
    arrives(Rights.RW, PAGE, raw_memfd(seals=Seal.FIXED_SIZE | seal))


def test_rights_that_the_descriptor_lacks_are_refused() -> None:
    with raw_memfd() as writable:
        reader = memfd.reopen_readonly(writable.fileno())
    arrives(Rights.RW, PAGE, reader)


def test_a_descriptor_with_more_rights_than_stated_is_refused() -> None:
    arrives(Rights.R, PAGE, raw_memfd())


def test_a_capability_without_the_right_to_read_is_refused() -> None:
    arrives(Rights.W, PAGE, raw_memfd())


def test_descriptors_of_another_kind_are_refused(tmp_path: os.PathLike[str]) -> None:
    read, write = os.pipe2(os.O_CLOEXEC)
    arrives(Rights.R, PAGE, Fd(read))
    arrives(Rights.RW, PAGE, Fd(write))
    arrives(Rights.R, PAGE, Fd(os.open("/dev/zero", os.O_RDONLY | os.O_CLOEXEC)))
    path = os.path.join(tmp_path, "file")
    with open(path, "wb") as file:
        file.write(bytes(PAGE))
    arrives(Rights.R, PAGE, Fd(os.open(path, os.O_RDONLY | os.O_CLOEXEC)))
    with raw_memfd() as memory:
        arrives(Rights.R, PAGE, Fd(os.open(f"/proc/self/fd/{memory.fileno()}", os.O_PATH | os.O_CLOEXEC)))


def test_a_file_in_a_tmpfs_is_refused_unless_it_cannot_shrink() -> None:
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("no /dev/shm")
    path = f"/dev/shm/l4re-test-{os.getpid()}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.unlink(path)
    os.ftruncate(fd, PAGE)
    arrives(Rights.RW, PAGE, Fd(fd))


def test_huge_pages_are_refused() -> None:
    try:
        fd = Fd(os.memfd_create("huge", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | os.MFD_HUGETLB))
    except OSError:
        pytest.skip("no hugetlbfs")
    os.ftruncate(fd.fileno(), 2 << 20)
    memfd.add_seals(fd.fileno(), Seal.FIXED_SIZE)
    arrives(Rights.RW, 2 << 20, fd)


def test_too_few_and_too_many_descriptors_are_refused() -> None:
    arrives(Rights.RW, PAGE)
    arrives(Rights.RW, PAGE, raw_memfd(), raw_memfd())


@given(value=st.integers(0, (1 << 64) - 1), rights=st.integers(0, 255))
def test_no_stated_size_or_right_is_believed(value: int, rights: int) -> None:
    with raw_memfd(size=100) as fd:
        try:
            got = import_capability(ItemKind.DATASPACE, Rights(rights), value, (fd,))
        except InvalidArgument:
            return
        with got:
            assert value == 100
            assert got.rights == Rights.RW


def test_memory_from_elsewhere_may_have_any_name(rm: RegionMap) -> None:
    fd = raw_memfd(name="weird\nname (deleted)")
    with import_capability(ItemKind.DATASPACE, Rights.RW, PAGE, (fd,)) as ds:
        assert isinstance(ds, Dataspace)
        assert ds.name.startswith("weird")
        assert "\n" not in repr(ds)
        with pytest.raises(Busy), rm.attach(ds):
            ds.freeze()


@pytest.mark.processes
def test_two_processes_see_one_memory(start: Callable[..., Child]) -> None:
    def other(link: Link) -> None:
        rw, ro = link.take()
        rw.write(0, b"written there")
        try:
            ro.write(0, b"x")
        except PermissionError as error:
            link.say(f"{rw == ro} {type(error).__name__}")

    child = start(other)
    with alloc(PAGE) as ds:
        child.give(ds, ds.ro)
        assert child.hear() == "True AccessDenied"
        child.end()
        assert ds.read(0, 13) == b"written there"


@pytest.mark.processes
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_another_user_cannot_reopen_what_it_got_read_only(start: Callable[..., Child]) -> None:
    def other(link: Link) -> None:
        ro, rw = link.take()
        for ds in (ro, rw.ro):
            try:
                os.close(os.open(f"/proc/self/fd/{ds.fileno()}", os.O_RDWR))
                link.say("opened")
            except PermissionError:
                link.say("refused")
        rw.write(0, b"ok")

    child = start(other, user=65534)
    with alloc(PAGE) as ds:
        child.give(ds.ro, ds)
        assert [child.hear(), child.hear()] == ["refused", "refused"]
        child.end()
        assert ds.read(0, 2) == b"ok"


# ---- threads ----


def test_closing_while_others_read_never_reads_a_stranger(ds: Dataspace) -> None:
    ds.write(0, b"\x01" * ds.size)
    barrier = threading.Barrier(5)
    strange: list[bytes] = []

    def read() -> None:
        barrier.wait()
        try:
            while True:
                data = ds.read(0, ds.size)
                if data != b"\x01" * ds.size:
                    strange.append(data)
        except Closed:
            pass

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    barrier.wait()
    for _ in range(200):
        ds.read(0, 1)
    ds.close()
    others = [alloc(ds_size) for ds_size in [3 * PAGE] * 20]  # take the number at once
    for thread in threads:
        thread.join()
    for other in others:
        other.close()
    assert strange == []


def test_threads_that_ask_for_the_read_only_one_get_the_same(ds: Dataspace) -> None:
    barrier = threading.Barrier(8)
    found: list[Dataspace] = []

    def ask() -> None:
        barrier.wait()
        found.append(ds.ro)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(ro) for ro in found}) == 1
