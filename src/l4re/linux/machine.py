"""What this machine can do for us: asked and tried, not guessed from version numbers.

Each question is a small function that answers with a `Finding`. Nothing is changed, and nothing raises: what cannot
be found out is a finding, too.
"""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Iterator
from enum import Enum
from typing import Final, NamedTuple

from l4re.errors import L4Error
from l4re.linux import memfd, scheduling
from l4re.linux.cgroup import delegation
from l4re.linux.memory import available, total

__all__ = ["Finding", "Verdict", "examine", "tasks"]

_NOEXEC_SEAL: Final = 0x8
_DESCRIPTORS: Final = 4096
_REGIONS: Final = 65530
_WATCHES: Final = 8192
_SHMEM: Final = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
_VARIABLE: Final = b"L4RE_ENV="


class Verdict(Enum):
    """How it is."""

    OK = "ok"
    LIMITED = "limited"
    MISSING = "missing"


class Finding(NamedTuple):
    """What was looked at, how it is, what was seen, and what can be done about it."""

    what: str
    verdict: Verdict
    seen: str
    advice: str = ""


def examine() -> list[Finding]:
    """Return everything that was found out."""
    return [
        _kernel(),
        _seals(),
        _no_exec(),
        _pidfd(),
        _procfs(),
        _ptrace(),
        _memory(),
        _quotas(),
        _large_pages(),
        _pool(),
        _descriptors(),
        _regions(),
        _watches(),
        _cpus(),
        _tasks(),
    ]


def _kernel() -> Finding:
    about = os.uname()
    if about.sysname != "Linux":
        return Finding("kernel", Verdict.MISSING, about.sysname, "l4re runs on Linux")
    number = re.match(r"(\d+)\.(\d+)", about.release)
    if number is None or (int(number[1]), int(number[2])) < (5, 4):
        return Finding("kernel", Verdict.MISSING, f"Linux {about.release}", "Linux 5.4 or newer is needed")
    return Finding("kernel", Verdict.OK, f"Linux {about.release} on {about.machine}")


def _seals() -> Finding:
    what = "memfd seals"
    try:
        with memfd.create(1, "l4re-doctor") as fd:
            memfd.add_seals(fd.fileno(), memfd.Seal.FUTURE_WRITE)
    except (OSError, L4Error) as error:
        return Finding(
            what, Verdict.MISSING, str(error), "a kernel with memfd_create and F_SEAL_FUTURE_WRITE is needed"
        )
    return Finding(what, Verdict.OK, "memory keeps its size, and can be sealed against writing")


def _no_exec() -> Finding:
    what = "memory is no program"
    try:
        fd = os.memfd_create("l4re-doctor", os.MFD_CLOEXEC | _NOEXEC_SEAL)
    except OSError:
        advice = "Linux 6.3 and newer can promise it; until then nobody should execute what they are handed"
        return Finding(what, Verdict.LIMITED, "no MFD_NOEXEC_SEAL: the mode of a memfd can be changed back", advice)
    sealed = memfd.get_seals(fd) & memfd.Seal.EXEC
    os.close(fd)
    seen = "MFD_NOEXEC_SEAL" + (", F_SEAL_EXEC" if sealed else "")
    return Finding(what, Verdict.OK, f"{seen}: a dataspace cannot be executed")


def _pidfd() -> Finding:
    what = "pidfd"
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        why = error.strerror or str(error)
        return Finding(what, Verdict.MISSING, why, "Linux 5.4 or newer, and a sandbox that lets it through")
    return Finding(what, Verdict.OK, "programs are known by descriptors, not by numbers")


def _procfs() -> Finding:
    if os.path.isdir("/proc/self/fd"):
        return Finding("procfs", Verdict.OK, "read-only capabilities can be made")
    advice = "memory can be shared read-write, and read-only where its maker handed that over; mount procfs for more"
    return Finding("procfs", Verdict.LIMITED, "not mounted here", advice)


def _ptrace() -> Finding:
    what = "tracing"
    scope = _setting("/proc/sys/kernel/yama/ptrace_scope")
    if scope is not None and scope > 0:
        return Finding(
            what, Verdict.OK, f"kernel.yama.ptrace_scope is {scope}: a program reads at most those that it started"
        )
    seen = "kernel.yama.ptrace_scope is 0" if scope == 0 else "no yama here"
    advice = "sysctl kernel.yama.ptrace_scope=1, where there is yama; run what you do not trust as another user"
    return Finding(what, Verdict.LIMITED, f"{seen}: programs of one user can read each other", advice)


def _memory() -> Finding:
    room, whole = available(), total()
    seen = f"{_size(room)} of {_size(whole)} can be had"
    if room * 20 < whole:
        return Finding("memory", Verdict.LIMITED, seen, "end programs, or give this cgroup more")
    return Finding("memory", Verdict.OK, seen)


