"""The machine: what figures depend on, and how much of it others used meanwhile."""

from __future__ import annotations

import os
import platform
import resource
import time
from pathlib import Path
from typing import Any

__all__ = ["Disturbance", "machine"]


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    model = "unknown"
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }


class Disturbance:
    """How much of the machine others have used since this was made."""

    def __init__(self) -> None:
        self._busy, self._ours, self._began = _busy_seconds(), _our_seconds(), time.monotonic()

    def share(self) -> float:
        """Return it, 1.0 being all CPUs."""
        elapsed = (time.monotonic() - self._began) * (os.cpu_count() or 1)
        others = _busy_seconds() - self._busy - (_our_seconds() - self._ours)
        return max(0.0, others / elapsed) if elapsed else 0.0


def _busy_seconds() -> float:
    try:
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    except OSError:
        return 0.0
    idle = fields[3] + fields[4]
    return (sum(fields[:8]) - idle) / os.sysconf("SC_CLK_TCK")


def _our_seconds() -> float:
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        total += usage.ru_utime + usage.ru_stime
    return total
