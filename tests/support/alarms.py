"""Signals that interrupt a test again and again."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["alarms"]

_PAUSE = 0.0002


@contextmanager
def alarms(handler: Callable[[], object]) -> Iterator[Callable[[], int]]:
    """Interrupt the block wherever it is, and yield a function that says how often that was.

    A handler is not interrupted by the next one, so that the block gets on, however slow the machine is.
    """
    seen, going = 0, True

    def interrupt(number: int, frame: object) -> None:
        nonlocal seen
        if not going:
            return
        handler()
        seen += 1
        signal.setitimer(signal.ITIMER_REAL, _PAUSE)

    old = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, _PAUSE)
        yield lambda: seen
    finally:
        going = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