def _quotas() -> Finding:
    folder, problem = delegation()
    if not problem:
        return Finding("quotas", Verdict.OK, f"the kernel's, with --memory-max: {folder} is ours")
    advice = "systemd-run --user --scope -p Delegate=yes l4re run ..., on a machine with cgroup v2"
    return Finding("quotas", Verdict.LIMITED, f"counted by the root task only: {problem}", advice)


def _large_pages() -> Finding:
    what = "large pages"
    text = _text(_SHMEM)
    mode = text.partition("[")[2].partition("]")[0]
    if mode in ("always", "within_size", "advise", "force"):
        return Finding(what, Verdict.OK, f"shmem_enabled is {mode!r}: SUPER_PAGES has an effect")
    seen = f"shmem_enabled is {mode!r}: SUPER_PAGES has none" if mode else "this kernel has none for shared memory"
    return Finding(what, Verdict.LIMITED, seen, f"echo advise > {_SHMEM}" if mode else "")


def _pool() -> Finding:
    table = dict(line.split(":", 1) for line in _text("/proc/meminfo").splitlines() if ":" in line)
    pages, free = (table.get(f"HugePages_{name}", "0").strip() for name in ("Total", "Free"))
    return Finding("hugetlb pool", Verdict.OK, f"{free} of {pages} pages are free; dataspaces take none from it")


def _descriptors() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    seen = f"{_limit(soft)}, and up to {_limit(hard)} where a program calls l4re.env()"
    if hard != resource.RLIM_INFINITY and hard < _DESCRIPTORS:
        return Finding(
            "descriptors", Verdict.LIMITED, seen, "each capability is one or two: raise the limit (ulimit -Hn)"
        )
    return Finding("descriptors", Verdict.OK, seen)


def _regions() -> Finding:
    count = _setting("/proc/sys/vm/max_map_count")
    if count is None:
        return Finding("regions", Verdict.LIMITED, "vm.max_map_count cannot be read")
    seen = f"vm.max_map_count is {count}: what one program attaches"
    if count < _REGIONS:
        return Finding("regions", Verdict.LIMITED, seen, f"sysctl vm.max_map_count={_REGIONS}")
    return Finding("regions", Verdict.OK, seen)


def _watches() -> Finding:
    instances, watches = (_setting(f"/proc/sys/fs/inotify/max_user_{name}") for name in ("instances", "watches"))
    if instances is None or watches is None:
        return Finding("inotify", Verdict.LIMITED, "its limits cannot be read: a run needs one instance")
    seen = f"{instances} runs, and {watches} dataspaces that a root task counts, for each user"
    if watches < _WATCHES or instances < 1:
        return Finding("inotify", Verdict.LIMITED, seen, f"sysctl fs.inotify.max_user_watches={_WATCHES}")
    return Finding("inotify", Verdict.OK, seen)


def _cpus() -> Finding:
    cpus, nice, least = len(scheduling.usable()), scheduling.nice(), scheduling.least_nice()
    seen = f"{cpus} CPU{'s'[: cpus != 1]}, nice values from {least} on"
    if least > nice - 19:
        advice = "priorities of schedulers have no effect beyond that: raise RLIMIT_NICE (ulimit -e)"
        return Finding("scheduling", Verdict.LIMITED, seen, advice)
    return Finding("scheduling", Verdict.OK, seen)


def tasks() -> Iterator[tuple[int, bool]]:
    """Yield (pid, whether it sees no procfs) of the programs that were given capabilities, as far as we may look."""
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    except OSError:
        return
    for pid in pids:
        try:
            with open(f"/proc/{pid}/environ", "rb") as variables:
                if not any(each.startswith(_VARIABLE) for each in variables.read().split(b"\0")):
                    continue
            with open(f"/proc/{pid}/mounts", "rb") as mounts:
                yield pid, not any(line.split()[2:3] == [b"proc"] for line in mounts)
        except OSError:  # it has ended, or is somebody else's
            continue


def _tasks() -> Finding:
    found = list(tasks())
    if not found:
        return Finding("tasks", Verdict.OK, "none runs that was given capabilities")
    isolated = sum(apart for _, apart in found)
    seen = f"{len(found)} run that were given capabilities, {isolated} of them isolated from procfs"
    if isolated == len(found):
        return Finding("tasks", Verdict.OK, seen)
    advice = "to the others read-only memory is advisory, unless it is sealed: Dataspace.freeze() or publish()"
    return Finding("tasks", Verdict.LIMITED, seen, advice)


def _text(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as lines:
            return lines.read()
    except OSError:
        return ""


def _setting(path: str) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _limit(number: int) -> str:
    return "without limit" if number == resource.RLIM_INFINITY else str(number)


def _size(number: int) -> str:
    size = float(number)
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
