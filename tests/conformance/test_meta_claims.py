"""The checkable claims on streams, META and casts, by number, between real processes."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from l4re import (
    BadProtocol,
    Epiface,
    Err,
    Gate,
    Interface,
    Iostream,
    IpcTimeout,
    Meta,
    OutOfRange,
    RegistryServer,
    Rights,
    ServerObject,
    cap_cast,
    cap_dynamic_cast,
    describe,
    rpc,
)
from l4re.wire.tag import PROTO_EMPTY
from support.processes import PATIENCE, Child, Link, processes

pytestmark = pytest.mark.processes


class Pager(Interface):
    protocol = 0x7300

    @rpc
    def page(self, address: int) -> int:
        raise NotImplementedError


class Debug(Interface):
    protocol = PROTO_EMPTY


class Areas(Interface):
    protocol = 0x7302

    @rpc
    def areas(self) -> int:
        raise NotImplementedError


class Rm(Pager, Debug, Areas):
    protocol = 0x7301

    @rpc
    def find(self, address: int) -> int:
        raise NotImplementedError


class Other(Interface):
    protocol = 0x7309


class RmServer(Rm, Epiface):
    def page(self, address: int) -> int:
        return address + 1

    def areas(self) -> int:
        return 2

    def find(self, address: int) -> int:
        return address + 3


class Stream(ServerObject):
    """Tells what it found in a request; label 1: one number and far past the end, label 2: all of it."""

    def dispatch(self, rights: Rights, ios: Iostream) -> int:
        match ios.tag.label:
            case 1:
                values = (ios.get(int), ios.get(int), ios.get(float), ios.get(bool), ios.opcode())
                texts = (ios.get(str), ios.get(bytes))
                ios << int(values == (7, 0, 0.0, False, 0)) << int(texts == ("", b"")) << int(ios.get(Gate) is None)
                return 0
            case 2:
                ios << ios.tag.words
                for _ in range(62):
                    ios << ios.get(int)
                return ios.get(int)
            case _:
                return -Err.EBADPROTO


def serve(link: Link) -> None:
    with RegistryServer() as server:
        link.give(*(server.registry.register_obj(each) for each in (RmServer(), Stream())))
        server.loop()


@pytest.fixture
def child() -> Iterator[Child]:
    with processes() as start:
        yield start(serve)


@pytest.fixture
def gates(child: Child) -> Iterator[tuple[Gate, Gate]]:
    rm, stream = child.take()
    with rm, stream:
        yield rm, stream
    child.end()  # whatever a claim did to it, it served to the end


def test_claim_83_a_value_past_the_end_is_zero_or_empty_and_does_not_raise(gates: tuple[Gate, Gate]) -> None:
    ios = Iostream()
    ios << 7
    ios.call(gates[1], 1)
    assert [ios.get(int) for _ in range(3)] == [1, 1, 1]
    assert (ios.get(int), ios.get(str), ios.get(Gate)) == (0, "", None)


def test_claim_84_a_string_behind_63_words_is_not_sent_and_the_call_goes_out_all_the_same(
    gates: tuple[Gate, Gate],
) -> None:
    ios = Iostream()
    for n in range(63):
        ios << 100 + n
    with pytest.warns(RuntimeWarning, match="'lost' .*does not fit the 63 words .*was dropped"):
        ios << "lost"
    tag = ios.call(gates[1], 2)
    assert (tag.label, tag.words) == (162, 63)
    assert [ios.get(int) for _ in range(63)] == [63, *range(100, 162)]


def test_claim_85_num_interfaces_counts_the_bases_that_have_a_protocol(gates: tuple[Gate, Gate]) -> None:
    meta = Meta(gates[0])
    assert meta.num_interfaces() == 3
    assert [meta.interface(index)[0] for index in range(3)] == [Rm.protocol, Pager.protocol, Areas.protocol]
    label, words, _, _ = gates[0].transact(Meta.PROTOCOL, struct.pack("=i4x", 0))
    assert (label, words) == (3, b"")  # the answer is the label, as upstream


def test_claim_86_interface_gives_the_derived_first_and_erange_past_the_last(gates: tuple[Gate, Gate]) -> None:
    meta = Meta(gates[0])
    assert meta.interface(0) == (Rm.protocol, "Rm")
    for index in (3, 4, (1 << 64) - 1):
        with pytest.raises(OutOfRange):
            meta.interface(index)
    _, words, _, _ = gates[0].transact(Meta.PROTOCOL, struct.pack("=i4xQ", 1, 0))
    assert words == struct.pack("=qQ3s5x", Rm.protocol, 3, b"Rm\0")


def test_claim_87_supports_is_true_for_what_interface_reports_and_for_nothing_else(gates: tuple[Gate, Gate]) -> None:
    meta = Meta(gates[0])
    mine = [meta.interface(index)[0] for index in range(meta.num_interfaces())]
    others = [0, 1, -1, PROTO_EMPTY, Meta.PROTOCOL, Other.protocol, -Rm.protocol, Rm.protocol | 1 << 32]
    assert [meta.supports(protocol) for protocol in mine] == [True] * 3
    assert [meta.supports(protocol) for protocol in others] == [False] * len(others)


def test_claim_88_a_dynamic_cast_to_what_the_server_lacks_raises_here_and_a_static_one_does_not_ask(
    child: Child, gates: tuple[Gate, Gate]
) -> None:
    rm, stream = gates
    with pytest.raises(BadProtocol, match=r"is no Other \(protocol 0x7309\)"):
        cap_dynamic_cast(rm, Other)
    with pytest.raises(BadProtocol, match="does not answer META"):
        cap_dynamic_cast(stream, Other)
    assert [cap_dynamic_cast(rm, each).cap is rm for each in (Rm, Pager, Areas)] == [True] * 3
    assert (cap_dynamic_cast(rm, Pager).page(1), cap_dynamic_cast(rm, Areas).areas()) == (2, 2)
    child.stop()
    assert isinstance(cap_cast(rm, Other), Other)
    with pytest.raises(IpcTimeout):
        cap_dynamic_cast(rm, Rm, timeout=0.01)
    child.go_on()
    assert [each.name for each in describe(rm, timeout=PATIENCE).protocols] == ["Rm", "Pager", "Areas"]
