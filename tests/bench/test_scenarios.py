"""Every scenario runs with our own peer, and none believes a peer that lies."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from l4re.testing import wait_until
from l4re_bench.packages import EXTRA
from l4re_bench.peers import OURS, peer_named
from l4re_bench.peers.base import Caller, Calls, Copies, Mapper, Publisher, Starts
from l4re_bench.peers.memory import Memfd
from l4re_bench.peers.ours import Ours
from l4re_bench.peers.pipe import MpPipe
from l4re_bench.run import Effort, Plan, Row, run
from l4re_bench.scenarios import SCENARIOS, Setting
from l4re_bench.statistics import Summary
from l4re_bench.wire import Wire, wire_pair
from support.processes import Link, processes
from support.programs import PATIENCE

pytestmark = [pytest.mark.processes, pytest.mark.timeout(60)]

#: Metrics of each, and whether they must be above zero.
METRICS = {
    "region-map": {"": True, "find": True},
    "handover": {"": True},
    "frame": {"": True, "last reader": True},
    "copy-in": {"": True},
    "setup": {"": True},
    "start": {"": True},
    "spawn": {"": True, "bare import": True, "over a bare import": True},
    "polite": {"work share": True, "calls/s": True},
    "hostile": {"": True, "beside innocent": True, "calls/s": True, "calls share": True},
    "idle": {"wake-ups": False, "processor time": False},
    "footprint": {"MemAvailable": False, "counted": True},
    "size": {"": True},
    "caps": {"": True},
    "clients": {"call": True, "calls/s": True, "slowest share": True},
}


@pytest.mark.parametrize("scenario", METRICS)
def test_a_scenario_runs_with_our_peer(scenario: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plays = SCENARIOS[scenario]
    monkeypatch.setattr(plays, "cases", tuple(dict.fromkeys((plays.cases[0], plays.cases[-1]))))
    placement = "one" if "one" in plays.placements else "free"
    plan = Plan([plays], [peer_named(OURS)], [placement], Effort(0.01, 1))
    rows = []
    for result in run(plan, lambda what, seconds: None):
        assert isinstance(result, Row), result
        rows.append(result)
    assert {row.case for row in rows} == set(plays.cases)
    assert {row.metric for row in rows} == set(METRICS[scenario])
    for row in rows:
        assert row.figure.p50 > 0 or not METRICS[scenario][row.metric], row
        assert scenario != "idle" or row.figure.p50 == 0, row


CALLERS = ("mp.Queue", "SharedMemory+semaphore", "posix_ipc", "zmq", "pynng", "zenoh")


@pytest.mark.parametrize("name", CALLERS)
def test_a_peer_answers_one_and_two_clients_and_leaves_no_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        peer = peer_named(name)
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        pytest.skip(f"{error.name} is not installed")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(SCENARIOS["clients"], "cases", ("2 clients",))
    before = set(os.listdir("/dev/shm"))
    plan = Plan([SCENARIOS[kind] for kind in ("call", "typed", "clients")], [peer], ["free"], Effort(0.01, 1))
    results = list(run(plan, lambda what, seconds: None))
    assert [result for result in results if not isinstance(result, Row)] == []
    assert {result.scenario for result in results} == {"call", "typed", "clients"}
    assert list(tmp_path.iterdir()) == []
    wait_until(lambda: set(os.listdir("/dev/shm")) <= before, PATIENCE)  # others may use it, too


def play(scenario: str, peer: Any, case: str | None = None) -> dict[str, Summary]:
    """Play all roles, in processes of their own; raises what one of them raised."""
    plays = SCENARIOS[scenario]
    case = plays.cases[0] if case is None else case
    roles = [role for role in plays.roles(case) if role != "server"]
    pairs = [wire_pair() for _ in roles]

    def does(role: str, *wires: Wire) -> Callable[[Link], None]:
        def body(link: Link) -> None:
            try:
                link.say(json.dumps(plays.run(role, peer, Setting(case, "one", 0.01, wires))))
            except AssertionError as error:
                link.say(json.dumps({"error": str(error)}))

        return body

    try:
        with processes() as start:
            start(does("server", *(here for here, _ in pairs)))
            children = [start(does(role, there)) for role, (_, there) in zip(roles, pairs, strict=True)]
            results = []
            for child in children:
                said = json.loads(child.hear())
                if "error" in said:
                    raise AssertionError(said["error"])
                results.append({name: Summary(*values) for name, values in said.items()})
    finally:
        for wire in chain(*pairs):
            wire.close()
    return plays.combine(results)


class Forger(MpPipe):
    """Its answers are not what was asked for."""

    def connect(self, wire: Wire, work: str) -> Caller:
        return super().connect(wire, work)._replace(value=lambda answer: b"something else")

    def connect_grants(self, wire: Wire, what: str, count: int = 1) -> Caller:
        caller = super().connect_grants(wire, what, count)
        return caller._replace(value=lambda answer: caller.value(answer) - 1)


@pytest.mark.parametrize(
    ("scenario", "case"),
    [("sessions", "1"), ("idle", "1"), ("footprint", "1"), ("size", None), ("caps", None), ("polite", None)],
)
def test_a_wrong_answer_is_noticed(scenario: str, case: str | None) -> None:
    with pytest.raises(AssertionError):
        play(scenario, Forger(), case)


class Swindler(Memfd):
    """What the other process gets is other memory than what was written."""

    def connect_memory(self, wire: Wire, size: int) -> Caller:
        caller = super().connect_memory(wire, size)
        return caller._replace(call=lambda touch: caller.call(lambda view: None))

    def publish(self, wires: Sequence[Wire], size: int) -> Publisher:
        publisher = super().publish(wires, size)
        return publisher._replace(frame=memoryview(bytearray(size)))


@pytest.mark.parametrize("scenario", ["handover", "frame"])
def test_memory_that_does_not_arrive_is_noticed(scenario: str) -> None:
    with pytest.raises(AssertionError):
        play(scenario, Swindler())


COPIERS = ("l4re", "memfd+mmap", "SharedMemory", "copy_file_range")


@pytest.mark.parametrize("case", SCENARIOS["copy-in"].cases)
@pytest.mark.parametrize("name", COPIERS)
def test_a_copy_is_looked_at_before_it_counts(name: str, case: str) -> None:
    def measure(link: Link) -> None:
        peer: Any = peer_named(name)
        copier, setting = peer.copier, Setting(case, "one", 0.01, ())
        assert SCENARIOS["copy-in"].run("client", peer, setting)[""].p50 > 0
        # From here on no change of the source arrives in the target.
        peer.copier = lambda *args: copier(*args)._replace(mark=lambda offsets, value: None)
        with pytest.raises(AssertionError, match="something else"):
            SCENARIOS["copy-in"].run("client", peer, setting)

    assert isinstance(peer_named(name), Copies)
    with processes() as start:
        start(measure).end(PATIENCE)


class Broken(Starts):
    """Cannot be imported."""

    imports = "raise SystemExit(3)"


def test_a_program_that_fails_is_noticed() -> None:
    with pytest.raises(AssertionError, match="ended with 3"):
        SCENARIOS["start"].run("client", Broken(), Setting("", "one", 0.01, ()))


class Harmless(Ours):
    """Its attackers do nothing."""

    def attack(self, wire: Wire, how: str, turns: Iterable[Callable[[], bool]]) -> Iterable[int]:
        wire.receive()
        for lasts in turns:
            while lasts():
                time.sleep(0.001)
            yield 0


def test_an_attack_that_does_not_happen_is_noticed() -> None:
    with pytest.raises(AssertionError, match="did nothing"):
        play("hostile", Harmless())


class Restless(MpPipe):
    """A thread of its server looks after something again and again."""

    def serve(self, wires: Sequence[Wire], work: str) -> None:
        def look() -> None:
            while True:
                time.sleep(0.001)

        threading.Thread(target=look, daemon=True).start()
        super().serve(wires, work)


def test_a_server_that_wakes_up_is_not_idle() -> None:
    assert play("idle", Restless(), "2")["wake-ups"].p50 > 0
    assert play("idle", MpPipe(), "2")["wake-ups"].p50 == 0


def test_who_cannot_do_a_case_is_not_asked() -> None:
    class Few(Calls):
        connections = 10

        def serve(self, wires: Sequence[Wire], work: str) -> None:
            raise AssertionError("asked")

        def connect(self, wire: Wire, work: str) -> Caller:
            raise AssertionError("asked")

    assert not SCENARIOS["idle"].takes(Few(), "1000", "one")
    assert not SCENARIOS["sessions"].takes(Few(), "1000", "one")
    assert not SCENARIOS["size"].takes(Few(), "4 KiB", "one")
    assert SCENARIOS["idle"].takes(MpPipe(), "1000", "one")


class Misplaced(Ours):
    """What it maps is there, and it finds something else."""

    def mapper(self, area: bool) -> Mapper:
        mapper = super().mapper(area)
        return mapper._replace(find=lambda addr: None)


class Faded(Memfd):
    """What it maps is not what was put there."""

    def mapper(self, area: bool) -> Mapper:
        return super().mapper(area)._replace(look=lambda mapped: 0)


def test_maps_that_are_wrong_are_noticed() -> None:
    for peer, case in ((Misplaced(), "alone"), (Faded(), "alone"), (Faded(), "10,000, all mapped and unmapped")):
        with pytest.raises(AssertionError, match=r"belongs to|shows"):
            SCENARIOS["region-map"].run("client", peer, Setting(case, "one", 0.01, ()))
