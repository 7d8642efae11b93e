"""What a thread has to do with gates: its sessions end with it, and its own server is not called but run.

The one rule: a session belongs to one thread; what is cleaned up here is what
that thread opened.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any, Protocol

from l4re._native import leaf

if TYPE_CHECKING:
    from l4re.gate.gate import Gate

__all__ = ["CallPath", "LoopThread", "forget_own", "remember", "this_thread"]


class CallPath(Protocol):
    """What a gate calls through: a session page, or a server loop of the same thread."""

    def call(
        self, label: int, words: bytes, data: Any, items: int, fds: Any, timeout_ns: int, flags: int, /
    ) -> Any: ...

    def close(self) -> None: ...


class LoopThread(Protocol):
    """The server loop that runs in a thread, as a gate sees it."""

    def own_port(self, session: leaf.Session) -> CallPath | None:
        """Return a direct path when ``session`` was just opened to one of this loop's own ports."""


class _Sentinel:
    """Dies with its thread and takes the thread's sessions along."""

    def __init__(self) -> None:
        self.ident = threading.get_ident()
        self.gates: weakref.WeakSet[Gate] = weakref.WeakSet()
        #: Sessions ever opened by this thread.
        self.opened = 0

    def __del__(self) -> None:
        for gate in list(self.gates):
            gate._thread_ended(self.ident)


class _ThisThread(threading.local):
    def __init__(self) -> None:
        self.sentinel = _Sentinel()
        #: The server loops that run in this thread, one in a handler of the other.
        self.loops: list[LoopThread] = []


this_thread = _ThisThread()


def remember(gate: Gate) -> None:
    """Close this thread's session of ``gate`` when the thread ends."""
    sentinel = this_thread.sentinel
    sentinel.gates.add(gate)
    sentinel.opened += 1


def forget_own(loop: LoopThread) -> None:
    """Drop this thread's sessions to ``loop``, which it is about to run itself: nobody would answer."""
    sentinel = this_thread.sentinel
    for gate in list(sentinel.gates):
        session = gate._sessions.get(sentinel.ident)
        if isinstance(session, leaf.Session) and not session.dead and loop.own_port(session) is not None:
            gate._forget(session)
