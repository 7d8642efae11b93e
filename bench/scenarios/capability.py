"""What one capability in an answer costs on top of the call."""

from __future__ import annotations

from typing import Any, ClassVar

from ..peers.base import Grants, Peer
from ..statistics import Summary
from .base import Scenario, Setting, timed

__all__ = ["Capability"]


class Capability(Scenario):
    """Calls that bring a capability (a descriptor, for the peers) and calls that do not, in turns."""

    name = "capability"
    about = "a call whose answer brings a capability; 'on top': less one without"
    needs = Grants
    cases: ClassVar[tuple[str, ...]] = ("dataspace", "irq", "gate")

    def takes(self, peer: Peer, case: str, placement: str) -> bool:
        return super().takes(peer, case, placement) and (not isinstance(peer, Grants) or case in peer.grants)

    def run(self, role: str, peer: Grants, setting: Setting) -> dict[str, Summary]:
        (wire,) = setting.wires
        if role == "server":
            peer.serve_grants(wire, setting.case)
            return {}
        caller = peer.connect_grants(wire, setting.case)
        call, value = caller.call, caller.value

        def check(wanted: bool, answer: Any) -> None:
            if value(answer) != int(wanted):
                raise AssertionError(f"asked for a capability: {wanted}; got {answer!r}")

        plain = timed(lambda n: call(False), lambda n, answer: check(False, answer), setting.seconds / 2)
        granted = timed(lambda n: call(True), lambda n, answer: check(True, answer), setting.seconds / 2)
        caller.close()
        on_top = Summary(granted.p50 - plain.p50, granted.p99 - plain.p99, granted.mean - plain.mean, granted.samples)
        return {"": granted, "on top": on_top}
