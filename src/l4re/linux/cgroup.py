"""Memory groups of the kernel (cgroup v2): where they are ours to make, a limit is enforced by the kernel.

The one rule: the group that this process lives in must be delegated to us, with the memory controller, and hold this
process alone. Then it becomes the parent of groups, each with a limit, and this process moves into one of its own,
since a group that shares out memory may hold no process (cgroups(7)). Empty groups are all that is left of one that
was killed; the next one removes them.

All of it is small files in folders; a folder of plain files does for a test.
"""

from __future__ import annotations

import os
from itertools import count
from typing import Final, NamedTuple, Self

from l4re.errors import InvalidArgument, NotSupported
from l4re.linux.fd import Fd
from l4re.linux.limit import exhausted
from l4re.linux.memory import unified_folder

__all__ = ["Delegation", "MemoryGroup", "delegation"]

_PREFIX: Final = "l4re."


class Delegation(NamedTuple):
    """Where memory groups can be made. With a ``problem`` they cannot, and that is why."""

    folder: str
    problem: str = ""


def delegation(proc: str = "/proc") -> Delegation:
    """Look whether this process may make memory groups; nothing changes."""
    folder = unified_folder(proc)
    if folder is None:
        return Delegation("", "no cgroup v2 is mounted here")
    if "memory" not in _words(folder, "cgroup.controllers"):
        return Delegation(folder, f"{folder} has no memory controller")
    for path in (folder, f"{folder}/cgroup.procs", f"{folder}/cgroup.subtree_control"):
        if not os.access(path, os.W_OK):
            return Delegation(folder, f"{path} is not ours to write")
    others = len({*_words(folder, "cgroup.procs")} - {str(os.getpid())})
    if others:
        return Delegation(folder, f"{folder} holds {others} more processes")
    return Delegation(folder)


class MemoryGroup:
    """A group of processes that have so much memory together, or the parent of such groups.

    All that they touch counts, also what their interpreter and their stacks take. Who needs more and finds nothing
    of its own to give back is killed by the kernel.
    """

    def __init__(self, path: str) -> None:
        self.path: Final = path
        self._numbers = count()
        self._shares = False

    @classmethod
    def ours(cls, proc: str = "/proc") -> Self:
        """Return the group this process was in, as the parent of others; this process moves into one of its own.

        Raises:
            NotSupported: it was not delegated to us; the text says what is missing.
        """
        folder, problem = delegation(proc)
        if problem:
            raise NotSupported(f"the kernel enforces no quotas here: {problem}")
        group = cls(folder)
        try:
            for name in os.listdir(folder):  # of roots that were killed; the kernel keeps those that somebody is in
                if name.startswith(_PREFIX):
                    _remove(f"{folder}/{name}")
            home = f"{folder}/{_PREFIX}{os.getpid()}"
            os.makedirs(home, exist_ok=True)
            _write(f"{home}/cgroup.procs", str(os.getpid()))
            group._share()
        except OSError as error:
            raise NotSupported(f"the kernel enforces no quotas here: {error.strerror}: {error.filename}") from error
        return group

    def make(self, limit: int | None = None) -> MemoryGroup:
        """Return a new group inside this one, of ``limit`` bytes (None: what this one has); the caller owns it.

        From then on processes can enter only the groups inside.

        Raises:
            InvalidArgument: a limit of 0 or less.
            L4Error: the kernel refused.
        """
        if limit is not None and limit <= 0:
            raise InvalidArgument(f"a memory limit is a number of bytes above 0, not {limit}")
        path = f"{self.path}/{_PREFIX}{os.getpid()}.{next(self._numbers)}"
        try:
            self._share()
            os.mkdir(path)
        except OSError as error:
            raise exhausted(f"cannot make the memory group {path}", error) from error
        group = MemoryGroup(path)
        try:
            if limit is not None:
                _write(f"{path}/memory.max", str(limit))
            if limit is not None and os.path.exists(f"{path}/memory.swap.max"):
                _write(f"{path}/memory.swap.max", "0")  # or whoever is at the limit goes on in the swap
        except OSError as error:
            group.close()
            raise exhausted(f"cannot limit {path}", error) from error
        return group

    def _share(self) -> None:
        if not self._shares:
            _write(f"{self.path}/cgroup.subtree_control", "+memory")
            self._shares = True

    def entrance(self) -> Fd:
        """Return what lets a program start in the group (`process.spawn`); the caller owns it.

        Raises:
            L4Error: the group is gone.
        """
        try:
            return Fd(_open(f"{self.path}/cgroup.procs"), what="memory group")
        except OSError as error:
            raise exhausted(f"cannot enter {self.path}", error) from error

    @property
    def used(self) -> int:
        """Bytes that the kernel has charged to it."""
        words = _words(self.path, "memory.current")
        return int(words[0]) if words else 0

    def close(self) -> None:
        """Remove it, and the groups inside, if nobody is in them any more. May be called twice."""
        _remove(self.path)

    def __repr__(self) -> str:
        return f"<MemoryGroup {self.path}>"


def _remove(path: str) -> None:
    """Remove a group and what is in it, as far as nobody is there."""
    try:
        for entry in os.scandir(path):
            if entry.is_dir(follow_symlinks=False):
                _remove(entry.path)
        os.rmdir(path)
    except OSError:  # somebody is, or it is gone
        pass


def _words(folder: str, name: str) -> list[str]:
    try:
        with open(f"{folder}/{name}", encoding="ascii") as lines:
            return lines.read().split()
    except OSError:
        return []


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _write(path: str, text: str) -> None:
    fd = _open(path)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
