"""The loop: when it ends, who may end it, and how it lives inside other loops."""

from __future__ import annotations

import asyncio
import select
from typing import Any

import pytest

from l4re import Busy, Closed, Gate, InvalidArgument, IrqHandler, LoopEnd, PeerGone, RegistryServer, new_channel
from l4re.testing import wait_until
from support.processes import Background, Echo, Running


class Stops(Echo):
    """Label 9 stops the server from within."""

    def __init__(self, server: RegistryServer) -> None:
        super().__init__()
        self.server = server

    def serve_request(self, *request: Any) -> Any:
        if request[1] == 9:
            self.server.stop()
        return super().serve_request(*request)


class Counter(IrqHandler):
    count = 0

    def dispatch(self) -> None:
        self.count += 1


def readable(server: RegistryServer) -> bool:
    return bool(select.select([server.fileno()], [], [], 0)[0])


# ---- orphaned ----


def test_it_is_never_orphaned_before_the_first_holder_existed() -> None:
    with RegistryServer() as server:
        server.registry.register_obj(Echo())
        irq = server.registry.register_irq_obj(Counter())
        local = server.registry.register_obj(Echo())
        assert local.call(b"mine").data == b"mine"
        irq.trigger()
        assert not server._orphaned()
        with Running(server) as loop:
            assert local.call(b"over a port of our own").data == b"over a port of our own"
            irq.trigger()
            first = local.mint()
            assert loop.thread.is_alive()
            first.close()
            assert loop.join() is LoopEnd.ORPHANED


@pytest.mark.parametrize("last", ["gate", "derived", "session", "irq", "derived irq"])
def test_it_is_orphaned_when_the_last_of_all_holders_is_gone(last: str) -> None:
    with RegistryServer() as server:
        gate = server.registry.register_obj(Echo()).mint()
        irq = server.registry.register_irq_obj(Counter()).dup()
        holders: dict[str, Any] = {"gate": gate, "derived": gate.dup(), "irq": irq, "derived irq": irq.dup()}
        with Running(server) as loop:
            gate.call()
            holders["session"] = gate._sessions.copy().popitem()[1]
            gate._sessions.clear()
            for name, holder in holders.items():
                if name != last:
                    holder.close()
            wait_until(lambda: server.stats().holders == 1)
            assert loop.thread.is_alive()
            holders[last].close()
            assert loop.join() is LoopEnd.ORPHANED


def test_a_receive_right_counts_as_held_until_its_gate_is_gone() -> None:
    gate, svr = new_channel()
    with RegistryServer() as server:
        server.registry.register_obj(Echo(), svr)
        with Running(server) as loop:
            assert gate.call(b"held").data == b"held"
            gate.close()
            assert loop.join() is LoopEnd.ORPHANED


def test_a_gate_that_was_gone_before_the_loop_ran_ends_it_at_once() -> None:
    gate, svr = new_channel()
    gate.close()
    with RegistryServer() as server:
        server.registry.register_obj(Echo(), svr)
        assert server.loop() is LoopEnd.ORPHANED
        assert server.loop() is LoopEnd.ORPHANED


def test_it_lives_again_with_a_new_holder() -> None:
    with RegistryServer() as server:
        local = server.registry.register_obj(Echo())
        for _ in range(3):
            gate = local.mint()
            with Running(server) as loop:
                assert gate.call(b"here").data == b"here"
                gate.close()
                assert loop.join() is LoopEnd.ORPHANED


def test_on_client_gone_may_hand_out_again() -> None:
    gates: list[Gate] = []

    class Replaces(Echo):
        def on_client_gone(self) -> None:
            super().on_client_gone()
            if self.gone < 3:
                gates.append(local.mint())

    with RegistryServer() as server:
        obj = Replaces()
        local = server.registry.register_obj(obj)
        gates.append(local.mint())
        with Running(server) as loop:
            for turn in range(3):
                wait_until(lambda turn=turn: len(gates) > turn)  # type: ignore[misc]
                assert gates[turn].call(b"again").data == b"again"
                gates[turn].close()
            assert loop.join() is LoopEnd.ORPHANED
        assert obj.gone == 3


# ---- stop ----


def test_stop_before_the_loop_ends_the_next_one_only() -> None:
    with RegistryServer() as server:
        gate = server.registry.register_obj(Stops(server)).mint()
        server.stop()
        server.stop()
        assert server.loop() is LoopEnd.STOPPED
        with Running(server) as loop:
            assert gate.call(b"runs").data == b"runs"
            assert loop.thread.is_alive()
            gate.call(label=9)
            assert loop.join() is LoopEnd.STOPPED
        gate.close()


def test_stop_from_a_thread_wakes_a_sleeping_loop_every_time() -> None:
    with RegistryServer() as server:
        gate = server.registry.register_obj(Echo()).mint()
        for _ in range(200):
            loop = Background(server.loop)
            server.stop()
            assert loop.join() is LoopEnd.STOPPED
        gate.close()


def test_stop_from_a_handler_answers_its_caller_first() -> None:
    with RegistryServer() as server:
        gate = server.registry.register_obj(Stops(server)).mint()
        for _ in range(20):
            with Running(server) as loop:
                assert gate.call(b"answered", label=9).data == b"answered"
                assert loop.join() is LoopEnd.STOPPED
        gate.close()


def test_stop_from_an_irq_handler_and_from_on_client_gone() -> None:
    class StopsOnIrq(IrqHandler):
        def dispatch(self) -> None:
            server.stop()

    class StopsOnEnd(Echo):
        def on_client_gone(self) -> None:
            server.stop()

    with RegistryServer() as server:
        irq = server.registry.register_irq_obj(StopsOnIrq())
        local = server.registry.register_obj(StopsOnEnd())
        keeps, goes = local.mint(), local.mint()
        irq.trigger()
        assert server.loop() is LoopEnd.STOPPED
        goes.close()
        assert server.loop() is LoopEnd.STOPPED
        keeps.close()


