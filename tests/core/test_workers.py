"""Handlers off the loop: in worker threads, and as coroutines."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from l4re import (
    Epiface,
    Err,
    Gate,
    Interface,
    InvalidArgument,
    Iostream,
    L4Error,
    Limits,
    LoopEnd,
    NotFound,
    RegistryServer,
    Reply,
    Rights,
    ServerError,
    ServerObject,
    rpc,
)
from l4re.testing import wait_until
from support.processes import PATIENCE, Background, Child, Link, Running


class Work(Interface):
    protocol = 0x574F

    @rpc
    def wait(self, name: str) -> str:
        raise NotImplementedError

    @rpc
    def fail(self, known: bool) -> None:
        raise NotImplementedError

    @rpc
    def who(self) -> int:
        raise NotImplementedError

    @rpc(oneway=True)
    def note(self, number: int) -> None:
        raise NotImplementedError


class Worked(Work, Epiface):
    """``wait`` returns once somebody released that name."""

    def __init__(self, server: RegistryServer) -> None:
        self.server = server
        self.gates = {name: threading.Event() for name in "abc"}
        self.inside: set[str] = set()
        self.threads: set[int] = set()
        self.notes: list[int] = []
        self.replies: list[Reply] = []

    def wait(self, name: str) -> str:
        self.threads.add(threading.get_ident())
        self.inside.add(name)
        assert self.gates[name].wait(PATIENCE)
        return name * 2

    def fail(self, known: bool) -> None:
        raise NotFound("known") if known else RuntimeError("unknown")

    def who(self) -> int:
        return self.server.caller.label

    def note(self, number: int) -> None:
        if number == 0:
            assert self.gates["c"].wait(PATIENCE)
        self.notes.append(number)


def test_workers_serve_sessions_beside_each_other_while_the_loop_goes_on() -> None:
    with RegistryServer(workers=2) as server:
        obj = Worked(server)
        with server.registry.register_obj(obj).mint() as gate, Running(server) as loop:
            work = Work(gate)
            first, second = Background(lambda: work.wait("a")), Background(lambda: work.wait("b"))
            wait_until(lambda: obj.inside == {"a", "b"})
            assert server.stats().deferred == 2
            obj.gates["b"].set()
            assert second.join() == "bb"
            assert first.thread.is_alive()
            obj.gates["a"].set()
            assert first.join() == "aa"
            assert len(obj.threads) == 2
            assert loop.thread.ident not in obj.threads


def test_what_came_over_one_session_is_served_in_order(caplog: pytest.LogCaptureFixture) -> None:
    with RegistryServer(workers=4, limits=Limits(waiting=20)) as server:
        obj = Worked(server)
        with server.registry.register_obj(obj).mint(0x40) as gate, Running(server), caplog.at_level(logging.ERROR):
            work = Work(gate)
            for number in range(20):
                work.note(number)
            obj.gates["c"].set()
            assert work.who() == 0x40
            assert obj.notes == list(range(20))
            assert not caplog.records


def test_a_session_that_has_too_many_waiting_is_told_and_others_are_served(caplog: pytest.LogCaptureFixture) -> None:
    with RegistryServer(workers=2, limits=Limits(waiting=2)) as server:
        obj = Worked(server)
        local = server.registry.register_obj(obj)
        with local.mint() as gate, local.mint() as other, Running(server), caplog.at_level(logging.ERROR):
            work = Work(gate)
            for number in range(4):
                work.note(number)
            with pytest.raises(L4Error, match="2 requests of one session wait for Worked, the limit"):
                work.who()
            assert "a one-way message was dropped" in caplog.text
            assert Work(other).who() == 0
            obj.gates["c"].set()
            wait_until(lambda: obj.notes == [0, 1, 2])


def test_an_exception_of_a_worker_is_logged_with_its_traceback_and_the_server_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with RegistryServer(workers=1) as server:
        obj = Worked(server)
        with server.registry.register_obj(obj).mint() as gate, Running(server), caplog.at_level(logging.ERROR):
            work = Work(gate)
            with pytest.raises(NotFound, match="known"):
                work.fail(True)
            with pytest.raises(ServerError, match="RuntimeError: unknown"):
                work.fail(False)
            assert [bool(record.exc_info) for record in caplog.records] == [True]
            assert work.who() == 0


def test_a_worker_may_take_the_reply_too() -> None:
    class Taking(Worked):
        def who(self) -> int:
            self.replies.append(self.server.take_reply())
            with pytest.raises(InvalidArgument, match="taken already"):
                self.server.take_reply()
            return -1

    with RegistryServer(workers=1) as server:
        obj = Taking(server)
        with server.registry.register_obj(obj).mint() as gate, Running(server):
            call = Background(lambda: Work(gate).who())
            wait_until(lambda: len(obj.replies) == 1)
            obj.replies[0].answer(5)
            assert call.join() == 5


def test_what_a_client_sent_before_it_ended_is_served_before_the_server_is_orphaned() -> None:
    with RegistryServer(workers=1) as server:
        obj = Worked(server)
        gate = server.registry.register_obj(obj).mint()
        with Running(server) as loop:
            for number in range(5):
                Work(gate).note(number)
            wait_until(lambda: len(server._lanes) == 1)
            gate.close()
            obj.gates["c"].set()
            assert loop.join() is LoopEnd.ORPHANED
            assert obj.notes == list(range(5))


def test_closing_waits_for_the_handler_that_runs_and_sends_its_answer() -> None:
    with RegistryServer(workers=1) as server:
        obj = Worked(server)
        with server.registry.register_obj(obj).mint() as gate:
            with Running(server):
                call = Background(lambda: Work(gate).wait("a"))
                wait_until(lambda: obj.inside == {"a"})
            obj.gates["a"].set()
            server.close()
            assert call.join() == "aa"


def test_a_server_in_a_handler_of_another_server_is_called_and_calls_back() -> None:
    class Relay(ServerObject):
        def __init__(self) -> None:
            self.next: Gate | None = None

        def dispatch(self, rights: Rights, ios: Iostream) -> int:
            count = ios.get(int)
            if count and self.next is not None:
                question = Iostream()
                question << count - 1
                question.call(self.next)
                count = question.get(int) + 1
            ios << count
            return 0

    with RegistryServer() as ping, RegistryServer(workers=2) as pong:
        one, two = Relay(), Relay()
        with ping.registry.register_obj(one).mint() as to_one, pong.registry.register_obj(two).mint() as to_two:
            one.next = to_two
            with Running(ping), Running(pong):
                ios = Iostream()
                ios << 1
                ios.call(to_one)
                assert ios.get(int) == 1
                two.next = pong.registry._bindings[id(two)].object.obj_cap()  # type: ignore[assignment]
                ios.reset()
                ios << 1
                ios.call(to_two)
                assert ios.get(int) == 1


def test_system_exit_in_a_handler_ends_the_loop_and_the_caller_is_told() -> None:
    class Ends(Worked):
        def who(self) -> int:
            raise SystemExit(3)

    for workers in (0, 1):
        with RegistryServer(workers=workers) as server:
            local = server.registry.register_obj(Ends(server))
            with local.mint() as gate:
                loop = Background(server.loop)
                with pytest.raises(ServerError, match="the server is ending"):
                    Work(gate).who()
                with pytest.raises(SystemExit):
                    loop.join()


# ---- coroutines ----


class Async(Work, Epiface):
    def __init__(self, server: RegistryServer) -> None:
        self.server = server
        self.inside: list[str] = []
        self.notes: list[int] = []
        self.cancelled: list[str] = []
        self.go = asyncio.Event()

    async def wait(self, name: str) -> str:  # type: ignore[override]
        self.inside.append(name)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        return name * 2

    async def fail(self, known: bool) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        raise NotFound("known") if known else RuntimeError("unknown")

    async def who(self) -> int:  # type: ignore[override]
        await asyncio.sleep(0)
        return self.server.caller.label

    async def note(self, number: int) -> None:  # type: ignore[override]
        for _ in range(10 - number):
            await asyncio.sleep(0)
        self.notes.append(number)


class AsyncRaw(ServerObject):
    async def dispatch(self, rights: Rights, ios: Iostream) -> int:  # type: ignore[override]
        await asyncio.sleep(0)
        if ios.tag.label == 9:
            return -Err.ENOSPC
        ios << ios.get(int) + 1 << self.obj_cap()
        return 0


def served(server: RegistryServer, program: Callable[[], Awaitable[None]]) -> None:
    """Run ``program`` in the event loop that serves."""

    async def main() -> None:
        task = asyncio.ensure_future(server.serve())
        try:
            await program()
        finally:
            server.stop()
            await task

    asyncio.run(main())


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


def test_coroutines_of_several_sessions_run_beside_each_other() -> None:
    with RegistryServer() as server:
        obj = Async(server)
        with server.registry.register_obj(obj).mint(0x80) as gate:
            work = Work(gate)

            async def program() -> None:
                calls = [Background(lambda name=name: work.wait(name)) for name in "abc"]  # type: ignore[misc]
                await until(lambda: len(obj.inside) == 3)
                assert server.stats().deferred == 3
                assert await asyncio.to_thread(work.who) == 0x80
                obj.go.set()
                results = [await asyncio.to_thread(call.join) for call in calls]
                assert results == ["aa", "bb", "cc"]

            served(server, program)


def test_raw_coroutines_answer_with_values_capabilities_and_errors() -> None:
    with RegistryServer() as server, server.registry.register_obj(AsyncRaw()).mint() as gate:

        def client() -> None:
            ios = Iostream()
            ios << 6
            ios.call(gate)
            assert ios.get(int) == 7
            itself = ios.get(Gate)
            assert itself is not None
            itself.close()
            with pytest.raises(L4Error) as caught:
                ios.call(gate, 9)
            assert caught.value.code == Err.ENOSPC

        served(server, lambda: asyncio.to_thread(client))


def test_errors_of_coroutines_are_those_of_handlers(caplog: pytest.LogCaptureFixture) -> None:
    with RegistryServer() as server:
        local = server.registry.register_obj(Async(server))
        with local.mint() as gate, caplog.at_level(logging.ERROR):

            def client() -> None:
                with pytest.raises(NotFound, match="known"):
                    Work(gate).fail(True)
                with pytest.raises(ServerError, match="RuntimeError: unknown"):
                    Work(gate).fail(False)

            served(server, lambda: asyncio.to_thread(client))
    assert [record.exc_info is not None for record in caplog.records if record.name == "l4re.server"] == [True]


def test_coroutines_of_one_session_run_one_after_the_other() -> None:
    with RegistryServer() as server:
        obj = Async(server)
        with server.registry.register_obj(obj).mint() as gate:

            def client() -> None:
                for number in range(5):
                    Work(gate).note(number)
                Work(gate).who()

            served(server, lambda: asyncio.to_thread(client))
            assert obj.notes == list(range(5))


def test_a_coroutine_is_cancelled_when_its_client_is_gone(start: Callable[..., Child]) -> None:
    def client(link: Link) -> None:
        (gate,) = link.take()
        Work(gate).wait("a")

    child = start(client)
    with RegistryServer() as server:
        obj = Async(server)
        gate = server.registry.register_obj(obj).mint()
        child.give(gate)

        async def program() -> None:
            await until(lambda: obj.inside)
            child.kill()
            await until(lambda: obj.cancelled == ["a"])
            assert server.stats().deferred == 0

        served(server, program)
        gate.close()


def test_stopping_cancels_coroutines_and_their_clients_get_edropreply() -> None:
    with RegistryServer() as server:
        obj = Async(server)
        with server.registry.register_obj(obj).mint() as gate:
            calls: list[Background] = []

            async def program() -> None:
                calls.append(Background(lambda: Work(gate).wait("a")))
                await until(lambda: obj.inside)

            served(server, program)
            assert obj.cancelled == ["a"]
            with pytest.raises(L4Error) as caught:
                calls[0].join()
            assert caught.value.code == Err.EDROPREPLY


@pytest.mark.parametrize("workers", [0, 1])
def test_a_coroutine_under_a_plain_loop_is_an_error_that_says_so(
    workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    with RegistryServer(workers=workers) as server:
        local, raw = server.registry.register_obj(Async(server)), server.registry.register_obj(AsyncRaw())
        with local.mint() as gate, raw.mint() as other, Running(server), caplog.at_level(logging.ERROR):
            with pytest.raises(ServerError, match=r"runs under `await server.serve\(\)` only"):
                Work(gate).who()
            with pytest.raises(ServerError, match=r"runs under `await server.serve\(\)` only"):
                other.call()


def test_workers_and_coroutines_go_together() -> None:
    with RegistryServer(workers=2) as server, server.registry.register_obj(Async(server)).mint(0x20) as gate:

        def client() -> Any:
            assert Work(gate).who() == 0x20
            assert Work(gate).who() == 0x20

        served(server, lambda: asyncio.to_thread(client))
