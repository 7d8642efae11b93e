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

__all__ = ["CallPath", "LoopThread", "enter", "remember", "this_thread"]


class CallPath(Protocol):
    """What a gate calls through: a session page, or a server loop of the same thread."""

    def call(
        self, label: int, words: bytes, data: Any, items: int, fds: Any, timeout_ns: int, flags: int, /
    ) -> Any: ...

    def close(self) -> None: ...


class LoopThread(Protocol):
    """The server loop that runs in a thread, as a gate sees it."""

    def take_in(self) -> None:
        """Read every handshake that is queued, so that ``own_port`` knows all sessions."""

    def own_port(self, session: leaf.Session) -> CallPath | None:
        """Return a direct path when ``session`` leads to one of this loop's own ports."""


class _Sentinel:
    """Dies with its thread and takes the thread's sessions along."""

    def __init__(self) -> None:
        self.ident = threading.get_ident()
        self.gates: dict[int, weakref.ref[Gate]] = {}  # by identity: gates of one kind hash alike
        self.last_loop = 0
        #: Whether more than one loop has run in this thread.
        self.several = False
        #: Sessions this thread opened that a loop it runs may not have seen.
        self.opened = 0

    def __del__(self) -> None:
        for known in list(self.gates.values()):
            gate = known()
            if gate is not None:
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
    key, gates = id(gate), sentinel.gates
    if key not in gates:
        gates[key] = weakref.ref(gate, lambda _: gates.pop(key, None))
    if sentinel.several or not this_thread.loops:
        sentinel.opened += 1


def enter(loop: LoopThread, known: tuple[int, int]) -> tuple[int, int]:
    """Note that this thread runs ``loop`` now; pass what the last time returned.

    Its sessions to that very loop are dropped: nobody would answer.
    """
    sentinel = this_thread.sentinel
    this_thread.loops.append(loop)
    if sentinel.last_loop != id(loop):
        sentinel.several = sentinel.last_loop != 0
        sentinel.last_loop = id(loop)
    now = (sentinel.ident, sentinel.opened)
    if now != known:
        loop.take_in()
        for reference in list(sentinel.gates.values()):
            gate = reference()
            session = None if gate is None else gate._sessions.get(sentinel.ident)
            if gate is None or not isinstance(session, leaf.Session) or session.dead:
                continue
            if loop.own_port(session) is not None:
                gate._forget(session)
    return now
