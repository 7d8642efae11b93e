"""Typed proxies and servers, face to face."""

from __future__ import annotations

import asyncio
import enum
import inspect
import logging
import re
import struct
from collections.abc import Callable
from functools import wraps
from pydoc import render_doc
from typing import get_type_hints

import pytest
from fake_gate import FakeCap, FakeGate, FakeIrq

from l4re.cap import Capability
from l4re.errors import (
    BadProtocol,
    Closed,
    Err,
    InvalidArgument,
    L4Error,
    MessageTooLong,
    MessageTooShort,
    MissingArgument,
    NotFound,
    NotImplementedByServer,
    OutOfRange,
    PermissionDenied,
    ServerError,
    WrongType,
)
from l4re.interface import U8, U32, Epiface, Interface, rpc, stubs
from l4re.interface.signature import MethodSpec
from l4re.rights import Rights
from l4re.wire.tag import PROTO_EMPTY


class Mode(enum.IntEnum):
    FAST = 1
    SAFE = 2


class Calc(Interface):
    """Calculates."""

    protocol = 0x44

    @rpc
    def sub(self, a: U32, b: U32) -> U32:
        """Return the difference."""
        raise NotImplementedError

    @rpc
    def neg(self, a: int = 7, *, mode: Mode = Mode.FAST) -> int: ...  # type: ignore[empty-body]

    @rpc(opcode=9, rights="w")
    def store(self, text: str) -> None:
        raise NotImplementedError

    @rpc(oneway=True)
    def forget(self, what: int) -> None:
        raise NotImplementedError

    @rpc
    def both(self, data: bytes, label: str, words: float, caps: bool) -> tuple[bool, float, str, bytes]:
        raise NotImplementedError


class CalcServer(Calc, Epiface):
    def __init__(self) -> None:
        self.calls: list[object] = []

    def sub(self, a: int, b: int) -> int:
        return a - b

    def neg(self, a: int = 7, *, mode: Mode = Mode.FAST) -> int:
        self.calls.append(mode)
        if a == 13:
            raise NotFound("13 is gone")
        if a == 14:
            raise ZeroDivisionError("oh")
        return -a

    def store(self, text: str) -> None:
        self.calls.append(text)

    def forget(self, what: int) -> None:
        self.calls.append(what)
        raise KeyError if what else NotFound

    def both(self, data: bytes, label: str, words: float, caps: bool) -> tuple[bool, float, str, bytes]:
        return caps, words, label, data


class Passing(Interface):
    protocol = 0x45

    @rpc
    def swap(self, a: FakeIrq, n: int, b: Capability) -> tuple[Capability, int, FakeIrq]:
        raise NotImplementedError

    @rpc
    def maybe(self, a: FakeIrq | None) -> FakeIrq | None:
        raise NotImplementedError

    @rpc
    def calc(self, other: Calc | None) -> Calc:
        raise NotImplementedError

    @rpc
    def again(self, other: Passing) -> Passing:
        raise NotImplementedError


class PassingServer(Passing, Epiface):
    def swap(self, a: FakeIrq, n: int, b: Capability) -> tuple[Capability, int, FakeIrq]:
        return b, n, a

    def maybe(self, a: FakeIrq | None) -> FakeIrq | None:
        return a

    def calc(self, other: Calc | None) -> Calc:
        server = CalcServer()
        server._l4_cap = FakeGate(server)
        return other or server

    def again(self, other: Passing) -> Passing:
        return other


@pytest.fixture
def gate() -> FakeGate:
    return FakeGate(CalcServer())


@pytest.fixture
def calc(gate: FakeGate) -> Calc:
    return Calc(gate)


def test_a_call_reaches_the_implementation(calc: Calc) -> None:
    assert calc.sub(8, 5) == 3
    assert calc.neg() == -7
    assert calc.neg(a=1, mode=Mode.SAFE) == -1
    assert calc.both(b"\0\1", "häh", 0.5, True) == (True, 0.5, "häh", b"\0\1")


def test_names_of_arguments_are_free(calc: Calc) -> None:
    assert calc.both(words=1, caps=False, label="", data=b"") == (False, 1.0, "", b"")


