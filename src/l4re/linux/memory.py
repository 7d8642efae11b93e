"""How much memory the machine, or the cgroup this process lives in, can still give.

A dataspace costs nothing until it is touched, and then running out is a signal that kills. So whoever allocates
asks here first. The answer is a reading, not a reservation: it is right for the moment it was taken.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Final

from l4re.errors import OutOfMemory

__all__ = ["MemoryGauge", "available", "total", "unified_folder"]

_UNLIMITED: Final = 1 << 62  # cgroup v1 writes "no limit" as a huge number


def _read(*path: str) -> str:
    try:
        fd = os.open("/".join(path), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts).decode("utf-8", "replace")
    except OSError:
        return ""  # a cgroup that was removed meanwhile
    finally:
        os.close(fd)


def _number(*path: str) -> int | None:
    """The number in a one-line file; None for "max", no limit, or no file."""
    text = _read(*path).strip()
    if not text.isdigit():
        return None
    value = int(text)
    return value if value < _UNLIMITED else None


def _table(text: str, scale: int = 1) -> dict[str, int]:
    """``name value ...`` per line, with or without a colon."""
    table: dict[str, int] = {}
    for line in text.splitlines():
        name, _, rest = line.partition(" ")
        value = rest.split(maxsplit=1)
        if value and value[0].isdigit():
            table[name.removesuffix(":")] = int(value[0]) * scale
    return table


def _unescape(field: str) -> str:
    return field.encode("latin-1", "replace").decode("unicode_escape") if "\\" in field else field


@lru_cache(maxsize=4)
def _cgroup_mounts(mountinfo: str) -> dict[int, tuple[str, str]]:
    """Where each version's memory controller is mounted: version to (the part of the tree, the folder)."""
    mounts: dict[int, tuple[str, str]] = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or not kind:
            continue
        version = {"cgroup": 1, "cgroup2": 2}.get(kind[0])
        if version == 2 or (version == 1 and "memory" in kind[-1].split(",")):
            mounts.setdefault(version, (_unescape(fields[3]), _unescape(fields[4])))
    return mounts


def _cgroup_folders(proc: str) -> Iterator[tuple[int, str]]:
    """Yield (version, folder) of this process's memory cgroup and of each one above it."""
    mounts = _cgroup_mounts(_read(proc, "self/mountinfo"))
    for line in _read(proc, "self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        version = 2 if number == "0" and not controllers else 1 if "memory" in controllers.split(",") else 0
        if version not in mounts:
            continue
        root, folder = mounts[version]
        inside = os.path.relpath(path, root)  # a mount may show a part of the tree only
        steps = [] if inside == "." or inside.startswith("..") else inside.split("/")
        for count in range(len(steps), -1, -1):
            yield version, "/".join((folder, *steps[:count]))


def unified_folder(proc: str = "/proc") -> str | None:
    """Return the folder of this process's cgroup v2; None if none is mounted here."""
    return next((folder for version, folder in _cgroup_folders(proc) if version == 2), None)


def _room_v2(folder: str, swap_free: int) -> int | None:
    limit = _number(folder, "memory.max")
    used = None if limit is None else _number(folder, "memory.current")
    if limit is None or used is None:
        return None
    stat = _table(_read(folder, "memory.stat"))
    swap_limit, swap_used = _number(folder, "memory.swap.max"), _number(folder, "memory.swap.current")
    swap = swap_free if swap_limit is None else min(swap_free, max(0, swap_limit - (swap_used or 0)))
    cached = stat.get("inactive_file", 0) + stat.get("active_file", 0) + stat.get("slab_reclaimable", 0)
    return max(0, limit - used + cached) + swap


def _room_v1(folder: str, swap_free: int) -> int | None:
    rooms = []
    for kind, swap in (("memory", swap_free), ("memory.memsw", 0)):
        limit = _number(folder, f"{kind}.limit_in_bytes")
        used = None if limit is None else _number(folder, f"{kind}.usage_in_bytes")
        if limit is None or used is None:
            continue
        stat = _table(_read(folder, "memory.stat"))
        cached = stat.get("total_inactive_file", 0) + stat.get("total_active_file", 0)
        rooms.append(max(0, limit - used + cached) + swap)
    return min(rooms, default=None)


def available(proc: str = "/proc") -> int:
    """Return the bytes that can be had now, swap included: the machine's, or less if a cgroup above us has less."""
    table = _table(_read(proc, "meminfo"), 1024)
    if "MemAvailable" not in table:  # no procfs here; the kernel still tells how much there is at all
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    swap_free = table.get("SwapFree", 0)
    rooms = [table["MemAvailable"] + swap_free]
    if _read(proc, "sys/vm/overcommit_memory").strip() == "2":
        rooms.append(max(0, table.get("CommitLimit", 0) - table.get("Committed_AS", 0)))
    for version, folder in _cgroup_folders(proc):
        room = (_room_v2 if version == 2 else _room_v1)(folder, swap_free)
        if room is not None:
            rooms.append(room)
    return min(rooms)


def total(proc: str = "/proc") -> int:
    """Return the bytes there are at all: the machine's, or the limit of a cgroup above us."""
    table = _table(_read(proc, "meminfo"), 1024)
    sizes = [table.get("MemTotal", 0) or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for version, folder in _cgroup_folders(proc):
        limit = _number(folder, "memory.max" if version == 2 else "memory.limit_in_bytes")
        if limit is not None:
            sizes.append(limit)
    return min(sizes)


class MemoryGauge:
    """Answers "are there ``size`` bytes?" without asking the kernel every time.

    A reading takes some 100 µs. One is used for a tenth of a second and charged with what it granted, and beyond
    that time it leaves a small credit, so that small requests cost a subtraction. A refusal always rests on a
    fresh reading. Several threads may use one gauge: at worst they read twice.
    """

    __slots__ = ("_clock", "_left", "_read", "_taken", "credit")

    LIFETIME: Final = 0.1
    CREDIT: Final = 64 << 20

    def __init__(self, read: Callable[[], int] = available, clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._clock = clock
        self._left = 0
        self._taken = 0.0
        self.credit = 0  #: requests that fit may be taken off without asking

    def charge(self, size: int) -> None:
        """Take off ``size`` bytes.

        Raises:
            OutOfMemory: there are fewer; the text says how many.
        """
        if (there := self.missing(size)) is not None:
            raise OutOfMemory(f"wanted {size} bytes of memory, this machine or its cgroup can give {there}")

    def missing(self, size: int) -> int | None:
        """Return None if ``size`` bytes can be had, otherwise how many there are."""
        if size <= self.credit:
            self.credit -= size
            return None
        now = self._clock()
        there = self._left + self.credit
        if size > there or now - self._taken > self.LIFETIME:
            there = self._read()
            self._taken = now
        self.credit = 0
        self._left = there
        if size > there:
            return there
        self.credit = min(self.CREDIT, (there - size) // 64)
        self._left = there - size - self.credit
        return None
