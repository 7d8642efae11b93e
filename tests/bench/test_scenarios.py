"""Every scenario runs with our own peer, and none believes a peer that lies."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from l4re_bench.peers import OURS, peer_named
from l4re_bench.peers.base import Caller, Calls
from l4re_bench.peers.pipe import MpPipe
from l4re_bench.run import Effort, Plan, Row, run
from l4re_bench.scenarios import SCENARIOS, Setting
from l4re_bench.statistics import Summary
from l4re_bench.wire import Wire, wire_pair
from support.processes import processes

pytestmark = [pytest.mark.processes, pytest.mark.timeout(60)]

#: Metrics of each, and whether they must be above zero.
METRICS = {
    "idle": {"wake-ups": False, "processor time": False},
    "footprint": {"MemAvailable": False, "counted": True},
    "size": {"": True},
    "caps": {"": True},
    "clients": {"call": True, "calls/s": True, "slowest share": True},
}


@pytest.mark.parametrize("scenario", METRICS)
def test_a_scenario_runs_with_our_peer(scenario: str) -> None:
    plays = SCENARIOS[scenario]
    placement = "one" if "one" in plays.placements else "free"
    plan = Plan([plays], [peer_named(OURS)], [placement], Effort(0.01, 1))
    rows = []
    for result in run(plan, lambda what, seconds: None):
        assert isinstance(result, Row), result
        rows.append(result)
    assert {(row.case, row.metric) for row in rows} == {
        (case, metric) for case in plays.cases for metric in METRICS[scenario]
    }
    for row in rows:
        assert row.figure.p50 > 0 or not METRICS[scenario][row.metric], row
        assert scenario != "idle" or row.figure.p50 == 0, row


def play(scenario: str, peer: Any, case: str | None = None) -> dict[str, Summary]:
    """Play the client here and the server in a process of its own."""
    plays = SCENARIOS[scenario]
    here, there = wire_pair()

    def setting(wire: Wire) -> Setting:
        return Setting(plays.cases[-1] if case is None else case, "one", 0.01, (wire,))

    with processes() as start:
        start(lambda link: void(plays.run("server", peer, setting(there))))
        there.close()
        try:
            return plays.run("client", peer, setting(here))
        finally:
            here.close()


def void(result: object) -> None:
    """A child returns nothing."""


class Forger(MpPipe):
    """Its answers are not what was asked for."""

    def connect(self, wire: Wire, work: str) -> Caller:
        return super().connect(wire, work)._replace(value=lambda answer: b"something else")

    def connect_grants(self, wire: Wire, what: str, count: int = 1) -> Caller:
        caller = super().connect_grants(wire, what, count)
        return caller._replace(value=lambda answer: caller.value(answer) - 1)


@pytest.mark.parametrize("scenario", ["sessions", "idle", "footprint", "size", "caps"])
def test_a_wrong_answer_is_noticed(scenario: str) -> None:
    with pytest.raises(AssertionError):
        play(scenario, Forger(), "1" if scenario in ("sessions", "idle", "footprint") else None)


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
