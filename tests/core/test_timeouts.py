"""Waiting has ways out: timeouts, signals, Ctrl-C. Whatever ends it, the next call works."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from l4re import Busy, Capability, Gate, IpcErr, IpcTimeout, Irq, MemAlloc, PeerGone, RegistryServer, new_channel
from support.processes import Background, Child, Echo, Link, Running, descriptors

Start = Callable[..., Child]
processes = pytest.mark.processes


class Slow(Echo):
    """Says that it has the request, and answers when it is told to."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self.link = link

    def serve_request(
        self, rights: int, label: int, words: bytes, data: bytes, caps: tuple[Capability | None, ...]
    ) -> tuple[int, bytes, bytes, Any] | None:
        if label == 9:
            self.link.say("taken")
            self.link.hear()
        return super().serve_request(rights, label, words, data, caps)


def serve(link: Link) -> None:
    with RegistryServer() as server:
        link.give(server.registry.register_obj(Slow(link)))
        server.loop()


def test_timeouts_take_a_posted_request_back_and_keep_the_session() -> None:
    echo = Echo()
    gate, svr = new_channel()
    with gate, RegistryServer() as server:
        with pytest.raises(IpcTimeout):
            gate.call(timeout=0)
        (session,) = gate._sessions.values()
        before = descriptors()
        for number in range(10_000):
            with pytest.raises(IpcTimeout) as caught:
                gate.call(str(number).encode(), timeout=1e-6)
        assert descriptors() == before
        assert list(gate._sessions.values()) == [session]
        assert caught.value.code == IpcErr.SETIMEOUT.code
        server.registry.register_obj(echo, svr)
        with Running(server):
            assert gate.call(b"at last").data == b"at last"
            assert list(gate._sessions.values()) == [session]
        assert echo.heard == [b"at last"], "a request that was taken back was served"


def test_a_timeout_of_a_call_with_capabilities_leaves_them_usable() -> None:
    echo = Echo()
    gate, svr = new_channel()
    with gate, Irq.create() as irq, RegistryServer() as server:
        before = descriptors()
        for _ in range(20):
            with pytest.raises(IpcTimeout):
                gate.call(caps=(irq,), timeout=1e-6)
        assert descriptors() <= before + 2 + 20 * 2  # the receiver's pins: their other ends lie in the queue
        server.registry.register_obj(echo, svr)
        with Running(server):
            gate.call(b"at last", caps=(irq,))
        assert echo.heard == [b"at last"]
        echo.kept[0].trigger()
        irq.receive(timeout=10)
        echo.drop()


@processes
def test_a_timeout_after_the_server_took_the_request_abandons_it(start: Start) -> None:
    child = start(serve)
    (gate,) = child.take()
    with gate:
        code = None
        while code != IpcErr.RETIMEOUT.code:  # until it was taken, not withdrawn
            with pytest.raises(IpcTimeout) as caught:
                gate.call(b"never", label=9, timeout=0.02)
            code = caught.value.code
        assert child.hear() == "taken"
        next_call = Background(lambda: gate.call(b"next"))
        child.say("go on")
        assert next_call.join().data == b"next"
        assert gate.call(b"third").data == b"third"


@processes
def test_an_abandoned_answer_is_never_taken_for_another(start: Start) -> None:
    child = start(serve)
    (gate,) = child.take()
    with gate:
        before = descriptors()
        for number in range(20):
            code = None
            while code != IpcErr.RETIMEOUT.code:  # until one was taken, not withdrawn
                with pytest.raises(IpcTimeout) as caught:
                    gate.call(f"old {number}".encode(), label=9, timeout=0.005)
                code = caught.value.code
            call = Background(lambda number=number: gate.call(f"new {number}".encode(), timeout=20))  # type: ignore[misc]
            assert child.hear() == "taken"
            child.say("go on")
            assert call.join().data == f"new {number}".encode()
        assert gate.call(b"last").data == b"last"
        assert descriptors() <= before + 1


def interrupt(child: Child, *calls: str) -> None:
    """Send Ctrl-C once the child sleeps, and wait until it says that it noticed."""
    child.wait_until_waiting(*calls)
    child.signal(signal.SIGINT)
    assert child.hear() == "interrupted"


@processes
@pytest.mark.parametrize("timeout", [None, 1000.0])
def test_ctrl_c_interrupts_a_waiting_call(start: Start, timeout: float | None) -> None:
    def client(link: Link) -> None:
        (gate,) = link.take()
        try:
            gate.call(b"never", timeout=timeout)
        except KeyboardInterrupt:
            link.say("interrupted")
        assert link.hear() == "go on"
        (session,) = gate._sessions.values()
        assert gate.call(b"next").data == b"next"
        assert list(gate._sessions.values()) == [session]  # the posted request was taken back

    child = start(client)
    echo = Echo()
    gate, svr = new_channel()
    with gate, RegistryServer() as server:
        child.give(gate)
        child.wait_until_its_link_is_empty()
        interrupt(child, "recvmsg", "ppoll")
        server.registry.register_obj(echo, svr)
        child.say("go on")
        with Running(server):
            child.end()
        assert echo.heard == [b"next"]


