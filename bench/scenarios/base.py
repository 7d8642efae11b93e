"""What a scenario says of itself, and what its processes do."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..peers.base import Caller, Peer, Program
from ..statistics import Summary, summary_of
from ..wire import Wire

__all__ = ["Scenario", "Setting", "echo_samples", "payload", "timed"]

_WARM_SHARE = 0.2
_WARM_LEAST = 20
_MOST_SAMPLES = 2_000_000


@dataclass(frozen=True, slots=True)
class Setting:
    """One repetition, as a worker sees it."""

    case: str
    placement: str
    seconds: float
    #: To the other roles: the server has one for each client, a client one to the server.
    wires: tuple[Wire, ...]


class Scenario(ABC):
    """One thing to measure, in one or more cases.

    Metrics are microseconds (less is better), except those whose name ends in ``/s`` (more is better) or in
    ``share`` (more is better), and those in ``units``. The metric named "" is the one that figures without a name mean.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    #: What a peer must offer.
    needs: ClassVar[type[Peer]]
    cases: ClassVar[tuple[str, ...]] = ("",)
    placements: ClassVar[tuple[str, ...]] = ("two", "one", "free")
    #: How much longer than usual a repetition has to be.
    stretch: ClassVar[float] = 1
    #: The unit of each metric that is not what its name says; less is better.
    units: ClassVar[Mapping[str, str]] = {}

    def unit(self, metric: str) -> str:
        """Return the unit of a metric: "us", "1/s", "" for shares, or another that `units` names."""
        if metric in self.units:
            return self.units[metric]
        return "1/s" if metric.endswith("/s") else "" if metric.endswith("share") else "us"

    def takes(self, peer: Peer, case: str, placement: str) -> bool:
        """Whether ``peer`` can do ``case``; busy ones need a core for each process."""
        if placement not in self.placements or (peer.busy and placement == "one"):
            return False
        if isinstance(peer, Program):
            return peer.measures(self.name, case)
        return isinstance(peer, self.needs)

    def roles(self, case: str) -> tuple[str, ...]:
        """Return the processes; "server" is wired to all others."""
        return ("server", "client")

    @abstractmethod
    def run(self, role: str, peer: Any, setting: Setting) -> dict[str, Summary]:
        """Play a role; what clients return are the figures of this repetition."""

    def combine(self, results: Sequence[dict[str, Summary]]) -> dict[str, Summary]:
        """Make one result of those of all clients."""
        (only,) = results
        return only


def timed(operation: Callable[[int], Any], check: Callable[[int, Any], None], seconds: float) -> Summary:
    """Time ``operation(n)`` again and again, after warming up; ``check(n, answer)`` is not timed."""
    clock = time.perf_counter_ns
    samples: list[int] = []
    begin = clock()
    warm = begin + int(seconds * _WARM_SHARE * 1e9)
    end = warm + int(seconds * 1e9)
    n = after = 0
    while after < end and len(samples) < _MOST_SAMPLES:
        before = clock()
        answer = operation(n)
        after = clock()
        check(n, answer)
        if before >= warm:
            samples.append(after - before)
        n += 1
    cold = max(0, min(_WARM_LEAST - (n - len(samples)), len(samples) // 2))  # of those that came in time
    return summary_of(samples[cold:] or [after - before])


_PAYLOADS = [(b"%08d" % n) * 8 for n in range(64)]


def payload(n: int) -> bytes:
    """Return the 64 bytes of the n-th call, unlike those of the calls before and after it."""
    return _PAYLOADS[n & 63]


def echo_samples(caller: Caller, seconds: float) -> Summary:
    """Time calls with 64 bytes, each answer checked."""
    call, value, payloads = caller.call, caller.value, _PAYLOADS

    def check(n: int, answer: Any) -> None:
        if value(answer) != payloads[n & 63]:
            raise AssertionError(f"call {n} got {value(answer)!r}")

    return timed(lambda n: call(payloads[n & 63]), check, seconds)
