"""The table in ``wire.session`` says what the native leaf does: a peer written from it talks to the leaf."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4re._native import leaf
from l4re.wire import session as wire
from l4re.wire.session import Field, Head, Side, State
from support.processes import Background
from support.rawpeer import RawClient, RawServer, receive

# ---- the table ----


def test_every_state_can_be_left_and_reached() -> None:
    assert {step.before for step in wire.STEPS} == set(State)
    assert {step.after for step in wire.STEPS} == set(State)


def test_no_state_waits_for_both_sides_but_a_posted_one() -> None:
    for state in State:
        movers = {step.side for step in wire.STEPS if step.before is state}
        assert len(movers) == (2 if state is State.POSTED else 1)


@given(st.integers(0, (1 << 55) - 1), st.sampled_from(State), st.sampled_from(sorted({s.name for s in wire.STEPS})))
def test_only_posting_counts(sequence: int, state: State, name: str) -> None:
    word = wire.after(wire.state_word(sequence, state), name)
    if word is not None:
        assert wire.split(word)[0] == (wire.next_sequence(sequence) if name == "post" else sequence)
        assert word < 1 << 64


def test_the_offsets_hold_what_they_must() -> None:
    fields = sorted(Field)
    assert fields[-1] + wire.LONG_BYTES <= wire.PAGE_BYTES
    assert Field.MESSAGE + 8 * wire.WORDS <= Field.SERVER_ASLEEP
    lines = {Field.STATE // 64, Field.SERVER_ASLEEP // 64, Field.CLIENT_ASLEEP // 64}
    assert len(lines) == 3, "what the two sides poll shares no cache line"
    assert (wire.PAGE_BYTES, wire.LONG_BYTES, wire.MAX_FDS) == (leaf.PAGE_BYTES, leaf.PAGE_LONG, leaf.MAX_FDS)
    assert wire.ONE_WAY == leaf.ONE_WAY


@given(st.tuples(*[st.integers(0, 0xFFFF)] * 4), st.integers(0, (1 << 32) - 1), st.integers(-(1 << 63), (1 << 63) - 1))
def test_a_header_survives_the_page(counts: tuple[int, int, int, int], size: int, label: int) -> None:
    head = Head(label, *counts, size, 7)
    assert Head.of(label, head.counts, head.size_cpu) == head


# ---- the twin as a client, the leaf as a server ----


class Served:
    """A leaf loop that serves one port by hand."""

    def __init__(self) -> None:
        self.client, self.server = leaf.channel()
        self.loop = leaf.open_loop(0)
        self.loop.watch(self.server, "port")

    def next(self) -> Any:
        """The next thing that happens but handshakes, which are accepted."""
        while True:
            event = self.loop.next(10**10)
            assert event is not None, "nothing happened"
            if event[0] != "port" or len(event) != 2:
                return event
            data, fds = leaf.recv(self.server) or (b"", ())
            assert len(fds) == 2, data
            self.loop.accept(fds[0], fds[1], "session")
            os.close(fds[1])

    def close(self) -> None:
        self.loop.close()
        leaf.unguard(self.server)
        os.close(self.server)
        os.close(self.client)


@pytest.fixture
def served() -> Iterator[Served]:
    one = Served()
    yield one
    one.close()


@contextmanager
def twin(served: Served) -> Iterator[RawClient]:
    with RawClient(served.client) as client:
        yield client


@pytest.mark.parametrize("size", [0, 1, 7, 8, 4096, wire.LONG_BYTES])
def test_the_leaf_serves_what_the_twin_posts(served: Served, size: int) -> None:
    data, words = os.urandom(size), os.urandom(8 * min(size, wire.WORDS))
    with twin(served) as client:
        for label in (0, -1, (1 << 63) - 1, -(1 << 63)):
            client.post(label, words, data)
            _, source, *request = served.next()
            assert request == [label, words, data, ()]
            assert client.page.state[1] is State.TAKEN
            assert source.reply(label, words[::-1], data[::-1], 0, None)
            head, *answer = client.answer() or (None,)
            assert answer == [words[::-1], data[::-1], []]
            assert head is not None
            assert (head.label, head.items, head.flags) == (label, 0, 0)


def test_descriptors_go_ahead_of_their_message_both_ways(served: Served) -> None:
    read, write = os.pipe()
    with twin(served) as client:
        client.post(words=bytes(16), items=1, fds=[write])
        _, source, _, words, _, (items, fds) = served.next()
        assert (words, items, len(fds)) == (bytes(16), 1, 1)
        os.write(fds[0], b"there")
        assert source.reply(0, bytes(32), b"", 2, [fds[0], read])
        os.close(fds[0])
        head, words, _, back = client.answer() or (Head(), b"", b"", [])
        assert (head.items, head.fds, words) == (2, 2, bytes(32))
        os.write(back[0], b"back")
        assert os.read(back[1], 100) == b"thereback"
        for fd in (*back, read, write):
            os.close(fd)


def test_a_one_way_message_frees_the_page_as_soon_as_it_is_copied(served: Served) -> None:
    with twin(served) as client:
        sequence = client.post(data=b"go", flags=wire.ONE_WAY)
        _, source, _, _, data, _ = served.next()
        assert data == b"go"
        assert client.page.state == (sequence, State.FREE)
        assert not source.reply(0, b"", b"", 0, None)
        assert client.post() == wire.next_sequence(sequence)
        assert served.next()[1] is source


def test_a_withdrawn_request_is_not_seen(served: Served) -> None:
    with twin(served) as client:
        client.post(data=b"first")
        assert client.page.step("withdraw") == 1
        client.post(data=b"second")
        assert served.next()[4] == b"second"


def test_the_server_raises_its_word_before_it_sleeps(served: Served) -> None:
    with twin(served) as client:
        client.post()
        _, source, *_ = served.next()
        assert client.page.half(Field.SERVER_ASLEEP) == 0, "hot: it looks by itself"
        assert source.reply(0, b"", b"", 0, None)
        assert served.loop.next(1) is None
        assert not served.loop.settle()
        assert client.page.half(Field.SERVER_ASLEEP) == 1


def test_the_server_rings_only_who_sleeps(served: Served) -> None:
    with twin(served) as client:
        for asleep in (0, 1):
            client.post()
            client.page.put_half(Field.CLIENT_ASLEEP, asleep)
            assert served.next()[1].reply(0, b"", b"", 0, None)
        assert receive(client.sock) == (wire.WAKE, [])
        with pytest.raises(TimeoutError):
            receive(client.sock, 0)


def test_a_posted_request_is_served_before_the_end_is_believed(served: Served) -> None:
    with twin(served) as client:
        client.post(data=b"last words")
    assert served.next()[4] == b"last words"
    owner, source = served.next()
    assert owner == "session"
    assert not source.broken


# ---- the twin as a server, the leaf as a client ----


@contextmanager
def called(answering: Any) -> Iterator[leaf.Session]:
    """Yield the leaf's session to a twin that ``answering(server)`` drives in a thread."""
    client, server = leaf.channel()
    leaf.unguard(server)
    with RawServer(server) as raw:

        def run() -> None:
            raw.accept()
            answering(raw)

        session = leaf.open_session(client, -1)
        assert session is not None
        thread = Background(run)
        yield session
        thread.join()
        session.close()
    os.close(client)


