"""What a process holds: descriptors, shared mappings, children, threads.

Read from procfs, so what the kernel says counts, not what the library believes.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Holdings", "holdings", "wait_until"]


@dataclass(frozen=True, slots=True)
class Holdings:
    """A count of each kind of thing one process holds."""

    descriptors: Counter[str] = field(default_factory=Counter)
    mappings: Counter[str] = field(default_factory=Counter)
    children: Counter[str] = field(default_factory=Counter)
    threads: Counter[str] = field(default_factory=Counter)

    def beyond(self, before: Holdings) -> dict[str, int]:
        """Return what is held now and was not ``before``, by a readable name."""
        more: dict[str, int] = {}
        for what in ("descriptors", "mappings", "children", "threads"):
            for name, count in (getattr(self, what) - getattr(before, what)).items():
                more[f"{what[:-1] if what != 'children' else 'child'} {name}"] = count
        return more


def _link(path: str) -> str | None:
    try:
        target = os.readlink(path)
    except OSError:
        return None
    head = target.split(":", 1)[0]
    return head if head in ("socket", "pipe") else target


def _children(pid: int) -> Counter[str]:
    found: Counter[str] = Counter()
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            for child in (task / "children").read_text().split():
                found[f"{child} {Path(f'/proc/{child}/comm').read_text().strip()}"] += 1
        except OSError:
            continue
    return found


def holdings(pid: int | None = None) -> Holdings:
    """Return what a process (this one by default) holds. Garbage of this process is collected first."""
    if pid is None:
        gc.collect()
    number = os.getpid() if pid is None else pid
    base = f"/proc/{number}/fd"
    links = (_link(f"{base}/{name}") for name in os.listdir(base))
    descriptors = Counter(link for link in links if link is not None and link != base)
    mappings: Counter[str] = Counter()
    for line in Path(f"/proc/{number}/maps").read_text().splitlines():
        parts = line.split(maxsplit=5)
        if len(parts) == 6 and "s" in parts[1]:
            mappings[parts[5]] += 1
    threads = Counter(thread.name for thread in threading.enumerate()) if pid is None else Counter[str]()
    return Holdings(descriptors, mappings, _children(number), threads)


def wait_until(condition: Callable[[], bool], timeout: float = 10.0, what: str = "the condition") -> None:
    """Wait for a state that no descriptor announces (something in procfs).

    Raises:
        TimeoutError: it did not come within ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come within {timeout} s")
        time.sleep(0.001)
