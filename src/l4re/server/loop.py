"""The loop: wait, dispatch, reply.

One rule carries it: nothing a client sent is dropped because the client ended,
so the loop asks whether it is orphaned only after a round that found nothing.
"""

from __future__ import annotations

import logging
import threading
from enum import Enum
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from l4re._native import leaf
from l4re.cap import Capability, export_all, import_all
from l4re.errors import Busy, Closed, Err, InvalidArgument, L4Error, reply_label
from l4re.gate.gate import MAX_DATA, Answer
from l4re.gate.threads import CallPath, enter, this_thread
from l4re.linux.clock import deadline_after, nanoseconds_left
from l4re.linux.eventfd import EventFd
from l4re.rights import Rights
from l4re.server.limits import Limits
from l4re.server.local import DirectPath
from l4re.server.ports import Binding, Port
from l4re.server.registry import ObjectRegistry
from l4re.wire.items import join_items, split_items

if TYPE_CHECKING:
    from collections.abc import Sequence

    from l4re.environment import Env

__all__ = ["Caller", "LoopEnd", "RegistryServer"]

log = logging.getLogger("l4re.server")

#: Rounds that empty the queue of any port, whatever is in it.
ROUNDS = 4096

#: Requests handled in one step before an outer event loop has its turn.
STEP = 256


class LoopEnd(Enum):
    """Why ``loop()`` returned."""

    ORPHANED = "orphaned"
    STOPPED = "stopped"


class Caller(NamedTuple):
    """Who called, as the server itself recorded it when the capability was made: nothing a client could forge."""

    label: int
    rights: Rights
    port: int


class _Wakeup:
    """An event in the loop: another thread, or a handler, wants it to look up."""

    __slots__ = ("_event", "source")

    def __init__(self, loop: leaf.Loop) -> None:
        self._event = EventFd()
        self.source = loop.watch(self._event.fileno(), self)

    def ring(self) -> None:
        self._event.ring()

    @property
    def closed(self) -> bool:
        return self._event.closed

    def ready(self) -> None:
        self._event.clear()

    def close(self) -> None:
        self.source.close()
        self._event.close()


