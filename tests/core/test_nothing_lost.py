"""What a client sent before it ended is handled before its end is; what it brought stays no longer than it has to."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from l4re import Capability, Gate, Irq, IrqHandler, LoopEnd, MemAlloc, NotFound, RegistryServer, Served, new_channel
from l4re.testing import wait_until
from support.processes import PATIENCE, Child, Echo, Link, Running, descriptors, direct_line

pytestmark = pytest.mark.processes

Start = Callable[..., Child]

#: How far the server is when the client does all it does and exits.
MOMENTS = ["while it sleeps", "while it is stopped", "before its loop"]


class Journal(Echo):
    """Writes down what happened, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []
        self.server: RegistryServer | None = None

    def serve_request(
        self, rights: int, label: int, words: bytes, data: bytes, caps: tuple[Capability | None, ...]
    ) -> tuple[int, bytes, bytes, Any] | None:
        self.events.append(data.decode())
        return super().serve_request(rights, label, words, data, caps)

    def on_client_gone(self) -> None:
        self.events.append("gone")


class OnIrq(IrqHandler):
    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    def dispatch(self) -> None:
        self.journal.events.append("irq")


class LooksInside(Journal):
    """Uses the capabilities of a message and drops them."""

    def serve_request(
        self, rights: int, label: int, words: bytes, data: bytes, caps: tuple[Capability | None, ...]
    ) -> tuple[int, bytes, bytes, Any] | None:
        for cap in caps:
            match cap:
                case Gate():
                    seen = cap.call(b"self", label=1).data
                    self.events.append(f"gate {seen!r}")
                case Irq():
                    cap.trigger()
                    self.events.append("triggered")
                case None:
                    self.events.append("void")
                case _:
                    self.events.append(f"memory {cap.read(0, 5)!r}")  # type: ignore[attr-defined]
            if cap is not None:
                cap.close()
        return super().serve_request(rights, label, words, data, ())


def run(
    start: Start, moment: str, journal: Journal, client: Callable[[Link, Gate, Irq], None], *, killed: bool = False
) -> str:
    """Let ``client`` run and exit; return what the server wrote down in the end, and how its loop ended."""
    with direct_line() as (here, there):

        def serve(link: Link) -> None:
            with RegistryServer() as server:
                here.give(server.registry.register_obj(journal), server.registry.register_irq_obj(OnIrq(journal)))
                if moment == "before its loop":
                    link.hear()
                end = server.loop()
                link.say(" ".join([*journal.events, end.value]))

        def do(link: Link) -> None:
            client(link, *there.take())

        serving, doing = start(serve), start(do)
    assert doing.hear() == "ready"
    if moment == "while it is stopped":
        serving.stop()
    doing.say("go")
    if killed:
        doing.wait_until_its_link_is_empty()
        doing.kill()
        assert doing.join() == -9
    else:
        doing.end()
    if moment == "while it is stopped":
        serving.go_on()
    if moment == "before its loop":
        serving.say("go")
    events = serving.hear()
    serving.end()
    return events


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_client_that_triggers_and_exits_is_heard(start: Start, moment: str) -> None:
    def client(link: Link, gate: Gate, irq: Irq) -> None:
        gate.close()
        link.say("ready")
        link.hear()
        irq.trigger()
        os._exit(0)

    assert run(start, moment, Journal(), client) in ("gone irq orphaned", "irq gone orphaned")


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_client_that_calls_one_way_and_exits_is_heard(start: Start, moment: str) -> None:
    def client(link: Link, gate: Gate, irq: Irq) -> None:
        irq.close()
        link.say("ready")
        link.hear()
        assert gate.transact(0, b"", b"one-way", oneway=True) == (0, b"", b"", ())
        os._exit(0)

    assert run(start, moment, Journal(), client) == "one-way gone orphaned"


