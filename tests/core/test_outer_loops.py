"""A server inside somebody else's loop never misses a call, however hot its sessions are."""

from __future__ import annotations

import asyncio
import os
import random
import select
from collections.abc import Callable

import pytest

from l4re import Gate, LoopEnd, RegistryServer
from support.processes import PATIENCE, Child, Echo, Link

pytestmark = pytest.mark.processes

Start = Callable[..., Child]


def yield_at_random(dice: random.Random) -> None:
    """Do nothing, give the CPU away, or be busy for a moment: now and then each."""
    roll = dice.random()
    if roll < 0.02:
        os.sched_yield()
    elif roll < 0.04:
        for _ in range(dice.randrange(2000)):
            pass


def select_loop(link: Link) -> None:
    dice = random.Random(1)
    with RegistryServer() as server:
        link.give(*(server.registry.register_obj(Echo()) for _ in range(2)))
        while not server._orphaned():
            select.select([server.fileno()], [], [])  # without a timeout: what is missed is missed for good
            server.step(0)
            yield_at_random(dice)


def epoll_loop(link: Link) -> None:
    """Edge-triggered, the most forgetful kind."""
    dice = random.Random(2)
    with RegistryServer() as server, select.epoll() as outer:
        link.give(*(server.registry.register_obj(Echo()) for _ in range(2)))
        outer.register(server.fileno(), select.EPOLLIN)
        while not server._orphaned():
            outer.poll()
            server.step(0)
            yield_at_random(dice)


def asyncio_reader(link: Link) -> None:
    dice = random.Random(3)

    async def main() -> None:
        with RegistryServer() as server:
            link.give(*(server.registry.register_obj(Echo()) for _ in range(2)))
            loop = asyncio.get_running_loop()
            over = loop.create_future()

            def ready() -> None:
                server.step(0)
                yield_at_random(dice)
                if server._orphaned() and not over.done():
                    over.set_result(None)

            loop.add_reader(server.fileno(), ready)
            await over
            loop.remove_reader(server.fileno())

    asyncio.run(main())


def asyncio_serve(link: Link) -> None:
    async def others() -> None:
        while True:
            await asyncio.sleep(0)

    async def main() -> None:
        with RegistryServer() as server:
            link.give(*(server.registry.register_obj(Echo()) for _ in range(2)))
            task = asyncio.create_task(others())
            assert await server.serve() is LoopEnd.ORPHANED
            task.cancel()

    asyncio.run(main())


def asyncio_serve_alone(link: Link) -> None:
    async def main() -> None:
        with RegistryServer() as server:
            link.give(*(server.registry.register_obj(Echo()) for _ in range(2)))
            assert await server.serve() is LoopEnd.ORPHANED

    asyncio.run(main())


def plain_loop(link: Link) -> None:
    with RegistryServer() as server:
        link.give(*(server.registry.register_obj(Echo()) for _ in range(2)))
        assert server.loop() is LoopEnd.ORPHANED


LOOPS = [select_loop, epoll_loop, asyncio_reader, asyncio_serve, asyncio_serve_alone, plain_loop]


def call_and_check(gate: Gate, calls: int, seed: int) -> None:
    """A missed call shows as a timeout, an answer to another call as a difference."""
    dice = random.Random(seed)
    for number in range(calls):
        sent = b"%d:%d" % (seed, number)
        assert gate.call(sent, timeout=10 if number & 1 else None).data == sent
        yield_at_random(dice)


def play(start: Start, loop: Callable[[Link], None], calls: int) -> None:
    def client(link: Link) -> None:
        first, second = link.take()
        call_and_check(first, calls // 4, 3)
        call_and_check(second, calls // 4, 4)

    server = start(loop)
    other = start(client)
    gates = server.take()
    other.give(*gates)
    with gates[0], gates[1]:
        for gate in gates:
            call_and_check(gate, calls // 4, 7)
    other.end(PATIENCE + calls / 2000)  # the CPUs need not have been shared fairly
    server.end()


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__name__)
@pytest.mark.parametrize("calls", [32_000, pytest.param(1_000_000, marks=[pytest.mark.soak, pytest.mark.timeout(900)])])
def test_an_outer_loop_never_misses_a_call(start: Start, loop: Callable[[Link], None], calls: int) -> None:
    play(start, loop, calls)
