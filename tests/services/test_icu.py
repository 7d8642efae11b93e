"""An interrupt controller: lines of one program trigger IRQs of others."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4re import (
    BadProtocol,
    Err,
    Icu,
    IcuInfo,
    IcuServer,
    InvalidArgument,
    IpcTimeout,
    Irq,
    IrqMode,
    L4Error,
    NotFound,
    NotImplementedByServer,
    OutOfRange,
    PermissionDenied,
    Proto,
    RegistryServer,
    Rights,
    cap_dynamic_cast,
    describe,
    new_channel,
)
from support.processes import PATIENCE, Child, Link, Running

Start = Callable[..., Child]
LINES = 4


@contextmanager
def controller(lines: int = LINES) -> Iterator[tuple[IcuServer, Icu]]:
    """A controller of this process, and a proxy for it."""
    with RegistryServer() as server, IcuServer(lines) as served:
        yield served, Icu(server.registry.register_obj(served))


def pending(irq: Irq) -> bool:
    try:
        irq.receive(timeout=0)
    except IpcTimeout:
        return False
    return True


def words(*numbers: int) -> bytes:
    return struct.pack(f"={len(numbers)}Q", *numbers)


def test_a_line_triggers_what_is_bound_to_it_once_that_is_unmasked() -> None:
    with controller() as (served, icu), Irq.create() as irq:
        assert icu.bind(2, irq) is True
        served.pulse(2)
        assert not pending(irq)
        icu.unmask(2)
        assert pending(irq)
        served.pulse(1)
        assert not pending(irq)
        served.pulse(2)
        assert pending(irq)
        icu.mask(2)
        served.pulse(2)
        assert not pending(irq)
        assert served.bound == (2,)


def test_a_level_triggers_again_when_it_is_unmasked_while_it_lasts() -> None:
    with controller() as (served, icu), Irq.create() as irq:
        icu.set_mode(0, IrqMode.LEVEL_HIGH)
        icu.bind(0, irq)
        icu.unmask(0)
        served.drive(0, high=True)
        assert pending(irq)
        assert not pending(irq)
        icu.unmask(0)
        assert pending(irq)
        served.drive(0, high=False)
        icu.unmask(0)
        assert not pending(irq)


def test_it_says_what_it_has_and_refuses_what_only_hardware_has() -> None:
    with controller(3) as (_, icu):
        assert icu.info() == IcuInfo(features=0, irqs=3, msis=0)
        with pytest.raises(NotImplementedByServer):
            icu.msi_info(0)
        assert cap_dynamic_cast(icu, Icu) == icu
        assert describe(icu).protocols[0].name == "Icu"
        with pytest.raises(BadProtocol):
            icu.cap.call(b"", label=Proto.FACTORY)  # type: ignore[attr-defined]


def test_a_line_that_is_taken_or_not_there_is_einval() -> None:
    with controller() as (served, icu), Irq.create() as irq:
        icu.bind(1, irq)
        with pytest.raises(InvalidArgument, match="already"):
            icu.bind(1, irq)
        for call in (lambda: icu.bind(LINES, irq), lambda: icu.unbind(LINES), lambda: icu.set_mode(LINES, IrqMode.SET)):
            with pytest.raises(InvalidArgument, match="no line 4"):
                call()
        with pytest.raises(InvalidArgument, match="no line"):
            served.pulse(LINES)
        with pytest.raises(InvalidArgument, match="no line"):
            served.drive(-1, high=True)
        with pytest.raises(InvalidArgument, match="no mode"):
            icu.set_mode(0, IrqMode.LEVEL)
        with pytest.raises(OutOfRange):
            icu.bind(-1, irq)


def test_after_unbinding_nothing_comes_and_the_line_is_free() -> None:
    with controller() as (served, icu), Irq.create() as irq, Irq.create() as other:
        icu.bind(0, irq)
        icu.unmask(0)
        icu.unbind(0, irq)
        served.pulse(0)
        assert not served.bound
        with pytest.raises(NotFound):
            icu.unbind(0)
        icu.bind(0, other)
        icu.unmask(0)
        assert pending(other)  # an edge with nobody bound is kept, once


def test_binding_needs_an_irq_with_w() -> None:
    with controller() as (served, icu):
        with Irq.create() as irq:
            export = irq.export(Rights.R)
            with Irq(export.owned[0], export.owned[1], export.rights) as weak:
                with pytest.raises(PermissionDenied) as error:
                    icu.bind(0, weak)
                assert error.value.code == Err.EPERM
        gate, svr = new_channel()
        with gate, svr, pytest.raises(InvalidArgument, match="an IRQ is bound"):
            icu.bind(0, gate)  # type: ignore[arg-type]
        assert served.bound == ()


def test_who_receives_no_more_is_unbound() -> None:
    with controller() as (served, icu):
        with Irq.create() as irq:
            icu.bind(0, irq)
            icu.unmask(0)
        served.pulse(0)
        assert served.bound == ()


def test_a_controller_has_a_line_at_least() -> None:
    for lines in (0, -1, (1 << 16) + 1):
        with pytest.raises(InvalidArgument):
            IcuServer(lines)
    with IcuServer(2) as icu:
        assert repr(icu) == "<IcuServer with 2 lines, 0 bound>"


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (b"", Err.EMSGTOOSHORT),
        (words(0), Err.EINVAL),
        (words(0, 0), Err.EINVAL),
        (words(4), Err.EINVAL),
        (words(6, 0), Err.EINVAL),
        (words(7, 0), Err.ENOSYS),
        (words(1 << 32, 0), Err.ENOSYS),
        (words(5, 1 << 63), Err.EINVAL),
    ],
)
def test_what_is_no_request_is_answered_with_an_error(request_: bytes, error: Err) -> None:
    with controller() as (_, icu):
        label, _, data, _ = icu._l4_transact(Proto.IRQ, request_)
        assert label == -error
        assert data


@given(st.binary(max_size=32))
def test_any_words_at_all_are_answered_or_refused(data: bytes) -> None:
    served = IcuServer(LINES)
    try:
        served.serve_request(0, Proto.IRQ, data, b"", ())
    except L4Error:
        pass
    assert served.bound == ()


@pytest.mark.processes
def test_another_process_binds_its_irq_and_hears_until_it_is_killed(start: Start) -> None:
    def driver(link: Link) -> None:
        (gate,) = link.take()
        icu = Icu(gate)
        with Irq.create() as irq:
            icu.bind(3, irq)
            icu.set_mode(3, IrqMode.LEVEL_HIGH)
            icu.unmask(3)
            link.say("ready")
            while True:
                irq.receive(timeout=PATIENCE)
                link.say("heard")
                link.hear()
                icu.unmask(3)

    child = start(driver)
    with RegistryServer() as server, IcuServer(LINES) as served:
        gate = server.registry.register_obj(served)
        child.give(gate)
        with Running(server):
            assert child.hear() == "ready"
            served.drive(3, high=True)
            for _ in range(3):
                assert child.hear() == "heard"
                child.say("on")
            assert child.hear() == "heard"
        child.kill()
        child.join()
        Icu(gate).unmask(3)  # the level lasts, and nobody receives what is bound
        assert served.bound == ()
