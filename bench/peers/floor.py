"""The floor: what two C programs reach with the same page. Built with ``cc`` when it is first wanted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import ClassVar

from bench.peers.base import Program
from bench.statistics import Summary

__all__ = ["FloorFutex", "FloorSpin", "FloorSpinFutex"]

_SOURCE = Path(__file__).parent.parent / "floor.c"
_BINARY = _SOURCE.parent.parent / "build" / "bench" / "floor"


def _compiler() -> str | None:
    return shutil.which(os.environ.get("CC", "cc"))


def _built() -> Path:
    if not _BINARY.exists() or _BINARY.stat().st_mtime < _SOURCE.stat().st_mtime:
        compiler = _compiler()
        assert compiler is not None
        _BINARY.parent.mkdir(parents=True, exist_ok=True)
        aside = _BINARY.with_suffix(f".{os.getpid()}")
        subprocess.run([compiler, "-std=c11", "-O2", "-Wall", "-o", str(aside), str(_SOURCE)], check=True)
        aside.rename(_BINARY)
    return _BINARY


class _Floor(Program):
    mode: ClassVar[str]

    def missing(self) -> str | None:
        return None if _compiler() else "there is no C compiler"

    def measures(self, scenario: str, case: str) -> bool:
        return scenario == "call"

    def measure(self, scenario: str, case: str, cpus: tuple[int, int], seconds: float) -> dict[str, Summary]:
        command = [str(_built()), self.mode, str(cpus[0]), str(cpus[1]), str(seconds)]
        out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60 + seconds).stdout
        return {name: Summary(*values) for name, values in json.loads(out).items()}


class FloorSpinFutex(_Floor):
    """Spin 2,000 times, then sleep on a futex: what a session does, without Python."""

    name = "C spin+futex"
    mode = "spin-futex"


class FloorSpin(_Floor):
    """Spin only."""

    name = "C spin"
    mode = "spin"
    busy = True


class FloorFutex(_Floor):
    """Sleep at once."""

    name = "C futex"
    mode = "futex"
