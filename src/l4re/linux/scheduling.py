"""Where threads run and how urgently: CPUs and nice values (sched(7)).

Linux keeps both for each thread; a thread that is made has those of its maker.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Collection, Iterator
from typing import Final

__all__ = ["LOWEST_NICE", "idle_time", "least_nice", "nice", "place", "place_process", "possible", "usable"]

#: The most urgent nice value there is; the least urgent one is 19.
LOWEST_NICE: Final = -20
_ROUNDS: Final = 100
_CAP_SYS_NICE: Final = 1 << 23


def usable() -> frozenset[int]:
    """Return the CPUs that this process may use: those its main thread may run on."""
    return frozenset(os.sched_getaffinity(os.getpid()))


def possible() -> int:
    """Return one more than the highest number that a CPU of this machine can have."""
    try:
        with open("/sys/devices/system/cpu/possible", encoding="ascii") as lines:
            return int(lines.read().strip().rpartition(",")[2].rpartition("-")[2]) + 1
    except (OSError, ValueError):  # no sysfs here
        return max(usable()) + 1


def nice() -> int:
    """Return the nice value of this process's main thread."""
    return os.getpriority(os.PRIO_PROCESS, os.getpid())


def least_nice() -> int:
    """Return the most urgent nice value that this process may give to its threads."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
            held = next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)
    except OSError:
        held = 0
    return LOWEST_NICE if held & _CAP_SYS_NICE else min(nice(), _limit())


def _limit() -> int:
    soft = resource.getrlimit(resource.RLIMIT_NICE)[0]
    return LOWEST_NICE if soft == resource.RLIM_INFINITY else max(LOWEST_NICE, 20 - soft)


def place(thread: int, cpus: Collection[int], nice: int) -> int:
    """Let a thread run on ``cpus`` only, as urgently as ``nice`` says or we may; return the nice value it has then.

    Raises:
        ProcessLookupError: there is no such thread.
        PermissionError: it is another user's.
        OSError: none of these CPUs is there for it.
    """
    os.sched_setaffinity(thread, cpus)
    held = os.getpriority(os.PRIO_PROCESS, thread)
    for value in (nice, max(nice, min(held, _limit()))):
        try:
            os.setpriority(os.PRIO_PROCESS, thread, value)
        except PermissionError:  # more urgent than this process may make anything
            continue
        return value
    return held


def place_process(pid: int, cpus: Collection[int], nice: int) -> int | None:
    """Place every thread of a process, as :func:`place` does; None if it has ended.

    Threads that it makes meanwhile are found, however many; ``pid`` must not be free for somebody else: it is
    ours, or a child's that nobody reaped.
    """
    done: set[int] = set()
    result: int | None = None
    for _ in range(_ROUNDS):  # who makes threads faster than we place them makes them of placed ones
        found = [thread for thread in _threads(pid) if thread not in done]
        if not found:
            break
        for thread in found:
            try:
                result = place(thread, cpus, nice)
            except ProcessLookupError:  # it has ended
                pass
        done.update(found)
    return result


def _threads(pid: int) -> Iterator[int]:
    try:
        return map(int, os.listdir(f"/proc/{pid}/task"))
    except OSError:  # it has ended, or there is no procfs here: its first thread then stands for it
        return iter((pid,))


def idle_time(cpu: int) -> int | None:
    """Return for how many microseconds a CPU had nothing to do since the start of the machine; None: not known."""
    try:
        with open("/proc/stat", encoding="ascii") as lines:
            for line in lines:
                words = line.split()
                if words[:1] == [f"cpu{cpu}"]:
                    return int(words[4]) * 1_000_000 // os.sysconf("SC_CLK_TCK")
    except OSError:
        pass
    return None
