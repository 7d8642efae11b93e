"""The loop: wait, dispatch, reply.

One rule carries it: nothing a client sent is dropped because the client ended,
so the loop asks whether it is orphaned only after a round that found nothing.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, cast

from l4re._native import leaf
from l4re.cap import Capability, export_all, import_all
from l4re.errors import Busy, Closed, Err, InvalidArgument, L4Error, reply_label
from l4re.gate.gate import MAX_DATA, Answer
from l4re.gate.threads import CallPath, enter, this_thread
from l4re.interface import Later, WrongResult
from l4re.linux.clock import deadline_after, nanoseconds_left
from l4re.linux.ends import open_loop
from l4re.linux.eventfd import EventFd
from l4re.server.hooks import LoopHooks
from l4re.server.lanes import Awaited, Job, Lanes, Workers
from l4re.server.limits import Limits
from l4re.server.local import DirectPath
from l4re.server.ports import Binding, Port
from l4re.server.registry import ObjectRegistry
from l4re.server.replies import Caller, Reply, Serving, serving
from l4re.server.stats import ServerStats
from l4re.server.timeouts import TimeoutQueue
from l4re.wire.items import join_items, split_items

if TYPE_CHECKING:
    import asyncio

    from l4re.environment import Env
    from l4re.interface import Served

__all__ = ["LoopEnd", "RegistryServer"]

log = logging.getLogger("l4re.server")

_ONE_WAY = "nobody waits for an answer: the message is one-way"

#: Requests handled in one step before an outer event loop has its turn.
STEP = 256


class LoopEnd(Enum):
    """Why ``loop()`` returned."""

    ORPHANED = "orphaned"
    STOPPED = "stopped"


class _Wakeup:
    """An event in the loop: another thread, or a handler, wants it to look up."""

    __slots__ = ("_event", "_posts", "source")

    def __init__(self, loop: leaf.Loop) -> None:
        self._event = EventFd()
        self._posts: deque[Callable[[], None]] = deque()
        self.source = loop.watch(self._event.fileno(), self)

    def ring(self) -> None:
        self._event.ring()

    def post(self, act: Callable[[], None]) -> None:
        """Have the loop's thread do something."""
        self._posts.append(act)
        self.ring()

    def ready(self) -> None:
        self._event.clear()
        self.work()

    def work(self) -> None:
        """Do what was posted."""
        while self._posts:
            try:
                act = self._posts.popleft()
            except IndexError:
                break  # another thread was faster
            act()

    def close(self) -> None:
        self.source.close()
        self._event.close()