def test_the_second_call_does_what_the_first_did(calc: Calc) -> None:
    assert [calc.sub(n, 1) for n in (3, 2, 1)] == [2, 1, 0]
    assert CalcServer().sub(3, 2) == 1


def test_a_method_bound_before_its_first_call_is_made_once(gate: FakeGate, monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(Interface):
        protocol = 0x45

        @rpc
        def twice(self, a: int) -> int:
            raise NotImplementedError

    class LateServer(Late, Epiface):
        def twice(self, a: int) -> int:
            return 2 * a

    made: list[object] = []
    compile_stub = stubs.compile_stub

    def counted(spec: MethodSpec) -> Callable[..., object]:
        made.append(spec)
        return compile_stub(spec)

    monkeypatch.setattr(stubs, "compile_stub", counted)
    bound = Late(FakeGate(LateServer())).twice
    assert [bound(n) for n in range(3)] == [0, 2, 4]
    assert len(made) == 1


def test_the_bytes_are_those_of_upstreams_clntsrv(calc: Calc, gate: FakeGate) -> None:
    calc.sub(8, 5)
    assert gate.sent[0].label == 0x44
    assert gate.sent[0].words == struct.pack("=iII4x", 0, 8, 5)
    assert gate.obj.serve_request(0, 0x44, gate.sent[0].words, b"", ()) == (0, struct.pack("=I4x", 3), b"", ())


def test_opcodes_count_up_and_go_on_after_a_given_one(calc: Calc, gate: FakeGate) -> None:
    calc.neg()
    calc.store("x")
    calc.forget(0)
    calc.both(b"", "", 0, True)
    assert [struct.unpack_from("=i", sent.words)[0] for sent in gate.sent] == [1, 9, 10, 11]


def test_long_values_travel_in_the_long_area(calc: Calc, gate: FakeGate) -> None:
    big = bytes(range(256)) * 200
    assert calc.both(big, "x", 0.0, True)[3] == big
    assert gate.sent[0].words == b""
    assert len(gate.sent[0].data) > 51200


def test_proxies_have_real_signatures_and_docstrings(calc: Calc) -> None:
    for method in (Calc.sub, CalcServer.sub):
        assert list(inspect.signature(method).parameters) == ["self", "a", "b"]
    assert inspect.signature(calc.sub).return_annotation == "U32"
    assert (Calc.sub.__doc__, Calc.sub.__name__, Calc.sub.__qualname__) == ("Return the difference.", "sub", "Calc.sub")
    calc.sub(2, 1)
    assert (Calc.sub.__doc__, Calc.sub.__name__, Calc.sub.__qualname__) == ("Return the difference.", "sub", "Calc.sub")
    assert get_type_hints(Calc.sub) == {"a": U32, "b": U32, "return": U32}
    shown = re.sub(".\b", "", render_doc(Calc))  # without what makes it bold
    assert "sub(self, a: 'U32', b: 'U32') -> 'U32'\n |      Return the difference.\n" in shown
    assert inspect.signature(calc.aio.sub) == inspect.signature(calc.sub)
    assert inspect.iscoroutinefunction(calc.aio.sub)
    assert {"sub", "neg", "aio", "within"} <= set(dir(calc))
    assert {"sub", "neg"} <= set(dir(calc.aio))
    with pytest.raises(TypeError, match=r"Calc\.sub\(\) missing 1 required positional argument: 'b'"):
        calc.sub(1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda c: c.sub("8", 5), WrongType, "Calc.sub: argument 'a' must be U32, not '8' (str)"),
        (lambda c: c.sub(8, -5), OutOfRange, "Calc.sub: argument 'b' must be U32 (0 to 4294967295), not -5"),
        (lambda c: c.neg(1.5), WrongType, "Calc.neg: argument 'a' must be int"),
        (lambda c: c.neg(1, mode=1), WrongType, "Calc.neg: argument 'mode' must be Mode, not 1"),
        (lambda c: c.store(None), WrongType, "Calc.store: argument 'text' must be str, not None"),
        (lambda c: c.store("\ud800"), InvalidArgument, "Calc.store: argument 'text'"),
        (lambda c: c.store("x" * 70000), MessageTooLong, "dataspace"),
    ],
)
def test_a_bad_argument_is_refused_before_anything_is_sent(
    calc: Calc, gate: FakeGate, call: object, error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        call(calc)  # type: ignore[operator]
    assert words in str(caught.value)
    assert gate.sent == []


def test_errors_of_the_handler_reach_the_client_and_name_the_call(calc: Calc, gate: FakeGate) -> None:
    with pytest.raises(NotFound, match="13 is gone") as caught:
        calc.neg(13)
    assert "Calc.neg" in caught.value.__notes__[0]
    with pytest.raises(ServerError, match="oh"):
        calc.neg(14)
    assert isinstance(gate.unexpected[0], ZeroDivisionError)
    assert calc.neg(15) == -15


def test_a_oneway_call_is_never_answered(gate: FakeGate, calc: Calc, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        calc.forget(0)
        calc.forget(1)
    assert [sent.oneway for sent in gate.sent] == [True, True]
    assert isinstance(gate.obj, CalcServer)
    assert gate.obj.calls == [0, 1]
    assert "KeyError" in caplog.text
    for request in (gate.sent[0].words, struct.pack("=i4x", 10)):
        assert gate.obj.serve_request(3, 0x44, request, b"", ()) is None


def test_errors_come_in_l4res_order() -> None:
    obj = CalcServer()
    with pytest.raises(BadProtocol, match=r"0x44 \(Calc\), not protocol 0x55"):
        obj.serve_request(0, 0x55, b"", b"", ())
    with pytest.raises(MessageTooShort):
        obj.serve_request(0, 0x44, b"\0\0", b"", ())
    with pytest.raises(NotImplementedByServer, match="operation 77"):
        obj.serve_request(0, 0x44, struct.pack("=i4x", 77), b"", ())
    for rights in (0, 2):
        with pytest.raises(PermissionDenied) as caught:
            obj.serve_request(rights, 0x44, struct.pack("=i", 9), b"", ())
        assert caught.value.wanted == Rights.W
        assert caught.value.held == Rights.R | rights
    with pytest.raises(MessageTooShort, match="argument 'text'"):
        obj.serve_request(1, 0x44, struct.pack("=i", 9), b"", ())
    assert obj.calls == []


def test_rights_are_those_of_the_capability() -> None:
    obj = CalcServer()
    Calc(FakeGate(obj, rights=1)).store("x")
    with pytest.raises(PermissionDenied):
        Calc(FakeGate(obj, rights=0)).store("x")
    assert obj.calls == ["x"]


def test_capabilities_travel_as_items() -> None:
    gate = FakeGate(PassingServer())
    passing = Passing(gate)
    irq, other = FakeIrq(), FakeCap()
    assert passing.swap(irq, 3, other) == (other, 3, irq)
    assert gate.sent[0].caps == (irq, other)
    assert passing.maybe(irq) is irq
    assert passing.maybe(None) is None
    assert gate.sent[-1].caps == (None,)


def test_an_interface_as_annotation_sends_the_gate_and_gives_a_proxy(calc: Calc) -> None:
    passing = Passing(FakeGate(PassingServer()))
    back = passing.calc(calc)
    assert isinstance(back, Calc)
    assert back == calc
    assert passing.calc(None).sub(3, 1) == 2
    assert passing.again(passing).again(passing) == passing


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda p: p.swap(FakeCap(), 1, FakeCap()), WrongType, "argument 'a' must be FakeIrq"),
        (lambda p: p.swap(None, 1, FakeCap()), MissingArgument, "argument 'a' must be FakeIrq, not None"),
        (lambda p: p.swap(FakeIrq(), 1, 7), WrongType, "argument 'b' must be Capability, not 7"),
        (lambda p: p.calc(FakeIrq()), WrongType, "argument 'other' must be Calc"),
        (lambda p: p.calc(p), WrongType, "argument 'other' must be Calc"),
        (lambda p: p.calc(CalcServer()), NotFound, "not registered"),
    ],
)
def test_a_wrong_capability_is_refused_before_anything_is_sent(
    call: object, error: type[Exception], words: str
) -> None:
    gate = FakeGate(PassingServer())
    with pytest.raises(error) as caught:
        call(Passing(gate))  # type: ignore[operator]
    assert words in str(caught.value)
    assert gate.sent == []


