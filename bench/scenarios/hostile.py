"""What an honest client notices of a hostile one, compared with an innocent one that does as much as it can."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ..peers.base import Attackable
from ..statistics import Summary, scalar
from .base import Scenario, Setting, echo_samples
from .turns import Turns

__all__ = ["Hostile"]

_INNOCENT, _HOSTILE = 1, 2
#: What an innocent client does that asks as much of the server and of its core.
_INNOCENTS = {"garbage": "calls", "flags": "calls", "rings": "calls", "silent": "visits"}


class Hostile(Scenario):
    """Both others are clients of the same server; first the innocent one acts, then the hostile one.

    Neither ever rests, so on one core both leave the honest client what a busy process leaves it. "calls share" is
    how many calls it makes beside the hostile client, of those beside the innocent one.
    """

    name = "hostile"
    about = "calls beside a hostile client, and beside an innocent one with as much load"
    needs = Attackable
    cases: ClassVar[tuple[str, ...]] = tuple(_INNOCENTS)
    stretch = 4

    def roles(self, case: str) -> tuple[str, ...]:
        return ("server", "honest", "innocent", "hostile")

    def run(self, role: str, peer: Attackable, setting: Setting) -> dict[str, Summary]:
        if role == "server":
            Turns.share(setting.wires, players=2)
            peer.serve(setting.wires, "echo")
            return {}
        (wire,) = setting.wires
        turns = Turns.taken(wire)
        if role != "honest":
            player, how = (_HOSTILE, setting.case) if role == "hostile" else (_INNOCENT, _INNOCENTS[setting.case])
            steps = sum(peer.attack(wire, how, turns.of(player)))
            if not steps:
                raise AssertionError(f"the {role} client did nothing")
            return {}
        caller = peer.connect(wire, "echo")
        seconds = setting.seconds / 2
        with turns.turn(_INNOCENT):
            innocent = echo_samples(caller, seconds)
        with turns.turn(_HOSTILE):
            hostile = echo_samples(caller, seconds)
        turns.end()
        caller.close()
        return {
            "": hostile,
            "beside innocent": innocent,
            "calls/s": scalar(hostile.samples / seconds, hostile.samples),
            "calls share": scalar(hostile.samples / innocent.samples, hostile.samples),
        }

    def combine(self, results: Sequence[dict[str, Summary]]) -> dict[str, Summary]:
        return results[0]