@processes
def test_ctrl_c_interrupts_a_call_that_the_server_has_taken(start: Start) -> None:
    def client(link: Link) -> None:
        (gate,) = link.take()
        try:
            gate.call(b"never", label=9)
        except KeyboardInterrupt:
            link.say("interrupted")
        assert link.hear() == "go on"
        assert gate.call(b"next").data == b"next"

    child, server = start(client), start(serve)
    (gate,) = server.take()
    with gate:
        child.give(gate)
        assert server.hear() == "taken"
        interrupt(child, "recvmsg", "ppoll")
        server.say("go on")
        child.say("go on")
        child.end()


@processes
def test_ctrl_c_interrupts_a_waiting_loop(start: Start) -> None:
    def serving(link: Link) -> None:
        with RegistryServer() as server:
            link.give(server.registry.register_obj(Echo()))
            try:
                server.loop()
            except KeyboardInterrupt:
                link.say("interrupted")
            server.loop()

    child = start(serving)
    (gate,) = child.take()
    with gate:
        assert gate.call(b"before").data == b"before"
        interrupt(child, "epoll")
        assert gate.call(b"after").data == b"after"


@processes
def test_ctrl_c_interrupts_a_waiting_step_and_a_waiting_irq(start: Start) -> None:
    def waiting(link: Link) -> None:
        with RegistryServer() as server:
            try:
                server.step(None)
            except KeyboardInterrupt:
                link.say("interrupted")
        with Irq.create() as irq:
            link.hear()
            for timeout in (None, 1000.0):
                try:
                    irq.receive(timeout)
                except KeyboardInterrupt:
                    link.say("interrupted")
            irq.trigger()
            irq.receive()

    child = start(waiting)
    interrupt(child, "epoll")
    child.say("go on")
    child.wait_until_its_link_is_empty()
    interrupt(child, "epoll")
    interrupt(child, "epoll")
    child.end()


@processes
def test_ctrl_c_in_a_handler_answers_its_caller_and_ends_the_loop(start: Start) -> None:
    class Interrupted(Echo):
        def serve_request(self, *request: Any) -> Any:
            os.kill(os.getpid(), signal.SIGINT)
            signal.pause()

    def serving(link: Link) -> None:
        with RegistryServer() as server:
            link.give(server.registry.register_obj(Interrupted()))
            with pytest.raises(KeyboardInterrupt):
                server.loop()

    child = start(serving)
    (gate,) = child.take()
    with gate:
        with pytest.raises(Exception, match=r"ending|ended"):
            gate.call()
        child.end()


# ---- signal handlers in this process ----


@pytest.fixture
def on_signal() -> Iterator[Callable[[Callable[[], object]], None]]:
    """``on_signal(function)`` makes SIGUSR1 run it in the main thread."""
    before = signal.getsignal(signal.SIGUSR1)

    def install(function: Callable[[], object]) -> None:
        def handler(number: int, frame: FrameType | None) -> None:
            function()

        signal.signal(signal.SIGUSR1, handler)

    yield install
    signal.signal(signal.SIGUSR1, before)


@processes
@pytest.mark.parametrize("depth", [1, 5])
@pytest.mark.parametrize("with_caps", [False, True])
def test_a_nested_call_from_a_signal_handler_works(start: Start, depth: int, with_caps: bool) -> None:
    """The server stands still until every level has posted; then each gets its own answer."""

    def client(link: Link) -> None:
        gate, gift = link.take()
        caps = (gift,) if with_caps else ()
        answers = []
        level = 0

        def nested(number: int, frame: FrameType | None) -> None:
            nonlocal level
            level += 1
            mine = str(level).encode()
            link.say(f"level {level}")
            answers.append(gate.call(mine, caps=caps).data == mine)

        signal.signal(signal.SIGUSR1, nested)
        assert gate.call(b"warm").data == b"warm"
        link.say("ready")
        link.hear()
        answers.append(gate.call(b"outer", caps=caps).data == b"outer")
        assert answers == [True] * (depth + 1)
        assert gate.call(b"after").data == b"after"
        assert len(gate._spares) == depth
        before = descriptors()
        for _ in range(100):
            gate.call()
        assert descriptors() == before

    doing, serving = start(client), start(serve)
    (gate,) = serving.take()
    with gate, Irq.create() as irq:
        doing.give(gate, irq)
        assert doing.hear() == "ready"
        serving.stop()
        doing.say("go")
        doing.wait_until_its_link_is_empty()
        for level in range(1, depth + 1):
            doing.wait_until_waiting()
            doing.signal(signal.SIGUSR1)
            assert doing.hear() == f"level {level}"
        doing.wait_until_waiting()
        serving.go_on()
        doing.end()


class Interruption(Exception):
    """What a signal handler raises here."""


