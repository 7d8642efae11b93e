"""What a thread has to do with gates: its sessions end with it, and its own server is not called but run.

The one rule: a session belongs to one thread; what is cleaned up here is what
that thread opened.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from l4re._native import leaf
    from l4re.gate.gate import Gate

__all__ = ["CallPath", "LoopThread", "remember", "this_thread"]


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

    def __del__(self) -> None:
        for gate in list(self.gates):
            gate._thread_ended(self.ident)


class _ThisThread(threading.local):
    def __init__(self) -> None:
        self.sentinel = _Sentinel()
        self.loop: LoopThread | None = None


this_thread = _ThisThread()


def remember(gate: Gate) -> None:
    """Close this thread's session of ``gate`` when the thread ends."""
    this_thread.sentinel.gates.add(gate)
