"""Notifications one way: from the trigger to the first line of the handler."""

from __future__ import annotations

import mmap
import os
import time
from typing import ClassVar

from ..peers.base import Notifies, Peer
from ..statistics import Summary, summary_of
from .base import Scenario, Setting

__all__ = ["Notification"]

_STAMP, _COUNT, _END = 0, 8, 16  # words of the shared page, a cache line each
_GAP_NS = 250_000  # long enough to fall asleep
_PATIENCE_NS = 5_000_000_000


class Notification(Scenario):
    """The receiver notes the time in a page the sender sees, so that no answer disturbs what is measured."""

    name = "irq"
    about = "IRQ trigger to handler, one way"
    needs = Notifies
    #: The receiver has gone to sleep; it is looking; or the sender sleeps until it has heard, then the next follows.
    cases: ClassVar[tuple[str, ...]] = ("asleep", "spinning", "in turns")

    def takes(self, peer: Peer, case: str, placement: str) -> bool:
        fitting = {"asleep": True, "spinning": placement == "two", "in turns": placement == "one"}
        return super().takes(peer, case, placement) and fitting[case]

    def run(self, role: str, peer: Notifies, setting: Setting) -> dict[str, Summary]:
        return {} if role == "server" and not self._receive(peer, setting) else self._send(peer, setting)

    def _receive(self, peer: Notifies, setting: Setting) -> bool:
        (wire,) = setting.wires
        memory = os.memfd_create("bench")
        os.ftruncate(memory, 4096)
        heard, tell = os.pipe()
        wire.send(fds=[memory, heard])
        in_turns = setting.case == "in turns"
        words = memoryview(mmap.mmap(memory, 4096)).cast("Q")
        clock = time.perf_counter_ns

        def handle() -> None:
            words[_STAMP] = clock()
            words[_COUNT] += 1
            if in_turns:
                os.write(tell, b"!")

        listener = peer.listen(wire)
        run = listener.spin if setting.case == "spinning" else listener.sleep
        run(handle, lambda: bool(words[_END]))
        return False

    def _send(self, peer: Notifies, setting: Setting) -> dict[str, Summary]:
        (wire,) = setting.wires
        memory, heard = wire.receive()[1]
        words = memoryview(mmap.mmap(memory, 4096)).cast("Q")
        notifier = peer.notifier(wire)
        trigger, clock = notifier.trigger, time.perf_counter_ns
        time.sleep(0.01)
        samples: list[int] = []
        seen = 0
        spinning, in_turns = setting.case == "spinning", setting.case == "in turns"
        end = clock() + int(setting.seconds * 1e9)
        while clock() < end or len(samples) < 30:
            before = clock()
            trigger()
            if in_turns:
                os.read(heard, 1)
                until = before
            elif spinning:
                while words[_COUNT] == seen and clock() < before + _PATIENCE_NS:
                    pass
                until = before + 20_000
            else:
                until = before + _GAP_NS
            if setting.placement != "one":
                while clock() < until:
                    pass
            elif not in_turns:
                time.sleep(_GAP_NS / 1e9)  # on one core the receiver runs now
            while words[_COUNT] == seen:
                time.sleep(0.001)
                if clock() > before + _PATIENCE_NS:
                    raise AssertionError("a notification was lost")
            if words[_COUNT] != seen + 1:
                raise AssertionError(f"{words[_COUNT] - seen} notifications came of one")
            seen += 1
            samples.append(words[_STAMP] - before)
        words[_END] = 1
        trigger()
        wait_until = clock() + _PATIENCE_NS
        while words[_COUNT] == seen and clock() < wait_until:
            time.sleep(0.001)
        notifier.close()
        return {"": summary_of(samples[10:])}
