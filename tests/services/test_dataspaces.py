"""A dataspace behind a gate: what a server makes when it is wanted, and what its clients attach."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4re import (
    AccessDenied,
    BadProtocol,
    Capability,
    Dataspace,
    DataspaceServer,
    DsFlags,
    Err,
    InvalidArgument,
    L4Error,
    MemAlloc,
    NotSupported,
    OutOfRange,
    PeerGone,
    PermissionDenied,
    Proto,
    RegionMap,
    RegistryServer,
    RemoteDataspace,
    Rights,
    RmFlags,
    ServerError,
    Window,
    cap_dynamic_cast,
    describe,
    new_channel,
)
from l4re.dataspace import DataspaceInfo
from l4re.linux.memfd import PAGE_SIZE as PAGE
from l4re.testing import wait_until
from support.processes import PATIENCE, Background, Child, Link, Running, descriptors

Start = Callable[..., Child]
SIZE = 3 * PAGE + 10
alloc = MemAlloc().alloc


@contextmanager
def served(obj: DataspaceServer, rights: Rights = Rights.RW) -> Iterator[RemoteDataspace]:
    """A proxy with these rights for an object that another thread of this process serves."""
    with RegistryServer() as server:
        local: Any = server.registry.register_obj(obj)
        with local.mint(rights=rights) as gate, Running(server):
            yield RemoteDataspace(gate)


@pytest.fixture
def rm() -> RegionMap:
    return RegionMap()


@pytest.fixture
def memory() -> Iterator[Dataspace]:
    with alloc(SIZE, name="served") as memory:
        yield memory


class Squares(DataspaceServer):
    """A table that is made page by page, of those pages that somebody asked for."""

    def __init__(self, memory: Dataspace) -> None:
        super().__init__(memory)
        self.asked: list[tuple[int, int, DsFlags, Rights]] = []

    def map(self, offset: int, size: int, flags: DsFlags, rights: Rights) -> Window:
        self.asked.append((offset, size, flags, rights))
        for at in range(offset, offset + size, PAGE):
            number = at // PAGE
            self.memory.write(at, struct.pack("=Q", number * number))
        return Window(self.memory, offset, size)


def test_what_is_attached_is_made_when_it_is_wanted(rm: RegionMap, memory: Dataspace) -> None:
    table = Squares(memory)
    with served(table, Rights.R) as remote:
        assert remote.info() == DataspaceInfo(SIZE, DsFlags.R)
        assert (remote.size, remote.flags) == (SIZE, DsFlags.R)
        with rm.attach(remote, PAGE + 10, offset=2 * PAGE) as region:
            assert (region.size, region.readonly) == (PAGE + 10, True)
            assert [struct.unpack_from("=Q", region, at)[0] for at in (0, PAGE)] == [4, 9]
        assert table.asked == [(2 * PAGE, PAGE + 10, DsFlags.R, Rights.R)]
        assert memory.read(PAGE, 8) == bytes(8)
        with rm.attach(remote) as region:
            assert region.size == SIZE


def test_writers_share_the_memory_and_readers_cannot_write(rm: RegionMap, memory: Dataspace) -> None:
    with served(DataspaceServer(memory)) as remote, rm.attach(remote) as region:
        assert remote.flags == DsFlags.RW
        memoryview(region)[PAGE : PAGE + 5] = b"there"
        assert memory.read(PAGE, 5) == b"there"
        remote.clear(PAGE + 1, 3)
        assert memory.read(PAGE, 5) == b"t\0\0\0e"
        with rm.attach(remote, flags=RmFlags.R) as reader:
            assert reader.readonly
        with remote.window(flags=DsFlags.R).dataspace as weak:
            assert weak.rights == Rights.R


def test_without_w_nothing_is_written(rm: RegionMap, memory: Dataspace) -> None:
    memory.write(0, b"keep")
    with served(DataspaceServer(memory), Rights.R) as remote, alloc(PAGE) as other:
        with pytest.raises(PermissionDenied):
            rm.attach(remote, flags=RmFlags.RW)
        with pytest.raises(AccessDenied):
            remote.clear(0, 4)
        with pytest.raises(AccessDenied):
            remote.copy_in(0, other, 0, 4)
        with rm.attach(remote) as region:
            assert region.readonly
    assert memory.read(0, 4) == b"keep"


def test_w_on_the_gate_is_not_w_on_the_memory(rm: RegionMap, memory: Dataspace) -> None:
    memory.freeze()
    with served(DataspaceServer(memory)) as remote:
        assert remote.flags == DsFlags.R
        with pytest.raises(PermissionDenied, match="frozen"):
            rm.attach(remote, flags=RmFlags.RW)
        with pytest.raises(AccessDenied, match="frozen"):
            remote.clear(0, 1)
        with rm.attach(remote) as region:
            assert region.dataspace.enforcement == "sealed"


def test_memory_whose_seals_are_still_open_is_shared_read_only(rm: RegionMap) -> None:
    with (
        alloc(PAGE, flags=MemAlloc.F.SEALABLE) as memory,
        served(DataspaceServer(memory)) as remote,
        rm.attach(remote, flags=RmFlags.R) as region,
    ):
        with pytest.raises(PermissionDenied, match="SEALABLE"):
            rm.attach(remote, flags=RmFlags.RW)
        memory.freeze()
        assert region.dataspace.enforcement == "sealed"


def test_a_fixed_address_and_an_alignment_reach_the_region_map(rm: RegionMap, memory: Dataspace) -> None:
    with served(DataspaceServer(memory)) as remote:
        with rm.attach(remote, align=21) as region:
            addr = region.addr
            assert addr % (2 << 20) == 0
        with rm.attach(remote, addr=addr) as region:
            assert region.addr == addr


class Pieces(DataspaceServer):
    """Each page is a dataspace of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.pages = [alloc(2 * PAGE) for _ in range(3)]

    def info(self) -> DataspaceInfo:
        return DataspaceInfo(3 * PAGE - 5, DsFlags.R)

    def map(self, offset: int, size: int, flags: DsFlags, rights: Rights) -> Window:
        page = self.pages[offset // PAGE]
        page.write(PAGE, b"page %d" % (offset // PAGE))
        return Window(page, PAGE, min(size, PAGE))


def test_a_part_that_takes_several_windows_is_attached_one_by_one(rm: RegionMap) -> None:
    with served(Pieces()) as remote:
        windows = list(remote.windows())
        assert [window.size for window in windows] == [PAGE, PAGE, PAGE - 5]
        with rm.attach(windows[1]) as region:
            assert bytes(region)[:6] == b"page 1"
            assert region.readonly
        with alloc(remote.size) as whole:
            at = 0
            for window in windows:
                at += whole.copy_in(at, window.dataspace, window.offset, window.size)
            assert [whole.read(at, 6) for at in range(0, 3 * PAGE, PAGE)] == [b"page 0", b"page 1", b"page 2"]
        before = descriptors()
        with pytest.raises(OutOfRange, match=rf"{PAGE} of {3 * PAGE - 5} bytes .*windows\(\)"):
            rm.attach(remote)
        assert descriptors() == before
        with rm.attach(remote, PAGE, offset=PAGE) as region:
            assert bytes(region)[:6] == b"page 1"
        rest = remote.windows(PAGE, 2 * PAGE)
        assert [next(rest).size, next(rest).size] == [PAGE, PAGE - 5]
        with pytest.raises(OutOfRange, match=f"ends after {3 * PAGE - 5} bytes"):
            next(rest)
        with pytest.raises(OutOfRange, match="behind the last page"):
            list(remote.windows(3 * PAGE))


def test_what_is_not_all_inside_is_not_attached(rm: RegionMap, memory: Dataspace) -> None:
    with served(DataspaceServer(memory)) as remote:
        for size in (SIZE + 1, 4 * PAGE, 1 << 40):
            with pytest.raises(OutOfRange, match=f"{SIZE} of {size} bytes"):
                rm.attach(remote, size)


def test_a_window_is_attached_like_a_dataspace_of_its_size(rm: RegionMap, memory: Dataspace) -> None:
    memory.write(PAGE, b"one")
    memory.write(2 * PAGE, b"two")
    window = Window(memory, PAGE, PAGE + 5)
    assert window.rights == Rights.RW
    with rm.attach(window) as region:
        assert (region.size, bytes(region)[:3]) == (PAGE + 5, b"one")
    with rm.attach(window, offset=PAGE, flags=RmFlags.R) as region:
        assert (region.size, bytes(region)[:3], region.readonly) == (5, b"two", True)
    for size, offset in ((PAGE + 6, 0), (PAGE, PAGE), (None, 2 * PAGE), (1, -PAGE)):
        with pytest.raises(OutOfRange, match=f"window of {PAGE + 5} bytes"):
            rm.attach(window, size, offset=offset)


def test_what_is_served_fits_into_areas_and_is_copied_on_write(rm: RegionMap, memory: Dataspace) -> None:
    with rm.reserve_area(16 * PAGE) as area:
        for rights in (Rights.RW, Rights.R):
            with served(DataspaceServer(memory), rights) as remote:
                assert remote.rights == rights
                with area.attach(remote) as region, area.attach(remote, PAGE, offset=2 * PAGE) as other:
                    assert region.readonly == other.readonly == (rights == Rights.R)
                    assert area.addr <= region.addr < other.addr < area.addr + area.size
        with served(DataspaceServer(memory), Rights.R) as remote:
            with rm.attach(remote, flags=RmFlags.RW | RmFlags.PRIVATE) as region:
                memoryview(region)[:4] = b"mine"
            assert memory.read(0, 4) == bytes(4)
            with rm.attach(remote, flags=RmFlags.RESERVED) as region:
                assert region.mapped_size == 4 * PAGE


class Copier(DataspaceServer):
    """Copies and reserves, as far as its memory does."""

    def copy_in(self, dst: int, src_ds: Dataspace, src: int, size: int) -> None:
        self.memory.copy_in(dst, src_ds, src, size)

    def allocate(self, offset: int, size: int) -> None:
        self.memory.allocate(offset, size)


def test_a_server_may_copy_and_reserve_and_ranges_are_cut_for_it(memory: Dataspace) -> None:
    with served(Copier(memory)) as remote, alloc(100) as source:
        source.write(0, bytes(range(100)))
        remote.copy_in(10, source, 95, 1 << 40)
        assert memory.read(9, 7) == b"\0" + bytes(range(95, 100)) + b"\0"
        remote.copy_in(SIZE - 2, source, 1, 50)
        assert memory.read(SIZE - 2, 2) == b"\1\2"
        for dst, src in ((SIZE, 0), (1 << 63, 0), (0, 100), (0, (1 << 64) - 1)):
            remote.copy_in(dst, source, src, 50)
        remote.allocate(0, SIZE)
        remote.allocate(SIZE, 0)
        with pytest.raises(OutOfRange, match=str(SIZE)):
            remote.allocate(SIZE, 1)
        gate, svr = new_channel()
        with gate, svr:
            label, *_ = remote._l4_transact(Proto.DATASPACE, struct.pack("=i4xQQQ", 3, 0, 0, 1), b"", (gate,))
            assert label == -Err.EINVAL


def test_one_without_memory_says_what_to_do() -> None:
    server = DataspaceServer()
    assert repr(server) == "<DataspaceServer>"
    with served(server) as remote, pytest.raises(NotSupported, match=r"override info\(\) and map\(\)"):
        _ = remote.size


def test_it_says_what_it_is_and_speaks_nothing_else(memory: Dataspace) -> None:
    with served(DataspaceServer(memory)) as remote:
        assert cap_dynamic_cast(remote.cap, RemoteDataspace) == remote
        assert describe(remote).protocols[0].number == Proto.DATASPACE
        with pytest.raises(BadProtocol):
            remote.cap.call(b"", label=Proto.FACTORY)  # type: ignore[attr-defined]
        with pytest.raises(BadProtocol, match="cannot be asked"):
            cap_dynamic_cast(memory, RemoteDataspace)


# ---- arguments ----


def test_arguments_that_make_no_sense_are_refused_on_either_side(rm: RegionMap, memory: Dataspace) -> None:
    with served(DataspaceServer(memory)) as remote:
        for offset, size, error in (
            (4 * PAGE, PAGE, OutOfRange),
            (1 << 63, PAGE, OutOfRange),
            (-PAGE, PAGE, OutOfRange),
            (0, -1, OutOfRange),
            (5, PAGE, InvalidArgument),
            (0, 0, InvalidArgument),
        ):
            with pytest.raises(error):
                remote.window(offset, size)
        with pytest.raises(InvalidArgument, match="0x100"):
            remote.window(flags=0x100 | DsFlags.R)
        with pytest.raises(PermissionDenied, match="executable"):
            remote.window(flags=DsFlags.RX)
        with pytest.raises(OutOfRange):
            remote.clear(4 * PAGE, 1)
        remote.clear(4 * PAGE - 1, 1 << 62)
        with remote.window(flags=DsFlags.UNCACHEABLE | DsFlags.R).dataspace as found:
            assert found == memory
        with pytest.raises(OutOfRange):
            rm.attach(remote, offset=4 * PAGE)


@pytest.mark.parametrize(("offset", "size"), [(PAGE, SIZE), (0, SIZE + 1), (0, 0), (4 * PAGE, 1), (-PAGE, PAGE)])
def test_a_window_is_inside(memory: Dataspace, offset: int, size: int) -> None:
    with pytest.raises(OutOfRange, match=str(SIZE)):
        Window(memory, offset, size)
    with pytest.raises(InvalidArgument, match="multiple"):
        Window(memory, 1, 1)


def request(op: int, *numbers: int) -> bytes:
    return struct.pack(f"=i4x{len(numbers)}Q", op, *numbers)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (b"", Err.EMSGTOOSHORT),
        (request(0), Err.EMSGTOOSHORT),
        (request(0, 0, 0, 4), Err.EMSGTOOSHORT),
        (request(0, 1 << 63, 0, 4, 1), Err.ERANGE),
        (request(0, 0, 1 << 63, 4, 0), Err.EINVAL),
        (request(0, 0, 0, 1 << 63, 1), Err.EINVAL),
        (request(0, 0, 0, 1, 1), Err.EPERM),
        (request(1, 0), Err.EMSGTOOSHORT),
        (request(3, 0, 0, 1), Err.EMSGTOOSHORT),
        (request(4, (1 << 64) - 1, (1 << 64) - 1), Err.ERANGE),
        (request(5), Err.ENOSYS),
        (request(-1), Err.ENOSYS),
    ],
)
def test_what_is_no_request_is_answered_with_an_error(memory: Dataspace, words: bytes, error: Err) -> None:
    with served(DataspaceServer(memory)) as remote:
        label, _, text, caps = remote._l4_transact(Proto.DATASPACE, words)
        assert label == -error
        assert text
        assert not caps


@given(rights=st.integers(0, 3), words=st.binary(max_size=56), source=st.booleans())
def test_any_words_at_all_are_answered_or_refused_and_nobody_writes_without_w(
    rights: int, words: bytes, source: bool
) -> None:
    with alloc(SIZE) as memory, alloc(SIZE) as other:
        memory.write(0, b"x" * SIZE)
        try:
            answer = Copier(memory).serve_request(rights, Proto.DATASPACE, words, b"", (other,) if source else ())
        except L4Error:
            answer = None
        if not rights & Rights.W:
            assert memory.read(0, SIZE) == b"x" * SIZE
            assert answer is None or not any(cap is not None and cap.rights & Rights.W for cap in answer[3])


@given(
    at=st.integers(0, 5 * PAGE),
    size=st.integers(1, 6 * PAGE),
    rights=st.sampled_from([Rights.R, Rights.RW]),
    flags=st.sampled_from([DsFlags.R, DsFlags.W, DsFlags.RW]),
)
def test_a_window_shows_the_bytes_that_were_asked_for_or_there_is_none(
    at: int, size: int, rights: Rights, flags: DsFlags
) -> None:
    with alloc(SIZE) as memory:
        answer: Any = None
        try:
            answer = DataspaceServer(memory).serve_request(
                rights, Proto.DATASPACE, request(0, at, 0, flags, size), b"", ()
            )
        except InvalidArgument:
            assert at % PAGE
        except OutOfRange:
            assert at >= 4 * PAGE
        except PermissionDenied:
            assert flags & DsFlags.W
            assert not rights & Rights.W
        if answer is not None:
            offset, shown = struct.unpack("=QQ", answer[1])
            assert (offset, shown) == (at, min(size, SIZE - at))
            assert answer[3][0].rights == (Rights.RW if flags & DsFlags.W else Rights.R)


# ---- servers that lie ----


class Liar(DataspaceServer):
    """Answers ``map`` with anything."""

    def __init__(self, memory: Dataspace, words: bytes, *caps: Capability | None) -> None:
        super().__init__(memory)
        self.answer = (0, words, b"", caps)

    def serve_request(self, rights: int, label: int, words: bytes, *rest: Any) -> Any:
        if words[:4] == bytes(4) and label == Proto.DATASPACE:
            return self.answer
        return super().serve_request(rights, label, words, *rest)


def pair(offset: int, size: int) -> bytes:
    return struct.pack("=QQ", offset, size)


@pytest.mark.parametrize(
    "words",
    [
        b"",
        pair(0, 1)[:8],
        pair(0, 0),
        pair(0, SIZE + 1),
        pair(4 * PAGE, 1),
        pair(1 << 63, 1 << 63),
        pair(7, 7),
        pair(0, SIZE),
    ],
)
def test_a_window_that_is_none_is_an_error_and_nothing_of_it_stays(memory: Dataspace, words: bytes) -> None:
    with served(Liar(memory, words, memory)) as remote:
        remote.info()
        before = descriptors()
        with pytest.raises(L4Error):
            remote.window(0, PAGE)
        assert descriptors() == before


def test_an_answer_without_memory_or_with_less_rights_is_an_error(memory: Dataspace) -> None:
    with alloc(PAGE) as small:
        for caps in ((), (None,)):
            with served(Liar(memory, pair(0, PAGE), *caps)) as remote, pytest.raises(L4Error):
                remote.window(0, PAGE, flags=DsFlags.R)
        with served(Liar(memory, pair(0, PAGE), small.ro)) as remote:
            remote.info()
            before = descriptors()
            with pytest.raises(ServerError, match="gave"):
                remote.window(0, PAGE, flags=DsFlags.RW)
            assert descriptors() == before
    with RegistryServer() as server:
        gate = server.registry.register_obj(DataspaceServer(memory))
        with served(Liar(memory, pair(0, PAGE), gate)) as remote, pytest.raises(L4Error):
            remote.window(0, PAGE, flags=DsFlags.R)


@pytest.mark.parametrize("answer", [None, (0, SIZE), (0, PAGE + 1), (0, 7), (0, PAGE - 1), 0])
def test_a_map_that_returns_something_else_is_a_bug_of_the_server(
    memory: Dataspace, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Wrong(DataspaceServer):
        def map(self, offset: int, size: int, flags: DsFlags, rights: Rights) -> Window:
            made: Window = Window(memory, *answer) if isinstance(answer, tuple) else answer
            return made

    with served(Wrong(memory)) as remote, pytest.raises(ServerError, match=r"Wrong.map must return a Window"):
        remote.window(0, PAGE)
    assert "must return" in caplog.text


# ---- processes ----


@pytest.mark.processes
def test_what_was_attached_outlives_the_server_that_was_killed(start: Start, rm: RegionMap) -> None:
    def serve(link: Link) -> None:
        with RegistryServer() as server, alloc(SIZE) as memory:
            link.give(server.registry.register_obj(Squares(memory)))
            server.loop()

    child = start(serve)
    (gate,) = child.take()
    remote = cap_dynamic_cast(gate, RemoteDataspace, timeout=PATIENCE)
    with rm.attach(remote) as region:
        child.kill()
        child.join()
        assert struct.unpack_from("=Q", region, 3 * PAGE)[0] == 9
        memoryview(region)[:5] = b"alive"
        assert bytes(region)[:5] == b"alive"
        with pytest.raises(PeerGone):
            remote.window()


@pytest.mark.processes
def test_clients_share_what_was_made_and_leave_nothing_when_they_are_killed(start: Start, memory: Dataspace) -> None:
    def client(link: Link) -> None:
        (gate,) = link.take()
        with RegionMap().attach(RemoteDataspace(gate)) as region:
            view = memoryview(region)
            link.say(bytes(view[PAGE : PAGE + 1]).decode("latin-1"))
            if not region.readonly:
                view[100] = 1
            link.say("mapped" if region.readonly else "written")
            while True:
                RemoteDataspace(gate).window()

    children = [start(client) for _ in range(3)]
    with RegistryServer() as server:
        local: Any = server.registry.register_obj(Squares(memory))
        assert memory.ro.rights == Rights.R
        before = descriptors()
        for child, rights in zip(children, (Rights.RW, Rights.R, Rights.R), strict=True):
            with local.mint(rights=rights) as gate:
                child.give(gate)
        loop = Background(server.loop)
        said = []
        for child in children:
            assert child.hear() == "\1"
            said.append(child.hear())
        assert said == ["written", "mapped", "mapped"]
        assert memory.read(100, 1) == b"\1"
        for child in children:
            child.kill()
            child.join()
        loop.join()  # nobody is left
        wait_until(lambda: descriptors() == before, PATIENCE)
