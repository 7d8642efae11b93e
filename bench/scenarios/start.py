"""How long a program takes to start: with an import, and until it has called somebody."""

from __future__ import annotations

import os
import sys
import time
from typing import ClassVar

from ..peers.base import Spawns, Starts
from ..statistics import Summary, scalar, summary_of
from .base import Scenario, Setting, timed

__all__ = ["Spawn", "Start"]


def _run(code: str) -> int:
    """Run a program to its end; return its exit code."""
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", code], os.environ)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Start(Scenario):
    """``python -c`` of the import, from the outside."""

    name = "start"
    about = "a program that does nothing but import, from its start to its end"
    needs = Starts
    placements: ClassVar[tuple[str, ...]] = ("free",)  # one process: on the core that others leave it
    stretch = 4

    def roles(self, case: str) -> tuple[str, ...]:
        return ("client",)

    def run(self, role: str, peer: Starts, setting: Setting) -> dict[str, Summary]:
        def check(n: int, code: int) -> None:
            if code:
                raise AssertionError(f"{peer.imports!r} ended with {code}")

        return {"": timed(lambda n: _run(peer.imports), check, setting.seconds)}


class Spawn(Scenario):
    """In turns with programs that only import."""

    name = "spawn"
    about = "from the start of a program until its first call is done"
    needs = Spawns
    units: ClassVar[dict[str, str]] = {"over a bare import": "x"}
    placements: ClassVar[tuple[str, ...]] = ("two", "one")
    stretch = 8

    def roles(self, case: str) -> tuple[str, ...]:
        return ("client",)

    def run(self, role: str, peer: Spawns, setting: Setting) -> dict[str, Summary]:
        clock = time.perf_counter_ns
        spawned: list[int] = []
        bare: list[int] = []
        spawn = peer.spawner()
        spawn()  # not again what the first one imports here
        end = clock() + int(setting.seconds * 1e9)
        while clock() < end or len(bare) < 2:
            before = clock()
            spawned.append(spawn() - before)
            before = clock()
            if _run(peer.imports):
                raise AssertionError(f"{peer.imports!r} failed")
            bare.append(clock() - before)
        result, base = summary_of(spawned), summary_of(bare)
        return {"": result, "bare import": base, "over a bare import": scalar(result.p50 / base.p50, len(bare))}
