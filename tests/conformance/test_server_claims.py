"""L4Re's claims about gates, IPC and the server framework, by their numbers.

Where Linux cannot or should not keep one, the test shows what happens instead, and docs/differences.md says why.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from l4re import (
    Env,
    Epiface,
    Err,
    Gate,
    Interface,
    Iostream,
    IpcErr,
    IpcTimeout,
    IrqHandler,
    L4Error,
    Meta,
    NotFound,
    PeerGone,
    RegistryServer,
    Rights,
    ServerError,
    ServerObject,
    new_channel,
    rpc,
)
from l4re.testing import wait_until
from support.processes import PATIENCE, Background, Child, Echo, Link, Running, processes


@pytest.fixture
def start() -> Any:
    with processes() as fork:
        yield fork


class Handler(IrqHandler):
    def __init__(self, result: int | None = None) -> None:
        self.count = 0
        self.result = result

    def dispatch(self) -> int | None:
        self.count += 1
        return self.result


class Numbers(Interface):
    protocol = 0x4E55

    @rpc
    def number(self) -> int:
        raise NotImplementedError


class Number(Numbers, Epiface):
    def __init__(self, value: int | Exception) -> None:
        self.value = value

    def number(self) -> int:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


class Raw(ServerObject):
    """Speaks protocol 5 with one operation, and META."""

    def dispatch(self, rights: Rights, ios: Iostream) -> int:
        if ios.tag.label != 5:
            return -Err.EBADPROTO
        if ios.opcode() != 0:
            return -Err.ENOSYS
        ios << 7
        return 0


def test_claim_65_deleting_a_served_irq_leaves_the_server_waiting_and_the_trigger_learns_of_it() -> None:
    handler = Handler()
    with RegistryServer() as server:
        holder = server.registry.register_irq_obj(handler).dup()
        with server.registry.register_obj(Echo()).mint() as gate:
            server.registry.unregister_obj(handler)
            with pytest.raises(PeerGone):
                holder.trigger()
            with Running(server):
                assert gate.call(b"served on").data == b"served on"
        holder.close()
    assert handler.count == 0


def test_claim_66_two_irqs_of_one_server_arrive_at_their_own_handlers() -> None:
    one, two = Handler(), Handler()
    with RegistryServer() as server:
        first, second = (server.registry.register_irq_obj(handler) for handler in (one, two))
        first.trigger()
        while server.step():
            pass
        assert (one.count, two.count) == (1, 0)
        second.trigger()
        while server.step():
            pass
        assert (one.count, two.count) == (1, 1)


def test_claim_68_an_irq_is_answered_with_nothing_whatever_its_handler_returns() -> None:
    handler = Handler(result=-5)
    with RegistryServer() as server:
        irq = server.registry.register_irq_obj(handler)
        irq.trigger()
        assert server.step(PATIENCE) == 1
        irq.trigger()
        assert server.step(PATIENCE) == 1
    assert handler.count == 2


@pytest.mark.parametrize(
    ("rights", "seen"), [(Rights.R, 0), (Rights.RW, 1), (Rights.RS, 2), (Rights.RWS, 3)], ids=["r", "rw", "rs", "rws"]
)
def test_claim_71_the_server_sees_label_w_and_s_as_the_callers_capability_has_them(rights: Rights, seen: int) -> None:
    class Sees(ServerObject):
        def dispatch(self, rights: Rights, ios: Iostream) -> int:
            ios << int(rights) << server.caller.label
            return 0

    with RegistryServer() as server:
        local = server.registry.register_obj(Sees())
        with local.mint(0x1230, rights) as gate, Running(server):
            ios = Iostream()
            ios.call(gate)
            assert (ios.get(int), ios.get(int)) == (seen, 0x1230)


def test_claim_72_a_gate_that_nobody_serves_times_out_in_sending_and_without_a_timeout_waits_until_bound() -> None:
    gate, svr = new_channel()
    with gate, RegistryServer() as server:
        for timeout in (0, 0.01):
            with pytest.raises(IpcTimeout) as caught:
                gate.call(timeout=timeout)
            assert caught.value.code == IpcErr.SETIMEOUT.code
        call = Background(lambda: gate.call(b"bound")).wait_until_asleep_in(gate)
        server.registry.register_obj(Echo(), svr)
        with Running(server):
            assert call.join().data == b"bound"


def test_claim_73_deleting_the_object_while_a_caller_waits_gives_that_caller_enot_existent() -> None:
    with RegistryServer() as server:
        obj = Echo()
        with server.registry.register_obj(obj).mint() as gate:
            call = Background(gate.call).wait_until_asleep_in(gate)
            server.registry.unregister_obj(obj)
            with pytest.raises(PeerGone, match="unregistered") as caught:
                call.join()
            assert caught.value.code == IpcErr.ENOT_EXISTENT.code


def test_claim_75_a_reply_after_which_the_client_is_gone_does_not_stop_the_loop(
    start: Callable[..., Child],
) -> None:
    class Kills(ServerObject):
        def dispatch(self, rights: Rights, ios: Iostream) -> int:
            if ios.tag.label == 1:
                child.kill()
                child.join()
            ios << b"answer"
            return 0

    def client(link: Link) -> None:
        (gate,) = link.take()
        gate.call(label=1)

    child = start(client)
    with RegistryServer() as server, server.registry.register_obj(Kills()).mint() as gate:
        child.give(gate)
        with Running(server):
            wait_until(lambda: child._status is not None, PATIENCE)
            ios = Iostream()
            ios.call(gate)
            assert ios.get(bytes) == b"answer"


def test_claim_77_one_capability_less_leaves_the_others_and_unregistering_voids_them_all() -> None:
    with RegistryServer() as server:
        obj = Echo()
        first = server.registry.register_obj(obj).mint()
        second, third = first.dup(), first.dup()
        with Running(server):
            first.close()
            assert second.call(b"valid").data == b"valid"
        server.registry.unregister_obj(obj)
        for gate in (second, third):
            with pytest.raises(PeerGone):
                gate.call()
            gate.close()


def test_claim_78_a_gate_that_comes_back_to_its_own_server_is_a_gate_that_can_be_called() -> None:
    # A difference: there it arrives as label and rights, and uses no slot.
    echo = Echo()
    with RegistryServer() as server, server.registry.register_obj(echo).mint(0x10) as gate:
        with Running(server):
            gate.call(label=3, caps=[gate])
            (kept,) = echo.kept
            assert isinstance(kept, Gate)
            assert kept.call(b"to myself").data == b"to myself"
        assert [port.label for port in server.registry.ports(echo)] == [0x10, 0x10]
        echo.drop()


def test_claim_79_an_unknown_protocol_is_ebadproto_and_an_unknown_opcode_enosys() -> None:
    with RegistryServer() as server:
        gates = [server.registry.register_obj(obj).mint() for obj in (Number(1), Raw())]
        with Running(server):
            for gate, protocol in zip(gates, (Numbers.protocol, 5), strict=True):
                for label, opcode, code in ((77, 0, Err.EBADPROTO), (protocol, 99, Err.ENOSYS)):
                    with pytest.raises(L4Error) as caught:
                        (Iostream() << opcode).call(gate, label)
                    assert caught.value.code == code
        for gate in gates:
            gate.close()


def test_claim_80_registering_for_a_missing_name_fails_and_registers_nothing() -> None:
    obj = Echo()
    with Env({}) as env, RegistryServer(env=env) as server:
        with pytest.raises(NotFound) as caught:
            server.registry.register_obj(obj, "missing")
        assert caught.value.code == Err.ENOENT
        with pytest.raises(NotFound, match="not registered"):
            server.registry.ports(obj)
        with pytest.raises(NotFound, match="not registered"):
            obj.obj_cap()


def test_claim_81_two_objects_have_two_capabilities_and_calls_reach_the_right_one() -> None:
    with RegistryServer() as server:
        gates = [server.registry.register_obj(Number(value)).mint() for value in (1, 2)]
        with Running(server):
            assert [Numbers(gate).number() for gate in gates] == [1, 2]
        for gate in gates:
            gate.close()


def test_claim_82_a_method_that_raises_makes_an_error_reply_and_the_loop_serves_the_next(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with RegistryServer() as server:
        bad, good = (server.registry.register_obj(Number(value)).mint() for value in (RuntimeError("bug"), 2))
        with Running(server), caplog.at_level(logging.ERROR):
            with pytest.raises(ServerError, match="Number raised RuntimeError: bug"):
                Numbers(bad).number()
            assert Numbers(good).number() == 2
            assert caplog.records[0].exc_info is not None
        bad.close()
        good.close()


def test_requests_to_an_unregistered_object_are_told_so_where_upstream_answers_ebadproto() -> None:
    with RegistryServer() as server:
        obj = Number(1)
        with server.registry.register_obj(obj).mint() as gate:
            call = Background(lambda: Meta(gate).num_interfaces()).wait_until_asleep_in(gate)
            server.registry.unregister_obj(obj)
            with pytest.raises(PeerGone, match="this Number was unregistered by its server"):
                call.join()
            with pytest.raises(PeerGone, match="this Number was unregistered by its server"):
                Numbers(gate).number()


# ---- rights only shrink ----


class Gives(ServerObject):
    """Label 1: keep what came; 2: give it back."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def dispatch(self, rights: Rights, ios: Iostream) -> int:
        if ios.tag.label == 1:
            self.kept += ios.caps
        else:
            for cap in self.kept:
                ios << cap
        return 0


