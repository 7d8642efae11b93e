"""What open connections cost while nobody uses them: wake-ups and processor time, and memory."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import ClassVar

from ..peers.base import Calls
from ..statistics import Summary, scalar
from .base import Setting
from .sessions import ManySessions, opened, use

__all__ = ["Footprint", "Idle"]

_SETTLE = 0.2
_MOST_SETTLES = 10
_READINGS = 21


class Idle(ManySessions):
    """A third process looks at both; they wait, and must not run at all meanwhile."""

    name = "idle"
    about = "server and client with so many open sessions, doing nothing: how often they ran, both together"
    cases: ClassVar[tuple[str, ...]] = ("1000",)
    placements: ClassVar[tuple[str, ...]] = ("one",)
    units: ClassVar[dict[str, str]] = {"wake-ups": "count", "processor time": "ticks"}
    stretch = 4

    def run(self, role: str, peer: Calls, setting: Setting) -> dict[str, Summary]:
        (wire,) = setting.wires
        count = int(setting.case)
        if role == "server":
            wire.send(str(os.getpid()).encode())
            peer.serve((wire,) * count, "echo")
            return {}
        with _watcher((int(wire.receive()[0]), os.getpid()), setting.seconds) as watch:
            callers = opened(peer, wire, count)
            switches, ticks = watch()
        for n, caller in enumerate(callers):
            use(caller, n)
            caller.close()
        return {"wake-ups": scalar(switches), "processor time": scalar(ticks)}


@contextmanager
def _watcher(pids: Sequence[int], seconds: float) -> Iterator[Callable[[], tuple[int, int]]]:
    """Fork a process that can watch ``pids``.

    The function yielded lets it begin once they rest, and waits in one system call for what it saw in ``seconds``:
    context switches and ticks of processor time.
    """
    (begin, let_begin), (said, say) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(let_begin)
            if os.read(begin, 1):
                os.write(say, json.dumps(_watched(pids, seconds)).encode())
        finally:
            os._exit(0)
    os.close(begin)
    os.close(say)

    def watch() -> tuple[int, int]:
        os.write(let_begin, b"-")
        switches, ticks = json.loads(os.read(said, 4096))
        return switches, ticks

    try:
        yield watch
    finally:
        os.close(let_begin)
        os.close(said)
        os.waitpid(pid, 0)


def _watched(pids: Sequence[int], seconds: float) -> tuple[int, int]:
    before = _ran(pids)
    for _ in range(_MOST_SETTLES):
        time.sleep(_SETTLE)
        if before == (before := _ran(pids)):
            break
    time.sleep(seconds)
    after = _ran(pids)
    return after[0] - before[0], after[1] - before[1]


def _ran(pids: Sequence[int]) -> tuple[int, int]:
    """Return how often all threads of these processes stopped running so far, and for how many ticks they ran."""
    switches = ticks = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for line in (thread / "status").read_text().splitlines():
                if "ctxt_switches" in line:
                    switches += int(line.split()[1])
        ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return switches, ticks


class Footprint(ManySessions):
    """What the machine has less after they were opened: pages, sockets and Python objects of both processes.

    MemAvailable says it give or take some MiB: others take and give back memory meanwhile, and freed pages that a CPU
    keeps for itself do not count. "counted" is what should be missing from it: the pages of both processes, shared
    ones once, their page tables, and the kernel's slabs. Neither has the inodes of sockets and memfds, some 4 KiB
    for ours: the kernel holds them to be reclaimable.
    """

    name = "footprint"
    about = "memory of one of so many idle sessions, both sides together"
    cases: ClassVar[tuple[str, ...]] = ("1000",)
    placements: ClassVar[tuple[str, ...]] = ("one",)
    units: ClassVar[dict[str, str]] = {"MemAvailable": "KiB", "counted": "KiB"}
    stretch = 1

    def run(self, role: str, peer: Calls, setting: Setting) -> dict[str, Summary]:
        (wire,) = setting.wires
        count = int(setting.case)
        if role == "server":
            wire.send(str(os.getpid()).encode())
            peer.serve((wire,), "echo")  # what the first one loads is not the price of the others
            wire.receive()
            peer.serve((wire,) * count, "echo")
            return {}
        pids = (int(wire.receive()[0]), os.getpid())
        (first,) = opened(peer, wire, 1)
        first.close()
        before = _memory(pids, setting.seconds)
        wire.send(b"begin")
        callers = opened(peer, wire, count)
        after = _memory(pids, setting.seconds)
        for n, caller in enumerate(callers):
            use(caller, n)
            caller.close()
        return {
            "MemAvailable": scalar((before[0] - after[0]) / count, count),
            "counted": scalar((after[1] - before[1]) / count, count),
        }


def _memory(pids: Sequence[int], seconds: float) -> tuple[float, float]:
    """Return what the machine has left and what is counted, in KiB: medians over ``seconds``."""
    left, counted = [], []
    for _ in range(_READINGS):
        time.sleep(seconds / _READINGS)
        machine = _kibibytes("/proc/meminfo")
        left.append(machine["MemAvailable"])
        pages = sum(
            _kibibytes(f"/proc/{pid}/smaps_rollup")["Pss"] + _kibibytes(f"/proc/{pid}/status")["VmPTE"] for pid in pids
        )
        counted.append(pages + machine["SUnreclaim"])
    return median(left), median(counted)


def _kibibytes(path: str) -> dict[str, int]:
    fields = (line.split() for line in Path(path).read_text().splitlines())
    return {words[0].removesuffix(":"): int(words[1]) for words in fields if words[-1] == "kB"}