def test_a_server_does_not_believe_in_the_kind_of_a_capability() -> None:
    obj = PassingServer()
    words = struct.pack("=i4xq", 0, 1)
    with pytest.raises(InvalidArgument, match="argument 'a' must be FakeIrq"):
        obj.serve_request(3, 0x45, words, b"", (FakeCap(), FakeCap()))
    with pytest.raises(MissingArgument, match="argument 'a'"):
        obj.serve_request(3, 0x45, words, b"", (None, FakeCap()))
    with pytest.raises(MessageTooShort, match="argument 'b'"):
        obj.serve_request(3, 0x45, words, b"", (FakeIrq(),))
    answer = obj.serve_request(3, 0x45, words, b"", (FakeIrq(), FakeCap(), FakeCap()))
    assert answer is not None
    assert len(answer[3]) == 2


def test_a_client_does_not_believe_in_an_answer(calc: Calc, gate: FakeGate, monkeypatch: pytest.MonkeyPatch) -> None:
    class Liar(CalcServer):
        answer: object = (0, b"", b"", ())

        def serve_request(self, *_args: object) -> object:  # type: ignore[override]
            return self.answer

    calc = Calc(FakeGate(Liar()))
    with pytest.raises(MessageTooShort, match=r"Calc\.sub: result"):
        calc.sub(1, 1)
    with pytest.raises(MessageTooShort):
        calc.both(b"", "", 1, True)
    passing = Passing(FakeGate(Liar()))
    monkeypatch.setattr(Liar, "answer", (0, b"", b"", (FakeCap(),)))
    with pytest.raises(ServerError, match="no sense"):
        passing.maybe(None)
    monkeypatch.setattr(Liar, "answer", (-2, b"", b"\xff\xfe", ()))
    with pytest.raises(NotFound):
        calc.sub(1, 1)


