"""Memory that is made, filled, and handed to a process that runs already; freed when that one has read it."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from ..peers.base import HandsOver
from ..statistics import Summary
from .base import Scenario, Setting, timed

__all__ = ["Handover"]

_SIZES = {"16 KiB": 16 << 10, "64 MiB": 64 << 20}
_PAGE = 4096


def _mark(n: int) -> int:
    return n % 251 + 1


class Handover(Scenario):
    """alloc, attach and touch here; attach, read and detach there; detach and close here."""

    name = "handover"
    about = "memory made, touched, handed to a live process that reads what was touched, and freed"
    needs = HandsOver
    cases: ClassVar[tuple[str, ...]] = ("16 KiB, all touched", "64 MiB, 2 pages touched", "64 MiB, all touched")
    placements: ClassVar[tuple[str, ...]] = ("two", "one")
    stretch = 2

    def run(self, role: str, peer: HandsOver, setting: Setting) -> dict[str, Summary]:
        (wire,) = setting.wires
        size = _SIZES[setting.case.partition(",")[0]]
        step = _PAGE if "all" in setting.case else size - 1  # the first byte of each page, or the first and the last
        touched = len(range(0, size, step))

        def touch(mark: int, view: memoryview) -> None:
            view[::step] = bytes((mark,)) * touched

        def look(view: memoryview) -> int:
            seen = view[::step].tobytes()
            return seen[0] if seen == seen[:1] * touched else 0

        if role == "server":
            peer.serve_memory(wire, look)
            return {}
        caller = peer.connect_memory(wire, size)
        call, value = caller.call, caller.value

        def check(n: int, answer: Any) -> None:
            if value(answer) != _mark(n):
                raise AssertionError(f"the other process read {value(answer)}, not {_mark(n)}")

        result = {"": timed(lambda n: call(partial(touch, _mark(n))), check, setting.seconds)}
        caller.close()
        return result
