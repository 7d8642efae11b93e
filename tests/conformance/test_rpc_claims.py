"""The checkable claims on typed calls, by number: what a server object answers, whoever asks, between two processes."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator

import pytest

import l4re
from support.processes import Child, Link, processes

pytestmark = pytest.mark.processes


class Calc(l4re.Interface):
    protocol = 0x44

    @l4re.rpc
    def sub(self, a: l4re.U32, b: l4re.U32) -> l4re.U32:
        raise NotImplementedError

    @l4re.rpc
    def fail(self, how: str) -> None:
        raise NotImplementedError


class Server(Calc, l4re.Epiface):
    def __init__(self, more: int = 0) -> None:
        self.more = more

    def sub(self, a: int, b: int) -> int:
        return a - b + self.more

    def fail(self, how: str) -> None:
        match how:
            case "not found":
                raise l4re.NotFound("nothing of that kind")
            case "range":
                raise l4re.L4Error(code=l4re.Err.ERANGE)
        raise ZeroDivisionError("by accident")


def serve(link: Link) -> None:
    """Register one object for each receive right that comes, each with another sum to add."""
    logging.disable()  # the traceback of an accident belongs into the server's log, not into this test's output
    with l4re.RegistryServer() as server:
        for number, svr in enumerate(link.take()):
            server.registry.register_obj(Server(100 * number), svr)
        server.loop()


@pytest.fixture
def child() -> Iterator[Child]:
    with processes() as start:
        yield start(serve)


def gate_of(child: Child) -> l4re.Gate:
    channel = l4re.new_channel()
    child.give(channel.svr)
    return channel.gate


def answer(gate: l4re.Gate, label: int, words: bytes) -> int:
    """The label of what is answered to a message that no proxy would write."""
    return gate.transact(label, words)[0]


def test_claim_79_an_unknown_protocol_gives_ebadproto_and_an_unknown_opcode_enosys(child: Child) -> None:
    with gate_of(child) as gate:
        assert answer(gate, 0x45, struct.pack("=iII4x", 0, 8, 5)) == -l4re.Err.EBADPROTO
        assert answer(gate, 0x44, struct.pack("=i4x", 77)) == -l4re.Err.ENOSYS
        # in this order: the opcode of an unknown protocol is not looked at, nor the arguments of an unknown opcode
        assert answer(gate, 0x45, struct.pack("=i4x", 77)) == -l4re.Err.EBADPROTO
        assert answer(gate, 0x44, b"") == -l4re.Err.EMSGTOOSHORT
        assert answer(gate, 0x44, struct.pack("=i4x", 0)) == -l4re.Err.EMSGTOOSHORT
        assert answer(gate, 0x44, struct.pack("=iII4x", 0, 8, 5)) == 0
        with pytest.raises(l4re.BadProtocol):
            Other(gate).sub(8, 5)
        with pytest.raises(l4re.NotImplementedByServer):
            Newer(gate).mul(8, 5)


class Other(l4re.Interface):
    protocol = 0x45

    @l4re.rpc
    def sub(self, a: l4re.U32, b: l4re.U32) -> l4re.U32:
        raise NotImplementedError


class Newer(Calc):
    @l4re.rpc
    def mul(self, a: l4re.U32, b: l4re.U32) -> l4re.U32:
        raise NotImplementedError


def test_claim_81_two_registered_objects_have_two_capabilities_and_calls_reach_the_right_one(child: Child) -> None:
    channels = [l4re.new_channel() for _ in range(2)]
    child.give(*(channel.svr for channel in channels))
    with Calc(channels[0].gate) as first, Calc(channels[1].gate) as second:
        assert first != second
        for _ in range(3):
            assert (first.sub(8, 5), second.sub(8, 5)) == (3, 103)


def test_claim_82_a_method_that_raises_makes_an_error_reply_and_the_loop_serves_the_next_caller(child: Child) -> None:
    with Calc(gate_of(child)) as calc:
        with pytest.raises(l4re.NotFound, match="nothing of that kind") as caught:
            calc.fail("not found")
        assert caught.value.code is l4re.Err.ENOENT
        with pytest.raises(l4re.OutOfRange):
            calc.fail("range")
        with pytest.raises(l4re.ServerError, match="by accident"):  # upstream's loop has no number for it: EIO here
            calc.fail("by accident")
        another = Calc(calc.cap.dup())
        with another:
            assert another.sub(8, 5) == 3
        assert calc.sub(8, 5) == 3
