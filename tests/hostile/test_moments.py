"""The same lie at every moment: states of the wrong side, numbers that jump, flags that flip; others are served on."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from l4re import Gate, L4Error, new_channel
from l4re.testing import wait_until
from l4re.wire import session as wire
from l4re.wire.items import pack_item
from l4re.wire.port import PortKind, PortMessage
from l4re.wire.session import Field, Head, State
from support.processes import PATIENCE, Background
from support.rawpeer import RawClient, RawServer, memfd, pair, send

from .conftest import Victim, for_all, for_each

pytestmark = pytest.mark.processes

EVERY_STATE = (*State, 4, 0xFF)


# ---- a client ----


@for_each([(1 << 55) - 1, 0, 1, 5, 4, 3, 5, 5, 1 << 40])
def test_numbers_of_messages_may_jump_anywhere(victim: Victim, attacker: RawClient, sequence: int) -> None:
    """The server answers under the number it took; the order of numbers is the client's own affair."""
    attacker.open()
    for number in (100, sequence):
        attacker.page.write(Head(), b"")
        attacker.page.set_state(number, State.POSTED)
        attacker.ring()
        assert attacker.answer() is not None
        assert attacker.page.state == (number, State.DONE)
        victim.serves()


@for_each([0, 1, 99, 101, (1 << 56) - 1])
def test_descriptors_of_an_earlier_or_later_message_are_not_those_of_this(
    victim: Victim, attacker: RawClient, sequence: int
) -> None:
    attacker.open()
    fd = memfd(4096)
    send(attacker.sock, wire.pack_ahead(sequence), [fd])
    os.close(fd)
    attacker.page.write(Head(3, 2, 1, 1), pack_item(1, 5, 1, 4096))
    attacker.page.set_state(100, State.POSTED)
    attacker.ring()
    attacker.ended()
    victim.holds_what_it_held_but_a_port()


@for_each([(17, 63), (16, 31), (0xFFFF, 63), (31, 62)])
def test_more_capabilities_than_a_message_has(victim: Victim, attacker: RawClient, counts: tuple[int, int]) -> None:
    items, words = counts
    attacker.open()
    attacker.page.write(Head(3, words, items), pack_item(0, 0, 0, 0) * (words // 2))
    attacker.page.step("post")
    attacker.ring()
    attacker.ended()
    victim.holds_what_it_held_but_a_port()


@for_each(EVERY_STATE)
def test_a_client_writes_the_servers_states_while_it_is_served(victim: Victim, attacker: RawClient, state: int) -> None:
    """Between its post and the answer; the server goes on in its own mind, and with the others."""
    attacker.open()
    for sequence in range(1, 30):
        attacker.page.write(Head(1))
        attacker.page.set_state(sequence, State.POSTED)
        attacker.ring()
        attacker.page.set_state(sequence, state)
        attacker.ring()
        victim.serves()


def test_flags_that_flip_while_others_call(victim: Victim, attacker: RawClient) -> None:
    attacker.open()
    over = threading.Event()

    def flip() -> None:
        flag = 0
        while not over.is_set():
            flag ^= 0xFFFFFFFF
            for field in (Field.SERVER_ASLEEP, Field.CLIENT_ASLEEP, Field.VERSION):
                attacker.page.put_half(field, flag)

    flipping = Background(flip)
    try:
        for _ in range(2000):
            victim.serves()
    finally:
        over.set()
        flipping.join()
    for field in (Field.SERVER_ASLEEP, Field.CLIENT_ASLEEP):
        attacker.page.put_half(field, 1)
    assert attacker.call(data=b"still there") is not None


@for_each(PortKind)
def test_a_port_message_on_the_socket_of_a_session_is_no_port_message(
    victim: Victim, attacker: RawClient, kind: PortKind
) -> None:
    """Nothing is derived or minted from where it is not allowed; the session is over."""
    attacker.open()
    ours, theirs = pair()
    with ours, theirs:
        send(attacker.sock, PortMessage(kind, rights=15).pack(), [theirs.fileno()])
        theirs.close()
        attacker.ring()
        attacker.ended()
        assert ours.recv(100) == b"", "whoever hoped for a port was cut off"
    victim.holds_what_it_held_but_a_port()


def test_descriptors_without_messages_from_many_sessions(victim: Victim, attacker: RawClient) -> None:
    """They stay in the account of whoever sent them, and go with the sessions."""
    fd = memfd(4096)
    for _ in range(20):
        attacker.open()
        for _ in range(3):
            send(attacker.sock, wire.pack_ahead(1), [fd] * 10)
        attacker.ring()
        victim.serves()
        attacker.sock.close()
    os.close(fd)
    victim.holds_what_it_held_but_a_port()


# ---- a server ----


@contextmanager
def a_server() -> Iterator[tuple[RawServer, Gate]]:
    """Yield a server that is driven by hand, and a gate to it; both are gone at the end."""
    channel = new_channel()
    ((end, _),) = channel.svr.bind(lambda label, rights: channel.gate)
    with channel.gate as gate, RawServer(end.detach()) as server:
        yield server, gate


def two_calls(gate: Gate, timeout: float) -> tuple[Background, threading.Event]:
    """Call twice over one session: the second time once the event is set."""
    again = threading.Event()

    def calls() -> None:
        gate.call(b"first", timeout=PATIENCE)
        assert again.wait(PATIENCE)
        gate.call(b"second", timeout=timeout)

    return Background(calls), again


@for_all([(moment, state) for moment in ("idle", "posted", "taken") for state in EVERY_STATE])
def test_a_server_writes_any_state_at_any_moment(case: tuple[str, int]) -> None:
    """The caller gets an answer or an error within its time, and another server's clients notice nothing."""
    moment, state = case
    with a_server() as (server, gate), a_server() as (other, innocent):
        call, again = two_calls(gate, 0.1)
        server.accept()
        sequence = wire.next_sequence(server.page.state[0])
        server.take()
        server.reply()
        if moment == "idle":
            server.page.set_state(sequence, state)
        again.set()
        if moment != "idle":
            wait_until(lambda: bool(server.page.state != (sequence, State.DONE)), PATIENCE)
            if moment == "taken":
                server.page.set_state(sequence + 1, State.TAKEN)
            server.page.set_state(sequence + 1, state)
        server.ring()
        with suppress(L4Error):
            call.join()
        calling = Background(lambda: innocent.call(b"innocent", timeout=PATIENCE))
        other.accept()
        other.take()
        other.reply(data=b"served")
        assert calling.join().data == b"served"


def test_an_answer_with_an_old_number_is_none() -> None:
    with a_server() as (server, gate):
        call, again = two_calls(gate, PATIENCE)
        server.accept()
        server.take()
        server.reply()
        again.set()
        server.take()
        server.page.set_state(server.page.state[0] - 1, State.DONE)
        server.ring()
        with pytest.raises(L4Error, match="protocol"):
            call.join()


@for_all([17, 31, 0xFFFF])
def test_an_answer_with_more_capabilities_than_fit(items: int) -> None:
    with a_server() as (server, gate):
        call = Background(lambda: gate.call(timeout=PATIENCE))
        server.accept()
        server.take()
        server.done(Head(0, 63, items), bytes(504))
        with pytest.raises(L4Error, match="protocol"):
            call.join()
