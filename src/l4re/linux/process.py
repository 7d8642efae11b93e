"""Processes: starting one, its pidfd, how it ended.

A child dies with the *thread* that started it (``PR_SET_PDEATHSIG`` counts threads), so one permanent thread
of this process starts them all. A process is known by its pidfd; its number is only for people to read.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import IntEnum
from queue import SimpleQueue
from typing import NamedTuple

from l4re._native import leaf
from l4re.linux import scheduling
from l4re.linux.fd import Fd

__all__ = [
    "NOT_KNOWN",
    "Spawned",
    "Stage",
    "StartFailed",
    "kill",
    "kill_group",
    "reap",
    "spawn",
    "wait_any",
]

#: The exit status of a process that somebody else reaped.
NOT_KNOWN = 255


class Stage(IntEnum):
    """What a child does between its birth and its program."""

    STARTED = 0
    PARENT_GONE = 1
    GROUP = 2
    DESCRIPTORS = 3
    DIRECTORY = 4
    PAGE = 5
    EXECUTE = 6
    CPUS = 7
    CGROUP = 8


class StartFailed(OSError):
    """The program did not start; ``stage`` says how far it came. Nothing is left of it."""

    def __init__(self, stage: Stage, number: int) -> None:
        super().__init__(number, f"{stage.name.lower().replace('_', ' ')}: {os.strerror(number)}")
        self.stage = stage

    def __reduce__(self) -> tuple[type[StartFailed], tuple[Stage, int]]:
        return StartFailed, (self.stage, self.errno or 0)


class Spawned(NamedTuple):
    """A process that runs."""

    pid: int
    pidfd: Fd


class _Job:
    """Something for the spawner thread to do, and what came of it."""

    __slots__ = ("_action", "_done", "_problem", "_started")

    def __init__(self, action: Callable[[], Spawned]) -> None:
        self._action = action
        self._done = threading.Event()
        self._started: Spawned | None = None
        self._problem: BaseException | None = None

    def run(self) -> None:
        """Do it; what goes wrong belongs to the caller."""
        try:
            self._started = self._action()
        except BaseException as error:
            self._problem = error
        self._done.set()

    def wait(self) -> None:
        """Wait until it is done; a signal handler may raise here."""
        self._done.wait()

    def result(self) -> Spawned:
        """Return the process, or raise what went wrong. An interrupted caller leaves no process behind."""
        interrupted: BaseException | None = None
        while not self._done.is_set():
            try:
                self.wait()
            except BaseException as error:  # the job reads what its caller would close: stay until it is done
                interrupted = error
        if interrupted is not None:
            if self._started is not None:
                _discard(self._started)
            raise interrupted
        if self._started is None:
            assert self._problem is not None
            raise self._problem
        return self._started


class _Spawner:
    """The one thread that starts programs; made at the first start, once more after a fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: SimpleQueue[_Job] | None = None

    def run(self, action: Callable[[], Spawned]) -> Spawned:
        """Return what ``action`` returns in the spawner thread."""
        job = _Job(action)
        with self._lock:
            if self._jobs is None:
                self._jobs = SimpleQueue()
                threading.Thread(target=_serve, args=(self._jobs,), name="l4re spawner", daemon=True).start()
            self._jobs.put(job)
        return job.result()


def _serve(jobs: SimpleQueue[_Job]) -> None:
    while True:
        jobs.get().run()


def _discard(started: Spawned) -> None:
    pid, pidfd = started
    kill_group(pid, pidfd.fileno(), signal.SIGKILL)
    leaf.wait((pidfd.fileno(),), -1)
    reap(pidfd.fileno())
    pidfd.close()


_spawner = _Spawner()


def _after_fork() -> None:
    global _spawner
    _spawner = _Spawner()  # its lock may have been held by a thread that the child does not have


os.register_at_fork(after_in_child=_after_fork)


def spawn(
    path: str,
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    fds: Sequence[int] = (),
    stdio: tuple[int, int, int] = (-1, -1, -1),
    cwd: str | None = None,
    pid_at: int = -1,
    placed: tuple[Collection[int], int] | None = None,
    cgroup: int = -1,
) -> Spawned:
    """Run ``path`` in a process group of its own that dies with this process.

    The child has ``stdio`` (-1: ours) as 0, 1, 2 and ``fds`` from 3 on, and no other descriptor; every signal
    has its default effect. With ``pid_at`` it writes its pid in ten digits there into the memfd ``fds[0]`` and
    seals that for good. ``placed`` are the CPUs it may use and its nice value, or the nearest that we may give it;
    ``cgroup`` is the ``cgroup.procs``, open for writing, of the one that it is in from its first instruction on. A
    program that gains privileges by being started loses the bond to this process.

    Raises:
        StartFailed: the child could not become the program.
        OSError: there is no child: no memory, or too many processes or descriptors.
        ValueError: a string holds a NUL character.
    """
    arguments = (
        os.fsencode(path),
        tuple(map(os.fsencode, argv)),
        tuple(os.fsencode(f"{key}={value}") for key, value in env.items()),
        tuple(fds),
        stdio,
        None if cwd is None else os.fsencode(cwd),
        pid_at,
        None if placed is None else _mask(placed[0]),
        0 if placed is None else max(placed[1], scheduling.least_nice()),
        cgroup,
    )

    def start() -> Spawned:
        pid, pidfd, stage, number = leaf.spawn(*arguments)
        if stage:
            raise StartFailed(Stage(stage), number)
        return Spawned(pid, Fd(pidfd, what="process"))

    return _spawner.run(start)


def _mask(cpus: Collection[int]) -> bytes:
    mask = sum(1 << cpu for cpu in set(cpus))
    words = range(0, max(mask.bit_length(), 1), 64)
    return b"".join((mask >> at & 2**64 - 1).to_bytes(8, sys.byteorder) for at in words)


def reap(pidfd: int) -> int | None:
    """Return the exit status of a child that ended, None of one that runs; the zombie is gone then.

    The status of a child that a signal ended is 128 plus the signal's number, as shells and ned have it;
    `NOT_KNOWN` if somebody else reaped it.
    """
    try:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return NOT_KNOWN
    if result is None:
        return None
    return result.si_status if result.si_code == os.CLD_EXITED else 128 + result.si_status


def kill(pidfd: int, number: int) -> None:
    """Send a signal; a process that has ended does not mind."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass


def kill_group(pid: int, pidfd: int, number: int) -> None:
    """Send a signal to a child that nobody reaped yet, and to what it started in its process group."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):  # it leads another group or session now
        kill(pidfd, number)


def wait_any(pidfds: Iterable[int], timeout: float | None = None) -> list[int]:
    """Return those of ``pidfds`` whose process ended, as soon as there is one; none after ``timeout`` seconds."""
    poll = select.poll()
    for pidfd in pidfds:
        poll.register(pidfd, select.POLLIN)
    return [pidfd for pidfd, _ in poll.poll(None if timeout is None else max(0, int(timeout * 1000 + 0.999)))]
