"""Memory groups of the kernel (cgroup v2): where they are ours to make, a limit is enforced by the kernel.

The one rule: the group that this process lives in must be delegated to us, with the memory controller, and hold this
process alone. Then it becomes the parent of groups, each with a limit, and this process moves into one of its own,
since a group that shares out memory may hold no process (cgroups(7)).

All of it is small files in folders; a folder of plain files does for a test.
"""

from __future__ import annotations

import os
from itertools import count
from typing import Final, NamedTuple

from l4re.errors import InvalidArgument, NotSupported
from l4re.linux.fd import Fd
from l4re.linux.limit import exhausted
from l4re.linux.memory import unified_folder

__all__ = ["Delegation", "MemoryGroup", "MemoryGroups", "delegation"]

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


class MemoryGroups:
    """The groups that this process makes, all of which have this process's own group as their parent."""

    def __init__(self, proc: str = "/proc") -> None:
        """Move this process into a group of its own, and let its former one share out memory.

        Raises:
            NotSupported: it was not delegated to us; the text says what is missing.
        """
        folder, problem = delegation(proc)
        if problem:
            raise NotSupported(f"the kernel enforces no quotas here: {problem}")
        self.folder: Final = folder
        self._numbers = count()
        try:
            self._sweep()
            home = f"{folder}/{_PREFIX}{os.getpid()}"
            os.makedirs(home, exist_ok=True)
            _write(f"{home}/cgroup.procs", str(os.getpid()))
            _write(f"{folder}/cgroup.subtree_control", "+memory")
        except OSError as error:
            raise NotSupported(f"the kernel enforces no quotas here: {error.strerror}: {error.filename}") from error

    def make(self, limit: int) -> MemoryGroup:
        """Return a new group of processes that have ``limit`` bytes together; the caller owns it.

        Raises:
            InvalidArgument: a limit of 0 or less.
            L4Error: the kernel refused.
        """
        if limit <= 0:
            raise InvalidArgument(f"a memory limit is a number of bytes above 0, not {limit}")
        path = f"{self.folder}/{_PREFIX}{os.getpid()}.{next(self._numbers)}"
        try:
            os.mkdir(path)
        except OSError as error:
            raise exhausted(f"cannot make the memory group {path}", error) from error
        group = MemoryGroup(path)
        try:
            _write(f"{path}/memory.max", str(limit))
            if os.path.exists(f"{path}/memory.swap.max"):
                _write(f"{path}/memory.swap.max", "0")  # or whoever is at the limit goes on in the swap
        except OSError as error:
            group.close()
            raise exhausted(f"cannot limit {path}", error) from error
        return group

    def _sweep(self) -> None:
        """Remove the groups of roots that were killed; the kernel keeps those that somebody is in."""
        for name in os.listdir(self.folder):
            if name.startswith(_PREFIX):
                MemoryGroup(f"{self.folder}/{name}").close()

    def __repr__(self) -> str:
        return f"<MemoryGroups in {self.folder}>"


class MemoryGroup:
    """A group of processes that have so much memory together; see `MemoryGroups.make`.

    All that they touch counts, also what their interpreter and their stacks take. Who needs more and finds nothing
    of its own to give back is killed by the kernel.
    """

    def __init__(self, path: str) -> None:
        self.path: Final = path

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
        """Remove it, if nobody is in it any more. May be called twice."""
        try:
            os.rmdir(self.path)
        except OSError:  # somebody is, or it is gone
            pass

    def __repr__(self) -> str:
        return f"<MemoryGroup {self.path}>"


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
