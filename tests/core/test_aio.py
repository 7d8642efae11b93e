"""Calls of asyncio programs: any number under way, none of them in the way of another, and none that hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from l4re import Gate, IpcTimeout, Irq, PeerGone, RegistryServer, new_channel
from l4re.testing import wait_until
from support.processes import Background, Child, Echo, Link, descriptors

pytestmark = pytest.mark.processes

Start = Callable[..., Child]


class Stuck(Echo):
    """Says that it has the request, and never answers."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self.link = link

    def serve_request(self, *request: Any) -> Any:
        if request[1] == 9:
            self.link.say("taken")
            self.link.wait_for_end()
        return super().serve_request(*request)


def serve(link: Link) -> None:
    with RegistryServer() as server:
        link.give(server.registry.register_obj(Stuck(link)))
        server.loop()


async def ask(gate: Gate, text: bytes, **options: Any) -> bytes:
    return (await gate.transact_async(0, b"", text, **options))[2]


def test_a_hundred_calls_are_under_way_at_once(start: Start) -> None:
    server = start(serve)
    (gate,) = server.take()

    async def main() -> None:
        for _ in range(3):
            server.stop()
            calls = [asyncio.create_task(ask(gate, b"%d" % at)) for at in range(100)]
            await asyncio.sleep(0)
            server.go_on()
            assert await asyncio.gather(*calls) == [b"%d" % at for at in range(100)]
        assert await ask(gate, b"after") == b"after"

    with gate:
        before = descriptors()
        asyncio.run(main())
        assert descriptors() <= before + 8, "more idle sessions were kept than anybody needs"
        assert gate.call(b"and without asyncio").data == b"and without asyncio"


@pytest.mark.parametrize("moment", ["posted", "taken", "queued"])
def test_a_task_learns_that_its_server_was_killed(start: Start, moment: str) -> None:
    child = start(serve)
    (gate,) = child.take()
    if moment == "queued":
        child.stop()

    async def main() -> None:
        if moment != "queued":
            assert await ask(gate, b"warm") == b"warm"
        if moment == "posted":
            child.stop()
        label = 9 if moment == "taken" else 0
        calls = [asyncio.create_task(gate.transact_async(label, b"", b"never")) for _ in range(3)]
        await asyncio.sleep(0)
        if moment == "taken":
            await asyncio.to_thread(child.hear)
        child.kill()
        for call in calls:
            with pytest.raises(PeerGone):
                await asyncio.wait_for(call, 10)
        with pytest.raises(PeerGone):
            await asyncio.wait_for(ask(gate, b"again"), 10)

    with gate:
        asyncio.run(main())


def test_timeouts_and_cancelled_calls_give_their_sessions_back() -> None:
    gate, svr = new_channel()

    async def main() -> None:
        for at in range(500):
            with pytest.raises(IpcTimeout):
                await ask(gate, b"%d" % at, timeout=0.0001)
            task = asyncio.create_task(ask(gate, b"cancelled"))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    with gate, svr:
        with pytest.raises(IpcTimeout):
            gate.call(timeout=0)
        before = descriptors()
        asyncio.run(main())
        assert descriptors() <= before + 1


def test_capabilities_travel_both_ways() -> None:
    channel = new_channel()

    async def main() -> None:
        with RegistryServer() as server, channel.gate as gate, Irq.create() as irq:
            echo = Echo(server.registry.register_obj(Echo()))
            server.registry.register_obj(echo, channel.svr)
            serving = asyncio.create_task(server.serve())
            caller = Background(lambda: asyncio.run(from_another_thread(gate, irq)))
            await asyncio.wait_for(irq.wait(), 20)
            while caller.thread.is_alive():
                await asyncio.sleep(0.001)
            caller.join()
            echo.drop()
            server.stop()
            await serving

    async def from_another_thread(gate: Gate, irq: Irq) -> None:
        for _ in range(20):
            await gate.transact_async(3, b"", b"", (irq,))
        answer = await gate.transact_async(4, b"")
        (given,) = answer[3]
        assert isinstance(given, Gate)
        with given:
            assert await ask(given, b"given") == b"given"
        irq.trigger()

    asyncio.run(main())


def test_an_end_of_the_program_in_the_middle_of_a_call_leaves_nothing(start: Start) -> None:
    child = start(serve)
    (gate,) = child.take()

    async def main() -> None:
        task = asyncio.create_task(gate.transact_async(9, b"", b"never"))
        await asyncio.to_thread(child.hear)
        assert not task.done()

    before = descriptors()
    asyncio.run(main())
    assert descriptors() <= before
    gate.close()
    child.kill()
    wait_until(lambda: "Z" in child.states())