def test_a_server_is_handed_no_more_than_the_sender_had_and_gives_no_more_than_it_got() -> None:
    class Sees(ServerObject):
        def dispatch(self, rights: Rights, ios: Iostream) -> int:
            ios << int(rights)
            return 0

    gives = Gives()
    with RegistryServer() as server, RegistryServer() as target:
        weak = target.registry.register_obj(Sees()).mint(rights=Rights.R)
        with server.registry.register_obj(gives).mint() as gate, Running(server), Running(target):
            weak._rights = Rights.RWSD  # what a client claims, in its own process and on the wire
            gate.call(label=1, caps=[weak])
            (kept,) = gives.kept
            assert kept.rights & Rights.W  # it believes so
            (back,) = gate.call(label=2).caps
            assert isinstance(back, Gate)
            for cap in (kept, back):
                ios = Iostream()
                ios.call(cap)
                assert ios.get(int) == 0  # the server that it leads to knows better
                cap.close()
        gives.kept.clear()
        weak.close()


# ---- messages that upstream's kernel takes for itself ----


class Everything(ServerObject):
    """Hears whatever comes."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, int]] = []

    def dispatch(self, rights: int, ios: Iostream) -> int:
        self.heard.append((ios.tag.label, ios.get(int)))
        return 0


def test_claim_74_get_infos_without_the_gate_server_right_reaches_the_server_as_a_message() -> None:
    obj = Everything()
    with RegistryServer() as server:
        local = server.registry.register_obj(obj)
        with Running(server), local.mint(0, Rights.R) as gate:
            gate.transact(-10, (0x11).to_bytes(8, "little"))
            gate.transact(-10, (0x10).to_bytes(8, "little"))
    assert obj.heard == [(-10, 0x11), (-10, 0x10)]
