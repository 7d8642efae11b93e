"""IRQs: what comes together counts once, every holder has its own pipe, and both sides learn of the other's end."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from l4re import (
    Busy,
    Closed,
    Exists,
    IpcTimeout,
    Irq,
    IrqHandler,
    LoopEnd,
    PeerGone,
    PermissionDenied,
    RegistryServer,
    Rights,
)
from support.processes import PATIENCE, Background, Child, Echo, Link, Running, descriptors

Start = Callable[..., Child]
processes = pytest.mark.processes


class Counter(IrqHandler):
    count = 0

    def dispatch(self) -> None:
        self.count += 1


def weakened(irq: Irq, rights: Rights) -> Irq:
    export = irq.export(rights)
    return Irq(export.owned[0], export.owned[1], export.rights)


def trigger_once(link: Link) -> None:
    (irq,) = link.take()
    irq.trigger()


# ---- delivery ----


def test_five_triggers_before_a_look_are_one_delivery() -> None:
    with Irq.create() as irq:
        for _ in range(5):
            irq.trigger()
        irq.receive()
        with pytest.raises(IpcTimeout):
            irq.receive(timeout=0)
        irq.trigger()
        irq.receive(timeout=10)


def test_five_triggers_of_different_holders_are_one_delivery_too() -> None:
    with Irq.create() as irq:
        holders = [irq.dup() for _ in range(5)]
        for holder in holders:
            holder.trigger()
        irq.receive()
        with pytest.raises(IpcTimeout):
            irq.receive(timeout=0)
        for holder in holders:
            holder.close()


def test_a_handler_runs_once_for_what_came_together() -> None:
    with RegistryServer() as server:
        counter = Counter()
        irq = server.registry.register_irq_obj(counter)
        for _ in range(5):
            irq.trigger()
        assert server.step() == 1
        assert counter.count == 1
        irq.trigger()
        server.step(None)
        assert counter.count == 2
        assert server.step() == 0
        with pytest.raises(Exists):
            server.registry.register_irq_obj(counter)


def test_a_trigger_during_the_handler_is_not_lost() -> None:
    class Retriggers(Counter):
        def dispatch(self) -> None:
            super().dispatch()
            if self.count < 1000:
                irq.trigger()

    with RegistryServer() as server:
        handler = Retriggers()
        irq = server.registry.register_irq_obj(handler)
        irq.trigger()
        while server.step():
            pass
        assert handler.count == 1000


def test_a_full_pipe_is_a_pending_trigger_and_trigger_never_waits() -> None:
    with Irq.create() as irq, irq.dup() as holder:
        for _ in range(100_000):  # more than a pipe holds
            holder.trigger()
        irq.receive(timeout=0)
        while True:  # what is left of the flood
            try:
                irq.receive(timeout=0)
            except IpcTimeout:
                break
        holder.trigger()
        irq.receive(timeout=0)


def test_a_handler_that_raises_does_not_end_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    class Raises(IrqHandler):
        def dispatch(self) -> None:
            raise KeyError("boo")

    with RegistryServer() as server:
        irq = server.registry.register_irq_obj(Raises())
        irq.trigger()
        assert server.step() == 1
        irq.trigger()
        assert server.step() == 1
    assert caplog.text.count("KeyError: ") == 2
    caplog.clear()  # its tracebacks hold what the test must give back


# ---- waiting ----


def test_receive_waits_for_a_trigger_and_no_longer_than_told() -> None:
    with Irq.create() as irq:
        waiting = Background(irq.receive)
        with irq.dup() as holder:
            holder.trigger()
            waiting.join()
            before = time.monotonic()
            with pytest.raises(IpcTimeout):
                irq.receive(timeout=0.05)
            assert time.monotonic() - before >= 0.05


def test_hand_overs_do_not_stretch_a_timeout() -> None:
    """Who hands the irq on again and again wakes the receiver without triggering it."""
    with Irq.create() as irq, irq.dup() as holder:
        go_on = True

        def derives() -> None:
            while go_on:
                with suppress(Busy):  # as long as the receiver does not get to look
                    holder.dup().close()

        flood = Background(derives)
        before = time.monotonic()
        with pytest.raises(IpcTimeout):
            irq.receive(timeout=0.2)
        assert time.monotonic() - before < 5
        go_on = False
        flood.join()


def test_its_descriptor_is_readable_while_a_trigger_waits() -> None:
    def readable() -> bool:
        return bool(select.select([irq.fileno()], [], [], 0)[0])

    with Irq.create() as irq, irq.dup() as holder:
        assert not readable()
        holder.trigger()
        assert readable()
        irq.receive()
        assert not readable()


def test_wait_lets_an_asyncio_program_go_on() -> None:
    async def main() -> None:
        with Irq.create() as irq, irq.dup() as holder:
            holder.trigger()
            await asyncio.wait_for(irq.wait(), 10)
            waiting = asyncio.create_task(irq.wait())
            await asyncio.sleep(0)
            assert not waiting.done()
            triggering = Background(holder.trigger)
            await asyncio.wait_for(waiting, 10)
            triggering.join()
            cancelled = asyncio.create_task(irq.wait())
            await asyncio.sleep(0)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            holder.trigger()
            await asyncio.wait_for(irq.wait(), 10)

    asyncio.run(main())


# ---- holders ----


@processes
def test_it_is_handed_through_three_processes(start: Start) -> None:
    def hands_on(link: Link) -> None:
        (irq,) = link.take()
        link.give(irq)
        assert link.hear() == "trigger"
        irq.trigger()

    hands = [start(hands_on) for _ in range(3)]
    with Irq.create() as irq:
        held = irq.dup()
        for hand in hands:
            hand.give(held)
            held.close()
            (held,) = hand.take()
        for hand in hands:
            hand.say("trigger")
            irq.receive(timeout=20)
            hand.end()
        held.trigger()
        irq.receive(timeout=20)
        held.close()


@processes
@pytest.mark.parametrize("receiver", ["receive", "handler"])
def test_holders_that_are_gone_take_nothing_along(start: Start, receiver: str) -> None:
    """Each process in between triggers, hands on, and was killed before the receiver looked."""

    def hands_on(link: Link) -> None:
        (irq,) = link.take()
        irq.trigger()
        link.give(irq)
        link.wait_for_end()

    hands = [start(hands_on) for _ in range(3)]
    with RegistryServer() as server:
        counter = Counter()
        irq = Irq.create() if receiver == "receive" else server.registry.register_irq_obj(counter)
        held = irq.dup()
        for hand in hands:
            hand.give(held)
            held.close()
            (held,) = hand.take()
            hand.kill()
            hand.join()
        with held:
            if receiver == "receive":
                irq.receive(timeout=0)
                while True:
                    try:
                        irq.receive(timeout=0)
                    except IpcTimeout:
                        break
                held.trigger()
                irq.receive(timeout=20)
            else:
                while server.step():
                    pass
                assert counter.count >= 1
                seen = counter.count
                assert server.stats().holders == 1
                held.trigger()
                server.step(None)
                assert counter.count == seen + 1
        if receiver == "handler":
            assert server.loop() is LoopEnd.ORPHANED
        irq.close()


@processes
def test_many_processes_trigger_one_irq(start: Start) -> None:
    def triggers(link: Link) -> None:
        (irq,) = link.take()
        for _ in range(1000):
            irq.trigger()

    children = [start(triggers) for _ in range(4)]
    with RegistryServer() as server:
        counter = Counter()
        irq = server.registry.register_irq_obj(counter)
        for child in children:
            child.give(irq)
        assert server.loop() is LoopEnd.ORPHANED
        for child in children:
            child.end()
        assert 1 <= counter.count <= 4000


@processes
@pytest.mark.parametrize("way", ["direct", "derived", "over a derived one"])
def test_who_triggers_after_the_receiver_is_gone_is_told(start: Start, way: str) -> None:
    def receives(link: Link) -> None:
        with Irq.create() as irq:
            link.give(irq)
            link.wait_for_end()

    child = start(receives)
    (irq,) = child.take()
    derived = irq.dup()
    second = derived.dup()
    used = {"direct": irq, "derived": derived, "over a derived one": second}[way]
    used.trigger()
    child.kill()
    child.join()
    for _ in range(2):
        with pytest.raises(PeerGone):
            used.trigger()
        with pytest.raises(PeerGone):
            used.dup()
    for holder in (irq, derived, second):
        holder.close()


@processes
def test_a_forked_holder_and_a_forked_receiver(start: Start) -> None:
    """The child of a receiver has no receiving end: its parent's death is seen. A holder's child may trigger."""

    def receives(link: Link) -> None:
        with Irq.create() as irq:
            link.give(irq)
            pid = os.fork()
            if pid == 0:
                for use in (irq.receive, irq.dup):
                    with pytest.raises(Closed):
                        use()
                link.say("child")
                link.wait_for_end()
                os._exit(0)
            irq.receive()
            link.say("received")
            link.wait_for_end()

    child = start(receives)
    (irq,) = child.take()
    with irq:
        assert child.hear() == "child"
        pid = os.fork()
        if pid == 0:
            try:
                irq.trigger()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        assert child.hear() == "received"
        child.kill()
        child.join()
        with pytest.raises(PeerGone):
            irq.trigger()


# ---- nobody is left who could trigger ----


def hold(link: Link) -> None:
    held = link.take()
    link.say("taken")
    link.wait_for_end()
    del held


@processes
@pytest.mark.parametrize("waits", ["before", "after", "in asyncio"])
def test_a_receiver_learns_that_the_last_holder_was_killed(start: Start, waits: str) -> None:
    holders = [start(hold) for _ in range(2)]
    with Irq.create() as irq:
        for holder in holders:
            holder.give(irq)
            assert holder.hear() == "taken"
        waiting = Background(irq.receive) if waits == "before" else None
        holders[0].kill()
        holders[0].join()
        if waiting is None:
            with pytest.raises(IpcTimeout):  # one of them lives
                irq.receive(timeout=0)
        holders[1].kill()
        learns: dict[str, Callable[[], object]] = {
            "before": lambda: waiting and waiting.join(),
            "after": irq.receive,
            "in asyncio": lambda: asyncio.run(asyncio.wait_for(irq.wait(), 20)),
        }
        with pytest.raises(PeerGone):
            learns[waits]()
        with pytest.raises(PeerGone):
            irq.receive(timeout=0)
        assert not select.select([irq.fileno()], [], [], 0)[0]
        holders[1].join()


@processes
def test_what_the_last_holder_triggered_comes_before_its_end(start: Start) -> None:
    def trigger_and_die(link: Link) -> None:
        (irq,) = link.take()
        irq.trigger()
        os.kill(os.getpid(), signal.SIGKILL)

    child = start(trigger_and_die)
    with Irq.create() as irq:
        child.give(irq)
        child.join()
        irq.receive()
        with pytest.raises(PeerGone):
            irq.receive()


@processes
def test_whoever_was_handed_it_by_the_last_holder_counts(start: Start) -> None:
    def hand_on(link: Link) -> None:
        (irq,) = link.take()
        link.give(irq)
        link.wait_for_end()

    child, grandchild = start(hand_on), start(hold)
    with Irq.create() as irq:
        child.give(irq)
        (held,) = child.take()  # handed on by the child, and from here to the next one
        grandchild.give(held)
        held.close()
        assert grandchild.hear() == "taken"
        child.kill()
        child.join()
        with pytest.raises(IpcTimeout):
            irq.receive(timeout=0)
        grandchild.kill()
        with pytest.raises(PeerGone):
            irq.receive(timeout=20)
        grandchild.join()


def test_before_the_first_holder_and_with_the_next_one_a_receiver_waits() -> None:
    with Irq.create() as irq:
        for error in (IpcTimeout, PeerGone, PeerGone):
            with pytest.raises(error):
                irq.receive(timeout=0)
            with irq.dup() as holder:
                with pytest.raises(IpcTimeout):
                    irq.receive(timeout=0)
                holder.trigger()
                irq.receive()


def test_who_triggers_its_own_irq_can_go_on_doing_so() -> None:
    with Irq.create() as irq:
        irq.trigger()
        irq.receive()
        irq.dup().close()
        with pytest.raises(IpcTimeout):
            irq.receive(timeout=0)
        irq.trigger()
        irq.receive()


# ---- a loop that looks often ----


def test_a_loop_that_is_looked_at_often_misses_nothing() -> None:
    """What a look finds is kept until the step that handles it, whatever happens in between."""
    with RegistryServer() as server:
        counters = [Counter() for _ in range(3)]
        irqs = [server.registry.register_irq_obj(counter) for counter in counters]
        for irq in irqs:
            irq.trigger()
        for _ in range(3):
            assert not server._leaf.idle()
        assert select.select([server.fileno()], [], [], 0)[0]
        server.registry.unregister_obj(counters[1])  # what was found of it is not looked at any more
        assert server.step(0) == 2
        assert [counter.count for counter in counters] == [1, 0, 1]
        assert server._leaf.idle()
        server.stop()
        assert not server._leaf.idle()
        assert server.step(0) == 0
    with pytest.raises(Closed):
        server.step(0)


def test_a_handler_may_end_its_own_registration() -> None:
    class Once(Counter):
        def dispatch(self) -> None:
            super().dispatch()
            server.registry.unregister_obj(self)

    with RegistryServer() as server:
        handler, other = Once(), Counter()
        irq, another = server.registry.register_irq_obj(handler), server.registry.register_irq_obj(other)
        with irq.dup() as holder:
            holder.trigger()
            irq.trigger()
            another.trigger()
            while server.step():
                pass
            assert (handler.count, other.count) == (1, 1)
            with pytest.raises(PeerGone):
                holder.trigger()
        assert server.loop() is LoopEnd.ORPHANED


def test_what_a_handler_raises_beyond_exceptions_ends_the_loop() -> None:
    class Interrupts(Counter):
        def dispatch(self) -> None:
            super().dispatch()
            raise KeyboardInterrupt

    with RegistryServer() as server:
        handler = Interrupts()
        irq = server.registry.register_irq_obj(handler)
        for n in range(1, 3):
            irq.trigger()
            with pytest.raises(KeyboardInterrupt):
                server.step(None)
            assert handler.count == n
        assert server.step(0) == 0


@processes
def test_an_irq_is_heard_between_the_calls_of_a_busy_client(start: Start) -> None:
    def calls(link: Link) -> None:
        gate, irq = link.take()
        for n in range(2000):
            gate.call(b"x")
            if n % 10 == 0:
                irq.trigger()

    child = start(calls)
    with RegistryServer() as server:
        counter = Counter()
        child.give(server.registry.register_obj(Echo()), server.registry.register_irq_obj(counter))
        assert server.loop() is LoopEnd.ORPHANED
        assert 1 <= counter.count <= 200
    child.end()


# ---- rights ----


@processes
def test_a_holder_can_trigger_and_nothing_else(start: Start) -> None:
    def holds(link: Link) -> None:
        (irq,) = link.take()
        with pytest.raises(PermissionDenied):
            irq.receive(timeout=0)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.read(irq.fileno(), 1)
        irq.trigger()
        link.say("done")

    child = start(holds)
    with Irq.create() as irq:
        child.give(irq)
        assert child.hear() == "done"
        irq.receive(timeout=20)
        child.end()


def test_a_handled_irq_is_not_received() -> None:
    with RegistryServer() as server:
        irq = server.registry.register_irq_obj(Counter())
        with pytest.raises(PermissionDenied):
            irq.receive(timeout=0)
        with irq.dup() as holder, pytest.raises(PermissionDenied):
            holder.receive(timeout=0)


def test_closing_the_local_capability_of_a_handler_leaves_the_handler() -> None:
    with RegistryServer() as server:
        counter = Counter()
        irq = server.registry.register_irq_obj(counter)
        with irq.dup() as holder:
            irq.close()
            assert irq.closed
            for use in (irq.trigger, irq.dup, irq.fileno):
                with pytest.raises(Closed):
                    use()
            holder.trigger()
            while not server.step(None):
                pass
            assert counter.count == 1


def test_rights_only_shrink() -> None:
    with Irq.create() as irq, weakened(irq, Rights.R) as weak, weakened(weak, Rights.RWSD) as again:
        assert irq.rights == Rights.RWSD
        assert weak.rights == Rights.R
        assert again.rights == Rights.R


def test_closing_gives_everything_back_and_ends_its_use() -> None:
    before = descriptors()
    for _ in range(100):
        irq = Irq.create()
        holder = irq.dup()
        holder.trigger()
        irq.receive()
        irq.trigger()
        irq.close()
        irq.close()
        with pytest.raises(PeerGone):
            holder.trigger()
        holder.close()
        for use in (irq.trigger, irq.receive, irq.dup, irq.fileno, holder.trigger, holder.dup):
            with pytest.raises(Closed):
                use()
    assert descriptors() == before


def test_a_receiver_gives_back_what_its_holders_left() -> None:
    with Irq.create() as irq:
        with pytest.raises(IpcTimeout):
            irq.receive(timeout=0)
        before = descriptors()
        for _ in range(500):
            with irq.dup() as holder:
                holder.trigger()
            irq.receive(timeout=0)
        with pytest.raises(PeerGone):
            irq.receive(timeout=0)
        assert descriptors() == before


@processes
def test_a_holder_that_exits_at_once_was_heard(start: Start) -> None:
    for _ in range(10):
        child = start(trigger_once)
        with RegistryServer() as server:
            counter = Counter()
            irq = server.registry.register_irq_obj(counter)
            child.give(irq)
            with Running(server) as loop:
                assert loop.join() is LoopEnd.ORPHANED
            assert counter.count == 1
        child.end()


def test_a_handler_may_detach_its_irq_and_fail(caplog: pytest.LogCaptureFixture) -> None:
    class Once(IrqHandler):
        def dispatch(self) -> None:
            irq.detach()
            raise ValueError("after detaching")

    with RegistryServer() as server, server.registry.register_irq_obj(Once()) as irq:
        irq.trigger()
        server.step(timeout=PATIENCE)
        assert "after detaching" in caplog.text
        irq.trigger()
        irq.receive(timeout=PATIENCE)
