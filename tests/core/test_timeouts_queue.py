"""The queue of timeouts: under every kind of loop, and costing nothing where there is none."""

from __future__ import annotations

import asyncio
import logging
import select
from typing import Any

import pytest

from l4re import Closed, InvalidArgument, LoopEnd, RegistryServer
from support.processes import PATIENCE, Echo, Running


@pytest.fixture
def server() -> Any:
    with RegistryServer() as it:
        yield it


def test_they_run_in_the_order_of_their_times_and_once(server: RegistryServer) -> None:
    ran: list[int] = []
    for at in (3, 1, 2):
        server.timeouts.add(at / 100, lambda at=at: ran.append(at))  # type: ignore[misc]
    server.timeouts.add(0.04, server.stop)
    assert server.stats().timeouts == 4
    assert server.loop() is LoopEnd.STOPPED
    assert ran == [1, 2, 3]
    assert len(server.timeouts) == 0


def test_a_periodic_one_runs_until_it_cancels_itself(server: RegistryServer) -> None:
    ran: list[float] = []

    def tick() -> None:
        ran.append(timeout.left)
        if len(ran) == 3:
            timeout.cancel()
            timeout.cancel()
            server.stop()

    timeout = server.timeouts.add(0, tick, every=0.01)
    assert server.loop() is LoopEnd.STOPPED
    assert len(ran) == 3
    assert not timeout.pending
    assert len(server.timeouts) == 0


def test_a_cancelled_one_does_not_run_not_even_when_both_were_due(server: RegistryServer) -> None:
    ran: list[str] = []

    def first_of_two() -> None:
        ran.append("first")
        second.cancel()

    first = server.timeouts.add(0, first_of_two)
    second = server.timeouts.add(0, lambda: ran.append("second"))
    assert first.pending
    assert second.pending
    assert server.step(PATIENCE) == 1
    assert ran == ["first"]
    assert server.step(0) == 0
    assert len(server.timeouts) == 0


def test_the_servers_descriptor_becomes_readable_when_one_is_due(server: RegistryServer) -> None:
    ran: list[str] = []
    server.timeouts.add(0.01, lambda: ran.append("due"))
    assert server.step() == 0
    assert select.select([server.fileno()], [], [], PATIENCE)[0]
    assert server.step() == 1
    assert ran == ["due"]
    assert not select.select([server.fileno()], [], [], 0)[0]


def test_they_run_under_serve(server: RegistryServer) -> None:
    server.timeouts.add(0.01, server.stop)
    assert asyncio.run(server.serve()) is LoopEnd.STOPPED


def test_they_run_beside_calls_and_what_one_raises_is_logged(
    server: RegistryServer, caplog: pytest.LogCaptureFixture
) -> None:
    def fails() -> None:
        raise RuntimeError("of a timeout")

    with server.registry.register_obj(Echo()).mint() as gate:
        with caplog.at_level(logging.ERROR), Running(server):
            assert gate.call(b"before").data == b"before"
        server.timeouts.add(0, fails)
        with caplog.at_level(logging.ERROR), Running(server):
            for _ in range(100):
                assert gate.call(b"beside").data == b"beside"
    assert "of a timeout" in caplog.text


def test_they_do_not_keep_a_server_from_being_orphaned(server: RegistryServer) -> None:
    server.timeouts.add(1000, server.stop)
    server.registry.register_obj(Echo()).mint().close()
    assert server.loop() is LoopEnd.ORPHANED


def test_a_server_without_them_has_no_timer_and_one_that_cancels_many_keeps_few(server: RegistryServer) -> None:
    assert server.timeouts._timer is None
    for _ in range(1000):
        server.timeouts.add(1000, server.stop).cancel()
    assert len(server.timeouts) == 0
    assert len(server.timeouts._queue) < 4


def test_a_closed_server_takes_none() -> None:
    server = RegistryServer()
    timeout = server.timeouts.add(1000, server.stop)
    server.close()
    assert not timeout.pending
    with pytest.raises(Closed):
        server.timeouts.add(1, server.stop)


@pytest.mark.parametrize(("seconds", "every"), [(-1, None), (1, 0), (1, -1), (float("inf"), None), (1, float("nan"))])
def test_times_that_never_come_are_refused(server: RegistryServer, seconds: float, every: float | None) -> None:
    with pytest.raises(InvalidArgument):
        server.timeouts.add(seconds, server.stop, every=every)
    assert len(server.timeouts) == 0
