"""Foreign code in the middle of the leaf: finalizers, signal handlers, other threads, forks, odd numbers.

What these tests would break is memory; ``make sanitize`` runs them where that shows.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from l4re._native import leaf
from l4re.testing import wait_until
from support.processes import PATIENCE, Background, Link, fork

FOREVER = int(PATIENCE * 1e9)


class World:
    """A loop, a port into it, and sessions whose client halves are here, too."""

    def __init__(self) -> None:
        self.client, self.server = leaf.channel()
        self.loop = leaf.open_loop(0)
        self.loop.watch(self.server, "port")
        self.sessions: list[leaf.Session] = []
        self.sources: list[leaf.Source] = []

    def open(self, owner: object = "session") -> leaf.Session:
        session = leaf.open_session(self.client, -1)
        assert session is not None
        data, (sock, memfd) = leaf.recv(self.server) or (b"", (-1, -1))
        assert data[:1] == b"S"
        self.sources.append(self.loop.accept(sock, memfd, owner))
        leaf.unguard(memfd)
        os.close(memfd)
        self.sessions.append(session)
        return session

    def close(self) -> None:
        for session in self.sessions:
            session.close()
        self.loop.close()
        leaf.unguard(self.server)
        os.close(self.server)
        os.close(self.client)


@pytest.fixture
def world() -> Iterator[World]:
    one = World()
    yield one
    one.close()


class Trap:
    """Garbage in a cycle, so that only a collection finds it; runs ``action`` then."""

    def __init__(self, action: Callable[[], object]) -> None:
        self.action: Any = action
        self.myself = self

    def __del__(self) -> None:
        self.action()


@pytest.fixture
def eager_collector() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    yield
    gc.set_threshold(*before)


@pytest.mark.parametrize("what", ["itself", "another", "all"])
def test_a_collection_inside_next_may_close_any_session(world: World, eager_collector: None, what: str) -> None:
    for _ in range(50):
        session = world.open()
        other = world.open()
        for one in (session, other):
            assert one.post(0, b"w" * 64, b"d" * 1000, 0, None) == 0
        doomed = {"itself": world.sources[-2:-1], "another": world.sources[-1:], "all": world.sources[-2:]}[what]
        trap = Trap(lambda doomed=doomed: [source.close() for source in doomed])  # type: ignore[misc]
        del trap
        for _ in range(4):
            event = world.loop.next(0)
            if event is not None and len(event) == 6:
                event[1].reply(0, event[3], event[4], 0, None)
        for one in (session, other):
            one.look()
            one.withdraw()
            one.close()
        for source in world.sources[-2:]:
            source.close()


def test_other_threads_close_sessions_while_the_loop_sleeps_or_spins(world: World) -> None:
    loop = leaf.open_loop(1000)  # spins long
    stop = threading.Event()
    served = 0

    def serve() -> None:
        nonlocal served
        while not stop.is_set():
            event = loop.next(10**7)
            if event is None:
                continue
            if len(event) == 6:
                event[1].reply(0, b"", event[4], 0, None)
                served += 1
            else:
                event[1].close()

    thread = Background(serve)
    try:
        for _ in range(200):
            sessions = []
            for _ in range(3):
                session = leaf.open_session(world.client, -1)
                assert session is not None
                _, (sock, memfd) = leaf.recv(world.server) or (b"", (-1, -1))
                sessions.append((session, loop.accept(sock, memfd, "x")))
                leaf.unguard(memfd)
                os.close(memfd)
            for session, _ in sessions:
                assert session.call(0, b"", b"data", 0, None, FOREVER, 0)[2] == b"data"  # type: ignore[index]
            for session, source in sessions:
                source.close()
                assert session.call(0, b"", b"", 0, None, FOREVER, 0) == leaf.GONE
                session.close()
    finally:
        stop.set()
        thread.join()
        loop.close()
    assert served == 600


def test_other_threads_close_pipes_that_the_loop_reads_ahead() -> None:
    loop = leaf.open_loop(200)
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            loop.next(10**6)

    thread = Background(serve)
    try:
        for turn in range(3000):
            read, write = leaf.pipe()
            source = loop.watch_pipe(read, turn)
            for _ in range(1 + turn % 4):
                leaf.trigger(write)
                time.sleep(0)  # lets the loop look, or not
            source.close()
            os.close(write)
    finally:
        stop.set()
        thread.join()
        loop.close()


def test_more_sessions_than_the_hot_list_holds(world: World) -> None:
    sessions = [world.open(number) for number in range(150)]
    for _ in range(3):
        for session in sessions:
            assert session.post(0, b"", b"", 0, None) == 0
        for _ in sessions:
            event = world.loop.next(FOREVER)
            assert event is not None
            event[1].reply(event[0], b"", b"", 0, None)
        for number, session in enumerate(sessions):
            answer: Any = session.look()
            assert answer[0] == number
    for session in sessions[::2]:
        session.close()
    for _ in sessions[::2]:
        event = world.loop.next(FOREVER)
        assert event is not None
        event[1].close()
    for session in sessions[1::2]:
        assert session.post(0, b"", b"", 0, None) == 0
    assert {world.loop.next(FOREVER)[0] for _ in sessions[1::2]} == set(range(1, 150, 2))


class Index:
    """A number that runs code when it is looked at."""

    def __init__(self, action: Callable[[], object]) -> None:
        self.action = action

    def __index__(self) -> int:
        self.action()
        return 5


def test_a_label_that_closes_what_it_is_sent_over(world: World) -> None:
    label: Any
    session = world.open()
    label = Index(session.close)
    assert session.call(label, b"", b"", 0, None, 0, 0) == leaf.CLOSED
    session = world.open()
    label = Index(session.close)
    assert session.post(label, b"", b"", 0, None) == leaf.CLOSED

    session = world.open()
    assert session.post(0, b"", b"", 0, None) == 0
    event = None
    while event is None or len(event) != 6:
        event = world.loop.next(FOREVER)
    source = event[1]
    label = Index(source.close)
    assert not source.reply(label, b"", b"", 0, None)


def test_a_label_that_calls_over_the_same_session(world: World) -> None:
    session = world.open()
    nested: list[Any] = []
    label: Any = Index(lambda: nested.append(session.post(0, b"", b"inner", 0, None)))
    assert session.call(label, b"", b"outer", 0, None, 0, 0) == leaf.BUSY
    assert nested == [0]
    assert session.withdraw()


@pytest.mark.parametrize("bad", [None, "x", 1 << 64, -(1 << 64), 1.5])
def test_odd_arguments_are_errors(world: World, bad: Any) -> None:
    session = world.open()
    for arguments in (
        (bad, b"", b"", 0, None, 0, 0),
        (0, bad, b"", 0, None, 0, 0),
        (0, b"", bad, 0, None, 0, 0),
        (0, b"", b"", bad, None, 0, 0),
        (0, b"", b"", 0, [bad], 0, 0),
        (0, b"", b"", 0, None, bad, 0),
        (0, b"", b"", 0, None, 0, bad),
    ):
        with pytest.raises((TypeError, OverflowError, ValueError)):
            session.call(*arguments)
    for items, words in ((-1, b""), (17, bytes(504)), (1, b""), (1, bytes(15)), (0, bytes(505))):
        with pytest.raises(ValueError, match="fit"):
            session.call(0, words, b"", items, None, 0, 0)
    with pytest.raises(ValueError, match="fit"):
        session.call(0, b"", bytes(leaf.PAGE_LONG + 1), 0, None, 0, 0)
    with pytest.raises(ValueError, match="descriptors"):
        session.call(0, b"", b"", 0, [0] * 65, 0, 0)


def test_descriptors_that_cannot_be_sent_leave_the_session_as_it_was(world: World) -> None:
    session = world.open()
    with pytest.raises(OSError, match="Bad file"):
        session.call(0, b"", b"", 0, [1 << 20], FOREVER, 0)
    assert session.post(0, b"", b"", 0, None) == 0
    event = world.loop.next(FOREVER)
    assert event is not None
    assert event[1].reply(8, b"", b"", 0, None)
    answer: Any = session.look()
    assert answer[0] == 8


@contextmanager
def interrupted(loop: leaf.Loop, handler: Callable[[], object]) -> Iterator[None]:
    """Run ``handler`` in a signal handler, once, as soon as ``next()`` sleeps in the block."""
    sleeps = loop.stats()["sleeps"]
    before = signal.signal(signal.SIGUSR1, lambda number, frame: handler())

    def interrupt() -> None:
        wait_until(lambda: loop.stats()["sleeps"] > sleeps, PATIENCE)
        os.kill(os.getpid(), signal.SIGUSR1)

    thread = Background(interrupt)
    parent = os.getpid()
    try:
        yield
    finally:
        if os.getpid() == parent:
            thread.join()
            signal.signal(signal.SIGUSR1, before)


def test_a_loop_is_not_closed_under_itself(world: World) -> None:
    caught: list[BaseException] = []

    def handler() -> None:
        for act in (world.loop.close, lambda: world.loop.next(0)):
            try:
                act()
            except RuntimeError as error:
                caught.append(error)

    with interrupted(world.loop, handler):
        while len(caught) < 2:
            assert world.loop.next(10**8) is None


def test_a_loop_that_nobody_closed_is_collected_with_all_it_watches(world: World) -> None:
    loop = leaf.open_loop(0)
    session = leaf.open_session(world.client, -1)
    assert session is not None
    _, (sock, memfd) = leaf.recv(world.server) or (b"", (-1, -1))
    owner: list[Any] = [loop]
    owner.append(loop.accept(sock, memfd, owner))
    leaf.unguard(memfd)
    os.close(memfd)
    del loop, owner
    gc.collect()
    assert session.call(0, b"", b"", 0, None, FOREVER, 0) == leaf.GONE
    session.close()


@pytest.mark.processes
def test_a_forked_child_can_touch_every_object_of_its_parent(world: World) -> None:
    session = world.open()
    other = world.open()
    assert session.post(0, b"", b"", 0, None) == 0
    event = world.loop.next(FOREVER)
    assert event is not None
    source = event[1]

    def child(link: Link) -> None:
        with pytest.raises(TypeError):
            source.mirrors(session)
        assert not source.reply(0, b"", b"", 0, None)
        for one in (session, other):
            assert one.fileno() == -1
            assert one.dead
            one.look()
            assert not one.withdraw()
        assert other.call(0, b"", b"", 0, None, 0, 0) == leaf.STALE
        for act in (lambda: world.loop.next(0), lambda: world.loop.watch(0, "x"), world.loop.fileno):
            with pytest.raises(ValueError, match="fork"):
                act()
        assert not world.loop.settle()
        world.loop.stats()
        source.close()
        session.close()
        other.close()
        world.loop.close()

    process = fork(child)
    process.end()
    process.close()
    assert source.reply(7, b"", b"", 0, None)
    answer: Any = session.look()
    assert answer[0] == 7


@pytest.mark.processes
def test_a_signal_handler_that_forks_inside_next(world: World) -> None:
    """The child comes back into a loop whose pages are not mapped and whose epoll is closed."""
    session = world.open()
    assert session.post(0, b"", b"", 0, None) == 0
    event = world.loop.next(FOREVER)  # it is hot now
    assert event is not None
    event[1].reply(0, b"", b"", 0, None)
    session.look()
    pids: list[int] = []

    def handler() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pids.append(os.fork())

    status = 1
    try:
        with interrupted(world.loop, handler):
            while not pids:
                world.loop.next(10**8)
    except ValueError:
        status = 42
    finally:
        if pids and pids[0] == 0:
            os._exit(status)
    assert status == 1
    assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == 42
