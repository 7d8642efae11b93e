"""Several clients that call one server as fast as they can."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar

from ..peers.base import Calls, Peer, Program
from ..statistics import Summary, scalar
from .base import Scenario, Setting, echo_samples

__all__ = ["Throughput"]

CLIENTS = 4


class Throughput(Scenario):
    """The clients begin together; what counts is how much each got done in the same time."""

    name = "throughput"
    about = f"{CLIENTS} client processes, one server, raw calls, on all cores"
    needs = Calls
    stretch = 10
    placements: ClassVar[tuple[str, ...]] = ("free",)

    def takes(self, peer: Peer, case: str, placement: str) -> bool:
        return super().takes(peer, case, placement) and not isinstance(peer, Program) and not peer.busy

    def roles(self, case: str) -> tuple[str, ...]:
        return ("server", *(f"client {n + 1}" for n in range(CLIENTS)))

    def run(self, role: str, peer: Calls, setting: Setting) -> dict[str, Summary]:
        if role == "server":
            peer.serve(setting.wires, "echo")
            return {}
        (wire,) = setting.wires
        caller = peer.connect(wire, "echo")
        caller.call(bytes(64))
        time.sleep(0.1)  # let the others get here
        began = time.perf_counter()
        latency = echo_samples(caller, setting.seconds)  # and a fifth of it to warm up
        elapsed = time.perf_counter() - began
        caller.close()
        return {"call": latency, "calls/s": scalar(latency.samples / (elapsed / 1.2), latency.samples)}

    def combine(self, results: Sequence[dict[str, Summary]]) -> dict[str, Summary]:
        rates = [result["calls/s"].p50 for result in results]
        calls = sum(result["calls/s"].samples for result in results)
        latencies = sorted(result["call"] for result in results)
        middle = latencies[len(latencies) // 2]
        return {
            "calls/s": scalar(sum(rates), calls),
            "slowest share": scalar(min(rates) * len(rates) / sum(rates), calls),
            "call": Summary(middle.p50, max(each.p99 for each in latencies), middle.mean, calls),
        }
