"""Placements: which CPU each process of a measurement may use.

``two``: server and clients on one core each; ``one``: all on the same; ``free``: the scheduler decides.
Where the scheduler decides, figures do not repeat; the fixed placements are the ones to compare.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PLACEMENTS", "SHOWN", "Cpus"]

PLACEMENTS = ("two", "one", "free")
#: For people.
SHOWN = {"two": "two cores", "one": "one core", "free": "free"}


def _core(cpu: int) -> str:
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


@dataclass(frozen=True, slots=True)
class Cpus:
    """The CPUs a run uses: one, and another on a different core if there is one."""

    first: int
    second: int | None
    all: frozenset[int]

    @classmethod
    def of_this_machine(cls) -> Cpus:
        """Choose among the CPUs this process may use."""
        usable = sorted(os.sched_getaffinity(0))
        first = usable[0]
        others = [cpu for cpu in usable if _core(cpu) != _core(first)]
        return cls(first, others[0] if others else None, frozenset(usable))

    def offers(self, placement: str) -> bool:
        """Whether this machine has the cores for it."""
        return placement != "two" or self.second is not None

    def of(self, placement: str, role: str) -> frozenset[int]:
        """Return the CPUs for a role: the server gets the first core, everybody else the second."""
        if placement == "free":
            return self.all
        if placement == "one" or role == "server" or self.second is None:
            return frozenset((self.first,))
        return frozenset((self.second,))
