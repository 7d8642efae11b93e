"""Asking an unknown object what it can do: in this process, over real processes, and of objects that lie."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fake_gate import FakeGate

from l4re import (
    Capability,
    Closed,
    Epiface,
    Err,
    Interface,
    Iostream,
    Irq,
    Meta,
    RegistryServer,
    Rights,
    ServerObject,
    WrongType,
    describe,
    new_channel,
    rpc,
)
from l4re.factory import MemAlloc
from l4re.interface import Answered, ObjectOperation, ObjectProtocol, Served
from l4re.wire.tag import PROTO_EMPTY
from support.processes import PATIENCE, Child, Link, processes


class Reader(Interface):
    """Reads."""

    protocol = 0x7101

    @rpc
    def read(self, size: int = 0) -> bytes:
        """Return some bytes.

        And more about it.
        """
        raise NotImplementedError


class Marker(Interface):
    protocol = PROTO_EMPTY


class Clock(Interface):
    protocol = 0x7103

    @rpc(opcode=None)
    def now(self) -> float:
        raise NotImplementedError


class Writer(Reader, Marker, Clock):
    protocol = 0x7102

    @rpc(rights="w", opcode=5)
    def write(self, data: bytes, *, name: str = "x") -> int:
        raise NotImplementedError

    @rpc(oneway=True)
    def note(self, text: str) -> None:
        raise NotImplementedError


class Server(Writer, Epiface):
    def read(self, size: int = 0) -> bytes:
        return b""

    def now(self) -> float:
        return 0.0

    def write(self, data: bytes, *, name: str = "x") -> int:
        return 0

    def note(self, text: str) -> None: ...


class Deaf(ServerObject):
    def dispatch(self, rights: Rights, ios: Iostream) -> int:
        return -Err.EBADPROTO


class Failing(ServerObject):
    def dispatch(self, rights: Rights, ios: Iostream) -> int:
        raise RuntimeError("no")


class Says(ServerObject):
    """Answers META with what it was told to, whatever that is."""

    def __init__(self, count: int, protocol: int = 1, name: bytes = b"") -> None:
        self.count = count
        self.protocol = protocol
        self.name = name

    def dispatch(self, rights: Rights, ios: Iostream) -> int:
        if ios.opcode() == 0:
            return self.count
        ios << self.protocol << self.name
        return 0


@pytest.fixture
def start() -> Iterator[Callable[..., Child]]:
    with processes() as fork:
        yield fork


@pytest.mark.processes
def test_an_object_in_another_process_is_described_the_most_derived_protocol_first(start: Callable[..., Child]) -> None:
    def serve(link: Link) -> None:
        with RegistryServer() as server:
            local = server.registry.register_obj(Server())
            link.give(local.mint(rights=Rights.W))
            server.loop()

    child = start(serve)
    (gate,) = child.take()
    with gate:
        said = describe(gate, timeout=PATIENCE)
    assert (said.kind, said.rights, said.answered) == ("gate", Rights.RW, Answered.YES)
    assert [(each.number, each.name, each.known) for each in said.protocols] == [
        (0x7102, "Writer", True),
        (0x7101, "Reader", True),
        (0x7103, "Clock", True),
    ]
    assert said.protocols[0].operations == (
        ObjectOperation("write", "(data: bytes, *, name: str = 'x') -> int", 5, Rights.W),
        ObjectOperation("note", "(text: str) -> None", 6, oneway=True),
    )
    assert said.protocols[1].operations == (
        ObjectOperation("read", "(size: int = 0) -> bytes", 0, summary="Return some bytes."),
    )
    assert said.protocols[2].operations == (ObjectOperation("now", "() -> float"),)
    assert str(said) == (
        "gate rw: it says so itself\n"
        "  Writer (protocol 0x7102)\n"
        "    write(data: bytes, *, name: str = 'x') -> int  [needs w]\n"
        "    note(text: str) -> None  [one way]\n"
        "  Reader (protocol 0x7101)\n"
        "    read(size: int = 0) -> bytes\n"
        "  Clock (protocol 0x7103)\n"
        "    now() -> float"
    )
    child.end()


def test_a_description_is_a_frozen_value_and_plain_data() -> None:
    said = describe(FakeGate(Server()))
    assert said == describe(Writer(FakeGate(Server())))
    assert hash(said) == hash(describe(FakeGate(Server())))
    with pytest.raises(AttributeError):
        said.kind = "irq"  # type: ignore[misc]
    plain = json.loads(json.dumps(said.as_dict()))
    assert (plain["kind"], plain["rights"], plain["answered"]) == ("gate", "rw", "YES")
    assert plain["protocols"][0]["operations"][0] == {
        "name": "write",
        "signature": "(data: bytes, *, name: str = 'x') -> int",
        "opcode": 5,
        "rights": "w",
        "oneway": False,
        "summary": "",
    }


def test_a_protocol_that_nobody_here_knows_is_told_by_name_and_number() -> None:
    said = describe(FakeGate(Says(1, -0x99, b"N4Calc3AddE\0")))
    assert said.protocols == (ObjectProtocol(-0x99, "N4Calc3AddE"),)
    assert "N4Calc3AddE (protocol -153), not known here" in str(said)


def test_dataspaces_irqs_and_receive_rights_are_known_by_their_kind() -> None:
    gate, svr = new_channel()
    with MemAlloc().alloc(10) as ds, Irq.create() as irq, gate, svr:
        said = describe(ds)
        assert (said.kind, said.answered) == ("dataspace", Answered.KIND)
        assert (said.protocols[0].number, said.protocols[0].name) == (0x4000, "Dataspace")
        assert "read" in {each.name for each in said.protocols[0].operations}
        assert describe(ds.ro).rights == Rights.R
        said = describe(irq)
        assert (said.kind, said.protocols[0].number) == ("irq", -18)
        assert ObjectOperation("trigger", "() -> None", summary="Notify the receiver; never blocks. Triggers it has "
                               "not seen yet count as one.") in said.protocols[0].operations  # fmt: skip
        assert describe(svr).kind == "receive right"
        assert "nobody was asked" in str(said)


def test_an_object_without_meta_is_called_that() -> None:
    said = describe(FakeGate(Deaf()))
    assert (said.answered, said.protocols) == (Answered.NO_META, ())
    assert "does not answer META" in str(said)


def test_an_object_that_fails_over_meta_is_quoted() -> None:
    said = describe(FakeGate(Failing()))
    assert said.answered is Answered.FAILED
    assert "EIO: RuntimeError: no" in str(said)


def test_an_object_that_has_no_protocol_of_its_own_says_so() -> None:
    class Silent(Marker, Epiface):
        pass

    said = describe(FakeGate(Silent()))
    assert (said.answered, said.protocols, said.detail) == (Answered.YES, (), "it names no protocol")


@pytest.mark.parametrize(
    ("liar", "count", "detail"),
    [
        (Says(32767, 1, b"Same\0"), 64, "claims 32767 interfaces; these are the first 64"),
        (Says(2, 1, b"\xff\xfe\0"), 0, "UTF-8"),
        (Says(2, 1, b""), 0, "length 0"),
    ],
)
def test_who_answers_wrongly_is_not_believed(liar: Served, count: int, detail: str) -> None:
    said = describe(FakeGate(liar))
    assert (said.answered, len(said.protocols)) == (Answered.WRONGLY, count)
    assert detail in said.detail


def test_an_object_that_has_fewer_interfaces_than_it_claims() -> None:
    class Claims(Server):
        def serve_request(self, rights: int, label: int, words: bytes, data: bytes, caps: Any) -> Any:
            if words[:4] == bytes(4):
                return 9, b"", b"", ()
            return super().serve_request(rights, label, words, data, caps)

    said = describe(FakeGate(Claims()))
    assert (said.answered, len(said.protocols)) == (Answered.WRONGLY, 3)
    assert "claims 9 interfaces" in said.detail


def test_a_hostile_name_does_not_reach_the_terminal_as_it_is() -> None:
    said = describe(FakeGate(Says(1, 1, b"\x1b[2J\nfake line\0")))
    assert "\x1b" not in str(said)
    assert "\\x1b[2J\\nfake line" in str(said)


@pytest.mark.processes
def test_an_object_that_is_gone_or_takes_too_long_is_called_that(start: Callable[..., Child]) -> None:
    def serve(link: Link) -> None:
        with RegistryServer() as server:
            link.give(server.registry.register_obj(Server()))
            link.wait_for_end()

    child = start(serve)
    (gate,) = child.take()
    with gate:
        said = describe(gate, timeout=0.05)
        assert said.answered is Answered.LATE
        assert "did not answer in the time given" in str(said)
        child.kill()
        child.join()
        said = describe(gate, timeout=PATIENCE)
        assert said.answered is Answered.GONE
        assert "it is gone" in str(said)


def test_what_is_no_capability_or_was_closed_cannot_be_described() -> None:
    with pytest.raises(WrongType, match="only a capability"):
        describe(3)  # type: ignore[arg-type]
    irq = Irq.create()
    irq.close()
    with pytest.raises(Closed, match="irq is closed"):
        describe(irq)


def test_a_local_object_is_described_by_the_thread_that_serves_it() -> None:
    with RegistryServer() as server:
        local: Capability = server.registry.register_obj(Server())
        assert [each.name for each in describe(local).protocols] == ["Writer", "Reader", "Clock"]


def test_a_very_long_name_is_cut_and_still_answered() -> None:
    cls = type("ä" * 400, (Interface,), {"protocol": 0x7104})
    served = type("Long", (cls, Epiface), {})
    number, name = Meta(FakeGate(served())).interface(0)
    assert (number, name) == (0x7104, "ä" * 100)
