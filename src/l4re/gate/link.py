"""What the two sides of a channel made here know of each other.

When a receive right moves to a process this one started, the gate that stayed
learns that process's pidfd: a call through it also ends when the process ends,
even if something inherited the server end.
"""

from __future__ import annotations

from l4re.linux.fd import Fd, duplicate

__all__ = ["Link"]


class Link:
    """Shared by a gate, its duplicates and the receive right they were made with."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: Fd | None = None

    @property
    def pidfd(self) -> int:
        """The descriptor of the process that holds the other side, lent; -1 if unknown."""
        return -1 if self._task is None or self._task.closed else self._task.fileno()

    def watch(self, pidfd: int) -> None:
        """The receive right went to the process behind ``pidfd``, which stays the caller's."""
        self._task = duplicate(pidfd, what="pidfd")
