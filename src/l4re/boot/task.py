"""A task: a program that was started, and how it ended."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Self

from l4re._native import leaf
from l4re.errors import Closed
from l4re.linux import process
from l4re.linux.clock import timeout_ns
from l4re.linux.fd import Fd

__all__ = ["Task", "reap_abandoned"]

#: Zombies whose task object nobody kept; taken away when the next program starts.
_abandoned: list[Fd] = []


class Task:
    """A running program, or what is left of it: its exit status. Thread-safe.

    The exit status is the program's own, 128 plus the number of the signal that ended it (143: SIGTERM), or 255
    if code outside this library has waited for the process first. Dropping the object does not end the program;
    leaving a ``with`` block does. Programs end with the process that started them in any case.
    """

    __slots__ = ("__weakref__", "_lock", "_on_end", "_pidfd", "_status", "_waiters", "name", "pid")

    name: str
    """What the program is called in messages."""
    pid: int
    """The process number, for people and for tools that take one; it is free for others once the task was reaped."""

    def __init__(
        self, started: process.Spawned, name: str, on_end: Callable[[float | None], object] | None = None
    ) -> None:
        """Take a process; ``on_end(timeout)`` sees to it that its last words are out."""
        self.pid, self._pidfd = started
        self.name = name
        self._on_end = on_end
        self._status: int | None = None
        self._waiters = 0
        self._lock = threading.Lock()

    @property
    def returncode(self) -> int | None:
        """The exit status, None while the program runs."""
        if self._status is None:
            self._reap()
        return self._status

    def fileno(self) -> int:
        """Return the pidfd, lent: readable once the program has ended.

        Raises:
            Closed: the task was reaped; its ``returncode`` is known.
        """
        if self._pidfd.closed:
            raise Closed(f"{self!r} has ended")
        return self._pidfd.fileno()

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the program has ended and its output was printed, and return the exit status.

        Raises:
            TimeoutError: it still runs after ``timeout`` seconds.
        """
        span = timeout_ns(timeout)
        until = None if span < 0 else monotonic() + span / 1e9
        with self._lock:
            watching = self._status is None
            self._waiters += watching
        if watching:
            try:
                ended = leaf.wait((self._pidfd.fileno(),), span) >= 0
            finally:
                self._leave()
            if not ended or self.returncode is None:
                raise TimeoutError(f"{self!r}: not ended after {timeout} s")
        if (on_end := self._on_end) is not None:
            on_end(None if until is None else max(0.0, until - monotonic()))
            self._on_end = None
        assert self._status is not None
        return self._status

    async def exited(self) -> int:
        """Wait inside an asyncio program until the program has ended, and return the exit status."""
        from l4re.linux.readable import readable

        with self._lock:
            watched = self._pidfd.dup() if self._status is None else None
        if watched is not None:
            with watched:
                await readable(watched.fileno())
        status = self.returncode
        assert status is not None
        return status

    def signal(self, number: int) -> None:
        """Send a signal to the program and what it started in its process group; nothing if it has ended."""
        with self._lock:
            if self._status is None:
                process.kill_group(self.pid, self._pidfd.fileno(), number)

    def kill(self) -> None:
        """End the program at once (SIGKILL). Nothing happens if it has ended. Wait to be sure that it is gone."""
        self.signal(signal.SIGKILL)

    def _reap(self) -> None:
        with self._lock:
            if self._status is None:
                self._status = process.reap(self._pidfd.fileno())
                if self._status is not None and not self._waiters:
                    self._pidfd.close()

    def _leave(self) -> None:
        with self._lock:
            self._waiters -= 1
            if self._status is not None and not self._waiters:
                self._pidfd.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self.wait()

    def __del__(self) -> None:
        try:
            if self._status is None and process.reap(self._pidfd.fileno()) is None:
                _abandoned.append(self._pidfd)
        except (AttributeError, TypeError, OSError, Closed):  # half-made, or the interpreter is going down
            pass

    def __repr__(self) -> str:
        status = self.returncode
        if status is None:
            state = "running"
        elif status > 128 and status - 128 in set(signal.Signals):
            state = f"ended by {signal.Signals(status - 128).name}"
        else:
            state = f"ended with {status}"
        return f"<Task {self.name!r} pid {self.pid} {state}>"


def reap_abandoned() -> None:
    """Take away the zombies of tasks that were dropped while their program ran."""
    for _ in range(len(_abandoned)):
        try:
            pidfd = _abandoned.pop(0)
        except IndexError:  # another thread was quicker
            return
        if process.reap(pidfd.fileno()) is None:
            _abandoned.append(pidfd)
