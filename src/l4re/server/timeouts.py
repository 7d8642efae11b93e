"""Timeouts: what a server does when a time has come.

A timer of the kernel stands for the next of them in the loop, so whoever waits for
the loop's descriptor waits for it as well. It is made with the first timeout;
until then a loop knows nothing of time.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from time import monotonic_ns

from l4re._native import leaf
from l4re.errors import Closed, InvalidArgument
from l4re.linux.clock import timeout_ns
from l4re.linux.fd import Fd
from l4re.linux.limit import exhausted

__all__ = ["QueuedTimeout", "TimeoutQueue"]

log = logging.getLogger("l4re.server")


class QueuedTimeout:
    """One thing to do at a time, once or again and again. Made by :meth:`TimeoutQueue.add`."""

    __slots__ = ("_at", "_callback", "_every", "_queue", "_queued")

    def __init__(self, queue: TimeoutQueue, at: int, callback: Callable[[], object], every: int) -> None:
        self._queue = queue
        self._at = at
        self._callback: Callable[[], object] | None = callback
        self._every = every
        self._queued = False

    @property
    def pending(self) -> bool:
        """Whether it will run: not cancelled, and not done if it was to run once."""
        return self._callback is not None

    @property
    def left(self) -> float:
        """Seconds until it is due; 0 when it is, or when nothing is pending."""
        return max(0, self._at - monotonic_ns()) / 1e9 if self.pending else 0.0

    def cancel(self) -> None:
        """See that it does not run (again); a second call does nothing."""
        if self._callback is not None:
            self._callback = None
            if self._queued:
                self._queue._cancelled()

    def __repr__(self) -> str:
        return f"<QueuedTimeout {f'in {self.left:.3f} s' if self.pending else 'over'}>"


class TimeoutQueue:
    """The timeouts of one server (L4Re's timeout queue); ``len()`` is how many are pending.

    For the thread that runs the loop, or before it runs. Callbacks run in the loop, between requests; what one
    raises is logged. A timeout does not keep a server from being orphaned. The clock is the monotonic one.
    """

    def __init__(self, loop: leaf.Loop) -> None:
        self._loop = loop
        self._queue: list[tuple[int, int, QueuedTimeout]] = []
        self._order = itertools.count()
        self._timer: Fd | None = None
        self._source: leaf.Source | None = None
        self._over = 0  # cancelled ones still in the queue

    def add(self, seconds: float, callback: Callable[[], object], *, every: float | None = None) -> QueuedTimeout:
        """Call ``callback`` in ``seconds`` from now, and then ``every`` so many seconds, if given.

        A loop that is late runs a periodic one once for all the times it missed.

        Raises:
            InvalidArgument: a negative time, or a period of 0.
            OutOfMemory: no descriptor is left for the timer.
            Closed: the server is closed.
        """
        if self._loop.closed:
            raise Closed("this server is closed")
        span = timeout_ns(seconds)
        period = 0 if every is None else timeout_ns(every)
        if span < 0 or period < 0 or (every is not None and period == 0):
            raise InvalidArgument(f"a time to come and a period above 0 are needed, not {seconds!r} and {every!r}")
        timeout = QueuedTimeout(self, monotonic_ns() + span, callback, period)
        self._put(timeout)
        try:
            self._set()
        except OSError as error:
            timeout.cancel()
            raise exhausted("no timer can be made", error) from error
        return timeout

    def __len__(self) -> int:
        return len(self._queue) - self._over

    def _put(self, timeout: QueuedTimeout) -> None:
        timeout._queued = True
        heappush(self._queue, (timeout._at, next(self._order), timeout))

    def _set(self) -> None:
        """Make the timer stand for the first of the queue."""
        while self._queue and not self._queue[0][2].pending:
            heappop(self._queue)
            self._over -= 1
        if self._timer is None:
            if not self._queue:
                return
            self._timer = Fd(leaf.timer(), True, "timer")
            self._source = self._loop.watch(self._timer.fileno(), self)
        leaf.set_timer(self._timer.fileno(), self._queue[0][0] if self._queue else -1)

    def _cancelled(self) -> None:
        self._over += 1
        if self._timer is None or self._timer.closed:
            return
        if self._over > len(self._queue) // 2:  # a server that sets and cancels one for each call keeps few
            self._queue = [entry for entry in self._queue if entry[2].pending]
            self._over = 0
            heapify(self._queue)
        self._set()

    def ready(self) -> None:
        """Run what is due now; what is added meanwhile has its turn later."""
        now = monotonic_ns()
        due: list[QueuedTimeout] = []
        while self._queue and self._queue[0][0] <= now:
            timeout = heappop(self._queue)[2]
            timeout._queued = False
            if timeout.pending:
                due.append(timeout)
            else:
                self._over -= 1
        for timeout in due:
            if timeout._every:
                timeout._at += timeout._every * max(1, (now - timeout._at) // timeout._every + 1)
                self._put(timeout)
        self._set()
        for timeout in due:
            callback = timeout._callback
            if callback is None:
                continue  # one that ran before it has cancelled it
            if not timeout._every:
                timeout._callback = None
            try:
                callback()
            except Exception as error:
                log.error("%r: a timeout raised an exception", callback, exc_info=error)

    def close(self) -> None:
        """Forget all of them."""
        for entry in self._queue:
            entry[2]._callback = None
        self._queue = []
        self._over = 0
        if self._source is not None:
            self._source.close()
        if self._timer is not None:
            self._timer.close()
        self._timer = None
