"""Rights only shrink: on requests and on replies, over any chain of hand-overs between processes, whoever lies."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from l4re import Capability, Dataspace, Gate, Irq, L4Error, MemAlloc, RegistryServer, Rights, new_channel
from l4re.interface import Served
from support.processes import PATIENCE, Child, Echo, Link, processes

pytestmark = pytest.mark.processes

#: Who hands on (of three processes), which rights it leaves, and whether it claims to have all.
_HOP = st.tuples(st.integers(0, 2), st.integers(0, 15), st.booleans())
_CHAIN = st.lists(_HOP, min_size=1, max_size=6)


class Relay(Served):
    """Gives back what it is given, with fewer rights; or says that it has all there are."""

    def __init__(self) -> None:
        self.last: Any = None

    def serve_request(
        self, rights: int, label: int, words: bytes, data: bytes, caps: tuple[Capability | None, ...]
    ) -> tuple[int, bytes, bytes, Any]:
        mask, lies = Rights(data[0]), bool(data[1])
        if self.last is not None:
            self.last.close()
        self.last = _weaker(caps[0], mask)
        if lies:
            self.last._rights = Rights.RWSD
        return 0, b"", b"", (self.last,)


def _weaker(cap: Any, mask: Rights) -> Any:
    """Take ``cap``; return one with no more than these rights (R always stays)."""
    with cap:
        if isinstance(cap, Dataspace):
            return cap.dup() if mask & Rights.W else cap.ro.dup()
        export = cap.export(mask)
        owned, export.owned = export.owned, ()
        return Gate(owned[0], export.rights) if isinstance(cap, Gate) else Irq(owned[0], owned[1], export.rights)


def relay(link: Link) -> None:
    logging.disable()
    with RegistryServer() as server:
        link.give(server.registry.register_obj(Relay()))
        server.loop()


def origin(link: Link) -> None:
    """Serves the object whose rights are watched."""
    gate, svr = new_channel()
    with RegistryServer() as server:
        server.registry.register_obj(Echo(), svr)
        link.give(gate)
        gate.close()
        server.loop()


@pytest.fixture(scope="module")
def relays() -> Iterator[tuple[list[Gate], Gate]]:
    """Three processes that hand on, and a gate with all rights to an object in a fourth."""
    with processes() as start:
        children: list[Child] = [start(relay) for _ in range(3)] + [start(origin)]
        gates = [child.take()[0] for child in children]
        for gate in gates[:3]:  # opens the sessions of this thread
            gate.call(bytes(2), caps=(gates[3],), timeout=PATIENCE).caps[0].close()
        gates[3].call(timeout=PATIENCE)
        yield gates[:3], gates[3]
        for gate in gates:
            gate.close()
        for child in children:
            child.end()


def pass_on(relays: list[Gate], cap: Any, hop: tuple[int, int, bool]) -> Any:
    """Hand ``cap`` to a relay, which hands it back; takes it."""
    at, mask, lies = hop
    with cap:
        (back,) = relays[at].call(bytes([mask, lies]), caps=(cap,), timeout=PATIENCE).caps
    return back


QUICK = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@given(_CHAIN)
@QUICK
def test_a_server_sees_no_right_of_a_gate_that_anybody_on_the_way_lacked(
    relays: tuple[list[Gate], Gate], chain: list[tuple[int, int, bool]]
) -> None:
    hands, gate = relays
    left, honest = gate.rights, True
    cap: Gate = gate.dup()
    for hop in chain:
        left &= Rights(hop[1]) | Rights.R
        cap = pass_on(hands, cap, hop)
        assert cap.call(label=1, timeout=PATIENCE).data == bytes([left & 3]), "what the server recorded"
        honest = honest and not hop[2]
        assert cap.rights == left or not honest, "what this side believes"
    cap.close()


@given(_CHAIN)
@QUICK
def test_what_is_received_of_a_dataspace_is_what_its_descriptor_allows(
    relays: tuple[list[Gate], Gate], chain: list[tuple[int, int, bool]]
) -> None:
    hands, _ = relays
    cap: Any = MemAlloc().alloc(4096)
    writable = True
    with ExitStack() as stack:
        for at, mask, _ in chain:
            writable = writable and bool(mask & Rights.W)
            cap = pass_on(hands, cap, (at, mask, False))
            assert bool(cap.rights & Rights.W) == writable
        stack.enter_context(cap)
        if writable:
            cap.write(0, b"x")
        else:
            with pytest.raises(PermissionError):
                cap.write(0, b"x")
            with pytest.raises(PermissionError):
                _ = cap.rw


def _claimed(hands: list[Gate], cap: Any, hop: tuple[int, int, bool]) -> Any:
    try:
        return pass_on(hands, cap, hop)
    except L4Error:
        return None


@given(_CHAIN)
@QUICK
def test_a_claim_to_write_read_only_memory_is_refused(
    relays: tuple[list[Gate], Gate], chain: list[tuple[int, int, bool]]
) -> None:
    """A relay may say anything of a read-only descriptor: nobody gets a capability that writes through it."""
    hands, _ = relays
    with MemAlloc().alloc(4096) as ds:
        cap: Any = ds.ro.dup()
        for at, mask, _ in chain:
            cap = _claimed(hands, cap, (at, mask, True))
            if cap is None:
                break
            with suppress(L4Error):
                cap.write(0, b"x")
        if cap is not None:
            cap.close()
        assert ds.read(0, 1) == b"\0"


@given(_CHAIN)
@QUICK
def test_an_irq_never_gains_a_right(relays: tuple[list[Gate], Gate], chain: list[tuple[int, int, bool]]) -> None:
    from l4re import env

    hands, _ = relays
    with env().factory.create_irq() as receiver:
        cap: Any = receiver.dup()
        left = cap.rights
        for at, mask, _ in chain:
            left &= Rights(mask) | Rights.R
            cap = pass_on(hands, cap, (at, mask, False))
            assert cap.rights == left
        cap.trigger()
        receiver.receive(PATIENCE)
        cap.close()