class RegistryServer:
    """Serves objects and IRQ handlers (L4Re's ``Registry_server``).

    One thread runs the loop; ``stop()`` may be called from any thread and from handlers, everything else from
    the loop's thread or while it does not run. ``spin_us`` bounds how long the loop looks at hot sessions
    before it sleeps (default ``L4RE_SPIN_US`` or 100); the time adapts below that.

    With ``workers``, handlers of objects run in so many threads of their own, and the loop goes on meanwhile;
    what came over one session is served in order, one after the other. IRQ handlers, timeouts, hooks and
    notices stay in the loop's thread. ``hooks`` are called between the loop's steps.
    """

    def __init__(
        self,
        *,
        spin_us: float | None = None,
        limits: Limits | None = None,
        env: Env | None = None,
        workers: int = 0,
        hooks: LoopHooks | None = None,
    ) -> None:
        if workers < 0:
            raise InvalidArgument(f"workers is a number of threads from 0 on, not {workers!r}")
        if spin_us is not None and spin_us < 0:
            raise InvalidArgument(f"spin_us is a time from 0 on, not {spin_us!r}")
        self.limits = limits or Limits()
        self._env = env
        self._leaf = open_loop(-1 if spin_us is None else spin_us)
        self._wakeup = _Wakeup(self._leaf)
        self.registry = ObjectRegistry(self)
        self.timeouts = TimeoutQueue(self._leaf)
        self._hooks = hooks
        self._workers = Workers(self, workers) if workers else None
        self._lanes = Lanes()
        self._outstanding: weakref.WeakValueDictionary[leaf.Source, Reply] = weakref.WeakValueDictionary()
        self._tasks: dict[leaf.Source, asyncio.Task[None]] | None = None  # while serve() runs
        self._holders = 0
        self._ever_held = False
        self._stopping = False
        self._closed = False
        self._thread: int | None = None
        self._running = _Running(self)
        self._known = (0, 0)  # the thread that ran us last, and how many sessions it had opened by then

    # ---- for users ----

    @property
    def env(self) -> Env:
        """Where names of receive rights are looked up."""
        if self._env is None:
            from l4re.environment import env

            self._env = env()
        return self._env

    @property
    def closed(self) -> bool:
        """Whether it was closed, or is a forked child's copy: the parent's server stays the parent's."""
        return self._closed or self._leaf.closed

    @property
    def caller(self) -> Caller:
        """Who called, for the object whose method runs now.

        Raises:
            InvalidArgument: no request is being served.
        """
        now = serving.get()
        if now is not None and now.server is self:
            return now.caller
        port: Port | None = self._leaf.serving
        if port is None or self._runs_elsewhere():
            raise InvalidArgument("no request is being served")
        return Caller(port.label, port.rights, port.id)

    def take_reply(self) -> Reply:
        """Take the right to answer the request that is being served, and answer it later, from any thread.

        What the handler returns then does not count, of any kind; if it raises, and the reply is still unsettled,
        that is the answer. One client waits for each, so there are never more than sessions.

        Raises:
            InvalidArgument: no request is being served, nobody waits for its answer, the reply was taken already,
                or the caller is the very thread that runs the loop.
        """
        now = serving.get()
        if now is not None and now.server is self:
            return now.take()
        request = None if self._runs_elsewhere() else self._leaf.request
        if request is None:
            raise InvalidArgument("no request is being served")
        session, label, words, data = request
        if not session.taken:
            raise InvalidArgument("the reply was taken already" if session in self._outstanding else _ONE_WAY)
        port: Port = self._leaf.serving
        if session in self._outstanding:
            port.session_ended(session)
            raise InvalidArgument("the client did not wait for its last answer; its session was ended")
        obj = port.binding.object
        return self._new_reply(obj, session, obj._l4_packer(label, words or data))

    def loop(self) -> LoopEnd:
        """Serve until ``stop()`` (STOPPED), or until nobody can reach anything registered here (ORPHANED).

        Never orphaned before the first holder existed. A receive right from the parent counts as held.

        Raises:
            Busy: another thread runs it.
        """
        run, handle = self._leaf.run, self._handle
        with self._running:
            while self._hooks is not None:
                handled, stopped = self._round(None)
                if stopped:
                    return LoopEnd.STOPPED
                if not handled and self._orphaned():
                    return LoopEnd.ORPHANED
            while True:
                event = run(-1, -1)
                if event is not None:
                    handle(event)
                    del event  # the last answer's capabilities are not to be kept until the next
                elif self._stopping:
                    self._stopping = False
                    self._hurry()
                    return LoopEnd.STOPPED
                elif self._orphaned():
                    return LoopEnd.ORPHANED

    def step(self, timeout: float | None = 0.0) -> int:
        """Wait at most ``timeout`` seconds, handle what is there, and return how much it was.

        On return ``fileno()`` is readable whenever something waits.
        """
        return 0 if timeout == 0 and self._leaf.idle() else self._step(timeout)[0]

    def _step(self, timeout: float | None) -> tuple[int, bool]:
        """How much was handled, and whether stop() was called."""
        with self._running:
            return self._round(timeout)

    def _round(self, timeout: float | None) -> tuple[int, bool]:
        deadline = 0 if timeout == 0 else deadline_after(timeout)
        loop, hooks = self._leaf, self._hooks
        handled = others = 0
        began = loop.served
        while handled < STEP:
            wait = 0 if handled or timeout == 0 else -1 if deadline is None else nanoseconds_left(deadline)
            event = loop.run(wait, STEP - handled) if hooks is None else self._run_with(hooks, wait)
            if event is not None:
                others += len(event) == 2 and event[0] is not self._wakeup
                self._handle(event)
                if hooks is not None:
                    hooks.after_dispatch()
            before, handled = handled, loop.served - began + others
            if event is None and (hooks is None or handled == before):
                break
        stopped = self._stopping
        if stopped:
            self._stopping = False
            self._hurry()
        return handled, stopped

    def _run_with(self, hooks: LoopHooks, wait: int) -> Any:
        """One thing at a time, with a word to the hooks before the loop waits and after the leaf served something."""
        loop = self._leaf
        before = loop.served
        event = loop.run(0, 1)
        if event is None and loop.served == before:
            hooks.before_wait()
            if wait and not self._stopping:
                event = loop.run(wait, 1)
        if event is None and loop.served != before:
            hooks.after_dispatch()
        return event

    async def serve(self) -> LoopEnd:
        """Serve inside an asyncio program, until ``stop()`` or orphaned.

        Handlers may be coroutines: each runs as a task, those of one session one after the other. A task is
        cancelled when its client goes, and when this ends before it; its client then gets EDROPREPLY.
        """
        import asyncio

        from l4re.linux.readable import readable

        if self._tasks is not None:
            raise Busy("this server is served already")
        self._tasks = {}
        this_thread.loops.append(self)  # whoever calls us from this thread must not wait for us
        try:
            while True:
                handled, stopped = self._step(0)
                if stopped:
                    return LoopEnd.STOPPED
                if handled:
                    await asyncio.sleep(0)  # the others have their turn before we look once more
                elif self._orphaned():
                    return LoopEnd.ORPHANED
                else:
                    await readable(self.fileno())
        finally:
            this_thread.loops.remove(self)
            tasks = list(self._tasks.values())
            if tasks:
                self._lanes.clear()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            self._tasks = None

    def post(self, function: Callable[[], None]) -> None:
        """Have the loop's thread call ``function`` soon, in the order of posting; from any thread.

        An exception it raises is logged. A server that is closed before has not called it.
        """

        def act() -> None:
            try:
                function()
            except Exception as error:
                log.error("%r: what was posted raised an exception", function, exc_info=error)

        self._wakeup.post(act)

    def stop(self) -> None:
        """Make ``loop()`` return; from any thread, any handler, or before it runs."""
        self._stopping = True
        self._leaf.haste = leaf.AT_ONCE
        self._wakeup.ring()

    def fileno(self) -> int:
        """A descriptor that is readable when ``step()`` has something to do."""
        self._check()
        return self._leaf.fileno()

    def stats(self) -> ServerStats:
        """Counts since the server was made, and of what there is now; ``registry.stats(obj)`` has an object's."""
        return ServerStats(
            **self._leaf.stats(),
            holders=self._holders,
            objects=len(self.registry._bindings),
            handlers=len(self.registry._sources),
            deferred=len(self._outstanding),
            timeouts=len(self.timeouts),
        )

    def close(self) -> None:
        """End every session and drop every object; a second call does nothing.

        Waits for handlers that run in a worker, and sends their answers. Other calls that wait end with
        ``PeerGone``, those of deferred replies as well.

        Raises:
            Busy: the loop runs.
        """
        if self._closed:
            return
        if self.closed:
            self._closed = True
            return
        if self._thread is not None:
            raise Busy("the loop runs; stop() it first")
        if self._tasks is not None:
            raise Busy("serve() runs; stop() it first")
        if self._workers is not None:
            self._lanes.clear()
            self._workers.close()
            self._wakeup.work()
        self.registry._close()
        self.timeouts.close()
        self._wakeup.close()
        self._closed = True
        self._leaf.close()

    def __enter__(self) -> Self:
        self._check()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- the loop ----

    def _check(self) -> None:
        if self.closed:
            forked = not self._closed
            raise Closed("this server belongs to the process before the fork" if forked else "this server is closed")

    def _runs_elsewhere(self) -> bool:
        return self._thread is not None and self._thread != threading.get_ident()

    def _handle(self, event: tuple[Any, ...]) -> None:
        """Do what the leaf left to do: see `leaf.Loop.run`."""
        if len(event) == 2:
            owner, session = event
            if session is None:
                owner.ready()
            else:
                owner.session_ended(session)
        elif len(event) == 3:
            self._finish(*event)
        else:
            self._serve_with_caps(*event)

    def _serve_with_caps(
        self, port: Port, session: leaf.Source, label: int, words: bytes, data: bytes, caps: tuple[int, Sequence[int]]
    ) -> None:
        try:
            items, fds = caps
            words, tail = split_items(words, items)
            received = import_all(tail, fds)
        except Exception as error:  # an InvalidArgument, unless an importer forgot a case
            session.reply(*_refused(error))
            port.session_ended(session)
            return
        left = self._leaf.serve(session, label, words, data, received)
        if left is not None:
            self._finish(*left)

    def _finish(self, port: Port, session: leaf.Source, outcome: Any) -> None:
        """Reply with an answer that brings capabilities or does not fit, or with what a handler raised."""
        if isinstance(outcome, BaseException):
            if not isinstance(outcome, Exception):
                self._raised(session, outcome)
            deferred = self._outstanding.get(session)
            if isinstance(outcome, WrongResult) and (deferred is not None or not session.taken):
                return  # its handler gave the reply away
            outcome = self._failed(port.binding.object, outcome)
            if deferred is not None:
                deferred._send(*outcome)
                return
        if outcome.__class__ is Later:
            now = self._serving(port, session, outcome.packer)
            self._begin(port.binding, session, now, outcome)
        else:
            self._send(port.binding.object, session, outcome)

    def _raised(self, session: leaf.Source, error: BaseException) -> NoReturn:
        """Let what ends a program end this one, and tell who waits."""
        deferred = self._outstanding.get(session)
        if deferred is not None:
            deferred._send(-Err.EIO, b"", b"the server is ending", ())
        else:
            session.reply(-Err.EIO, b"", b"the server is ending", 0, None)
        raise error

    def _send(self, obj: Served, session: leaf.Source, answer: Answer) -> bool:
        """Reply to a request that was taken; False: the client is past receiving it."""
        try:
            label, words, data, caps = answer
            if caps:
                return self._reply_with_caps(obj, session, label, words, data, caps)
            return session.reply(label, words, data, 0, None)
        except Exception as error:
            return session.reply(*self._unsendable(obj, answer, error))

    # ---- what is served off the loop, and answered later ----

    def _new_reply(self, obj: Served, session: leaf.Source, packer: Callable[..., Any]) -> Reply:
        self._outstanding[session] = reply = Reply(self, obj, session, packer)
        return reply

    def _serving(self, port: Port, session: leaf.Source, packer: Callable[..., Any]) -> Serving:
        reply = self._new_reply(port.binding.object, session, packer) if session.taken else None
        caller = Caller(port.label, port.rights, port.id)
        return Serving(self, caller, reply, _ONE_WAY)

    def _enter(self, obj: Served, session: leaf.Source, now: Serving, job: Job) -> None:
        """Give a job its lane, or say that the lane is full."""
        most, idle = self.limits.waiting, not self._lanes
        if self._lanes.enter(session, job, most):
            if idle:
                self._hurry()
            return
        job.drop()
        error = Busy(f"{most} requests of one session wait for {type(obj).__name__}, the limit")
        if now.reply is not None:
            now.take().fail(error)
        else:
            log.error("a one-way message was dropped: %s", error)

    def _left(self, session: leaf.Source) -> None:
        """A job has ended; the next of its lane begins."""
        self._lanes.leave(session)
        if not self._lanes and not self.closed:
            self._hurry()
            self._wakeup.ring()

    def _post(self, act: Callable[[], None]) -> None:
        self._wakeup.post(act)

    def _worked(self, binding: Binding, session: leaf.Source, now: Serving, outcome: Any) -> None:
        """A worker has served a request."""
        if outcome.__class__ is Later and self._tasks is not None:
            Awaited(self, binding, session, now, outcome).start()
            return
        try:
            self._late(binding, session, now, outcome)
        finally:
            self._left(session)

    def _begin(self, binding: Binding, session: leaf.Source, now: Serving, later: Later) -> None:
        """Let a coroutine serve, if there is an event loop it can run in."""
        if self._tasks is not None:
            self._enter(binding.object, session, now, Awaited(self, binding, session, now, later))
            return
        later.close()
        self._late(binding, session, now, _no_event_loop())

    def _late(self, binding: Binding, session: leaf.Source, now: Serving, outcome: Any) -> None:
        """Reply to a request that was served off the loop."""
        if isinstance(outcome, BaseException):
            if not isinstance(outcome, Exception):
                self._raised(session, outcome)
            if isinstance(outcome, WrongResult) and now.gave_away:
                return
            outcome = self._failed(binding.object, outcome)
            reply = now.reply or self._outstanding.get(session)
        elif outcome.__class__ is Later:
            self._begin(binding, session, now, outcome)
            return
        else:
            reply = now.reply
        now.reply = None
        if reply is None or reply.settled:
            return
        if outcome is None:
            reply._forget()
        else:
            reply._send(*outcome)

    def _reply(self, obj: Served, session: leaf.Source, answer: Any) -> bool:
        """Send a deferred answer. With capabilities, that is the loop's thread's: it may make ports of ours."""
        if not (answer[3] and self._runs_elsewhere()):
            session.taken = True
            return self._send(obj, session, answer)
        done = threading.Event()
        sent = False

        def send() -> None:
            nonlocal sent
            try:
                session.taken = True
                sent = self._send(obj, session, answer)
            finally:
                done.set()

        self._post(send)
        if not self._runs_elsewhere():
            self._wakeup.work()  # it ended just now, and may have missed it
        done.wait()
        return sent

    def _client_left(self, session: leaf.Source) -> None:
        """Nobody waits for what this session asked."""
        reply = self._outstanding.pop(session, None)
        if reply is not None:
            reply._client_left()
            task = self._tasks.get(session) if self._tasks else None
            if task is not None:
                task.cancel()

    def _answer(
        self, binding: Binding, low: int, label: int, words: bytes, data: bytes, caps: tuple[Capability | None, ...]
    ) -> tuple[int, bytes, bytes, Sequence[Capability | None]] | None:
        """Serve a call of this very thread."""
        try:
            answer: Any = binding.run(low, label, words, data, caps)
            if answer.__class__ is Later:
                answer.close()
                raise _no_event_loop()
            return cast(Answer | None, answer)
        except Exception as error:
            return self._failed(binding.object, error)

    def _reply_with_caps(
        self,
        obj: Served,
        session: leaf.Source,
        label: int,
        words: bytes,
        data: bytes,
        caps: Sequence[Capability | None],
    ) -> bool:
        try:
            items, fds, exports = export_all(caps)
        except Exception as error:
            return session.reply(*self._failed(obj, error)[:3], 0, None)
        sent = False
        try:
            sent = session.reply(label, join_items(words, items), data, len(caps), fds)
        except Exception as error:
            session.reply(*self._unsendable(obj, (label, words, data, caps), error))
        finally:
            for export in exports:
                (export.done if sent else export.failed)()
        return sent

    def _failed(self, obj: Served, error: BaseException) -> Answer:
        """The reply of a handler that raised: a code and, beyond L4Re, words."""
        answer = self._explained(obj, error)
        _let_go(error)
        return answer

    def _explained(self, obj: Served, error: BaseException) -> Answer:
        """That reply; the error stays as it is, for whoever made it."""
        try:
            text = str(error)
            if isinstance(error, L4Error):
                return reply_label(error), b"", text.encode(errors="replace")[:MAX_DATA], ()
        except Exception:  # a class of the program's own may do anything
            text = "its text cannot be had"
        name = type(obj).__name__
        log.error("%s: a handler raised an exception", name, exc_info=error)
        text = f"{name} raised {type(error).__name__}: {text}"
        if self._hooks is not None and isinstance(error, Exception):
            self._hooks.error(obj, error)
        return -int(Err.EIO), b"", text.encode(errors="replace")[:MAX_DATA], ()

    def _unsendable(self, obj: Served, answer: Any, error: Exception) -> tuple[int, bytes, bytes, int, None]:
        """The reply in place of one that does not fit a message, or whose capabilities cannot be sent."""
        if isinstance(error, OSError):
            why = f"the capabilities of {type(obj).__name__}'s reply cannot be sent now: {error.strerror}"
            log.error("%s", why)
            return -int(Err.ENOMEM), b"", why.encode(), 0, None
        size, words = len(answer[2]), len(answer[1])
        text = (
            f"the reply of {type(obj).__name__} has {size} bytes and {words // 8} words; at most {MAX_DATA} "
            f"bytes and 63 words (2 for each capability) fit a message: share a dataspace instead"
        )
        log.error("%s", text, exc_info=None if isinstance(error, ValueError) else error)
        return -int(Err.EMSGTOOLONG), b"", text.encode(), 0, None

    # ---- holders ----

    def _held(self, change: int) -> None:
        before = self._holders
        self._holders = now = before + change
        if now and not before:
            self._ever_held = True
        if not (now and before):
            self._hurry()

    def _orphaned(self) -> bool:
        return self._ever_held and not self._holders and not self._lanes

    def _hurry(self) -> None:
        """Tell the leaf how soon it is to return: at once, when it finds nothing, or when it has something."""
        self._leaf.haste = leaf.AT_ONCE if self._stopping else leaf.LOOK_ONLY if self._orphaned() else leaf.AT_LEISURE

    def _notify(self, obj: Served, notice: str) -> None:
        """Tell an object what happened to its clients."""
        try:
            getattr(obj, notice)()
        except Exception as error:
            log.error("%s: %s raised an exception", type(obj).__name__, notice, exc_info=error)

    # ---- calls of the loop's own thread ----

    def take_in(self) -> None:
        """Read what is queued in our ports, so that :meth:`own_port` knows all sessions."""
        seen: set[Port] = set()
        while fresh := {port for at in self.registry._bindings.values() for port in at.ports.values()} - seen:
            seen |= fresh  # reading one may bring new ones, derived from it
            for port in fresh:
                port.drain()

    def own_port(self, session: leaf.Session) -> CallPath | None:
        """Return a direct path when ``session`` leads to one of our own ports."""
        for binding in self.registry._bindings.values():
            for port in binding.ports.values():
                for source in port.sessions:
                    if source.mirrors(session):
                        return DirectPath(binding, Caller(port.label, port.rights, port.id))
        return None


