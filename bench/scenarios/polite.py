"""What an unrelated busy process loses beside a pair that calls, and what the pair still gets done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

from ..peers.base import Calls, Peer, Program
from ..statistics import Summary, scalar
from .base import Scenario, Setting
from .sessions import use
from .turns import Turns

__all__ = ["Polite"]

_ROUNDS = 5
_PAIR = 1


class Polite(Scenario):
    """The busy process counts, alone and beside the pair, in turns. On two cores it shares the client's."""

    name = "polite"
    about = "a busy process beside a calling pair: what it gets done of its work alone, and the calls"
    needs = Calls
    stretch = 4

    def takes(self, peer: Peer, case: str, placement: str) -> bool:
        return super().takes(peer, case, placement) and not isinstance(peer, Program)

    def roles(self, case: str) -> tuple[str, ...]:
        return ("server", "client", "busy")

    def run(self, role: str, peer: Calls, setting: Setting) -> dict[str, Summary]:
        if role == "server":
            Turns.share(setting.wires, players=1)
            peer.serve(setting.wires[:1], "echo")
            return {}
        (wire,) = setting.wires
        turns = Turns.taken(wire)
        if role == "busy":
            return self._work(turns, setting.seconds / (2 * _ROUNDS))
        caller = peer.connect(wire, "echo")
        calls, took = 0, 0
        for lasts in turns.of(_PAIR):
            began = time.perf_counter_ns()
            while lasts():
                use(caller, calls)
                calls += 1
            took += time.perf_counter_ns() - began
        caller.close()
        return {"calls/s": scalar(calls / took * 1e9, calls)}

    def _work(self, turns: Turns, seconds: float) -> dict[str, Summary]:
        shares = []
        for _ in range(_ROUNDS):
            alone = _counted(seconds)
            with turns.turn(_PAIR):
                shares.append(_counted(seconds) / alone)
        turns.end()
        return {"work share": scalar(median(shares), _ROUNDS)}

    def combine(self, results: Sequence[dict[str, Summary]]) -> dict[str, Summary]:
        calls, work = results
        return {**work, **calls}


def _counted(seconds: float) -> int:
    """Count for a while."""
    end = time.perf_counter_ns() + int(seconds * 1e9)
    count = 0
    while time.perf_counter_ns() < end:
        for _ in range(100):
            count += 1
    return count
