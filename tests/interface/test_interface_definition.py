"""What is refused when an interface is defined or a server object registered."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from fake_gate import FakeGate

from l4re.cap import Capability
from l4re.errors import InvalidArgument
from l4re.interface import U8, Epiface, Interface, Iostream, ServerObject, check_implementation, rpc
from l4re.rights import Rights
from l4re.wire.tag import PROTO_EMPTY

if TYPE_CHECKING:
    from decimal import Decimal


def define(function: Callable[..., Any], **options: Any) -> type[Interface]:
    return type("Calc", (Interface,), {"protocol": 1, "add": rpc(**options)(function)})


def no_annotation(self, a, b: int) -> int: ...  # type: ignore[no-untyped-def, empty-body] # noqa: ANN001
def no_result(self, a: int): ...  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
def a_list(self: object, a: int, b: list[int]) -> None: ...
def a_union(self: object, a: int | str) -> None: ...
def an_object(self: object, a: object) -> None: ...
def result_dict(self: object) -> dict[str, int]: ...  # type: ignore[empty-body]
def endless(self: object) -> tuple[int, ...]: ...  # type: ignore[empty-body]
def nested(self: object) -> tuple[int, list[str]]: ...  # type: ignore[empty-body]
def collecting(self: object, *numbers: int) -> None: ...
def naming(self: object, **numbers: int) -> None: ...
def ours(self: object, _l4_words: int) -> None: ...
async def awaited(self: object) -> None: ...
def many(self: object, *, a: Capability) -> tuple[(Capability,) * 17]: ...  # type: ignore[valid-type, empty-body]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (no_annotation, "Calc.add: argument 'a' has no annotation"),
        (no_result, "Calc.add: the result has no annotation"),
        (a_list, "Calc.add: argument 'b': values of type list[int] do not travel"),
        (a_union, "Calc.add: argument 'a': values of type int | str"),
        (an_object, "Calc.add: argument 'a': values of type object do not travel"),
        (result_dict, "Calc.add: result: values of type dict[str, int] do not travel"),
        (endless, "Calc.add: the result tuple[int, ...] has no fixed length"),
        (nested, "Calc.add: result 2: values of type list[str]"),
        (collecting, "Calc.add: *numbers cannot travel"),
        (naming, "Calc.add: *numbers cannot travel"),
        (ours, "'_l4_words'"),
        (awaited, "Calc.add: define it with plain `def`"),
        (many, "17 capabilities"),
    ],
)
def test_a_signature_that_cannot_travel_is_refused_when_the_class_is_made(
    function: Callable[..., Any], words: str
) -> None:
    with pytest.raises(TypeError) as caught:
        define(function)
    assert words in str(caught.value)


def fine(self: object) -> int: ...  # type: ignore[empty-body]
def quiet(self: object) -> None: ...


def test_options_are_checked() -> None:
    with pytest.raises(TypeError, match="oneway operation has no answer"):
        define(fine, oneway=True)
    with pytest.raises(InvalidArgument, match="32 bits"):
        rpc(opcode=1 << 31)
    with pytest.raises(InvalidArgument, match="W and S"):
        rpc(rights="d")
    with pytest.raises(InvalidArgument, match="'x'"):
        rpc(rights="x")
    with pytest.raises(TypeError, match="plain methods"):
        rpc(property(fine))  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="plain methods"):
        type("Calc", (Interface,), {"add": staticmethod(rpc(fine))})


def make(bases: tuple[type, ...] = (Interface,), protocol: object = 1, **methods: Any) -> type[Interface]:
    return type("Calc", bases, {"protocol": protocol, **methods})


def copied(function: Callable[..., Any]) -> Callable[..., Any]:
    def other(self: object) -> int: ...  # type: ignore[empty-body]

    return other


def test_operations_of_one_protocol_are_told_apart() -> None:
    with pytest.raises(TypeError, match=r"Calc\.b: 'a' has opcode 3 as well"):
        make(a=rpc(opcode=3)(copied(fine)), b=rpc(opcode=3)(copied(fine)))
    with pytest.raises(TypeError, match="without opcodes a protocol has one operation"):
        make(a=rpc(opcode=None)(copied(fine)), b=rpc(copied(fine)))
    with pytest.raises(TypeError, match="no opcode as well"):
        make(a=rpc(opcode=None)(copied(fine)), b=rpc(opcode=None)(copied(fine)))
    base = make(a=rpc(copied(fine)))
    with pytest.raises(TypeError, match=r"Calc\.a is an operation already"):
        make((base,), 2, a=rpc(copied(fine)))
    other = make(z=rpc(copied(fine)))
    with pytest.raises(TypeError, match="same protocol and opcode"):
        type("Server", (base, other, Epiface), {})


def test_names_that_every_proxy_has_are_taken() -> None:
    for name in ("cap", "within", "aio", "serve_request"):
        with pytest.raises(TypeError, match=name):
            type("Calc", (Interface,), {name: rpc(copied(fine))})


def test_a_protocol_is_a_number() -> None:
    with pytest.raises(TypeError, match=r"Calc\.protocol must be an int, not 'x'"):
        make(protocol="x")
    with pytest.raises(TypeError, match="without a protocol"):
        make(protocol=PROTO_EMPTY, a=rpc(copied(fine)))


def test_an_interface_may_speak_of_itself_and_of_later_ones() -> None:
    class First(Interface):
        @rpc
        def other(self) -> Second:
            raise NotImplementedError

        @rpc
        def me(self) -> First:
            raise NotImplementedError

    class Second(Interface):
        pass

    class Server(First, Epiface):
        def me(self) -> First:
            return First(gate)

    gate = FakeGate(Server())
    assert First(gate).me() == First(gate)
    # `Second` is a local name that did not exist when First was made
    with pytest.raises(TypeError, match=r"First\.other: name 'Second' is not defined in the result"):
        First(gate).other()


class Early(Interface):
    @rpc
    def later(self, other: Late) -> None:
        raise NotImplementedError


class Late(Interface):
    pass


class OnlyForCheckers(Interface):
    @rpc
    def add(self, amount: Decimal) -> None:
        raise NotImplementedError


def test_names_are_looked_up_at_the_first_use_at_the_latest() -> None:
    class Server(Early, Epiface):
        def later(self, other: Late) -> None:
            pass

    Early(FakeGate(Server())).later(Late(FakeGate(Server())))

    class Server2(OnlyForCheckers, Epiface):
        def add(self, amount: Decimal) -> None:
            pass

    with pytest.raises(TypeError, match="argument 'amount'; import the name where the program runs"):
        check_implementation(Server2())


def test_rpc_belongs_into_the_interface() -> None:
    with pytest.raises(TypeError, match=r"Server\.a: @rpc belongs"):
        type("Server", (make(), Epiface), {"a": rpc(copied(fine))})


class Calc(Interface):
    protocol = 0x44

    @rpc
    def add(self, a: int, b: U8 = 3, *, c: float = 1) -> int:
        raise NotImplementedError


class Right(Calc, Epiface):
    def add(self, a: int, b: U8 = 3, *, c: float = 1) -> int:
        return 1


def implemented(function: Any) -> Any:
    return type("Server", (Calc, Epiface), {"add": function})()


def _no_b(self: object, a: int, *, c: float) -> int: ...  # type: ignore[empty-body]
def _no_c(self: object, a: int, b: int) -> int: ...  # type: ignore[empty-body]
def _extra(self: object, a: int, b: int, d: int, *, c: float) -> int: ...  # type: ignore[empty-body]
def _extra_name(self: object, a: int, b: int, *, c: float, d: int) -> int: ...  # type: ignore[empty-body]
def _str_b(self: object, a: int, b: str, *, c: float) -> int: ...  # type: ignore[empty-body]
def _int_c(self: object, a: int, b: int, *, c: int) -> int: ...  # type: ignore[empty-body]
def _gives_str(self: object, a: int, b: int, *, c: float) -> str: ...  # type: ignore[empty-body]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (_no_b, "Server.add does not take argument 'b' of Calc.add"),
        (_no_c, "Server.add does not take argument 'c' of Calc.add"),
        (_extra, "Server.add wants argument 'd', which Calc.add does not have"),
        (_extra_name, "Server.add wants argument 'd', which Calc.add does not have"),
        (_str_b, "Server.add: argument 'b' is str, and Calc.add says U8"),
        (_int_c, "Server.add: argument 'c' is int, and Calc.add says float"),
        (_gives_str, "Server.add returns str, and Calc.add says int"),
        (7, "Server.add must be a method"),
    ],
)
def test_an_implementation_that_does_not_fit_is_refused_at_registration(function: object, words: str) -> None:
    with pytest.raises(TypeError) as caught:
        check_implementation(implemented(function))
    assert words in str(caught.value)


def _wider(self: object, x: object, y: int | None = None, z: int = 0, *, c: float, d: int = 0) -> bool: ...  # type: ignore[empty-body]
def _anything(self: object, *args: Any, **kwargs: Any) -> Any: ...
def _untyped(self, a, b, *, c): ...  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202


@pytest.mark.parametrize(
    "function", [_wider, _anything, _untyped, staticmethod(functools.partial(_anything, None)), max]
)
def test_an_implementation_may_take_more_and_give_less(function: object) -> None:
    check_implementation(implemented(function))


def test_only_complete_server_objects_are_registered() -> None:
    check_implementation(Right())
    with pytest.raises(TypeError, match=r"Server does not implement Calc\.add"):
        check_implementation(type("Server", (Calc, Epiface), {})())
    with pytest.raises(TypeError, match="is no server object"):
        check_implementation(Calc(FakeGate(Right())))
    with pytest.raises(TypeError, match="serves nothing"):
        check_implementation(type("Server", (Epiface,), {})())

    class Fine(ServerObject):
        def dispatch(self, rights: Rights, ios: Iostream) -> int:
            return 0

    check_implementation(Fine())
    with pytest.raises(TypeError, match="abstract"):
        ServerObject()  # type: ignore[abstract]
