"""Multiplexers, detaching, and lines: who is triggered, by what, and what is kept for later."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from l4re import (
    Closed,
    Exists,
    InvalidArgument,
    IpcTimeout,
    Irq,
    IrqHandler,
    IrqMode,
    IrqMux,
    NotFound,
    OutOfMemory,
    PeerGone,
    PermissionDenied,
    RegistryServer,
)
from l4re.irq import Line
from support.descriptors import few_descriptors
from support.processes import PATIENCE, Background, Child, Link, Running

Start = Callable[..., Child]


class Counter(IrqHandler):
    def __init__(self) -> None:
        self.count = 0

    def dispatch(self) -> None:
        self.count += 1


def pending(irq: Irq) -> bool:
    try:
        irq.receive(timeout=0)
    except IpcTimeout:
        return False
    return True


# ---- multiplexers ----


def test_triggering_a_multiplexer_triggers_all_that_are_chained() -> None:
    with IrqMux() as mux, Irq.create() as one, Irq.create() as two, Irq.create() as other:
        mux.chain(one)
        mux.chain(two)
        assert mux.trigger() == 2
        assert (pending(one), pending(two), pending(other)) == (True, True, False)
        mux.unchain(one)
        assert mux.chained == (two,)
        assert mux.trigger() == 1
        assert (pending(one), pending(two)) == (False, True)


def test_a_capability_is_chained_once_and_unchained_once() -> None:
    with IrqMux() as mux, Irq.create() as irq:
        mux.chain(irq)
        with pytest.raises(Exists):
            mux.chain(irq)
        mux.unchain(irq)
        with pytest.raises(NotFound):
            mux.unchain(irq)
        irq.close()
        with pytest.raises(Closed):
            mux.chain(irq)
        assert repr(mux) == "<IrqMux with 0 chained>"


def test_who_receives_no_more_is_left_out_and_keeps_nobody_from_hearing() -> None:
    with IrqMux() as mux, Irq.create() as gone, Irq.create() as closed, Irq.create() as there:
        holder = gone.dup()
        for irq in (holder, closed, there):
            mux.chain(irq)
        gone.close()
        closed.close()
        assert mux.trigger() == 1
        assert pending(there)
        assert mux.chained == (there,)
        holder.close()


@pytest.mark.processes
def test_a_multiplexer_in_a_loop_is_triggered_by_another_process_and_triggers_others(start: Start) -> None:
    def trigger(link: Link) -> None:
        (irq,) = link.take()
        irq.trigger()
        link.hear()

    def receive(link: Link) -> None:
        with Irq.create() as irq:
            link.give(irq)
            irq.receive(timeout=PATIENCE)
            link.say("heard")

    receivers = [start(receive) for _ in range(2)]
    source = start(trigger)
    with RegistryServer() as server, IrqMux() as mux:
        for receiver in receivers:
            (irq,) = receiver.take()
            mux.chain(irq)
        link = server.registry.register_irq_obj(mux)
        source.give(link)
        with Running(server):
            assert [receiver.hear() for receiver in receivers] == ["heard", "heard"]
            source.say("enough")
        source.end()
        for irq in mux.chained:
            irq.close()


def test_a_chain_of_multiplexers_reaches_its_end() -> None:
    with RegistryServer() as server, IrqMux() as first, IrqMux() as second, Irq.create() as last:
        first.chain(server.registry.register_irq_obj(second))
        second.chain(last)
        server.registry.register_irq_obj(first).trigger()
        with Running(server):
            last.receive(timeout=PATIENCE)


# ---- detach ----


def test_detach_says_whether_a_trigger_is_pending_and_keeps_it() -> None:
    handler = Counter()
    with RegistryServer() as server:
        irq = server.registry.register_irq_obj(handler)
        with irq.dup() as holder:
            assert irq.detach() is False
            server.registry.register_irq_obj(handler, irq)
            holder.trigger()
            assert irq.detach() is True
            server.step(0)
            assert handler.count == 0
            irq.receive(timeout=0)
            with pytest.raises(IpcTimeout):
                irq.receive(timeout=0)
        irq.close()


def test_what_was_pending_goes_to_the_handler_that_is_bound_next() -> None:
    old, new = Counter(), Counter()
    with RegistryServer() as one, RegistryServer() as two:
        irq = one.registry.register_irq_obj(old)
        with irq.dup() as holder:
            holder.trigger()
            assert irq.detach()
            two.registry.register_irq_obj(new, irq)
            assert two.step(timeout=PATIENCE) == 1
            holder.trigger()
            two.step(timeout=PATIENCE)
    assert (old.count, new.count) == (0, 2)


def test_a_trigger_that_the_loop_had_taken_in_when_it_was_stopped_is_kept() -> None:
    handler = Counter()
    lost = 0
    with RegistryServer(spin_us=2000) as server:
        irq = server.registry.register_irq_obj(handler)
        for _ in range(100):
            holder = irq.dup()
            holder.trigger()
            server.step(timeout=PATIENCE)  # from now on the loop spins, and reads this pipe ahead
            seen = handler.count
            looping = Background(server.loop)
            server.stop()
            holder.trigger()
            looping.join()
            pending = irq.detach()
            if handler.count == seen:
                assert pending
                try:
                    irq.receive(timeout=0)
                except IpcTimeout:
                    lost += 1
            holder.close()
            server.registry.register_irq_obj(handler, irq)
        assert lost == 0
        assert server.stats().holders <= 1
    irq.close()


def test_an_irq_that_cannot_be_moved_for_want_of_descriptors_stays_where_it_is() -> None:
    handler = Counter()
    with RegistryServer() as server:
        irq = server.registry.register_irq_obj(handler)
        with irq.dup() as one, irq.dup() as other:
            for spare in range(5):
                with few_descriptors(spare), pytest.raises(OutOfMemory):
                    irq.detach()
                one.trigger()
                other.trigger()
                while server.step(0):
                    pass
                assert handler.count == 2 * (spare + 1)
            assert irq.detach() is False
        irq.close()


def test_a_detached_irq_keeps_no_server_from_being_orphaned() -> None:
    with RegistryServer() as server:
        irq = server.registry.register_irq_obj(Counter())
        with irq.dup():
            assert server.stats().holders == 1
            irq.detach()
            assert server.stats().holders == 0
        with pytest.raises(PeerGone):
            irq.receive(timeout=PATIENCE)
        irq.close()


def test_a_handler_may_detach_its_own_irq_from_a_holder_that_is_gone() -> None:
    class Once(Counter):
        irq: Irq

        def dispatch(self) -> None:
            super().dispatch()
            self.irq.detach()

    handler = Once()
    with RegistryServer() as server:
        handler.irq = server.registry.register_irq_obj(handler)
        with handler.irq.dup() as holder:
            holder.trigger()
        for _ in range(3):
            server.step(0)
        assert handler.count == 1
        assert server.stats().holders == 0
        with pytest.raises(PeerGone):
            handler.irq.receive(timeout=PATIENCE)
        handler.irq.close()


def test_detach_needs_a_handler_and_the_receiving_side() -> None:
    with Irq.create() as irq, irq.dup() as holder:
        with pytest.raises(NotFound):
            irq.detach()
        with pytest.raises(PermissionDenied):
            holder.detach()
    with pytest.raises(Closed):
        irq.detach()


def test_a_receiver_waits_for_what_was_detached_from_a_handler() -> None:
    with RegistryServer() as server:
        irq = server.registry.register_irq_obj(Counter())
        with irq.dup() as holder:
            irq.detach()
            waiting = Background(lambda: irq.receive(timeout=PATIENCE))
            holder.trigger()
            waiting.join()
        irq.close()


# ---- lines ----


def heard(line: Line, *levels: int) -> list[bool]:
    return [line.drive(bool(level)) for level in levels]


@pytest.mark.parametrize(
    ("mode", "hears"),
    [
        (IrqMode.POS_EDGE, [True, False, False, True]),
        (IrqMode.NEG_EDGE, [False, False, True, False]),
        (IrqMode.BOTH_EDGE, [True, False, True, True]),
        (IrqMode.LEVEL_HIGH, [True, False, False, False]),
    ],
)
def test_a_line_notifies_as_its_mode_says(mode: IrqMode, hears: list[bool]) -> None:
    line = Line()
    line.set_mode(mode)
    assert not line.unmask()
    assert heard(line, 1, 1, 0, 1) == hears


def test_a_masked_line_keeps_one_edge() -> None:
    line = Line()
    assert heard(line, 1, 0, 1) == [False] * 3
    assert line.unmask()
    assert not line.unmask()


def test_a_level_notifies_once_and_again_when_it_is_unmasked_while_it_lasts() -> None:
    line = Line()
    line.set_mode(IrqMode.LEVEL_HIGH)
    line.unmask()
    assert heard(line, 1, 1) == [True, False]
    assert line.unmask()
    line.drive(False)
    assert not line.unmask()
    assert line.drive(True)


def test_a_low_line_is_active_when_it_waits_for_a_low_level() -> None:
    line = Line()
    assert not line.set_mode(IrqMode.LEVEL_LOW)
    assert line.unmask()
    line.drive(True)
    assert not line.unmask()


def test_a_pulse_is_an_edge_and_a_level_that_is_lost_while_masked() -> None:
    for mode in (IrqMode.POS_EDGE, IrqMode.NEG_EDGE, IrqMode.BOTH_EDGE):
        line = Line()
        line.set_mode(mode)
        assert not line.pulse()
        assert line.unmask()
        assert line.pulse()
    line.set_mode(IrqMode.LEVEL_HIGH)
    line.mask()
    assert not line.pulse()
    assert not line.unmask()


@pytest.mark.parametrize("mode", [2, 4, 8, 11, 13, 15, 0x40, 0x41, 1 << 40, -1])
def test_a_mode_that_is_none_is_refused(mode: int) -> None:
    line = Line()
    with pytest.raises(InvalidArgument, match="no mode"):
        line.set_mode(mode)
    assert line.mode is IrqMode.POS_EDGE


def test_no_mode_changes_nothing_and_wakeup_bits_do_not_either() -> None:
    line = Line()
    line.set_mode(IrqMode.NEG_EDGE | IrqMode.SET_WAKEUP)
    for mode in (IrqMode.NONE, IrqMode.SET_WAKEUP, IrqMode.CLR_WAKEUP):
        line.set_mode(mode)
    assert line.mode == IrqMode.NEG_EDGE


class LevelModel(RuleBasedStateMachine):
    """A device that holds its line until it is handled, and a driver that handles it and unmasks."""

    def __init__(self) -> None:
        super().__init__()
        self.line = Line()
        self.line.set_mode(IrqMode.LEVEL_HIGH)
        self.told = self.line.unmask()

    @rule(high=st.booleans())
    def drive(self, high: bool) -> None:
        self.told |= self.line.drive(high)

    @rule()
    def handle(self) -> None:
        self.told = False
        self.told = self.line.unmask()

    @invariant()
    def nothing_active_is_forgotten(self) -> None:
        assert self.told or not self.line.high


TestLevel = LevelModel.TestCase


@given(st.lists(st.sampled_from(["edge", "mask", "unmask"]), max_size=60))
def test_no_edge_is_lost_however_often_the_line_is_masked(steps: list[str]) -> None:
    line = Line()
    owed = told = False
    for step in steps:
        if step == "edge":
            owed = True
            told = line.pulse()
        elif step == "mask":
            line.mask()
            told = False
        else:
            told = line.unmask()
        assert told == (owed and not line.masked)
        owed &= not told
