"""L4Re's claims about IRQs, semaphores and the kernel's factory, by their numbers.

Where Linux cannot or should not keep one, the test shows what happens instead, and docs/differences.md says why.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator

import pytest

from l4re import (
    Err,
    Factory,
    FactoryServer,
    IpcErr,
    IpcError,
    IpcTimeout,
    Irq,
    IrqHandler,
    NotSupported,
    PeerGone,
    PermissionDenied,
    RegistryServer,
    Rights,
    Semaphore,
)
from l4re.cap import Export
from l4re.factory.kernel import KernelFactory
from support.processes import PATIENCE, Background, Child, Link, Running, processes


@pytest.fixture
def start() -> Iterator[Callable[..., Child]]:
    with processes() as fork:
        yield fork


class Counter(IrqHandler):
    count = 0

    def dispatch(self) -> None:
        self.count += 1


def given(export: Export) -> Irq:
    return Irq(export.owned[0], export.owned[1], export.rights)


def test_claim_53_an_unknown_protocol_gives_enodev() -> None:
    with pytest.raises(NotSupported) as error:
        KernelFactory().create(0x7777)
    assert error.value.code == Err.ENODEV


@pytest.mark.parametrize("rights", [Rights.R, Rights.RW])
def test_claim_56_creating_through_a_factory_without_s_gives_eperm(rights: Rights) -> None:
    with RegistryServer() as server:
        gate = server.registry.register_obj(FactoryServer())
        with gate.mint(rights=rights) as weak, Running(server):
            with pytest.raises(PermissionDenied) as error:
                Factory(weak).create(0x7777)  # not even looked at
            assert error.value.code == Err.EPERM
            Factory(gate).create_semaphore().close()


def test_claim_57_creating_without_a_place_for_it_creates_nothing_and_is_an_ipc_error(
    start: Callable[..., Child],
) -> None:
    def client(link: Link) -> None:
        (gate,) = link.take()
        factory = Factory(gate)
        factory.create_semaphore().close()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        with pytest.raises(IpcError) as error:
            factory.create_semaphore()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert error.value.code > Err.EIPC_LO
        factory.create_semaphore().close()
        link.say("done")
        link.hear()

    child = start(client)
    with RegistryServer() as server:
        child.give(server.registry.register_obj(FactoryServer()))
        with Running(server):
            assert child.hear() == "done"
            child.say("thanks")
            child.end()


def test_claim_58_what_a_factory_makes_comes_with_all_rights_it_has_here() -> None:
    factory = KernelFactory()
    gate, svr = factory.create_gate()
    with factory.create_irq() as irq, factory.create_semaphore() as semaphore, gate, svr:
        assert irq.rights == Rights.RWSD
        assert semaphore.rights == Rights.RWS  # a pipe goes with its last holder: there is nothing to delete
        assert gate.rights == Rights.RWS


def test_claim_60_five_triggers_before_the_receiver_waits_are_one_delivery() -> None:
    with Irq.create() as irq:
        for _ in range(5):
            irq.trigger()
        irq.receive(timeout=0)
        with pytest.raises(IpcTimeout):
            irq.receive(timeout=0)


def test_claim_61_a_capability_that_has_r_only_can_trigger() -> None:
    with Irq.create() as irq, given(irq.export(Rights.R)) as holder:
        assert holder.rights == Rights.R
        holder.trigger()
        irq.receive(timeout=0)


def test_claim_59_creating_again_replaces_nothing_here() -> None:
    factory = KernelFactory()
    with factory.create_irq() as first, factory.create_irq() as second:
        first.trigger()
        first.receive(timeout=0)
        with pytest.raises(IpcTimeout):
            second.receive(timeout=0)


def test_claim_62_binding_an_irq_that_can_only_be_triggered_gives_eperm() -> None:
    with Irq.create() as irq, given(irq.export()) as holder, RegistryServer() as server:
        with pytest.raises(PermissionDenied) as error:
            server.registry.register_irq_obj(Counter(), holder)
        assert error.value.code == Err.EPERM


def test_claim_63_what_is_no_handler_cannot_be_bound_and_is_a_type_error_here() -> None:
    with RegistryServer() as server, pytest.raises(TypeError, match="IrqHandler"):
        server.registry.register_irq_obj(object())  # type: ignore[arg-type]


def test_claim_64_after_detach_a_trigger_reaches_the_handler_no_more() -> None:
    handler = Counter()
    with RegistryServer() as server:
        irq = server.registry.register_irq_obj(handler)
        with given(irq.export()) as holder:
            holder.trigger()
            assert server.step(timeout=PATIENCE) == 1
            server.registry.unregister_obj(handler)
            with pytest.raises(PeerGone):
                holder.trigger()
        server.step(0)
    assert handler.count == 1


def test_claim_69_up_up_down_down_does_not_block_and_a_third_down_times_out() -> None:
    with Semaphore.create() as semaphore:
        semaphore.up()
        semaphore.up()
        semaphore.down()
        semaphore.down()
        with pytest.raises(IpcTimeout) as error:
            semaphore.down(timeout=0)
        assert error.value.code == IpcErr.RETIMEOUT.code


def test_claim_70_a_waiter_is_woken_here_when_nobody_is_left_who_could_go_up() -> None:
    semaphore = Semaphore.create()
    with semaphore.down_only as downer:
        waiting = Background(lambda: downer.down(timeout=PATIENCE))
        semaphore.close()
        with pytest.raises(PeerGone) as error:
            waiting.join()
        assert error.value.code == IpcErr.ENOT_EXISTENT.code
