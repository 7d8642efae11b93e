"""Having shared memory made by the root of a run, on account, beside making it oneself."""

from __future__ import annotations

from typing import ClassVar

from ..peers.base import Allocates, Memory
from ..statistics import Summary
from .base import Scenario, Setting, timed

__all__ = ["Setup"]

_SIZE = 16 * 1024


def _ends(view: memoryview) -> None:
    view[0] = view[-1] = 1


class Setup(Scenario):
    """Ask for 16 KiB, attach, touch, detach, close: the allocator counts it, and hears when it is gone."""

    name = "setup"
    about = "16 KiB from an allocator that counts, attach, touch, detach, close; others make theirs themselves"
    needs = Memory
    placements: ClassVar[tuple[str, ...]] = ("two", "one")

    def run(self, role: str, peer: Memory, setting: Setting) -> dict[str, Summary]:
        (wire,) = setting.wires
        if role == "server":
            if isinstance(peer, Allocates):
                peer.serve_allocator(wire)
            return {}
        cycle = peer.allocated(wire, _SIZE) if isinstance(peer, Allocates) else peer.cycle(_SIZE)
        return {"": timed(lambda n: cycle(_ends), lambda n, answer: None, setting.seconds)}