def test_a_warm_client_that_calls_one_way_often_and_exits_is_heard(start: Start) -> None:
    def client(link: Link, gate: Gate, irq: Irq) -> None:
        irq.close()
        gate.call(b"warm")
        link.say("ready")
        link.hear()
        for number in range(100):
            gate.transact(0, b"", str(number).encode(), oneway=True)
        os._exit(0)

    wanted = " ".join(["warm", *map(str, range(100)), "gone", "orphaned"])
    assert run(start, "while it sleeps", Journal(), client) == wanted


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("what", ["gate", "irq", "memory", "several"])
def test_a_client_that_hands_a_capability_over_and_exits_is_heard(start: Start, moment: str, what: str) -> None:
    def client(link: Link, gate: Gate, irq: Irq) -> None:
        memory = MemAlloc().alloc(4096)
        memory.write(0, b"hello")
        given = {"gate": (gate,), "irq": (irq,), "memory": (memory,), "several": (gate, None, irq, memory)}[what]
        link.say("ready")
        link.hear()
        gate.transact(0, b"", b"one-way", given, oneway=True)
        os._exit(0)

    seen = {"gate": "self gate b'\\x03'", "irq": "triggered", "memory": "memory b'hello'"}
    wanted = "self gate b'\\x03' void triggered memory b'hello'" if what == "several" else seen[what]
    events = run(start, moment, LooksInside(), client)
    assert events.startswith(f"{wanted} one-way "), events
    assert events.endswith(" orphaned"), events
    assert "gone" in events.split()
    assert ("irq" in events.split()) == ("triggered" in wanted), "a trigger was lost"


def test_the_posted_request_of_a_client_that_was_killed_is_handled(start: Start) -> None:
    def client(link: Link, gate: Gate, irq: Irq) -> None:
        irq.close()
        gate.call(b"warm")
        link.say("ready")
        link.hear()
        gate.call(b"posted")

    assert run(start, "while it is stopped", Journal(), client, killed=True) == "warm posted gone orphaned"


def test_a_hundred_clients_that_come_and_go_are_all_heard_and_all_missed() -> None:
    journal = Journal()
    with RegistryServer() as server:
        holder = server.registry.register_obj(journal).mint()
        with Running(server) as loop:
            for number in range(100):
                with holder.dup() as gate:
                    gate.transact(0, b"", str(number).encode(), oneway=True)
            holder.close()
            assert loop.join() is LoopEnd.ORPHANED
    assert [event for event in journal.events if event != "gone"] == list(map(str, range(100)))
    assert journal.events.count("gone") == 101
    assert journal.events[-1] == "gone"


class Refuses(Served):
    """Fails at everything it is asked, in one of two ways."""

    def __init__(self) -> None:
        self.asked = 0

    def serve_request(
        self, rights: int, label: int, words: bytes, data: bytes, caps: tuple[Capability | None, ...]
    ) -> None:
        self.asked += 1
        try:
            int("no number")
        except ValueError as error:
            if label == 1:
                raise NotFound("nothing is found here") from error
            raise


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("label", [1, 2])
@pytest.mark.parametrize("in_steps", [True, False])
def test_what_a_failed_request_brought_is_closed_without_the_garbage_collector(
    caplog: pytest.LogCaptureFixture, workers: int, label: int, in_steps: bool
) -> None:
    caplog.set_level(logging.CRITICAL, "l4re.server")
    channels = [new_channel() for _ in range(20)]
    refuses = Refuses()
    with RegistryServer(workers=workers) as server, server.registry.register_obj(refuses).mint() as gate:
        before = descriptors()
        gc.disable()
        try:
            with nullcontext() if in_steps else Running(server):
                for count, channel in enumerate(channels, 1):
                    gate.transact(label, b"", b"", (channel.gate, channel.svr.dup()), oneway=True)
                    while in_steps and refuses.asked < count:
                        server.step(0.01)
                    wait_until(lambda: refuses.asked == count, PATIENCE, "it to be served")  # noqa: B023
            while server.step(0):
                pass
            wait_until(lambda: descriptors() <= before + 4, PATIENCE, "what came with them to be closed")
        finally:
            gc.enable()
    for channel in channels:
        channel.gate.close()
        channel.svr.close()
