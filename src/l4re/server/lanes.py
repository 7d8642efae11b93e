"""Requests that are served off the loop: by worker threads, and by coroutines.

A lane is one session: what came over it is begun in the order it came, one after the
other. Lanes do not wait for each other. All of this is the loop's thread's, but for
what a worker runs.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from l4re.server.replies import Serving, serving

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    from l4re._native import leaf
    from l4re.cap import Capability
    from l4re.interface import Later
    from l4re.server.loop import RegistryServer
    from l4re.server.ports import Binding, Port

__all__ = ["Awaited", "Job", "Lanes", "Workers"]


class Job(Protocol):
    """One request in a lane."""

    def start(self) -> None:
        """Begin; whoever ends it leaves the lane."""

    def drop(self) -> None:
        """Forget it: it never begins."""


class Lanes:
    """The lanes of one server; ``len()`` is how many are in use."""

    def __init__(self) -> None:
        self._waiting: dict[leaf.Source, deque[Job]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(self, session: leaf.Source, job: Job, most: int) -> bool:
        """Begin ``job`` now or in its turn; False: ``most`` are waiting already."""
        waiting = self._waiting.get(session)
        if waiting is None:
            self._waiting[session] = deque()
            job.start()
        elif len(waiting) < most:
            waiting.append(job)
        else:
            return False
        return True

    def leave(self, session: leaf.Source) -> None:
        """The job under way has ended; the next begins."""
        waiting = self._waiting.get(session)
        if waiting:
            waiting.popleft().start()
        elif waiting is not None:
            del self._waiting[session]

    def clear(self) -> None:
        """Drop what has not begun."""
        for waiting in self._waiting.values():
            while waiting:
                waiting.popleft().drop()


class Workers:
    """The threads that run the handlers of one server; they begin with the first request."""

    def __init__(self, server: RegistryServer, count: int) -> None:
        self.server = server
        self._count = count
        self._pool: ThreadPoolExecutor | None = None

    def serve(
        self, binding: Binding, low: int, label: int, words: bytes, data: bytes, caps: tuple[Capability | None, ...]
    ) -> None:
        """Let a worker serve the request that the loop has now."""
        server = self.server
        port: Port = server._leaf.serving
        request = server._leaf.request
        assert request is not None
        session = request[0]
        now = server._serving(port, session, binding.object._l4_packer(label, words or data))
        job = _Worked(self, binding, session, now, (low, label, words, data, caps))
        server._enter(binding.object, session, now, job)

    def submit(self, job: _Worked) -> None:
        """Run it in a thread."""
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor

            self._pool = ThreadPoolExecutor(self._count, "l4re worker")
        self._pool.submit(job.run)

    def close(self) -> None:
        """Wait for what runs, and drop the rest."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


class _Worked:
    """A request that a worker serves."""

    __slots__ = ("_binding", "_now", "_request", "_session", "_workers")

    def __init__(
        self, workers: Workers, binding: Binding, session: leaf.Source, now: Serving, request: tuple[Any, ...]
    ) -> None:
        self._workers = workers
        self._binding = binding
        self._session = session
        self._now = now
        self._request = request

    def start(self) -> None:
        self._workers.submit(self)

    def drop(self) -> None:
        self._request = ()

    def run(self) -> None:
        """Serve it, in the worker's thread; the outcome is the loop's."""
        before = serving.set(self._now)
        outcome: Any
        try:
            outcome = self._binding.object.serve_request(*self._request)
        except BaseException as error:
            outcome = error
        finally:
            serving.reset(before)
        server = self._workers.server
        server._post(lambda: server._worked(self._binding, self._session, self._now, outcome))


class Awaited:
    """A request that a coroutine serves, as a task of the event loop that ``serve()`` runs in."""

    __slots__ = ("_binding", "_later", "_now", "_server", "_session", "_task")

    def __init__(
        self, server: RegistryServer, binding: Binding, session: leaf.Source, now: Serving, later: Later
    ) -> None:
        self._server = server
        self._binding = binding
        self._session = session
        self._now = now
        self._later = later

    def start(self) -> None:
        import asyncio

        assert self._server._tasks is not None
        self._task: asyncio.Task[None] = asyncio.ensure_future(self._run())
        self._server._tasks[self._session] = self._task
        self._task.add_done_callback(self._ended)

    def drop(self) -> None:
        self._later.close()

    async def _run(self) -> None:
        serving.set(self._now)  # a task has a context of its own
        outcome: Any
        try:
            outcome = await self._later.coroutine
        except Exception as error:
            outcome = error
        self._server._late(self._binding, self._session, self._now, outcome)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.drop()  # it may have been cancelled before it began
        if self._now.reply is not None:
            self._now.reply.close()
        server = self._server
        if server._tasks is not None and server._tasks.get(self._session) is task:
            del server._tasks[self._session]
        server._left(self._session)
