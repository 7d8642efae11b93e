"""A frame in shared memory, announced to its readers: what counts is when each first touches it."""

from __future__ import annotations

import json
import mmap
import os
import time
from collections.abc import Sequence
from typing import ClassVar

from ..peers.base import Frames
from ..statistics import Summary, summary_of
from .base import Scenario, Setting

__all__ = ["Frame"]

_SIZES = {"64 KiB": 64 << 10, "6 MiB": 6 << 20}
_PAGE = 4096
_NUMBER, _END, _READERS = 0, 8, 16  # words of a shared page; then for each reader when it touched, and how many it saw
_GAP_NS = 250_000  # long enough to fall asleep
_PATIENCE_NS = 5_000_000_000
_LEAST = 30
_WARM = 10
_FILLS = 3
_AUDIT = 8


class Frame(Scenario):
    """The writer changes the frame in place, announces it, and goes on when all have seen it.

    It writes into each page, not all of it: a copy of 6 MiB would empty the caches, which is not the hand-over's price.
    Readers note the time in a page the writer sees. They check the ends of each frame, and all pages of every eighth,
    which does not count: what one reader does there the next one on its core waits for.
    Figures are over all readers; "last reader" is over frames.
    """

    name = "frame"
    about = "from the announcement of a frame to the first touch of a reader"
    needs = Frames
    cases: ClassVar[tuple[str, ...]] = tuple(
        f"{size}, {count}" for count in ("1 reader", "4 readers") for size in _SIZES
    )
    placements: ClassVar[tuple[str, ...]] = ("two", "one")
    stretch = 2

    def roles(self, case: str) -> tuple[str, ...]:
        count = int(case.split(", ")[1].split()[0])
        return ("server", *(f"reader {n + 1}" for n in range(count)))

    def run(self, role: str, peer: Frames, setting: Setting) -> dict[str, Summary]:
        size = _SIZES[setting.case.partition(",")[0]]
        if role != "server":
            return self._read(peer, setting, size, int(role.split()[1]) - 1)
        samples, last = self._write(peer, setting, size)
        figures = {"": summary_of(samples)}
        if len(setting.wires) > 1:
            figures["last reader"] = summary_of(last)
        setting.wires[0].send(json.dumps(figures).encode())  # a server's own results are nobody's
        return {}

    def combine(self, results: Sequence[dict[str, Summary]]) -> dict[str, Summary]:
        return results[0]

    def _write(self, peer: Frames, setting: Setting, size: int) -> tuple[list[int], list[int]]:
        memory = os.memfd_create("bench")
        os.ftruncate(memory, _PAGE)
        for wire in setting.wires:
            wire.send(fds=[memory])
        words = memoryview(mmap.mmap(memory, _PAGE)).cast("Q")
        stamps = range(_READERS, _READERS + 16 * len(setting.wires), 16)
        publisher = peer.publish(setting.wires, size)
        frame, announce, clock = publisher.frame, publisher.announce, time.perf_counter_ns
        fills = [bytes((mark + 1,)) * (size // _PAGE) for mark in range(_FILLS)]
        samples: list[int] = []
        last: list[int] = []
        number = 0
        end = clock() + int(setting.seconds * 1e9)
        while clock() < end or number < _LEAST:
            number += 1
            frame[::_PAGE] = fills[number % _FILLS]
            frame[-1] = frame[0]
            words[_NUMBER] = number
            self._rest(setting.placement)
            before = clock()
            announce()
            while any(words[stamp + 1] != number for stamp in stamps):
                time.sleep(0.0001)
                if clock() > before + _PATIENCE_NS:
                    raise AssertionError("a frame was lost")
            if number > _WARM and number % _AUDIT:
                took = [words[stamp] - before for stamp in stamps]
                samples += took
                last.append(max(took))
        words[_END] = 1
        announce()
        publisher.close()
        return samples, last

    def _rest(self, placement: str) -> None:
        """Let readers fall asleep; with a core of its own, the writer stays awake."""
        if placement == "one":
            time.sleep(_GAP_NS / 1e9)
        until = time.perf_counter_ns() + _GAP_NS
        while placement != "one" and time.perf_counter_ns() < until:
            pass

    def _read(self, peer: Frames, setting: Setting, size: int, index: int) -> dict[str, Summary]:
        (wire,) = setting.wires
        words = memoryview(mmap.mmap(wire.receive()[1][0], _PAGE)).cast("Q")
        pages = size // _PAGE
        stamp, clock = _READERS + 16 * index, time.perf_counter_ns

        def handle(frame: memoryview) -> None:
            first = frame[0]
            touched = clock()
            if words[_END]:
                return
            if frame[-1] != first or (
                not words[_NUMBER] % _AUDIT and frame[::_PAGE].tobytes() != bytes((first,)) * pages
            ):
                raise AssertionError("a frame with parts of another")
            if (first - 1 - words[_NUMBER]) % _FILLS:
                raise AssertionError(f"frame {words[_NUMBER]} has the bytes of another one")
            words[stamp] = touched
            words[stamp + 1] += 1

        peer.subscribe(wire, size)(handle, lambda: bool(words[_END]))
        if index:
            return {}
        return {name: Summary(*values) for name, values in json.loads(wire.receive()[0]).items()}
