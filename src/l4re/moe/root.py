"""The root of one run.

A signal or a broken output never interrupts anything here: it leaves a note and wakes whoever waits. So a start or
a hand-over is done or not begun, never half.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, TypeVar

from l4re._native import leaf
from l4re.boot import Command, Grant, Task, launch
from l4re.closing import Closing
from l4re.errors import NotSupported
from l4re.linux.cgroup import MemoryGroup
from l4re.linux.packets import waker
from l4re.linux.process import wait_any
from l4re.log import Console, Multiplexer, Tag
from l4re.moe.keyboard import Keyboard
from l4re.moe.pump import ConsolePump
from l4re.moe.services import Services
from l4re.rights import Rights
from l4re.services.mem_alloc import MemoryFactory

if TYPE_CHECKING:
    from l4re.cap import Capability
    from l4re.gate import Channel, Gate
    from l4re.interface import Served
    from l4re.linux.fd import Fd
    from l4re.wire.vargs import Varg

__all__ = ["Root", "Stopped"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TIME_IS_UP = 124
_T = TypeVar("_T")


class Stopped(BaseException):
    """The run is to end, because of the signal ``number``; SIGALRM: its time is up."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number

    @property
    def status(self) -> int:
        """The exit status of such a run: 128 and the signal's number, as shells have it; 124 as ``timeout`` has it."""
        return _TIME_IS_UP if self.number == signal.SIGALRM else 128 + self.number


