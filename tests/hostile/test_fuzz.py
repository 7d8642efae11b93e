"""Random bytes in everything a server reads; an innocent client beside it is served all the while."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from l4re import Gate
from l4re.wire import session as wire
from l4re.wire.items import pack_item
from l4re.wire.port import PortKind
from l4re.wire.session import Field, Head, State
from support.rawpeer import RawClient, memfd, pair, send

from .conftest import Victim, victims

pytestmark = pytest.mark.processes

SHORT = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
LONG = settings(max_examples=20_000, deadline=None, suppress_health_check=list(HealthCheck))

_word = st.one_of(st.integers(0, (1 << 64) - 1), st.integers(0, 70), st.just((1 << 64) - 1))
_counts = st.builds(
    lambda words, items, fds, flags: words | items << 16 | fds << 32 | flags << 48,
    *[st.one_of(st.integers(0, 3), st.sampled_from([16, 17, 63, 64, 65, 0xFFFF]))] * 4,
)
_item = st.builds(
    pack_item,
    st.integers(0, 6),
    st.one_of(st.integers(0, 15), st.integers(0, 255)),
    st.one_of(st.integers(0, 4), st.integers(0, 0xFFFF)),
    st.one_of(st.just(4096), _word),
)
_words = st.one_of(st.binary(max_size=504), st.lists(_item, max_size=20).map(b"".join))
_fds = st.lists(st.integers(0, 5), max_size=20)
_packet = st.one_of(
    st.binary(max_size=40),
    st.builds(wire.pack_ahead, st.one_of(st.integers(0, 3), _word)),
    st.just(wire.WAKE),
)
_message = st.builds(
    lambda kind, rights, tail: kind + rights + tail,
    st.one_of(st.sampled_from([kind.value for kind in PortKind]), st.binary(min_size=1, max_size=1)),
    st.binary(min_size=1, max_size=1),
    st.one_of(st.just(bytes(14)), st.binary(min_size=14, max_size=14), st.binary(max_size=30)),
)
_step = st.one_of(
    st.tuples(st.just("post"), _word, st.one_of(_counts, _word), _word, _words),
    st.tuples(st.just("honest"), _word, _words, _fds),
    st.tuples(st.just("state"), _word),
    st.tuples(st.just("packet"), _packet, _fds),
    st.tuples(st.just("message"), _message, _fds),
    st.tuples(st.just("bytes"), st.integers(0, wire.PAGE_BYTES - 100), st.binary(max_size=100)),
    st.tuples(st.just("session")),
)


class Attacker:
    """Runs random steps against one server, with a fresh port whenever its own was taken from it."""

    def __init__(self, victim: Victim) -> None:
        self.victim = victim
        self.stack = ExitStack()
        numbers = [memfd(4096), memfd(), *os.pipe()]
        for number in numbers:
            self.stack.callback(os.close, number)
        numbers += [self.stack.enter_context(end).fileno() for end in pair()]
        self.fds = numbers
        self.gate: Gate = victim.port()

    def run(self, steps: list[tuple[object, ...]]) -> None:
        with self.gate.dup() as port, RawClient(port.fileno()) as client:
            for step in steps:
                with suppress(AssertionError):  # the session, or the port, is gone
                    self.step(client, *step)
        self.victim.serves()

    def step(self, client: RawClient, kind: object, *args: object) -> None:
        match kind, args:
            case "post", (int(label), int(counts), int(size), bytes(words)):
                client.page.write(Head.of(label, counts, size), words)
                client.page.set_state(client.page.state[0] + 1, State.POSTED)
                client.ring()
            case "honest", (int(label), bytes(words), list(fds)):
                words = words[: len(words) // 16 * 16]
                client.post(label >> 1, words, items=min(16, len(words) // 16), fds=[self.fds[at] for at in fds])
            case "state", (int(word),):
                client.page.put(Field.STATE, word)
                client.ring()
            case "packet", (bytes(packet), list(fds)):
                send(client.sock, packet, [self.fds[at] for at in fds])
            case "message", (bytes(message), list(fds)):
                send(client.port, message, [self.fds[at] for at in fds])
            case "bytes", (int(at), bytes(data)):
                client.page.scribble(at, data)
                client.ring()
            case _:
                client.open()

    def close(self) -> None:
        self.gate.close()
        self.stack.close()


@pytest.fixture(scope="module")
def attacker() -> Iterator[Attacker]:
    with victims() as victim:
        one = Attacker(victim)
        yield one
        one.close()
        victim.is_unharmed()


@given(st.lists(_step, max_size=20))
@SHORT
def test_random_steps(attacker: Attacker, steps: list[tuple[object, ...]]) -> None:
    attacker.run(steps)


@pytest.mark.fuzz
@pytest.mark.timeout(3600)
@given(st.lists(_step, max_size=50))
@LONG
def test_many_random_steps(attacker: Attacker, steps: list[tuple[object, ...]]) -> None:
    attacker.run(steps)
