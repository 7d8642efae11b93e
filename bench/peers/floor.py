"""The floor: what two C programs reach with the same page. Built with ``cc`` when a run first wants it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import ClassVar

from ..statistics import Summary
from .base import Program

__all__ = ["FloorFutex", "FloorSpin", "FloorSpinFutex"]

_SOURCE = Path(__file__).parent.parent / "floor.c"


def _compiler() -> str | None:
    return shutil.which(os.environ.get("CC", "cc"))


def _run(command: list[str], timeout: float) -> str:
    """Return what it prints."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=timeout)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: status {done.returncode}\n{done.stderr}".rstrip())
    return done.stdout


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Lives as long as this process."""
    return tempfile.TemporaryDirectory(prefix="l4re-bench-")


def _built() -> Path:
    binary = Path(_folder().name, "floor")
    if not binary.exists():
        compiler = _compiler()
        assert compiler is not None
        _run([compiler, "-std=c11", "-O2", "-Wall", "-o", str(binary), str(_SOURCE)], 60)
    return binary


class _Floor(Program):
    mode: ClassVar[str]

    def missing(self) -> str | None:
        return None if _compiler() else "no C compiler"

    def measures(self, scenario: str, case: str) -> bool:
        return scenario in ("call", "capability")

    def measure(self, scenario: str, case: str, cpus: tuple[int, int], seconds: float) -> dict[str, Summary]:
        command = [str(_built()), self.mode, str(cpus[0]), str(cpus[1]), str(seconds), *filter(None, [case])]
        return {name: Summary(*values) for name, values in json.loads(_run(command, 60 + seconds)).items()}


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
