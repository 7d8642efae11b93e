"""Consoles: bytes out in pieces, bytes in when there are some, and a log over one."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4re import (
    Err,
    Icu,
    InvalidArgument,
    IpcTimeout,
    Irq,
    L4Error,
    Log,
    PeerGone,
    PermissionDenied,
    Proto,
    RegistryServer,
    Rights,
    ServerError,
    Vcon,
    VconAttr,
    VconServer,
    cap_dynamic_cast,
    describe,
    new_channel,
)
from l4re.interface import Answer, Served
from l4re.testing import wait_until
from support.processes import PATIENCE, Child, Link, Running

Start = Callable[..., Child]


class Screen(VconServer):
    """Keeps what was written, piece by piece."""

    def __init__(self, *, room: int = 1 << 16) -> None:
        super().__init__(room=room)
        self.pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.pieces.append(data)

    @property
    def text(self) -> bytes:
        return b"".join(self.pieces)


@contextmanager
def local(*, room: int = 1 << 16) -> Iterator[tuple[Screen, Vcon]]:
    """A console that is served by whoever calls it."""
    with RegistryServer() as server, Screen(room=room) as screen:
        yield screen, Vcon(server.registry.register_obj(screen))


def test_what_is_written_comes_out_in_pieces_of_488_bytes() -> None:
    with local() as (screen, vcon):
        vcon.write("ä line\n")
        vcon.write(b"")
        assert screen.pieces == ["ä line\n".encode()]
        screen.pieces.clear()
        vcon.write(b"x" * 1000)
        assert [len(piece) for piece in screen.pieces] == [488, 488, 24]


@given(st.binary(max_size=2000))
def test_any_bytes_come_out_as_they_went_in(data: bytes) -> None:
    with local() as (screen, vcon):
        vcon.write(data)
        assert screen.text == data
        screen.feed(data)
        assert vcon.read(4000) == data


def test_input_is_read_in_parts_and_never_waited_for() -> None:
    with local() as (screen, vcon):
        assert vcon.read() == b""
        assert screen.feed(b"i" * 600) == 600
        first = vcon.read_once()
        assert (len(first.data), first.done, first.broken) == (496, False, False)
        assert vcon.read(1000) == b"i" * 104
        screen.feed(b"abc", broken=True)
        got = vcon.read_once(2)
        assert got == (b"ab", True, False)
        assert vcon.read_once(2) == (b"c", False, True)
        with pytest.raises(InvalidArgument, match="496"):
            vcon.read_once(497)


def test_input_beyond_the_room_is_not_taken() -> None:
    with local(room=4) as (screen, vcon):
        assert screen.feed(b"abcdef") == 4
        assert screen.feed(b"gh") == 0
        assert vcon.read() == b"abcd"


def test_an_irq_tells_of_input() -> None:
    with local() as (screen, vcon), Irq.create() as irq:
        vcon.bind(0, irq)
        vcon.unmask(0)
        with pytest.raises(IpcTimeout):
            irq.receive(timeout=0)
        screen.feed(b"x")
        irq.receive(timeout=PATIENCE)
        assert vcon.info().irqs == 1


def test_attributes_are_kept() -> None:
    with local() as (screen, vcon):
        assert vcon.get_attr() == VconAttr()
        attr = VconAttr(VconAttr.ICRNL, VconAttr.ONLCR, VconAttr.ECHO | VconAttr.ICANON)
        vcon.set_attr(attr)
        assert vcon.get_attr() == attr
        assert screen.attr == attr
        assert (VconAttr.INLCR, VconAttr.IGNCR, VconAttr.ICRNL) == (64, 128, 256)


def test_reading_and_setting_need_w_and_writing_needs_nothing() -> None:
    channel = new_channel()
    with RegistryServer() as server, Screen() as screen, channel:
        server.registry.register_obj(screen, channel.svr)
        with channel.svr.mint(rights=Rights.R) as gate, Running(server):
            vcon = Vcon(gate)
            vcon.write("allowed")
            assert vcon.get_attr() == VconAttr()
            for call in (vcon.read, vcon.read_once, lambda: vcon.set_attr(VconAttr())):
                with pytest.raises(PermissionDenied):
                    call()
        assert screen.text == b"allowed"


def test_it_is_an_interrupt_controller_too() -> None:
    with local() as (_, vcon):
        assert cap_dynamic_cast(vcon.cap, Icu).cap == vcon.cap
        assert cap_dynamic_cast(vcon.cap, Vcon) == vcon
        assert [each.name for each in describe(vcon).protocols] == ["Vcon", "Icu"]
        with pytest.raises(L4Error, match="this Screen speaks protocol -0xd, -0x1, not 0x4001") as error:
            vcon.cap.call(b"", label=Proto.NAMESPACE)  # type: ignore[attr-defined]
        assert error.value.code == Err.EBADPROTO


def test_a_log_over_a_console_says_lines() -> None:
    with local() as (screen, vcon):
        log = Log("tag", vcon=vcon)
        log.print("hello")
        log.printn("rest")
        assert screen.pieces == [b"hello\n", b"rest"]


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (b"", Err.EMSGTOOSHORT),
        (struct.pack("=Q", 0), Err.EMSGTOOSHORT),
        (struct.pack("=QQ", 0, 0), 0),
        (struct.pack("=QQ", 0, 1), Err.EMSGTOOSHORT),
        (struct.pack("=QQQ", 0, 1 << 63, 0), Err.EMSGTOOSHORT),
        (struct.pack("=Q", 0xFFFF_FFFF << 16 | 1), 0),
        (struct.pack("=QQ", 2, 0), Err.EMSGTOOSHORT),
        (struct.pack("=Q", 4), Err.ENOSYS),
    ],
)
def test_what_is_no_request_is_answered_with_an_error(request_: bytes, error: int) -> None:
    with local() as (_, vcon):
        assert vcon._l4_transact(Proto.LOG, request_)[0] == -error


@given(st.binary(max_size=64), st.integers(0, 3))
def test_any_words_at_all_are_answered_or_refused(data: bytes, rights: int) -> None:
    screen = Screen()
    try:
        answer = screen.serve_request(rights, Proto.LOG, data, b"", ())
    except L4Error:
        return
    assert answer is not None
    assert len(answer[1]) <= 504


def test_a_console_that_lies_about_sizes_is_not_believed() -> None:
    class Liar(Served):
        def serve_request(self, *_: object) -> Answer:
            return 0, struct.pack("=QQ", 100, 0), b"", ()

    with RegistryServer() as server:
        vcon = Vcon(server.registry.register_obj(Liar()))
        for size in (496, 8):
            with pytest.raises(ServerError, match="says it sent 100"):
                vcon.read_once(size)


@pytest.mark.processes
def test_what_a_process_wrote_before_it_was_killed_comes_out(start: Start) -> None:
    def writer(link: Link) -> None:
        (gate,) = link.take()
        Log(vcon=Vcon(gate)).print("l" * 10_000)
        link.say("written")
        link.wait_for_end()

    child = start(writer)
    with RegistryServer() as server, Screen() as screen:
        child.give(server.registry.register_obj(screen))
        with Running(server) as loop:
            assert child.hear() == "written"
            child.kill()
            child.join()
            loop.join()  # nobody is left
        assert screen.text == b"l" * 10_000 + b"\n"


@pytest.mark.processes
def test_a_writer_learns_that_the_console_was_killed(start: Start) -> None:
    def server(link: Link) -> None:
        (svr,) = link.take()
        with RegistryServer() as loop, Screen() as screen:
            loop.registry.register_obj(screen, svr)
            loop.loop()

    child = start(server)
    channel = new_channel()
    child.give(channel.svr)
    with channel.gate as gate:
        vcon = Vcon(gate)
        assert vcon.read() == b""
        child.kill()
        child.join()

        def gone() -> bool:
            try:
                vcon.write("anybody?")
            except PeerGone:
                return True
            return False

        wait_until(gone, PATIENCE, "the end to be noticed")
