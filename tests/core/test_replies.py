"""Deferred replies: taken by a handler, answered later, by whom and however it may be."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from l4re import (
    Dataspace,
    Epiface,
    Err,
    Exists,
    Interface,
    InvalidArgument,
    Iostream,
    L4Error,
    NotFound,
    PeerGone,
    RegistryServer,
    Reply,
    Rights,
    ServerError,
    ServerObject,
    env,
    rpc,
)
from l4re.testing import wait_until
from l4re.wire.session import State
from support.processes import PATIENCE, Background, Child, Link, Running
from support.rawpeer import RawClient


class Desk(Interface):
    protocol = 0x4445

    @rpc
    def ask(self, number: int) -> tuple[int, str]:
        raise NotImplementedError

    @rpc
    def memory(self) -> Dataspace:
        raise NotImplementedError

    @rpc
    def fails(self) -> None:
        raise NotImplementedError

    @rpc(oneway=True)
    def note(self) -> None:
        raise NotImplementedError


class Later(Desk, Epiface):
    """Answers nothing by itself."""

    def __init__(self, server: RegistryServer) -> None:
        self.server = server
        self.replies: list[Reply] = []
        self.said: list[str] = []

    def ask(self, number: int) -> tuple[int, str]:
        self.replies.append(self.server.take_reply())
        if number == 2:
            with pytest.raises(InvalidArgument, match="taken already"):
                self.server.take_reply()
        return 0, "not sent"

    def memory(self) -> Any:
        self.replies.append(self.server.take_reply())

    def fails(self) -> None:
        self.replies.append(self.server.take_reply())
        raise NotFound("after the reply was taken")

    def note(self) -> None:
        try:
            self.server.take_reply()
        except InvalidArgument as error:
            self.said.append(str(error))


class RawLater(ServerObject):
    def __init__(self, server: RegistryServer) -> None:
        self.server = server
        self.replies: list[Reply] = []

    def dispatch(self, rights: Rights, ios: Iostream) -> int:
        self.replies.append(self.server.take_reply())
        return -Err.EINVAL


def waiting(obj: Later | RawLater, count: int = 1) -> list[Reply]:
    wait_until(lambda: len(obj.replies) == count)
    return obj.replies


def test_a_typed_call_is_answered_later_from_another_thread_with_values_and_with_capabilities() -> None:
    with RegistryServer() as server:
        obj = Later(server)
        with server.registry.register_obj(obj).mint() as gate, Running(server):
            desk = Desk(gate)
            call = Background(lambda: desk.ask(1))
            (reply,) = waiting(obj)
            assert not reply.settled
            assert server.stats().deferred == server.registry.stats(obj).deferred == 1
            with pytest.raises(TypeError, match="has 2 results, 1 were given"):
                reply.answer(1)
            assert reply.answer(7, "seven")
            assert call.join() == (7, "seven")
            with pytest.raises(Exists, match="already"):
                reply.answer(8, "eight")
            call = Background(lambda: desk.memory())
            with env().mem_alloc.alloc(10) as memory:
                memory.write(0, b"lent")
                assert waiting(obj, 2)[1].answer(memory.ro)
            with call.join() as received:
                assert received.read(0, 4) == b"lent"
            assert server.stats().deferred == 0


def test_a_raw_call_is_answered_later_with_what_is_written_or_with_an_error() -> None:
    with RegistryServer() as server:
        obj = RawLater(server)
        with server.registry.register_obj(obj).mint() as gate, Running(server):
            ios = Iostream()
            call = Background(lambda: ios.call(gate))
            waiting(obj)[0].answer(7, "x", label=5)
            assert call.join().label == 5
            assert (ios.get(int), ios.get(str)) == (7, "x")
            for error, found in ((NotFound("there is none"), NotFound), (Err.EAGAIN, L4Error)):
                call = Background(gate.call)
                wait_until(lambda: not obj.replies[-1].settled)
                obj.replies[-1].fail(error)
                with pytest.raises(found):
                    call.join()


def test_several_are_outstanding_at_a_time_and_answered_in_any_order() -> None:
    with RegistryServer() as server:
        obj = Later(server)
        with server.registry.register_obj(obj).mint() as gate, Running(server):
            desk = Desk(gate)
            calls = []
            for at in range(1, 9):
                calls.append(Background(lambda at=at: desk.ask(at)))  # type: ignore[misc]
                waiting(obj, at)
            for at in reversed(range(8)):
                obj.replies[at].answer(at, "late")
                assert calls[at].join() == (at, "late")


@pytest.mark.parametrize("how", ["closed", "collected"])
def test_one_that_is_dropped_answers_edropreply(how: str) -> None:
    with RegistryServer() as server:
        obj = Later(server)
        with server.registry.register_obj(obj).mint() as gate, Running(server):
            call = Background(lambda: Desk(gate).ask(1))
            waiting(obj)
            if how == "closed":
                obj.replies[0].close()
                obj.replies[0].close()
            else:
                obj.replies.clear()
            with pytest.raises(L4Error, match="dropped the reply") as caught:
                call.join()
            assert caught.value.code == Err.EDROPREPLY


def test_a_handler_that_raises_after_taking_the_reply_has_answered_with_that() -> None:
    with RegistryServer() as server:
        obj = Later(server)
        with server.registry.register_obj(obj).mint() as gate, Running(server):
            with pytest.raises(NotFound, match="after the reply was taken"):
                Desk(gate).fails()
            assert obj.replies[0].settled


def test_one_way_messages_and_calls_of_the_own_thread_have_no_reply_to_take(caplog: pytest.LogCaptureFixture) -> None:
    with RegistryServer() as server:
        obj = Later(server)
        local = server.registry.register_obj(obj)
        with local.mint() as gate:
            Desk(gate).note()
            server.step(1)
            assert "one-way" in obj.said[0]
            with pytest.raises(InvalidArgument, match="waits for the answer here"):
                Desk(local).ask(1)
        with pytest.raises(InvalidArgument, match="no request is being served"):
            server.take_reply()


def test_a_client_that_is_killed_is_gone_and_answering_it_is_harmless(start: Callable[..., Child]) -> None:
    def client(link: Link) -> None:
        (gate,) = link.take()
        link.say("calling")
        Desk(gate).ask(1)

    child = start(client)
    with RegistryServer() as server:
        obj = Later(server)
        with server.registry.register_obj(obj).mint() as gate:
            child.give(gate)
            with Running(server):
                (reply,) = waiting(obj)
                assert not reply.gone
                child.kill()
                wait_until(lambda: reply.gone, PATIENCE)
                assert not reply.answer(1, "nobody hears")
                assert server.stats().deferred == 0
                call = Background(lambda: Desk(gate).ask(2))
                assert waiting(obj, 2)[1].answer(2, "served on")
                assert call.join() == (2, "served on")


@pytest.mark.parametrize("how", ["unregistered", "closed"])
def test_unregistering_and_closing_settle_what_is_outstanding(how: str) -> None:
    with RegistryServer() as server:
        obj = Later(server)
        with server.registry.register_obj(obj).mint() as gate:
            call = Background(lambda: Desk(gate).ask(1))
            while not obj.replies:
                server.step(1)
            server.registry.unregister_obj(obj) if how == "unregistered" else server.close()
            with pytest.raises(PeerGone, match=how):
                call.join()
            assert obj.replies[0].gone
            assert not obj.replies[0].answer(1, "late")


def test_an_unexpected_exception_reaches_the_client_through_fail_with_its_traceback_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with RegistryServer() as server:
        obj = Later(server)
        with server.registry.register_obj(obj).mint() as gate, Running(server):
            call = Background(lambda: Desk(gate).ask(1))
            with caplog.at_level(logging.ERROR):
                waiting(obj)[0].fail(RuntimeError("broken"))
            with pytest.raises(ServerError, match="Later raised RuntimeError: broken"):
                call.join()
            assert any(record.exc_info for record in caplog.records)


def test_threads_that_answer_at_once_settle_it_once() -> None:
    with RegistryServer() as server:
        obj = Later(server)
        with server.registry.register_obj(obj).mint() as gate, Running(server):
            call = Background(lambda: Desk(gate).ask(1))
            (reply,) = waiting(obj)
            outcomes: list[bool] = []
            barrier = threading.Barrier(4)

            def answer(at: int) -> None:
                barrier.wait(PATIENCE)
                try:
                    outcomes.append(reply.answer(at, "first"))
                except Exists:
                    outcomes.append(False)

            racers = [Background(lambda at=at: answer(at)) for at in range(4)]  # type: ignore[misc]
            for racer in racers:
                racer.join()
            assert sorted(outcomes) == [False, False, False, True]
            assert call.join()[1] == "first"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_client_that_asks_again_before_its_answer_loses_its_session_or_the_answer_and_others_are_served(
    workers: int,
) -> None:
    with RegistryServer(workers=workers) as server:
        obj = RawLater(server)
        local = server.registry.register_obj(obj)
        with local.mint() as gate, local.mint() as honest, RawClient(gate.fileno()) as raw, Running(server):
            first = raw.post()
            waiting(obj)
            raw.page.set_state(first + 1, State.POSTED)
            raw.ring()
            if workers:
                waiting(obj, 2)
                assert not obj.replies[0].answer()  # not to the second question
            else:
                raw.ended()
                assert obj.replies[0].gone
                assert not obj.replies[0].answer()
            call = Background(honest.call)
            waiting(obj, 3 if workers else 2)
            assert obj.replies[-1].answer()
            call.join()