@processes
@pytest.mark.parametrize(
    "error", [Interruption, ValueError, KeyboardInterrupt, TimeoutError], ids=lambda error: error.__name__
)
@pytest.mark.parametrize("moment", ["posted", "taken"])
def test_what_a_signal_handler_raises_ends_the_call_and_the_gate_goes_on(
    start: Start, error: type[BaseException], moment: str
) -> None:
    def client(link: Link) -> None:
        (gate,) = link.take()

        def handler(number: int, frame: FrameType | None) -> None:
            raise error("from the handler")

        signal.signal(signal.SIGUSR1, handler)
        gate.call(b"warm")
        memory = MemAlloc().alloc(4096).ro
        calls: list[Callable[[], object]] = [
            lambda: gate.call(b"never", label=9),
            lambda: gate.transact(9, b"", b"never"),
            lambda: gate.call(b"never", label=9, timeout=100),
            lambda: gate.transact(9, b"", b"never", (memory,)),
            lambda: gate.call(b"never", label=9, caps=(memory, gate)),
        ]
        for call in calls:
            link.say("calling")
            link.hear()
            with pytest.raises(error, match="from the handler"):
                call()
            link.say("interrupted")
            assert link.hear() == "server goes on"
            assert gate.call(b"next").data == b"next"
        before = descriptors()
        for _ in range(100):
            gate.call()
        assert descriptors() == before

    child, server = start(client), start(serve)
    (gate,) = server.take()
    with gate:
        child.give(gate)
        for _ in range(5):
            assert child.hear() == "calling"
            if moment == "posted":
                server.stop()
            child.say("call")
            if moment == "taken":
                assert server.hear() == "taken"
            child.wait_until_its_link_is_empty()
            child.signal(signal.SIGUSR1)
            assert child.hear() == "interrupted"
            if moment == "posted":
                server.go_on()
            else:
                server.say("go on")
            child.say("server goes on")
        child.end()
    if moment == "taken":
        server.signal(signal.SIGKILL)
        assert server.hear() == "", "a request was served twice"


def test_a_call_from_a_finalizer_in_a_call_works(on_signal: Callable[[Callable[[], object]], None]) -> None:
    echo = Echo()
    gate, svr = new_channel()
    with gate, RegistryServer() as server:
        server.registry.register_obj(echo, svr)
        with Running(server):
            gate.call()

            class Calls:
                def __del__(self) -> None:
                    answers.append(gate.call(b"finalizer").data)

            answers: list[bytes] = []
            on_signal(Calls)
            for number in range(200):
                signal.raise_signal(signal.SIGUSR1)
                assert gate.call(str(number).encode()).data == str(number).encode()
            assert answers == [b"finalizer"] * 200


@pytest.mark.parametrize("timeout", [-1.0, float("nan"), -float("inf")])
def test_a_timeout_that_is_no_time_is_refused(timeout: float) -> None:
    gate, svr = new_channel()
    with gate, svr, pytest.raises(ValueError, match="timeout"):
        gate.call(timeout=timeout)


# ---- a port that is full ----


def fill(gate: Gate) -> list[Gate]:
    """Hand the gate on until its port takes no more."""
    more: list[Gate] = []
    try:
        while len(more) < 10_000:
            more.append(gate.dup())
    except Busy:
        return more
    raise AssertionError("a port takes any number of messages")


def test_a_call_through_a_full_port_waits_for_room() -> None:
    gate, svr = new_channel()
    with RegistryServer() as server:
        more = fill(gate)
        with pytest.raises(IpcTimeout):
            gate.call(timeout=0.01)
        call = Background(lambda: gate.call(b"room at last"))
        server.registry.register_obj(Echo(), svr)
        with Running(server):
            assert call.join().data == b"room at last"
            assert more[-1].call(b"the last of many").data == b"the last of many"
            for one in (gate, *more):
                one.close()


@processes
def test_a_call_that_waits_for_room_in_a_port_learns_of_the_end(start: Start) -> None:
    def holds(link: Link) -> None:
        rights = link.take()
        link.say("taken")
        link.wait_for_end()
        del rights

    def client(link: Link) -> None:
        (gate,) = link.take()
        more = fill(gate)
        link.say("full")
        with pytest.raises(KeyboardInterrupt):
            gate.call(b"never")
        link.say("interrupted")
        with pytest.raises(PeerGone):
            gate.call(b"never")
        with pytest.raises(PeerGone):
            more[0].call()

    doing, holder = start(client), start(holds)
    gate, svr = new_channel()
    holder.give(svr)
    assert holder.hear() == "taken"
    with gate:
        doing.give(gate)
        assert doing.hear() == "full"
        interrupt(doing, "ppoll")
        doing.wait_until_waiting("ppoll")
        holder.kill()
        doing.end()


@processes
def test_a_call_behind_a_one_way_message_waits_no_longer_than_told(start: Start) -> None:
    child = start(serve)
    (gate,) = child.take()
    with gate:
        gate.call(b"warm")
        child.stop()
        gate.transact(0, b"", b"one-way", oneway=True)
        for oneway in (False, True):
            with pytest.raises(IpcTimeout) as caught:
                gate.transact(0, b"", b"behind", timeout=0.01, oneway=oneway)
            assert caught.value.code == IpcErr.SETIMEOUT.code
        child.go_on()
        assert gate.call(b"after").data == b"after"