class RegistryServer:
    """Serves objects and IRQ handlers (L4Re's ``Registry_server``).

    One thread runs the loop; ``stop()`` may be called from any thread and from handlers, everything else from
    the loop's thread or while it does not run. ``spin_us`` bounds how long the loop looks at hot sessions
    before it sleeps (default ``L4RE_SPIN_US`` or 100); the time adapts below that.
    """

    def __init__(self, *, spin_us: float | None = None, limits: Limits | None = None, env: Env | None = None) -> None:
        if spin_us is not None and spin_us < 0:
            raise InvalidArgument(f"spin_us is a time from 0 on, not {spin_us!r}")
        self.limits = limits or Limits()
        self._env = env
        self._leaf = leaf.open_loop(-1 if spin_us is None else spin_us)
        self._wakeup = _Wakeup(self._leaf)
        self.registry = ObjectRegistry(self)
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
        port: Port | None = self._leaf.serving
        if port is None:
            raise InvalidArgument("no request is being served")
        return Caller(port.label, port.rights, port.id)

    def loop(self) -> LoopEnd:
        """Serve until ``stop()`` (STOPPED), or until nobody can reach anything registered here (ORPHANED).

        Never orphaned before the first holder existed. A receive right from the parent counts as held.

        Raises:
            Busy: another thread runs it.
        """
        run, handle = self._leaf.run, self._handle
        with self._running:
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
        deadline = 0 if timeout == 0 else deadline_after(timeout)
        loop = self._leaf
        handled = others = 0
        began = loop.served
        with self._running:
            while handled < STEP:
                wait = 0 if handled or timeout == 0 else -1 if deadline is None else nanoseconds_left(deadline)
                event = loop.run(wait, STEP - handled)
                if event is not None:
                    others += len(event) == 2 and event[0] is not self._wakeup
                    self._handle(event)
                handled = loop.served - began + others
                if event is None:
                    break
            stopped = self._stopping
            if stopped:
                self._stopping = False
                self._hurry()
        return handled, stopped

    async def serve(self) -> LoopEnd:
        """Serve inside an asyncio program, until ``stop()`` or orphaned."""
        import asyncio

        from l4re.linux.readable import readable

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

    def stop(self) -> None:
        """Make ``loop()`` return; from any thread, any handler, or before it runs."""
        self._stopping = True
        self._leaf.haste = leaf.AT_ONCE
        if not self.closed:
            self._wakeup.ring()

    def fileno(self) -> int:
        """A descriptor that is readable when ``step()`` has something to do."""
        self._check()
        return self._leaf.fileno()

    def stats(self) -> dict[str, int]:
        """Counts since the server was made: requests, sleeps, polls, spins, rings, and holders now."""
        return {**self._leaf.stats(), "holders": self._holders}

    def close(self) -> None:
        """End every session and drop every object; a second call does nothing.

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
        self.registry._close()
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
                session.reply(-Err.EIO, b"", b"the server is ending", 0, None)
                raise outcome
            outcome = self._failed(port.binding, outcome)
        try:
            label, words, data, caps = outcome
            if caps:
                self._reply_with_caps(port.binding, session, label, words, data, caps)
            else:
                session.reply(label, words, data, 0, None)
        except Exception as error:
            session.reply(*self._unsendable(port.binding, outcome, error))

    def _answer(
        self, binding: Binding, low: int, label: int, words: bytes, data: bytes, caps: tuple[Capability | None, ...]
    ) -> tuple[int, bytes, bytes, Sequence[Capability | None]] | None:
        """Serve a call of this very thread."""
        try:
            return binding.serve(low, label, words, data, caps)
        except Exception as error:
            return self._failed(binding, error)

    def _reply_with_caps(
        self,
        binding: Binding,
        session: leaf.Source,
        label: int,
        words: bytes,
        data: bytes,
        caps: Sequence[Capability | None],
    ) -> None:
        try:
            items, fds, exports = export_all(caps)
        except Exception as error:
            session.reply(*self._failed(binding, error)[:3], 0, None)
            return
        sent = False
        try:
            sent = session.reply(label, join_items(words, items), data, len(caps), fds)
        except Exception as error:
            session.reply(*self._unsendable(binding, (label, words, data, caps), error))
        finally:
            for export in exports:
                (export.done if sent else export.failed)()

    def _failed(self, binding: Binding, error: Exception) -> Answer:
        """The reply of a handler that raised: a code and, beyond L4Re, words."""
        try:
            text = str(error)
            if isinstance(error, L4Error):
                return reply_label(error), b"", text.encode(errors="replace")[:MAX_DATA], ()
        except Exception:  # a class of the program's own may do anything
            text = "its text cannot be had"
        name = type(binding.object).__name__
        log.error("%s: a handler raised an exception", name, exc_info=error)
        text = f"{name} raised {type(error).__name__}: {text}"
        return -int(Err.EIO), b"", text.encode(errors="replace")[:MAX_DATA], ()

    def _unsendable(self, binding: Binding, answer: Any, error: Exception) -> tuple[int, bytes, bytes, int, None]:
        """The reply in place of one that does not fit a message, or whose capabilities cannot be sent."""
        if isinstance(error, OSError):
            why = f"the capabilities of {type(binding.object).__name__}'s reply cannot be sent now: {error.strerror}"
            log.error("%s", why)
            return -int(Err.ENOMEM), b"", why.encode(), 0, None
        size, words = len(answer[2]), len(answer[1])
        text = (
            f"the reply of {type(binding.object).__name__} has {size} bytes and {words // 8} words; at most {MAX_DATA} "
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
        return self._ever_held and not self._holders

    def _hurry(self) -> None:
        """Tell the leaf how soon it is to return: at once, when it finds nothing, or when it has something."""
        self._leaf.haste = leaf.AT_ONCE if self._stopping else leaf.LOOK_ONLY if self._orphaned() else leaf.AT_LEISURE

    def _client_gone(self, binding: Binding) -> None:
        try:
            binding.object.on_client_gone()
        except Exception as error:
            log.error("%s: on_client_gone raised an exception", type(binding.object).__name__, exc_info=error)

    # ---- calls of the loop's own thread ----

    def take_in(self) -> None:
        """Read what is queued in our ports, so that :meth:`own_port` knows all sessions."""
        seen: set[Port] = set()
        while fresh := {port for at in self.registry._bindings.values() for port in at.ports.values()} - seen:
            seen |= fresh  # reading one may bring new ones, derived from it
            for port in fresh:
                for _ in range(ROUNDS):  # our handshake is behind whatever else is queued, and that is bounded
                    if port.end.closed or not port.ready():
                        break

    def own_port(self, session: leaf.Session) -> CallPath | None:
        """Return a direct path when ``session`` leads to one of our own ports."""
        for binding in self.registry._bindings.values():
            for port in binding.ports.values():
                for source in port.sessions:
                    if source.mirrors(session):
                        return DirectPath(binding, port.low)
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
        if server._leaf.settle():
            server._wakeup.ring()


def _refused(error: Exception) -> tuple[int, bytes, bytes, int, None]:
    return -int(getattr(error, "code", Err.EINVAL)), b"", str(error).encode(errors="replace"), 0, None