class Root(Closing):
    """Starts programs, serves them, shows their output, waits for them.

    For one thread; only `stop` may come from elsewhere. Leaving ``with`` ends every program that still runs and
    prints what is left to print.
    """

    #: Seconds a program has after a signal was passed on.
    GRACE = 2.0

    def __init__(
        self,
        console: Console | None = None,
        *,
        quota: int | None = None,
        memory_max: int | None = None,
        group: MemoryGroup | None = None,
    ) -> None:
        """Let all programs together have ``quota`` bytes of memory: by default, what the machine or its cgroup has.

        With ``memory_max`` the kernel holds them, too: all that they touch together, their interpreters and stacks
        included, stays below that, and who needs more is killed. They are put into a group inside ``group``, by
        default this process's own.

        Raises:
            NotSupported: there is a ``memory_max``, and no cgroup v2 that is ours; `l4re doctor` says more.
            InvalidArgument: a limit of 0 or less.
        """
        self._group = None if memory_max is None else (group or MemoryGroup.ours()).make(memory_max)
        self._groups: dict[Task, MemoryGroup] = {}
        self._console = console or Console()
        self._quota = quota
        self._services: Services | None = None
        self._factory: MemoryFactory | None = None
        self._log = Multiplexer(self._console)
        self._running: list[Task] = []
        self._wake, self._waker = waker()
        self._stops: list[int] = []
        self._watched: dict[int, Callable[[], None]] = {}
        self._keyboard: Keyboard | None = None
        self._status = 0

    @property
    def console(self) -> Console:
        """Where the programs' lines come out."""
        return self._console

    @property
    def services(self) -> Services:
        """What the programs are served; begun when it is first asked for."""
        if self._services is None:
            self._services = Services(quota=self._quota, log=self._log)
        return self._services

    @property
    def user_factory(self) -> MemoryFactory:
        """The root's own factory: on the account of all programs, without the limits that each of them has."""
        if self._factory is None:
            self._factory = MemoryFactory(self.services.factory(limited=False))
        return self._factory

    def create(self, protocol: int, *args: Varg) -> Capability | Channel:
        """Return a new object of :attr:`user_factory`; the caller owns it, and errors are those of its ``create``."""
        return self.user_factory.create(protocol, *args)

    def gate_to(self, obj: Served, rights: Rights = Rights.RWS) -> Gate:
        """Serve an object beside the programs' own, and return a capability to it; the caller owns it.

        The object is called by the thread that serves, and must not wait there.
        """
        return self.services.serve(obj, rights)

    @property
    def status(self) -> int:
        """The exit status of the first program that failed; 0 as long as none did."""
        return self._status

    @property
    def running(self) -> tuple[Task, ...]:
        """The programs that nobody has seen end."""
        return tuple(self._running)

    def start(
        self,
        command: Command,
        *,
        grants: Mapping[str, Grant],
        env: Mapping[str, str],
        log: Tag,
        services: Mapping[str, Grant] | None = None,
        console: Gate | None = None,
        memory_max: int | None = None,
        keyboard: bool = False,
    ) -> Task:
        """Start a program; errors are those of :func:`l4re.boot.launch`.

        It gets ``services``, and of those that are missing there its own factory. What it prints goes to ``console``
        (L4's ``Vcon``), which is lent; without one, or when nobody serves it any more, it comes out under ``log``.
        With ``keyboard`` it reads what comes in at our standard input, if no other program does. ``memory_max`` is its
        part of what the kernel lets the run have.

        Raises:
            NotSupported: there is a ``memory_max``, and the run has none.
        """
        self.check()
        if memory_max is not None and self._group is None:
            raise NotSupported("the kernel holds a program of a run below a limit only if the run has one")
        for ended in [task for task in self._groups if task.returncode is not None]:
            self._groups.pop(ended).close()
        given = dict(services or {})
        with ExitStack() as ours:
            group = None if self._group is None else self._group.make(memory_max)
            if group is not None:
                ours.callback(group.close)  # which leaves it there if the program is in it
            if "mem_alloc" not in given:
                given["mem_alloc"] = Grant(ours.enter_context(self.services.factory()))
            stdin = None
            if keyboard and sys.__stdin__ is not None:  # else descriptor 0 is something else by now
                stdin = ours.enter_context(self._input()).fileno()
            task = launch(
                command,
                stdin=stdin,
                grants=grants,
                services=given,
                env=env,
                log=log,
                multiplexer=self._log if console is None else ConsolePump(console, self._log),
                group=group,
            )
        self._running.append(task)
        if group is not None:
            self._groups[task] = group
        return task

    def _input(self) -> Fd:
        if self._keyboard is None:
            self._keyboard = Keyboard()
        return self._keyboard.add()

    def wait(self, task: Task, timeout: float | None = None) -> int:
        """Wait until ``task`` has ended and return its exit status.

        Raises:
            TimeoutError: it still runs after ``timeout`` seconds.
            Stopped: the run is to end.
        """
        until = None if timeout is None else monotonic() + timeout
        while task.returncode is None:
            left = None if until is None else until - monotonic()
            if left is not None and left < 0:
                raise TimeoutError(f"{task!r}: not ended after {timeout} s")
            self._wait_for([task], left)
            self.check()
        return self._ended(task)

    def next_ended(self) -> Task | None:
        """Wait until some program has ended and return its task, None if none runs any more.

        Raises:
            Stopped: the run is to end.
        """
        while self._running:
            for task in self._running:
                if task.returncode is not None:
                    self._ended(task)
                    return task
            for fd in self._wait_for(self._running, None, self._watched):
                if fd in self._watched:
                    self._watched[fd]()
            self.check()
        return None

    def sleep(self, seconds: float) -> None:
        """Let ``seconds`` pass.

        Raises:
            Stopped: the run is to end.
        """
        until = monotonic() + seconds
        while (left := until - monotonic()) > 0:
            self._wait_for([], left)
            self.check()

    def aside(self, function: Callable[[], _T]) -> _T:
        """Run what may wait for another program in a thread of its own, and return what it returns.

        Raises:
            Stopped: the run is to end; the thread is left to itself.
        """
        results: list[_T] = []
        errors: list[BaseException] = []
        done, ended = waker()

        def act() -> None:
            try:
                results.append(function())
            except BaseException as error:
                errors.append(error)
            ended.close()

        with done:
            threading.Thread(target=act, name="l4re asks", daemon=True).start()
            while not (results or errors):
                wait_any([self._wake.fileno(), done.fileno()])
                self.check()
        if errors:
            raise errors[0]
        return results[0]

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        """Have ``ready`` called in `next_ended` whenever the descriptor, which is lent, is readable."""
        self._watched[fd] = ready

    def kill(self, task: Task) -> None:
        """End a program because the script wants it to end: that is no failure."""
        task.kill()
        task.wait()
        if task in self._running:
            self._running.remove(task)

    def check(self) -> None:
        """Raise `Stopped` if the run is to end."""
        if self._stops:
            raise Stopped(self._stops[0])

    def stop(self, number: int) -> None:
        """Say that the run is to end as if by signal ``number``; a second time: at once. From any thread."""
        self._stops.append(number)
        leaf.trigger(self._waker.fileno())

    @contextmanager
    def signals(self, *, timeout: float | None = None, raising: bool = False) -> Iterator[None]:
        """Let SIGINT, SIGTERM and SIGHUP stop the run, and ``timeout`` seconds that have passed.

        In the main thread; elsewhere nothing changes. With ``raising`` the first of them raises `Stopped` wherever
        the thread is: for code that does not ask us.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, frame: FrameType | None) -> None:
            self.stop(number)
            if raising and len(self._stops) == 1:
                raise Stopped(number)

        numbers = _SIGNALS if timeout is None else (*_SIGNALS, signal.SIGALRM)
        before = {number: signal.signal(number, note) for number in numbers}
        try:
            if timeout is not None:
                signal.setitimer(signal.ITIMER_REAL, max(timeout, 1e-6))
            yield
        finally:
            if timeout is not None:
                signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)

    def end(self, number: int) -> None:
        """Pass a signal on to every program, wait a little, and end those that still run.

        That nobody reads the output any more (SIGPIPE), or that time is up (SIGALRM), is our trouble, not theirs: they
        are asked to terminate.
        """
        if number in (signal.SIGPIPE, signal.SIGALRM):
            number = signal.SIGTERM
        if number != signal.SIGKILL:
            self._log.hush()
            for task in self._running:
                task.signal(number)
                task.signal(signal.SIGCONT)
            until = monotonic() + self.GRACE
            while self._still_running() and len(self._stops) < 2 and (left := until - monotonic()) > 0:
                leaf.drain(self._wake.fileno())
                self._wait_for(self._running, left)
        for task in self._running:
            task.kill()
        for task in self._running:
            task.wait()
        self._running = []
        self._log.flush(self.GRACE)

    def close(self) -> None:
        """End every program that still runs, and print what is left to print."""
        self.end(signal.SIGKILL)
        if self._keyboard is not None:
            self._keyboard.close()
        if self._factory is not None:
            self._factory.cap.close()
        if self._services is not None:
            self._services.close()
        if self._group is not None:
            self._group.close()
        self._log.close()
        self._wake.close()
        self._waker.close()

    def __repr__(self) -> str:
        return f"<Root of {len(self._running)} programs>"

    def _still_running(self) -> bool:
        self._running = [task for task in self._running if task.returncode is None]
        return bool(self._running)

    def _wait_for(self, tasks: list[Task], timeout: float | None, others: Iterable[int] = ()) -> list[int]:
        return wait_any([self._wake.fileno(), *(task.fileno() for task in tasks), *others], timeout)

    def _ended(self, task: Task) -> int:
        status = task.wait()
        if task in self._running:
            self._running.remove(task)
            self._status = self._status or status
        return status
