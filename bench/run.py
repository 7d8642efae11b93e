"""Running: every repetition in fresh processes, in turns between the peers.

The turns make ratios hold on a machine that others use as well: what disturbs one peer disturbs the next one, too.
A peer that fails is left out of its group, and everybody else goes on.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from .peers import Peer
from .peers.base import Program
from .placement import Cpus
from .scenarios import Scenario
from .statistics import Figure, Summary, figure_of
from .wire import Wire, wire_pair

__all__ = ["Effort", "Failed", "Plan", "Row", "run"]

#: Where this package lies: workers are started there, and so find it under the name it has here.
_HOME = Path(__file__).parent.parent
#: Seconds that starting and ending the processes of a repetition takes, about.
_START = 0.2


@dataclass(frozen=True, slots=True)
class Effort:
    """How long one repetition measures, and how many there are."""

    seconds: float
    repetitions: int


class Row(NamedTuple):
    """One line of a table."""

    scenario: str
    case: str
    metric: str
    placement: str
    peer: str
    unit: str  # as `bench.scenarios.base` has it
    figure: Figure


class Failed(NamedTuple):
    """A peer that could not be measured in one group, and why."""

    scenario: str
    case: str
    placement: str
    peer: str
    why: str


class _Failure(Exception):
    """A worker failed: what it said."""


@dataclass(slots=True)
class Plan:
    """What to run."""

    scenarios: Sequence[Scenario]
    peers: Sequence[Peer]
    placements: Sequence[str]
    effort: Effort
    fixed_only: bool = False  # leave out what the scheduler decides, unless a scenario has nothing else
    cpus: Cpus = field(default_factory=Cpus.of_this_machine)

    def groups(self) -> Iterator[tuple[Scenario, str, list[tuple[str, Peer]]]]:
        """Yield what is measured in turns: a scenario in a placement, all its cases with the peers that can do them."""
        for scenario in self.scenarios:
            for placement in self.placements:
                if self.fixed_only and placement == "free" and len(scenario.placements) > 1:
                    continue
                members = [
                    (case, peer)
                    for case in scenario.cases
                    for peer in self.peers
                    if scenario.takes(peer, case, placement)
                ]
                if members and self.cpus.offers(placement):
                    yield scenario, placement, members

    def parts(self) -> Iterator[Plan]:
        """Yield a plan for each scenario."""
        return (replace(self, scenarios=[scenario]) for scenario in self.scenarios)

    def seconds(self, scenario: Scenario) -> float:
        """How long one repetition of ``scenario`` measures."""
        return self.effort.seconds * scenario.stretch

    def cost(self, scenario: Scenario) -> float:
        """How many seconds one repetition of ``scenario`` takes, about."""
        return _START + 1.2 * self.seconds(scenario)

    def total(self) -> float:
        """How many seconds all of it takes, about."""
        return self.effort.repetitions * sum(
            self.cost(scenario) * len(members) for scenario, _, members in self.groups()
        )


def run(plan: Plan, progress: Callable[[str, float], None]) -> Iterator[Row | Failed]:
    """Run the plan; rows come as soon as their group is done, failures at once.

    ``progress`` is called before each repetition, with what it is and the seconds that it takes, about.
    """
    for scenario, placement, members in plan.groups():
        found: dict[tuple[str, str], dict[str, list[Summary]]] = {(case, peer.name): {} for case, peer in members}
        for turn in range(plan.effort.repetitions):
            for case, peer in members if turn % 2 == 0 else reversed(members):
                progress(
                    f"{' '.join(filter(None, (scenario.name, case, placement)))}: {peer.name}", plan.cost(scenario)
                )
                if (case, peer.name) not in found:
                    continue
                try:
                    summaries = _repetition(scenario, case, placement, peer, plan)
                except Exception as error:  # whatever a peer can raise
                    del found[case, peer.name]
                    why = str(error) if isinstance(error, _Failure) else f"{type(error).__name__}: {error}"
                    yield Failed(scenario.name, case, placement, peer.name, why)
                    continue
                for metric, summary in summaries.items():
                    found[case, peer.name].setdefault(metric, []).append(summary)
        yield from _rows(scenario, placement, found)


def _rows(scenario: Scenario, placement: str, found: dict[tuple[str, str], dict[str, list[Summary]]]) -> Iterator[Row]:
    """Yield the lines of a group: case by case, and of each case metric by metric."""
    for case in dict.fromkeys(case for case, _ in found):
        results = {name: metrics for (of, name), metrics in found.items() if of == case}
        for metric in dict.fromkeys(metric for metrics in results.values() for metric in metrics):
            for name, metrics in results.items():
                if metric in metrics:
                    figure = figure_of(metrics[metric])
                    yield Row(scenario.name, case, metric, placement, name, scenario.unit(metric), figure)


def _repetition(scenario: Scenario, case: str, placement: str, peer: Peer, plan: Plan) -> dict[str, Summary]:
    if isinstance(peer, Program):
        first, second = (sorted(plan.cpus.of(placement, role)) for role in ("server", "client"))
        pins = (first[0], second[0]) if placement != "free" else (-1, -1)
        return peer.measure(scenario.name, case, pins, plan.seconds(scenario))
    roles = scenario.roles(case)
    wires: dict[str, list[Wire]] = {role: [] for role in roles}
    for role in roles:
        if role != "server" and "server" in roles:
            here, there = wire_pair()
            wires["server"].append(here)
            wires[role].append(there)
    workers: list[_Worker] = []
    try:
        with _uninterrupted():  # each that was started is known, so that it can be ended
            workers.extend(_Worker(scenario, peer, role, case, placement, plan, wires[role]) for role in roles)
        for wire in chain(*wires.values()):  # the ends are the workers' now: each sees when another ends
            wire.close()
        _wait(workers, patience=30 + 20 * plan.seconds(scenario))
    finally:
        with _uninterrupted():
            for wire in chain(*wires.values()):
                wire.close()
            for worker in workers:
                worker.end()
    pids = {worker.pid for worker in workers}
    if len(pids) != len(roles) or os.getpid() in pids:
        raise _Failure("the roles were not processes of their own")
    return scenario.combine([worker.summaries for worker in workers if worker.role != "server"])


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait(workers: list[_Worker], patience: float) -> None:
    """Collect what all workers say; the first one that fails ends it."""
    deadline = time.monotonic() + patience
    with selectors.DefaultSelector() as selector:
        for worker in workers:
            selector.register(worker.result, selectors.EVENT_READ, worker)
        while selector.get_map():
            left = deadline - time.monotonic()
            ready = selector.select(left) if left > 0 else []
            if not ready:
                waiting = ", ".join(key.data.role for key in selector.get_map().values())
                raise _Failure(f"no end in sight after {patience:.0f} s: {waiting}")
            for key, _ in ready:
                worker = key.data
                if worker.read():
                    selector.unregister(worker.result)


class _Worker:
    """One process that was started."""

    def __init__(
        self, scenario: Scenario, peer: Peer, role: str, case: str, placement: str, plan: Plan, wires: list[Wire]
    ) -> None:
        self.role = role
        self.pid = -1
        self.summaries: dict[str, Summary] = {}
        self._text = b""
        self.result, theirs = os.pipe()
        cpus = ",".join(map(str, sorted(plan.cpus.of(placement, role))))
        ends = [wire.fileno() for wire in wires]
        args = [scenario.name, peer.name, role, case, placement, str(plan.seconds(scenario)), cpus, str(theirs)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.worker", *args, *map(str, ends)],
            pass_fds=[theirs, *ends],
            cwd=_HOME,
            stdin=subprocess.DEVNULL,
            stdout=2,  # what a library says is talk; data is ours
            process_group=0,  # Ctrl-C is the runner's, and what a peer started ends with its worker
        )
        os.close(theirs)

    def read(self) -> bool:
        """Read a part of what it says; True: that was all."""
        part = os.read(self.result, 1 << 16)
        self._text += part
        if part:
            return False
        if not self._text:
            raise _Failure(f"{self.role}: it ended with status {self._process.wait()} and said nothing")
        said = json.loads(self._text)
        if "error" in said:
            raise _Failure(f"{self.role}:\n{said['error'].rstrip()}")
        self.pid = said["pid"]
        self.summaries = {name: Summary(*values) for name, values in said["summaries"].items()}
        return True

    def end(self) -> None:
        """Wait for a process that has said all and is ending; kill any other, and what it started."""
        try:
            self._process.wait(timeout=2 if self.pid > 0 else 0)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self.result)
