"""Hearing of the end of memory: when the last descriptor, mapping and message that held it is gone (inotify(7)).

The one rule: watching keeps nothing alive. Who watches may close its own descriptor and still be told.
"""

from __future__ import annotations

from typing import Final

from l4re._native import leaf
from l4re.errors import OutOfMemory
from l4re.linux.fd import Fd

__all__ = ["MemoryWatch", "most_watched"]

_LIMIT: Final = "/proc/sys/fs/inotify/max_user_watches"
#: What every kernel allows.
_LEAST: Final = 8192


class MemoryWatch:
    """A set of watched memory. For one thread at a time."""

    def __init__(self) -> None:
        """Make an empty set.

        Raises:
            OutOfMemory: this user has as many inotify instances as it may have.
        """
        try:
            self._set = Fd(leaf.watches(), guarded=True, what="memory watch")
        except OSError as error:
            raise OutOfMemory(f"no memory can be watched (fs.inotify.max_user_instances): {error.strerror}") from error
        self._alive: set[int] = set()

    def __len__(self) -> int:
        return len(self._alive)

    def add(self, fd: int) -> int:
        """Watch the memfd ``fd`` and return the number it will be told by.

        Raises:
            OutOfMemory: this user has as many watches as it may have.
        """
        try:
            number = leaf.watch_memory(self._set.fileno(), fd)
        except OSError as error:
            raise OutOfMemory(f"one more memory cannot be watched (fs.inotify.max_user_watches): {error}") from error
        self._alive.add(number)
        return number

    def gone(self) -> list[int]:
        """Return the numbers of what is gone, each once."""
        told: list[int] = []
        while some := leaf.gone(self._set.fileno()):
            told += some
        if -1 in told:  # more ended at once than the kernel keeps in its queue
            told += self._alive - self._watched()
        ended = [number for number in dict.fromkeys(told) if number in self._alive]
        self._alive.difference_update(ended)
        return ended

    def _watched(self) -> set[int]:
        with open(f"/proc/self/fdinfo/{self._set.fileno()}", encoding="ascii") as lines:
            words = [line.split() for line in lines if line.startswith("inotify wd:")]
        return {int(line[1].removeprefix("wd:"), 16) for line in words}

    def close(self) -> None:
        """Watch nothing any more. A second call does nothing."""
        self._set.close()
        self._alive.clear()


def most_watched() -> int:
    """Return how many pieces of memory this user may watch, in all its processes together."""
    try:
        with open(_LIMIT, encoding="ascii") as number:
            return int(number.read())
    except (OSError, ValueError):
        return _LEAST
