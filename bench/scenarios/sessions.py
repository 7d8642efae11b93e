"""Many open connections to one server, of which one is used."""

from __future__ import annotations

from typing import ClassVar

from ..peers.base import Caller, Calls, Peer, Program
from ..statistics import Summary
from ..wire import Wire
from .base import Scenario, Setting, echo_samples, payload

__all__ = ["ManySessions", "Sessions", "opened", "use"]


def use(caller: Caller, n: int) -> None:
    """Call once, and check the answer."""
    if caller.value(caller.call(payload(n))) != payload(n):
        raise AssertionError("a wrong answer")


def opened(peer: Calls, wire: Wire, count: int) -> list[Caller]:
    """Return so many connections, each used once."""
    callers = [peer.connect(wire, "echo") for _ in range(count)]
    for n, caller in enumerate(callers):
        use(caller, n)
    return callers


class ManySessions(Scenario):
    """A server and a client with so many connections, each used once before; for those who can sleep."""

    needs = Calls

    def takes(self, peer: Peer, case: str, placement: str) -> bool:
        if isinstance(peer, Program) or not super().takes(peer, case, placement):
            return False
        return isinstance(peer, Calls) and not peer.busy and peer.connections >= int(case)


class Sessions(ManySessions):
    """The one that is used again is in their middle."""

    name = "sessions"
    about = "the raw call over one of many open sessions"
    cases: ClassVar[tuple[str, ...]] = ("1", "64", "256", "1000")
    placements: ClassVar[tuple[str, ...]] = ("two", "one")

    def run(self, role: str, peer: Calls, setting: Setting) -> dict[str, Summary]:
        (wire,) = setting.wires
        count = int(setting.case)
        if role == "server":
            peer.serve((wire,) * count, "echo")
            return {}
        callers = opened(peer, wire, count)
        result = {"": echo_samples(callers[count // 2], setting.seconds)}
        for caller in callers:
            caller.close()
        return result