class Bad(CalcServer):
    result: object = None

    def sub(self, a: int, b: int) -> int:
        return self.result  # type: ignore[return-value]

    def both(self, data: bytes, label: str, words: float, caps: bool) -> tuple[bool, float, str, bytes]:
        return self.result  # type: ignore[return-value]

    def store(self, text: str) -> None:
        return self.result  # type: ignore[return-value]


@pytest.mark.parametrize("result", ["x", -1, 1 << 40, (1, 2), None])
def test_a_server_that_returns_something_else_is_told_so(result: object) -> None:
    obj = Bad()
    obj.result = result
    gate = FakeGate(obj)
    with pytest.raises(ServerError):
        Calc(gate).sub(1, 1)
    with pytest.raises(ServerError):
        Calc(gate).both(b"", "", 0, True)
    if result is not None:
        with pytest.raises(ServerError):
            Calc(gate).store("")
    assert all(isinstance(error, TypeError) for error in gate.unexpected)
    assert "Bad.sub" in str(gate.unexpected[0])
    assert "Bad.both must return a tuple of 4" in str(gate.unexpected[1])


def test_too_long_an_answer_is_too_long_at_the_client_too() -> None:
    obj = Bad()
    obj.result = (True, 0.5, "x" * 70000, b"")
    with pytest.raises(MessageTooLong, match="dataspace"):
        Calc(FakeGate(obj)).both(b"", "", 0, True)


def test_without_opcode_there_is_no_opcode_word() -> None:
    class SharedMemory(Interface):
        protocol = 0

        @rpc(opcode=None)
        def get(self) -> tuple[FakeCap, FakeIrq]:
            raise NotImplementedError

    class Provider(SharedMemory, Epiface):
        def get(self) -> tuple[FakeCap, FakeIrq]:
            return FakeCap(), FakeIrq()

    gate = FakeGate(Provider())
    for _ in range(2):
        assert len(SharedMemory(gate).get()) == 2
    assert gate.sent[0].words == b""


