"""Round trips: raw and typed, alone and beside a busy thread in each process."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

from ..peers.base import Calls, Peer, Program
from ..statistics import Summary
from .base import Scenario, Setting, echo_samples, timed

__all__ = ["BusyCall", "RawCall", "TypedCall"]


class RawCall(Scenario):
    """64 bytes there and back."""

    name = "call"
    about = "round trip of a raw call, 64 bytes each way"
    needs = Calls

    def run(self, role: str, peer: Calls, setting: Setting) -> dict[str, Summary]:
        (wire,) = setting.wires
        if role == "server":
            peer.serve((wire,), "echo")
            return {}
        caller = peer.connect(wire, "echo")
        result = {"": echo_samples(caller, setting.seconds)}
        caller.close()
        return result


class TypedCall(Scenario):
    """Two integers in, one out."""

    name = "typed"
    about = "round trip of a typed call, two integers in, one out"
    needs = Calls

    def run(self, role: str, peer: Calls, setting: Setting) -> dict[str, Summary]:
        (wire,) = setting.wires
        if role == "server":
            peer.serve((wire,), "add")
            return {}
        caller = peer.connect(wire, "add")
        add, value = caller.call, caller.value

        def check(n: int, answer: Any) -> None:
            if value(answer) != n + 1_000_000_007:
                raise AssertionError(f"{n} + 1000000007 came back as {value(answer)!r}")

        result = {"": timed(lambda n: add(n, 1_000_000_007), check, setting.seconds)}
        caller.close()
        return result


class BusyCall(RawCall):
    """The raw call beside a thread that computes, in each process."""

    name = "busy"
    about = "the raw call with a busy Python thread in each process"
    stretch = 5  # a call may take some 20 ms here
    placements: ClassVar[tuple[str, ...]] = ("two", "one")

    def takes(self, peer: Peer, case: str, placement: str) -> bool:
        return super().takes(peer, case, placement) and not isinstance(peer, Program)

    def run(self, role: str, peer: Calls, setting: Setting) -> dict[str, Summary]:
        stop = threading.Event()
        turns = 0

        def compute() -> None:
            nonlocal turns
            while not stop.is_set():
                for _ in range(1000):
                    turns += 1

        worker = threading.Thread(target=compute, daemon=True)
        worker.start()
        try:
            return super().run(role, peer, setting)
        finally:
            stop.set()
            worker.join()
