"""Deadlines: seconds as people give them, nanoseconds as the leaf takes them."""

from __future__ import annotations

from math import isfinite
from time import monotonic_ns

from l4re.errors import InvalidArgument

__all__ = ["deadline_after", "nanoseconds_left", "timeout_ns"]


def timeout_ns(timeout: float | None) -> int:
    """Return nanoseconds for seconds; -1 (wait without end) for None and infinity.

    Raises:
        InvalidArgument: a negative timeout, or none that is a number.
    """
    if timeout is None or timeout == float("inf"):
        return -1
    if not isfinite(timeout) or timeout < 0:
        raise InvalidArgument(f"a timeout is seconds from 0 on, or None; not {timeout!r}")
    return min(int(timeout * 1e9), 2**62)


def deadline_after(timeout: float | None) -> int | None:
    """Return the monotonic time ``timeout`` seconds from now; None: never."""
    span = timeout_ns(timeout)
    return None if span < 0 else monotonic_ns() + span


def nanoseconds_left(deadline: int) -> int:
    """Return how long it is until ``deadline``, at least 0."""
    return max(0, deadline - monotonic_ns())