def test_derived_interfaces_have_the_operations_of_their_bases() -> None:
    class Marker(Interface):
        protocol = PROTO_EMPTY

    class Base(Interface):
        protocol = 0x60

        @rpc
        def one(self) -> int:
            raise NotImplementedError

    class Derived(Base, Marker):
        protocol = 0x61

        @rpc
        def two(self) -> int:
            raise NotImplementedError

        def sum(self) -> int:
            return self.one() + self.two()

    class More(Derived):
        @rpc
        def three(self) -> int:
            raise NotImplementedError

    class Server(More, Epiface):
        def one(self) -> int:
            return 1

        def two(self) -> int:
            return 2

        def three(self) -> int:
            return 3

    gate = FakeGate(Server())
    more = More(gate)
    assert (more.one(), more.two(), more.three(), more.sum(), Base(gate).one()) == (1, 2, 3, 3, 1)
    assert [(sent.label, sent.words[0]) for sent in gate.sent[:3]] == [(0x60, 0), (0x61, 0), (0x61, 1)]


def test_within_gives_every_call_a_timeout(calc: Calc, gate: FakeGate) -> None:
    hurried = calc.within(0.5)
    assert hurried.sub(3, 1) == 2
    hurried.forget(0)
    hurried.within(None).sub(3, 1)
    assert [sent.timeout for sent in gate.sent] == [0.5, 0.5, None]
    assert hurried == calc
    for bad in (-1, float("nan")):
        with pytest.raises(InvalidArgument):
            calc.within(bad)


def test_aio_awaits_the_same_operations(calc: Calc, gate: FakeGate) -> None:
    async def program() -> None:
        assert await calc.aio.sub(8, 5) == 3
        assert await calc.within(2).aio.neg(a=1) == -1
        await calc.aio.forget(0)
        with pytest.raises(NotFound):
            await calc.aio.neg(13)
        with pytest.raises(WrongType):
            await calc.aio.sub("8", 5)

    asyncio.run(program())
    assert [sent.timeout for sent in gate.sent] == [None, 2, None, None]


def test_a_proxy_is_made_of_what_can_be_called(calc: Calc, gate: FakeGate) -> None:
    assert Calc(calc).cap is gate
    for nothing in (FakeIrq(), None, 3):
        with pytest.raises(WrongType, match="Calc needs a gate"):
            Calc(nothing)  # type: ignore[arg-type]
    assert "Calc proxy" in repr(calc)
    assert len({calc, Calc(gate)}) == 1


def test_leaving_a_proxys_block_closes_the_capability(gate: FakeGate) -> None:
    with Calc(gate) as calc:
        calc.sub(1, 1)
    assert gate.closed
    with pytest.raises(Closed), calc:
        pass


def test_a_server_object_is_no_proxy() -> None:
    class Lazy(Calc, Epiface):
        pass

    lazy = Lazy()
    assert lazy != Lazy()
    assert "Lazy" in repr(lazy)
    with pytest.raises(NotImplementedByServer):
        lazy.sub(1, 2)
    with pytest.raises(L4Error, match=r"does not implement Calc\.sub") as caught:
        lazy.serve_request(3, 0x44, struct.pack("=iII4x", 0, 1, 1), b"", ())
    assert caught.value.code is Err.ENOSYS


def test_a_wrapped_implementation_is_an_implementation() -> None:
    class Wrapping(CalcServer):
        @wraps(Calc.sub)
        def sub(self, a: int, b: int) -> int:  # type: ignore[override]
            return 42

    assert Calc(FakeGate(Wrapping())).sub(1, 1) == 42


def test_received_strings_are_checked() -> None:
    obj = CalcServer()
    for text in (b"\xff\0", b"a\xc3\0"):
        with pytest.raises(InvalidArgument, match="UTF-8"):
            obj.serve_request(3, 0x44, struct.pack("=i4xQ", 9, len(text)) + text, b"", ())


class Small(Interface):
    protocol = 0x70

    @rpc
    def last(self, len: U8, self_: U8, tuple: U8, at: U8 = 4, /) -> U8:
        raise NotImplementedError


def test_python_names_do_not_disturb_the_generated_code() -> None:
    class Server(Small, Epiface):
        def last(self, len: U8, self_: U8, tuple: U8, at: U8 = 4, /) -> U8:
            return len + self_ + tuple + at

    assert Small(FakeGate(Server())).last(1, 2, 3) == 10