def test_what_waited_when_it_stopped_is_served_by_the_next_loop() -> None:
    with RegistryServer() as server:
        gate = server.registry.register_obj(Stops(server)).mint()
        with Running(server) as loop:
            gate.call(label=9)
            loop.join()
        call = Background(lambda: gate.call(b"waits")).wait_until_asleep_in(gate)
        assert readable(server)
        with Running(server):
            assert call.join().data == b"waits"
        gate.close()


def test_one_thread_runs_it() -> None:
    class Nested(Echo):
        def serve_request(self, *request: Any) -> Any:
            with pytest.raises(Busy, match="runs already"):
                server.step(0)
            return super().serve_request(*request)

    with RegistryServer() as server:
        gate = server.registry.register_obj(Nested()).mint()
        with Running(server):
            for run in (server.loop, server.step, server.close):
                with pytest.raises(Busy):
                    run()
            assert gate.call(b"well").data == b"well"
        gate.close()
    for use in (server.loop, server.step, server.fileno):
        with pytest.raises(Closed):
            use()
    server.close()
    server.stop()


def test_a_closed_server_cuts_its_callers() -> None:
    server = RegistryServer()
    gate = server.registry.register_obj(Echo()).mint()
    with Running(server):
        gate.call()
    call = Background(gate.call).wait_until_asleep_in(gate)
    server.close()
    with pytest.raises(PeerGone):
        call.join()
    with pytest.raises(PeerGone):
        gate.call()
    gate.close()


# ---- step and fileno ----


def test_step_says_how_much_it_did_and_fileno_whether_there_is_more() -> None:
    with RegistryServer() as server:
        gate = server.registry.register_obj(Echo()).mint()
        assert server.step() == 0
        assert not readable(server)
        call = Background(lambda: gate.call(b"one")).wait_until_asleep_in(gate)
        assert readable(server)
        while call.thread.is_alive():
            server.step(0.01)
        assert call.join().data == b"one"
        while server.step():
            pass
        assert not readable(server)
        gate.close()
        assert readable(server)
        assert server.step(None) > 0


def test_step_waits_no_longer_than_it_is_told() -> None:
    with RegistryServer() as server:
        assert server.step(0.01) == 0
        stopping = Background(server.stop)
        assert server.step(None) == 0  # stop() ends a waiting step
        stopping.join()
        with pytest.raises(InvalidArgument):
            server.step(-1)


def test_a_step_leaves_some_of_a_flood_for_later_and_says_so() -> None:
    with RegistryServer() as server:
        counter = Counter()
        gates = [server.registry.register_obj(Echo()).mint() for _ in range(3)]
        irqs = [server.registry.register_irq_obj(handler) for handler in [counter, *(Counter() for _ in range(299))]]
        for irq in irqs:
            irq.trigger()
        total = server.step()
        assert 0 < total < 300
        assert readable(server)
        while more := server.step():
            total += more
        assert total == 300
        for gate in gates:
            gate.close()


@pytest.mark.parametrize("spin_us", [0, 0.5, 1000.0])
def test_spinning_is_a_choice(spin_us: float) -> None:
    with RegistryServer(spin_us=spin_us) as server:
        gate = server.registry.register_obj(Echo()).mint()
        with Running(server):
            for at in range(200):
                assert gate.call(b"%d" % at).data == b"%d" % at
        gate.close()
    with pytest.raises(InvalidArgument):
        RegistryServer(spin_us=-1)


# ---- asyncio ----


def test_serve_ends_when_orphaned_and_lets_others_run() -> None:
    async def main() -> None:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        with RegistryServer() as server:
            gate = server.registry.register_obj(Echo()).mint()
            task = asyncio.create_task(others())

            def calls() -> None:
                for at in range(200):
                    assert gate.call(b"%d" % at).data == b"%d" % at
                gate.close()

            client = Background(calls)
            assert await asyncio.wait_for(server.serve(), 20) is LoopEnd.ORPHANED
            client.join()
            task.cancel()
        assert turns > 0

    asyncio.run(main())


@pytest.mark.parametrize("how", ["before", "handler", "thread", "task"])
def test_serve_ends_when_stopped(how: str) -> None:
    async def main() -> None:
        with RegistryServer() as server:
            gate = server.registry.register_obj(Stops(server)).mint()
            poke: Background | None = None
            match how:
                case "before":
                    server.stop()
                case "handler":
                    poke = Background(lambda: gate.call(label=9))
                case "thread":
                    poke = Background(server.stop)
                case "task":
                    asyncio.get_running_loop().call_soon(server.stop)
            assert await asyncio.wait_for(server.serve(), 20) is LoopEnd.STOPPED
            if poke is not None:
                poke.join()
            gate.close()

    for _ in range(20):
        asyncio.run(main())


def test_serve_may_be_cancelled_and_goes_on_later() -> None:
    async def main() -> None:
        with RegistryServer() as server:
            gate = server.registry.register_obj(Echo()).mint()
            for _ in range(3):
                task = asyncio.create_task(server.serve())
                call = Background(lambda: gate.call(b"served"))
                while call.thread.is_alive():
                    await asyncio.sleep(0)
                assert call.join().data == b"served"
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            gate.close()
            assert await asyncio.wait_for(server.serve(), 20) is LoopEnd.ORPHANED

    asyncio.run(main())