class _Running:
    """While a thread runs the loop; on the way out, no client is left waiting for a look nobody takes."""

    __slots__ = ("_server",)

    def __init__(self, server: RegistryServer) -> None:
        self._server = server

    def __enter__(self) -> None:
        server = self._server
        server._check()
        me = threading.get_ident()
        if server._thread is not None:
            raise Busy("another thread runs this loop" if server._thread != me else "this loop runs already")
        server._thread = me
        try:
            server._known = enter(server, server._known)
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        server = self._server
        this_thread.loops.pop()
        server._thread = None
        if server.closed:  # something that ran here has forked, and this is the child
            if kind is None or kind is ValueError:
                server._check()
            return
        if server._wakeup._posts:
            server._wakeup.work()
        if server._leaf.settle():
            server._wakeup.ring()


def _refused(error: Exception) -> tuple[int, bytes, bytes, int, None]:
    return -int(getattr(error, "code", Err.EINVAL)), b"", str(error).encode(errors="replace"), 0, None


def _no_event_loop() -> TypeError:
    return TypeError("a handler that is a coroutine runs under `await server.serve()` only, and not for its own thread")


def _let_go(error: BaseException | None) -> None:
    """Drop the frames that an error and those behind it refer to, for they hold what the request brought.

    One of them, or the frame that called it, may hold the error: then only the garbage collector would end that, some
    time, and a client could have us hold its descriptors until then.
    """
    errors = [error]
    while errors:
        each = errors.pop()
        if each is not None and each.__traceback__ is not None:
            each.__traceback__ = None
            errors += (each.__cause__, each.__context__, *getattr(each, "exceptions", ()))