def test_the_leaf_understands_what_the_twin_answers() -> None:
    def answering(raw: RawServer) -> None:
        for _ in range(3):
            head, words, data, _ = raw.take()
            raw.reply(head.label + 1, words[::-1], data[::-1])

    with called(answering) as session:
        for label in (0, -2, 1 << 62):
            reply = session.call(label, bytes(range(16)), b"abc", 0, None, -1, 0)
            assert reply == (label + 1, bytes(range(16))[::-1], b"cba", ())


def test_the_leaf_and_the_twin_exchange_descriptors() -> None:
    def answering(raw: RawServer) -> None:
        head, _, _, fds = raw.take()
        assert (head.items, head.fds) == (1, 1)
        raw.reply(0, bytes(16), b"", 1, fds)
        os.close(fds[0])

    read, write = os.pipe()
    with called(answering) as session:
        answer: Any = session.call(0, bytes(16), b"", 1, [write], -1, 0)
        items, (back,) = answer[3]
        assert items == 1
        os.write(back, b"home")
        assert os.read(read, 10) == b"home"
    for fd in (read, write, back):
        os.close(fd)


def test_the_leaf_takes_back_what_nobody_took() -> None:
    withdrawn = threading.Event()

    def answering(raw: RawServer) -> None:
        withdrawn.wait()
        raw.take()
        raw.reply(5)

    with called(answering) as session:
        assert session.call(0, b"", b"", 0, None, 1, 0) == leaf.SEND_TIMEOUT
        withdrawn.set()
        answer: Any = session.call(0, b"", b"", 0, None, -1, 0)
        assert answer[0] == 5


def test_the_leaf_sends_one_way_messages_in_a_row() -> None:
    heard: list[bytes] = []

    def answering(raw: RawServer) -> None:
        for _ in range(3):
            head, _, data, _ = raw.take()
            assert head.flags == wire.ONE_WAY
            heard.append(data)

    with called(answering) as session:
        for data in (b"1", b"2", b"3"):
            assert session.call(0, b"", data, 0, None, -1, leaf.ONE_WAY) == 0
    assert heard == [b"1", b"2", b"3"]


def test_sides_are_named() -> None:
    assert {step.side for step in wire.STEPS} == set(Side)
    assert set(wire.ASLEEP_OF) == set(Side)
