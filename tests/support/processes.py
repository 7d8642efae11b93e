"""Other processes for tests: forked, spoken to over a line of their own, stopped and killed for real.

A child runs one function with its end of a :class:`Link`: texts are handshakes, capabilities are what
the test begins with. A child never outlives the test: it dies with the test process and with the fixture.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from l4re import Capability, Gate
from l4re._native import leaf
from l4re.cap import export_all, import_all
from l4re.interface import Served
from l4re.linux.fd import Fd
from l4re.testing import wait_until

__all__ = [
    "PATIENCE", "UNPRIVILEGED", "Background", "Child", "Echo", "Link", "Running", "asleep_in_call", "descriptors",
    "direct_line", "fork", "processes",
]  # fmt: skip

#: How long anything may take before a test fails; nothing is measured by it.
PATIENCE = 20.0
UNPRIVILEGED = 65534

_WAITING = {
    "x86_64": {47: "recvmsg", 271: "ppoll", 232: "epoll_wait", 281: "epoll_pwait", 441: "epoll_pwait2"},
    "aarch64": {212: "recvmsg", 73: "ppoll", 22: "epoll_pwait", 441: "epoll_pwait2"},
}


class Link:
    """One end of the line between a test and a child."""

    def __init__(self, fd: int, *, guarded: bool) -> None:
        self._fd = Fd(fd, guarded=guarded)

    def say(self, text: str) -> None:
        """Send a text; never waits."""
        assert leaf.send(self._fd.fileno(), b"T" + text.encode())

    def give(self, *caps: Capability | None) -> None:
        """Hand capabilities over."""
        words, fds, exports = export_all(caps)
        assert leaf.send(self._fd.fileno(), b"C" + words, fds)
        for export in exports:
            export.done()

    def hear(self, timeout: float = PATIENCE) -> str:
        """Wait for a text; an ended line is an empty one."""
        data, fds = self._receive(timeout)
        assert not fds
        assert data[:1] in (b"T", b"")
        return data[1:].decode()

    def take(self, timeout: float = PATIENCE) -> tuple[Any, ...]:
        """Wait for capabilities."""
        data, fds = self._receive(timeout)
        assert data[:1] == b"C", data
        return import_all(data[1:], fds)

    def wait_for_end(self) -> None:
        """Wait until the other side hangs up (or is killed)."""
        assert self.hear(10 * PATIENCE) == ""

    def _receive(self, timeout: float) -> tuple[bytes, tuple[int, ...]]:
        if leaf.wait((self._fd.fileno(),), int(timeout * 1e9)) < 0:
            raise TimeoutError(f"nothing was said within {timeout} s")
        return leaf.recv(self._fd.fileno()) or (b"", ())

    def unheard(self) -> int:
        """Bytes that were said here and have not been heard there."""
        import array
        import fcntl
        import termios

        answer = array.array("i", [0])
        fcntl.ioctl(self.fileno(), termios.TIOCOUTQ, answer)
        return answer[0]

    def fileno(self) -> int:
        return self._fd.fileno()

    def close(self) -> None:
        self._fd.close()


@contextmanager
def direct_line() -> Iterator[tuple[Link, Link]]:
    """Yield both ends of a line between two children; fork both within the block."""
    ends = leaf.channel()
    leaf.unguard(ends[1])
    links = Link(ends[0], guarded=False), Link(ends[1], guarded=False)
    try:
        yield links
    finally:
        for link in links:
            link.close()


class Child:
    """A forked process, seen from the test."""

    def __init__(self, pid: int, link: Link) -> None:
        self.pid = pid
        self.link = link
        self._status: int | None = None

    def say(self, text: str) -> None:
        self.link.say(text)

    def give(self, *caps: Capability | None) -> None:
        self.link.give(*caps)

    def hear(self) -> str:
        return self.link.hear()

    def take(self) -> tuple[Any, ...]:
        return self.link.take()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def stop(self) -> None:
        """Stop it, and wait until all of it stands still."""
        self.signal(signal.SIGSTOP)
        wait_until(lambda: self.states() <= {"T", "t"}, PATIENCE, "the child to stop")

    def go_on(self) -> None:
        self.signal(signal.SIGCONT)

    def states(self) -> set[str]:
        """The scheduler states of its threads."""
        return {_state(path) for path in Path(f"/proc/{self.pid}/task").iterdir()}

    def wait_until_waiting(self, *calls: str) -> None:
        """Wait until its main thread sleeps in one of these system calls (any that waits by default)."""
        names = _WAITING.get(platform.machine(), {})

        def waiting() -> bool:
            path = Path(f"/proc/{self.pid}")
            if _state(path) != "S":
                return False
            if not names:
                return True
            number = (path / "syscall").read_text().split()[0]
            name = names.get(int(number)) if number.isdigit() else None
            return name is not None and (not calls or name.startswith(calls))

        wait_until(waiting, PATIENCE, "the child to wait")

    def wait_until_its_link_is_empty(self) -> None:
        """Wait until it has heard what it was told, and sleeps again: in the next thing it does."""
        wait_until(lambda: self.link.unheard() == 0, PATIENCE, "the child to listen")
        self.wait_until_waiting()

    def kill(self) -> float:
        """Kill with -9, and return when that was (``time.monotonic``)."""
        at = time.monotonic()
        self.signal(signal.SIGKILL)
        return at

    def join(self, timeout: float = PATIENCE) -> int:
        """Wait for its end and return its exit status; -9 after a kill."""
        if self._status is None:
            pidfd = os.pidfd_open(self.pid)
            try:
                if leaf.wait((pidfd,), int(timeout * 1e9)) < 0:
                    raise TimeoutError(f"child {self.pid} does not end")
            finally:
                os.close(pidfd)
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status

    def end(self, timeout: float = PATIENCE) -> None:
        """Wait until it has ended by itself, without an error."""
        assert self.join(timeout) == 0, "the child failed; its traceback is on stderr"

    def close(self) -> None:
        if self._status is None:
            self.kill()
            self.join()
        self.link.close()


def _state(path: Path) -> str:
    return (path / "stat").read_text().rpartition(")")[2].split()[0]


def fork(function: Callable[[Link], object], *, user: int | None = None) -> Child:
    """Run ``function`` in a forked child, as ``user`` if given. Fork before the test makes capabilities."""
    ours, theirs = leaf.channel()
    leaf.guard(ours)  # no child holds the test's end of another child's line
    leaf.unguard(theirs)
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns where the test runner has a thread
        pid = os.fork()
    if pid == 0:
        _child(function, Link(theirs, guarded=False), user, parent)
    os.close(theirs)
    return Child(pid, Link(ours, guarded=True))


def _child(function: Callable[[Link], object], link: Link, user: int | None, parent: int) -> NoReturn:
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if user is not None:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
        if os.getppid() == parent:
            function(link)
            status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


@contextmanager
def processes() -> Iterator[Callable[..., Child]]:
    """Yield :func:`fork`; every child is gone afterwards."""
    children: list[Child] = []

    def start(function: Callable[[Link], object], *, user: int | None = None) -> Child:
        child = fork(function, user=user)
        children.append(child)
        return child

    try:
        yield start
    finally:
        for child in reversed(children):
            child.close()


class Background:
    """A call in a thread of its own: its result, its error, and when it ended."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self.result: Any = None
        self.error: BaseException | None = None
        self.ended = 0.0
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.result = self._function()
        except BaseException as error:
            self.error = error
        self.ended = time.monotonic()

    def join(self, timeout: float = PATIENCE) -> Any:
        """Return the result, or raise what the call raised."""
        self.thread.join(timeout)
        if self.thread.is_alive():
            raise TimeoutError(f"the call still runs after {timeout} s")
        if self.error is not None:
            raise self.error
        return self.result

    def wait_until_asleep_in(self, gate: Gate) -> Self:
        """Wait until this thread's call has been posted and sleeps."""
        wait_until(lambda: asleep_in_call(gate, self.thread.ident), PATIENCE, "the call to sleep")
        return self


