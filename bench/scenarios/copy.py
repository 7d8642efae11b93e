"""Copying shared memory to shared memory, in one process."""

from __future__ import annotations

from typing import Any, ClassVar

from ..peers.base import Copies
from ..statistics import Summary
from .base import Scenario, Setting, timed

__all__ = ["CopyIn"]

_SIZES = {"64 KiB": 64 << 10, "6 MiB": 6 << 20, "64 MiB": 64 << 20}
_SAMPLES = 61


def _mark(n: int) -> int:
    return n % 250 + 2  # 1 is what memory is filled with before


class CopyIn(Scenario):
    """All of a source to all of a target, whose pages are there; or to new memory, which is made for it.

    Before each copy some bytes of the source are changed, and after it they are looked for in the target.
    """

    name = "copy-in"
    about = "a copy of shared memory"
    needs = Copies
    cases: ClassVar[tuple[str, ...]] = ("64 KiB", "6 MiB", "64 MiB", "64 MiB, to new memory")
    placements: ClassVar[tuple[str, ...]] = ("one",)
    stretch = 2

    def roles(self, case: str) -> tuple[str, ...]:
        return ("client",)

    def run(self, role: str, peer: Copies, setting: Setting) -> dict[str, Summary]:
        amount, _, new = setting.case.partition(", ")
        size = _SIZES[amount]
        offsets = [*range(0, size, size // _SAMPLES), size - 1]
        copier = peer.copier(size, bool(new))
        copy = copier.copy

        def check(n: int, answer: Any) -> None:
            seen = copier.sample(answer, offsets)
            if seen != bytes((_mark(n),)) * len(offsets):
                raise AssertionError(f"copy {n} is of something else")
            copier.mark(offsets, _mark(n + 1))

        try:
            copier.mark(offsets, _mark(0))
            return {"": timed(lambda n: copy(), check, setting.seconds)}
        finally:
            copier.close()
