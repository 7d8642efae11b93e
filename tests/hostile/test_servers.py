"""A hostile server: whatever it answers, its client gets an error that says so, and nothing is left of it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from l4re import Gate, IpcError, IpcTimeout, L4Error, PeerGone
from l4re._native import leaf
from l4re.linux.fd import Fd
from l4re.rights import Rights
from l4re.wire import session as wire
from l4re.wire.items import ItemKind, pack_item
from l4re.wire.session import Field, Head, State
from support.processes import PATIENCE, Background
from support.rawpeer import RawServer, memfd, pair, send

from .conftest import for_all
from .test_capabilities import LIES


@contextmanager
def served_by(answering: Callable[[RawServer], object]) -> Iterator[Gate]:
    """Yield a gate whose server accepts one session and then does what ``answering`` says, in a thread."""
    client, server = leaf.channel()
    leaf.unguard(server)
    with RawServer(server) as raw:

        def run() -> None:
            raw.accept()
            answering(raw)

        with Gate(Fd(client), Rights.RWS) as gate:
            thread = Background(run)
            yield gate
            gate.close()
            thread.join()


def call(gate: Gate, timeout: float | None = None) -> Any:
    """Make the call that is answered wrongly; its error."""
    with pytest.raises(IpcError) as caught:
        gate.call(b"hello", timeout=timeout)
    assert str(caught.value)
    return caught.value


HEADS = {
    "too many words": Head(words=64),
    "too many items": Head(words=63, items=31),
    "items beyond the words": Head(words=1, items=1),
    "too many descriptors": Head(fds=65),
    "a long area beyond the page": Head(size=wire.LONG_BYTES + 1),
    "4 GiB": Head(size=0xFFFFFFFF),
    "all ones": Head(-1, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
    "descriptors that never came": Head(fds=2),
    "descriptors and items that never came": Head(words=2, items=1, fds=1),
}


@for_all([(name, timeout) for name in HEADS for timeout in (None, PATIENCE)])
def test_an_impossible_answer_is_an_error(case: tuple[str, float | None]) -> None:
    name, timeout = case

    def answering(raw: RawServer) -> None:
        raw.take()
        raw.done(HEADS[name])

    with served_by(answering) as gate:
        assert "protocol" in str(call(gate, timeout))


@for_all([0, 4, 0xFF, 1 << 8 | 4, 2 << 8 | 3, 7 << 8 | 1, (1 << 64) - 1])
def test_a_state_that_no_server_writes_is_an_error(word: int) -> None:
    def answering(raw: RawServer) -> None:
        raw.take()
        raw.page.put(Field.STATE, word)
        raw.ring()

    with served_by(answering) as gate:
        assert "protocol" in str(call(gate))


def test_a_client_finds_its_idle_page_ruined() -> None:
    answered, ruined = threading.Event(), threading.Event()

    def answering(raw: RawServer) -> None:
        raw.take()
        raw.reply()
        answered.wait()
        raw.page.put(Field.STATE, 77 << 8 | State.TAKEN)
        ruined.set()

    with served_by(answering) as gate:
        gate.call()
        answered.set()
        ruined.wait()
        assert "protocol" in str(call(gate))


@for_all(LIES)
def test_a_capability_that_lies_is_an_error(name: str) -> None:
    kind, rights, value, make = LIES[name]
    answer_with(kind, rights, value, make)


def answer_with(kind: int, rights: int, value: int, make: Callable[[Any], list[int]]) -> None:
    from contextlib import ExitStack

    def answering(raw: RawServer) -> None:
        raw.take()
        with ExitStack() as stack:
            fds = make(stack)
            raw.reply(0, pack_item(kind, rights, len(fds), value), b"", 1, fds)

    with served_by(answering) as gate:
        assert "should not" in str(call(gate))


def test_a_server_that_sends_a_receive_right_is_taken_at_its_word() -> None:
    def answering(raw: RawServer) -> None:
        raw.take()
        ours, theirs = pair()
        raw.reply(0, pack_item(ItemKind.RECEIVE, 15, 1, 1), b"", 1, [theirs.fileno()])
        ours.close()
        theirs.close()

    with served_by(answering) as gate:
        (svr,) = gate.call().caps
        assert svr is not None
        svr.close()


PACKETS: dict[str, list[tuple[bytes, int]]] = {
    "an unknown packet": [(b"?", 0)],
    "an empty packet": [(b"", 0)],
    "an empty packet with descriptors": [(b"", 2)],
    "a wake-up with a descriptor": [(b"w", 1)],
    "descriptors of another message": [(wire.pack_ahead(99), 1)],
    "descriptors of another message first": [(wire.pack_ahead(9), 1), (wire.pack_ahead(1), 1)],
    "surplus descriptors": [(wire.pack_ahead(1), 2)],
    "too many descriptors": [(wire.pack_ahead(1), 100)],
    "a packet too long": [(b"w" * 5000, 0)],
}


@for_all(PACKETS)
def test_a_packet_that_no_server_sends_is_an_error(name: str) -> None:
    def answering(raw: RawServer) -> None:
        raw.take()
        fd = memfd(4096)
        for packet, count in PACKETS[name]:
            send(raw.sock, packet, [fd] * count)
        os.close(fd)
        raw.done(Head(words=2, items=1, fds=1), pack_item(ItemKind.DATASPACE, 5, 1, 4096))

    with served_by(answering) as gate:
        call(gate)


TEXTS = [
    b"",
    b"12 out of memory",
    b"x",
    b"\xff\xfe\xff",
    b"-5 minus",
    b"99999 large",
    b"0 nothing",
    b"1" * 180,
    b"2010 ipc",
]


@for_all([(text, where) for text in TEXTS for where in ["session", "port", "port before the call"]])
def test_any_refusal_at_all_is_an_error_of_ours(case: tuple[bytes, str]) -> None:
    text, where = case
    client, server = pair()
    refusal = wire.REFUSAL + bytes(15) + text
    with Gate(Fd(client.detach()), Rights.RWS) as gate:
        if where == "port before the call":
            send(server, refusal)
            server.close()
        else:

            def run() -> None:
                with RawServer(server.detach()) as raw:
                    raw.accept()
                    send(raw.sock if where == "session" else raw.port, refusal)

            thread = Background(run)
        for _ in range(2):
            with pytest.raises(L4Error) as caught:
                gate.call(timeout=PATIENCE)
            assert str(caught.value)
        if where != "port before the call":
            thread.join()
    server.close()


def test_a_server_that_never_answers_times_out() -> None:
    over = threading.Event()

    def answering(raw: RawServer) -> None:
        over.wait()

    with served_by(answering) as gate:
        for _ in range(3):
            with pytest.raises(IpcTimeout, match="no server took"):
                gate.call(timeout=0.001)
        over.set()


def test_a_server_that_takes_and_never_answers_times_out() -> None:
    over = threading.Event()

    def answering(raw: RawServer) -> None:
        raw.take()
        over.wait()

    with served_by(answering) as gate:
        with pytest.raises(IpcTimeout, match="did not answer"):
            gate.call(timeout=0.2)
        over.set()


def test_a_server_that_rings_for_nothing_cannot_keep_a_call_from_timing_out() -> None:
    over = threading.Event()

    def answering(raw: RawServer) -> None:
        while not over.is_set():
            raw.ring()

    with served_by(answering) as gate:
        with pytest.raises(IpcTimeout):
            gate.call(timeout=0.05)
        over.set()


@pytest.mark.parametrize("how", [socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR])
@pytest.mark.parametrize("descriptors", [False, True])
def test_a_server_that_shuts_one_direction_down_hangs_nobody(how: int, descriptors: bool) -> None:
    shut = threading.Event()
    over = threading.Event()

    def answering(raw: RawServer) -> None:
        raw.take()
        raw.reply()
        raw.sock.shutdown(how)
        shut.set()
        over.wait()

    with served_by(answering) as gate:
        gate.call()
        shut.wait()
        with gate.dup() as other, pytest.raises(IpcError):
            gate.call(timeout=0.2, caps=(other,) if descriptors else ())
        over.set()


@for_all(["taken", "posted", "accepted"])
def test_a_server_that_closes_mid_call_is_gone(when: str) -> None:
    def answering(raw: RawServer) -> None:
        if when == "taken":
            raw.take()
        elif when == "posted":
            with suppress(TimeoutError):
                while raw.page.state[1] is not State.POSTED:
                    wire_wait(raw)
        raw.close()

    with served_by(answering) as gate:
        assert isinstance(call(gate), PeerGone)


def wire_wait(raw: RawServer) -> None:
    from support.rawpeer import wait_for

    wait_for(raw.sock)


def test_an_answer_that_came_before_the_end_counts() -> None:
    def answering(raw: RawServer) -> None:
        raw.take()
        raw.reply(data=b"last words")
        raw.close()

    with served_by(answering) as gate:
        assert gate.call(timeout=PATIENCE).data == b"last words"


@for_all(
    [
        (label, text)
        for label in [-1, -39, -2010, -99999, -(1 << 63)]
        for text in [b"", b"why", b"\xff\xfe", b"x" * wire.LONG_BYTES]
    ]
)
def test_any_error_code_is_an_error(case: tuple[int, bytes]) -> None:
    label, text = case

    def answering(raw: RawServer) -> None:
        raw.take()
        raw.reply(label, data=text)

    with served_by(answering) as gate, pytest.raises(L4Error):
        gate.call()


def test_a_page_that_a_server_scribbles_on_during_calls() -> None:
    import random

    over = threading.Event()
    numbers = random.Random(3)

    def answering(raw: RawServer) -> None:
        while not over.is_set():
            words, items, fds = (numbers.getrandbits(7) for _ in range(3))
            raw.page.write(Head(numbers.getrandbits(63), words, items, fds, 0, 5))
            raw.page.set_state(1, State.DONE)
            raw.page.put_half(Field.CLIENT_ASLEEP, 0)
            raw.ring()

    with served_by(answering) as gate:
        with suppress(L4Error):
            for _ in range(50):
                with suppress(IpcTimeout):
                    gate.call(timeout=0.01)
        over.set()
