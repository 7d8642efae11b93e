"""Handing on makes ports of ports: before the server runs, through any number of hands, and never with more rights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from l4re import Capability, Gate, InvalidArgument, L4Error, NotFound, PeerGone, RegistryServer, Rights, new_channel
from l4re._native import leaf
from l4re.linux.fd import Fd
from l4re.testing import wait_until
from l4re.wire.port import PortKind, PortMessage
from support.processes import Background, Child, Echo, Link, Running

Start = Callable[..., Child]
processes = pytest.mark.processes

RIGHTS = [Rights.R, Rights.RW, Rights.R | Rights.S, Rights.RWS]


def weakened(gate: Gate, rights: Rights) -> Gate:
    """A gate derived from ``gate`` with no more than ``rights``."""
    export = gate.export(rights)
    return Gate(export.owned[0], export.rights)


def pass_on(before: Link | None, link: Link) -> None:
    """Take a gate, hand it on, and call through what is left here."""
    (gate,) = link.take()
    assert link.hear() == "hand on"
    link.give(gate)
    assert link.hear() == "call"
    link.say(gate.call(b"from the middle").data.decode())


@processes
def test_it_works_before_the_server_runs_and_through_three_hands(start: Start) -> None:
    hands = [start(lambda link: pass_on(None, link)) for _ in range(3)]
    gate, svr = new_channel()
    echo = Echo()
    with RegistryServer() as server:
        for hand in hands:
            hand.give(gate)
            gate.close()
            hand.say("hand on")
            (gate,) = hand.take()
        call = Background(lambda: gate.call(b"before the server ran"))
        call.wait_until_asleep_in(gate)
        server.registry.register_obj(echo, svr)
        with Running(server):
            assert call.join().data == b"before the server ran"
            for hand in hands:
                hand.say("call")
                assert hand.hear() == "from the middle"
                hand.end()
            assert gate.call(b"all others are gone").data == b"all others are gone"
        gate.close()


@processes
def test_a_hand_that_is_gone_takes_nothing_along(start: Start) -> None:
    """Every process in between was killed before the server ever looked."""
    hands = [start(lambda link: pass_on(None, link)) for _ in range(3)]
    gate, svr = new_channel()
    for hand in hands:
        hand.give(gate)
        gate.close()
        hand.say("hand on")
        (gate,) = hand.take()
        hand.kill()
        hand.join()
    with gate, RegistryServer() as server:
        server.registry.register_obj(Echo(), svr)
        with Running(server):
            assert gate.call(b"still").data == b"still"


@pytest.mark.parametrize("rights", RIGHTS, ids=Rights.letters)
def test_rights_only_shrink_and_the_label_is_inherited(rights: Rights) -> None:
    with RegistryServer() as server:
        echo = Echo()
        local = server.registry.register_obj(echo)
        with Running(server):
            first = local.mint(0x40, Rights.RWS)
            weak = weakened(first, rights)
            again = weakened(weak, Rights.RWSD)
            twice = again.dup()
            for gate in (weak, again, twice):
                assert gate.rights == rights
                assert gate.call(label=1).data == bytes([int(rights) & 3])
            infos = server.registry.ports(echo)
            assert [info.label for info in infos] == [0x40] * 4
            assert [info.rights & Rights.RWS for info in infos] == [Rights.RWS] + [rights] * 3
            assert [info.parent for info in infos] == [None] + [info.id for info in infos[:3]]
            for gate in (first, weak, again, twice):
                gate.close()


@pytest.mark.parametrize("rights", RIGHTS, ids=Rights.letters)
def test_a_derivation_that_claims_more_gets_what_its_maker_has(rights: Rights) -> None:
    with RegistryServer() as server:
        echo = Echo()
        first = server.registry.register_obj(echo).mint(0, Rights.RWS)
        weak = weakened(first, rights)
        client, end = leaf.channel()
        leaf.send(weak.fileno(), PortMessage(PortKind.DERIVE, rights=15, label=2**60).pack(), (end,))
        Fd(end).close()
        forged = Gate(Fd(client), Rights.RWSD)
        with Running(server):
            assert forged.call(label=1).data == bytes([int(rights) & 3])
            assert {info.label for info in server.registry.ports(echo)} == {0}
            client, end = leaf.channel()
            leaf.send(weak.fileno(), PortMessage(PortKind.MINT, rights=15, label=8).pack(), (end,))
            Fd(end).close()
            with Gate(Fd(client), Rights.RWSD) as minted, pytest.raises(L4Error):
                minted.call()
            assert weak.call(label=1).data == bytes([int(rights) & 3])
        for gate in (first, weak, forged):
            gate.close()


@pytest.mark.parametrize("when", ["before the server", "after"])
def test_the_receive_right_mints_any_label_and_rights(when: str) -> None:
    class Who(Echo):
        def serve_request(self, *request: Any) -> Any:
            caller = server.caller
            return 0, b"", f"{caller.label:#x} {caller.rights.letters()} {request[0]}".encode(), ()

    gate, svr = new_channel()
    with gate, RegistryServer() as server:
        if when == "after":
            server.registry.register_obj(Who(), svr)
        one, two = svr.mint(0x1000), svr.mint(0xFFFF_FFFF_FFFF_FFFC, Rights.R)
        if when != "after":
            server.registry.register_obj(Who(), svr)
        with pytest.raises(InvalidArgument, match="low two bits"):
            svr.mint(3)
        with Running(server), one, two, two.dup() as three:
            assert one.call().data == b"0x1000 rws 3"
            assert two.call().data == b"0xfffffffffffffffc r 0"
            assert three.call().data == b"0xfffffffffffffffc r 0"
            assert gate.call().data.startswith(b"0x0 ")


# ---- revocation ----


class Revoker(Echo):
    """Label 20 cuts the caller itself, 21 says who calls, 22 cuts a port by number."""

    def __init__(self, server: RegistryServer) -> None:
        super().__init__()
        self.server = server

    def serve_request(
        self, rights: int, label: int, words: bytes, data: bytes, caps: tuple[Capability | None, ...]
    ) -> tuple[int, bytes, bytes, Any] | None:
        match label:
            case 20:
                self.server.registry.revoke(self, self.server.caller.port)
            case 21:
                return 0, b"", str(self.server.caller.port).encode(), ()
            case 22:
                self.server.registry.revoke(self, int(data))
        return super().serve_request(rights, label, words, data, caps)


def serve_revoker(link: Link) -> None:
    with RegistryServer() as server:
        link.give(server.registry.register_obj(Revoker(server)))
        server.loop()
        link.say("orphaned")


@processes
def test_revoke_cuts_a_port_what_was_derived_from_it_and_the_call_that_runs(start: Start) -> None:
    def holder(link: Link) -> None:
        (gate,) = link.take()
        with gate.dup() as below:
            assert below.call(b"hello").data == b"hello"
            link.say("ready")
            link.hear()
            for cut in (gate, below):
                with pytest.raises(PeerGone):
                    cut.call(b"cut")
                with pytest.raises(PeerGone):
                    cut.dup()
        link.say("cut")

    other, serving = start(holder), start(serve_revoker)
    (gate,) = serving.take()
    with gate, gate.dup() as middle, middle.dup() as sibling, gate.dup() as unrelated:
        other.give(middle)
        assert other.hear() == "ready"
        assert sibling.call(b"warm").data == b"warm"
        assert unrelated.call(b"warm").data == b"warm"
        with pytest.raises(PeerGone):
            middle.call(label=20)  # the running call itself
        for cut in (middle, sibling):
            with pytest.raises(PeerGone):
                cut.call()
        other.say("go")
        assert other.hear() == "cut"
        assert unrelated.call(b"goes on").data == b"goes on"
        assert gate.call(b"goes on").data == b"goes on"
        other.end()
    assert serving.hear() == "orphaned"
    serving.end()


@processes
def test_a_call_that_waits_its_turn_ends_when_its_port_is_cut(start: Start) -> None:
    serving = start(serve_revoker)
    (gate,) = serving.take()
    with gate, gate.dup() as other:
        port = other.call(label=21).data
        serving.stop()
        cutting = Background(lambda: gate.call(port, label=22)).wait_until_asleep_in(gate)
        waiting = Background(other.call)
        waiting.wait_until_asleep_in(other)
        serving.go_on()
        try:
            waiting.join()  # it may have come first
            with pytest.raises(PeerGone):
                other.call()
        except PeerGone:
            pass
        assert cutting.join().data == port
        with pytest.raises(PeerGone):
            other.call()


def test_what_was_derived_and_not_yet_looked_at_is_cut_as_well() -> None:
    with RegistryServer() as server:
        echo = Echo()
        gate = server.registry.register_obj(echo).mint()
        below = gate.dup().dup()
        (info,) = server.registry.ports(echo)
        server.registry.revoke(echo, info)
        for cut in (gate, below):
            with pytest.raises(PeerGone):
                cut.call()
            cut.close()
        assert server.registry.ports(echo) == ()
        with pytest.raises(NotFound):
            server.registry.revoke(echo, info)


@pytest.mark.parametrize("stay", [True, False])
def test_revoke_reaches_below_a_holder_that_left(stay: bool) -> None:
    with RegistryServer() as server:
        echo = Echo()
        top = server.registry.register_obj(echo).mint()
        middle = top.dup()
        below = middle.dup()
        with Running(server):
            assert below.call(b"all the way").data == b"all the way"
            if not stay:
                middle.close()
                wait_until(lambda: echo.gone == 1)
        server.registry.revoke(echo, server.registry.ports(echo)[0])
        with pytest.raises(PeerGone):
            below.call()
        for gate in (top, middle, below):
            gate.close()


def test_unregistering_cuts_everybody() -> None:
    with RegistryServer() as server:
        echo = Echo()
        local = server.registry.register_obj(echo)
        gate = local.mint()
        below = gate.dup()
        with Running(server):
            assert below.call(b"hello").data == b"hello"
        server.registry.unregister_obj(echo)
        for cut in (gate, below):
            with pytest.raises(PeerGone):
                cut.call()
            cut.close()
