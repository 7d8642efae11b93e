"""Making and freeing shared memory, in one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from ..peers.base import Memory
from ..statistics import Summary
from .base import Scenario, Setting, timed

__all__ = ["MemoryCycle"]

_PAGE = 4096
_MIB = 1 << 20


def _ends(view: memoryview) -> None:
    view[0] = view[-1] = 1


def _all(view: memoryview) -> None:
    view[::_PAGE] = bytes(len(view) // _PAGE)


class MemoryCycle(Scenario):
    """alloc + attach + touch + detach + close."""

    name = "memory"
    about = "alloc, attach, touch, detach, close"
    needs = Memory
    cases: ClassVar[tuple[str, ...]] = ("16 KiB", "64 MiB, 2 pages touched", "64 MiB, all touched")
    placements: ClassVar[tuple[str, ...]] = ("one",)

    def roles(self, case: str) -> tuple[str, ...]:
        return ("client",)

    def run(self, role: str, peer: Memory, setting: Setting) -> dict[str, Summary]:
        cycle = peer.cycle(16 * 1024 if setting.case == "16 KiB" else 64 * _MIB)
        touch: Callable[[memoryview], None] = _ends if "2 pages" in setting.case else _all
        return {"": timed(lambda n: cycle(touch), lambda n, answer: None, setting.seconds)}
