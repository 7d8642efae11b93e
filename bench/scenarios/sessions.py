"""Many open connections to one server, of which one is used."""

from __future__ import annotations

from typing import ClassVar

from ..peers.base import Calls, Peer, Program
from ..statistics import Summary
from .base import Scenario, Setting, echo_samples, payload

__all__ = ["Sessions"]


class Sessions(Scenario):
    """Each connection has been used once before."""

    name = "sessions"
    about = "the raw call over one of many open sessions"
    needs = Calls
    cases: ClassVar[tuple[str, ...]] = ("1", "64", "256")
    placements: ClassVar[tuple[str, ...]] = ("two", "one")

    def takes(self, peer: Peer, case: str, placement: str) -> bool:
        return super().takes(peer, case, placement) and not isinstance(peer, Program) and not peer.busy

    def run(self, role: str, peer: Calls, setting: Setting) -> dict[str, Summary]:
        (wire,) = setting.wires
        count = int(setting.case)
        if role == "server":
            peer.serve((wire,) * count, "echo")
            return {}
        callers = [peer.connect(wire, "echo") for _ in range(count)]
        for n, caller in enumerate(callers):
            if caller.value(caller.call(payload(n))) != payload(n):
                raise AssertionError("a wrong answer")
        result = {"": echo_samples(callers[count // 2], setting.seconds)}
        for caller in callers:
            caller.close()
        return result