def asleep_in_call(gate: Gate, ident: int | None) -> bool:
    """Whether that thread's session has given up spinning; what it waits for is posted by then."""
    session: Any = gate._sessions.get(ident or 0)
    return session is not None and session.busy and session.stats()["sleeps"] > 0


class Running:
    """A server whose loop runs in a thread of this process, stopped at the end of the block."""

    def __init__(self, server: Any) -> None:
        self.server = server

    def __enter__(self) -> Background:
        self.loop = Background(self.server.loop)
        wait_until(lambda: self.server._thread is not None or not self.loop.thread.is_alive())
        return self.loop

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.loop.thread.is_alive():
            self.server.stop()
        self.loop.thread.join(PATIENCE)


class Echo(Served):
    """Answers with what it was sent; the label says how.

    0 echoes, 1 returns the rights the server sees, 2 the pid, 3 keeps the capabilities, 4 gives ``gift``.
    """

    def __init__(self, *gift: Capability) -> None:
        self.gift = gift
        self.kept: list[Any] = []
        self.heard: list[bytes] = []
        self.gone = 0

    def serve_request(
        self, rights: int, label: int, words: bytes, data: bytes, caps: tuple[Capability | None, ...]
    ) -> tuple[int, bytes, bytes, Any] | None:
        self.heard.append(data)
        self.kept += caps
        match label:
            case 1:
                return 0, b"", bytes([rights]), ()
            case 2:
                return 0, b"", str(os.getpid()).encode(), ()
            case 4:
                return 0, b"", b"", self.gift
        return 0, words, data, ()

    def on_client_gone(self) -> None:
        self.gone += 1

    def drop(self) -> None:
        """Close everything that was kept."""
        for cap in self.kept:
            if cap is not None:
                cap.close()
        self.kept.clear()


def descriptors(pid: int | str = "self") -> int:
    """How many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))
