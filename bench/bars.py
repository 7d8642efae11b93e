"""Bars: what this package promises about its speed, and where it wants to be.

Times and ratios hold for fixed placements and within one run. A promise is a figure, or one figure over another, and
a bound; what was not measured is not judged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from .figures import Figures
from .peers import OURS, PEERS

__all__ = ["PROMISES", "Key", "Promise", "Verdict", "judged"]


#: Units as people read them behind a number.
_UNITS = {"us": "µs", "1/s": "/s", "count": ""}


class Key(NamedTuple):
    """Which row."""

    scenario: str
    case: str
    metric: str
    placement: str
    peer: str


@dataclass(frozen=True, slots=True)
class Promise:
    """``figure`` is at most ``bar``, or at least, if so said.

    With a ``base``, that is ``figure`` over it, or less it.
    """

    what: str
    figure: Key
    bar: float
    goal: float | None = None
    base: Key | None = None
    less: bool = False
    at_least: bool = False

    def word(self, measured: float) -> str:
        """Return how it stands: goal, met or missed."""
        for word, bound in (("goal", self.goal), ("met", self.bar)):
            if bound is not None and (measured >= bound if self.at_least else measured <= bound):
                return word
        return "missed"


class Verdict(NamedTuple):
    """A promise, and how it stands."""

    promise: Promise
    measured: float
    unit: str

    @property
    def word(self) -> str:
        """Goal, met or missed."""
        return self.promise.word(self.measured)

    def as_dict(self) -> dict[str, Any]:
        """Return it for programs."""
        promise = self.promise
        return {
            "what": promise.what,
            "measured": round(self.measured, 3),
            "unit": self.unit,
            "bar": promise.bar,
            "goal": promise.goal,
            "at_least": promise.at_least,
            "verdict": self.word,
        }

    def shown(self, value: float) -> str:
        """Return a value with its unit."""
        number = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
        return number + self.unit if self.unit in ("", "x", "/s") else f"{number} {self.unit}"

    def bound(self, value: float) -> str:
        """Return a bound as one reads it."""
        return f"{'≥' if self.promise.at_least else '≤'} {self.shown(value)}"


def _faster(than: str, bar: float, goal: float) -> Promise:
    ours, theirs = (Key("call", "", "", "two", peer) for peer in (OURS, than))
    return Promise(f"raw call, two cores, faster than {than}", theirs, bar, goal, ours, at_least=True)


def _no_slower(what: str, key: Key, than: str, bar: float = 1, goal: float | None = None) -> Promise:
    return Promise(f"{what}, over {than}", key, bar, goal, key._replace(peer=than))


def _promises() -> Iterator[Promise]:
    two, one = (Key("call", "", "", placement, OURS) for placement in ("two", "one"))
    yield Promise("raw call, two cores", two, 2.5, 1.0)
    yield _no_slower("raw call, two cores", two, "C spin+futex", 4)
    for than, bar, goal in (("mp.Pipe", 25, 50), ("zmq", 50, 100), ("iceoryx2", 50, 100), ("iceoryx2 busy", 7, 12)):
        if than in PEERS:
            yield _faster(than, bar, goal)
    yield Promise("raw call, one core", one, 12, 10)
    yield _no_slower("raw call, one core", one, "page+eventfd")
    yield Promise("typed call, two cores", two._replace(scenario="typed"), 4.5, 2.5)
    for key in (two, one):
        yield _no_slower(f"beside busy threads, {key.placement}", key._replace(scenario="busy"), "mp.Pipe", 1, 0.5)
    for kind in ("dataspace", "irq", "gate"):
        on_top = Key("capability", kind, "on top", "two", OURS)
        yield Promise(f"{kind} in a reply, on top", on_top, 15, 10)
        yield _no_slower(f"{kind} in a reply, on top", on_top, "C spin+futex", 3, 2)
    yield Promise("IRQ, receiver spinning", Key("irq", "spinning", "", "two", OURS), 2.5, 1.5)
    yield Promise("IRQ, one core", Key("irq", "in turns", "", "one", OURS), 6, 4)
    yield _no_slower("IRQ, asleep on the other core", Key("irq", "asleep", "", "two", OURS), "page+eventfd")
    calls = Key("throughput", "", "calls/s", "free", OURS)
    yield Promise("calls of four clients", calls, 250_000, 400_000, at_least=True)
    yield Promise("slowest of four clients, over the mean", calls._replace(metric="slowest share"), 0.5, at_least=True)
    single = Key("sessions", "1", "", "two", OURS)
    for count in ("64", "256", "1000"):
        yield Promise(f"one of {count} sessions, over a single one", single._replace(case=count), 1.3, 1.1, single)
    for case in ("16 KiB, all touched", "64 MiB, 2 pages touched", "64 MiB, all touched"):
        yield _no_slower(
            f"handover, {case.replace(' touched', '')}", Key("handover", case, "", "two", OURS), "SharedMemory", 0.25
        )
        yield _no_slower(
            f"handover, {case.replace(' touched', '')}", Key("handover", case, "", "two", OURS), "memfd+mmap", 1.3
        )
    for readers in ("1 reader", "4 readers"):
        frame, small = (Key("frame", f"{size}, {readers}", "", "two", OURS) for size in ("6 MiB", "64 KiB"))
        yield Promise(f"6 MiB to {readers}, over 64 KiB", frame, 1.3, None, small)
        irq = Key("irq", "asleep", "", "two", OURS)
        yield Promise(f"6 MiB to {readers}, less an IRQ", frame, 5, None, irq, less=True)
    yield Promise("a program that imports", Key("start", "", "", "free", OURS), 60_000)
    spawn = Key("spawn", "", "over a bare import", "one", OURS)
    yield Promise("spawned, until its first call, over an import", spawn, 1.25)
    idle = Key("idle", "1000", "wake-ups", "one", OURS)
    yield Promise("wake-ups of 1000 idle sessions", idle, 0)
    yield Promise("memory of an idle session", idle._replace(scenario="footprint", metric="counted"), 16, 12)
    for case in ("garbage", "flags", "rings", "silent"):
        for placement in ("two", "one"):
            honest = Key("hostile", case, "calls share", placement, OURS)
            what = f"calls beside {case}, over an innocent client, {placement}"
            yield Promise(what, honest, 0.9, 1, at_least=True)
    for case in ("6 MiB", "64 MiB"):
        copied = Key("copy-in", case, "", "one", OURS)
        yield _no_slower(f"copy of {case}", copied, "copy_file_range", 1.3)
    for than in ("memfd+mmap", "SharedMemory"):
        copied = Key("copy-in", "64 MiB, to new memory", "", "one", OURS)
        yield _no_slower("copy of 64 MiB to new memory", copied, than, 1)
    for case in ("16 KiB", "64 MiB, all touched"):
        memory = Key("memory", case, "", "one", OURS)
        yield _no_slower(f"memory, {case.replace(' touched', '')}", memory, "memfd+mmap", 1.3)
        yield _no_slower(f"memory, {case.replace(' touched', '')}", memory, "SharedMemory", 0.5)


#: In the order of the tables.
PROMISES = tuple(_promises())


def judged(figures: Figures) -> list[Verdict]:
    """Return what became of the promises that were measured."""
    verdicts = []
    for promise in PROMISES:
        row = figures.find(*promise.figure)
        base = figures.find(*promise.base) if promise.base else None
        if row is None or (promise.base and (base is None or not base.figure.p50)):
            continue
        unit = _UNITS.get(row.unit, row.unit)
        if base is None:
            verdicts.append(Verdict(promise, row.figure.p50, unit))
        elif promise.less:
            verdicts.append(Verdict(promise, row.figure.p50 - base.figure.p50, unit))
        else:
            verdicts.append(Verdict(promise, row.figure.p50 / base.figure.p50, "x"))
    return verdicts
