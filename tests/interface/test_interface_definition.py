"""What is refused when an interface is defined or a server object registered."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from fake_gate import FakeGate

from l4re.cap import Capability
from l4re.dataspace import Dataspace
from l4re.errors import InvalidArgument
from l4re.interface import U8, Epiface, Interface, Iostream, Length, ServerObject, check_implementation, rpc
from l4re.interface.rpc import mark_of
from l4re.rights import Rights
from l4re.wire.tag import PROTO_EMPTY

if TYPE_CHECKING:
    from decimal import Decimal


@dataclass
class Nine:
    caps: tuple[(Capability,) * 9]  # type: ignore[valid-type]


@dataclass
class Deeper:
    what: object


@dataclass
class Deep:
    down: Deeper


def define(function: Callable[..., Any], **options: Any) -> type[Interface]:
    return type("Calc", (Interface,), {"protocol": 1, "add": rpc(**options)(function)})


def no_annotation(self, a, b: int) -> int: ...  # type: ignore[no-untyped-def, empty-body] # noqa: ANN001
def no_result(self, a: int): ...  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
def a_set(self: object, a: int, b: set[int]) -> None: ...
def a_bare_list(self: object, a: list) -> None: ...  # type: ignore[type-arg]
def a_union(self: object, a: int | str) -> None: ...
def an_object(self: object, a: object) -> None: ...
def result_dict(self: object) -> dict[str, int]: ...  # type: ignore[empty-body]
def endless(self: object) -> tuple[int, ...]: ...  # type: ignore[empty-body]
def nested(self: object) -> tuple[int, list[set[str]]]: ...  # type: ignore[empty-body]
def collecting(self: object, *numbers: int) -> None: ...
def naming(self: object, **numbers: int) -> None: ...
def ours(self: object, _l4_words: int) -> None: ...
async def awaited(self: object) -> None: ...
def many(self: object, *, a: Capability) -> tuple[(Capability,) * 17]: ...  # type: ignore[valid-type, empty-body]
def many_inside(self: object, a: list[int], b: Nine, c: Nine) -> None: ...
def only_capabilities(self: object, a: Annotated[int, Rights.R]) -> None: ...
def too_strong(self: object, a: Annotated[Dataspace, Rights.RWS]) -> None: ...
def a_server(self: object, a: list[Right]) -> None: ...
def no_list(self: object, a: Annotated[int, Length(U8)]) -> None: ...
def deep(self: object) -> tuple[int, Deep]: ...  # type: ignore[empty-body]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (no_annotation, "Calc.add: argument 'a' has no annotation"),
        (no_result, "Calc.add: the result has no annotation"),
        (a_set, "Calc.add: argument 'b': values of type set[int] do not travel; int, U8 to S64"),
        (a_bare_list, "Calc.add: argument 'a': a list travels when it is said of what: list[U32]"),
        (a_union, "Calc.add: argument 'a': values of type int | str do not travel; of unions only `X | None` does"),
        (an_object, "Calc.add: argument 'a': values of type object do not travel"),
        (result_dict, "Calc.add: result: values of type dict[str, int] do not travel"),
        (endless, "Calc.add: the result tuple[int, ...] has no fixed length"),
        (nested, "Calc.add: result 2: elements: values of type set[str]"),
        (collecting, "Calc.add: *numbers cannot travel"),
        (naming, "Calc.add: *numbers cannot travel"),
        (ours, "'_l4_words'"),
        (awaited, "Calc.add: define it with plain `def`"),
        (many, "17 capabilities"),
        (many_inside, "Calc.add: 18 capabilities, and a message takes at most 16"),
        (only_capabilities, "Calc.add: argument 'a': only capabilities carry rights like <Rights.R: 4>, not values of"),
        (too_strong, "Calc.add: argument 'a': a Dataspace carries the rights 'rw' at most, never 'rws'"),
        (a_server, "Calc.add: argument 'a': elements: Right is a server; say the interface it serves"),
        (no_list, "Calc.add: argument 'a': Length(U8) is for list[...], str and bytes, not for int"),
        (deep, "Calc.add: result 2: field 'down' of Deep: field 'what' of Deeper: values of type object do not"),
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
    with pytest.raises(TypeError, match=r"Calc: Calc\.a and Calc\.b have the same protocol and opcode 3"):
        make(a=rpc(opcode=3)(copied(fine)), b=rpc(opcode=3)(copied(fine)))
    with pytest.raises(TypeError, match=r"Calc: Calc\.a has no opcode, so Calc\.b cannot have its protocol"):
        make(a=rpc(opcode=None)(copied(fine)), b=rpc(copied(fine)))
    with pytest.raises(TypeError, match="opcode None"):
        make(a=rpc(opcode=None)(copied(fine)), b=rpc(opcode=None)(copied(fine)))
    base = make(a=rpc(copied(fine)))
    with pytest.raises(TypeError, match=r"Calc: Calc\.a and Calc\.a have the same name"):
        make((base,), 2, a=rpc(copied(fine)))
    other = make(z=rpc(copied(fine)))
    for bases in ((base, other, Epiface), (base, other)):
        with pytest.raises(TypeError, match=r"Both: Calc\.a and Calc\.z have the same protocol and opcode"):
            type("Both", bases, {})
    for bases in (
        (base, make(protocol=2, a=rpc(copied(fine)))),
        (make(protocol=2, a=rpc(copied(fine))), base, Epiface),
    ):
        with pytest.raises(TypeError, match=r"Both: Calc\.a and Calc\.a have the same name"):
            type("Both", bases, {})
    alone = make(alone=rpc(opcode=None)(copied(fine)))
    for bases in ((base, alone), (alone, base)):
        with pytest.raises(TypeError, match=r"Both: Calc\.alone has no opcode, so Calc\.a cannot have its protocol"):
            type("Both", bases, {})
    type("Both", (base, make(protocol=2, z=rpc(copied(fine)))), {})


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


def test_dataclasses_may_be_local_as_well() -> None:
    @dataclass
    class Inner:
        number: U8

    @dataclass
    class Outer:
        inner: Inner
        more: list[Inner]

    class Local(Interface):
        @rpc
        def turn(self, outer: Outer) -> Inner:
            raise NotImplementedError

        @rpc
        def later(self, outer: NotYet) -> None:
            raise NotImplementedError

    @dataclass
    class NotYet:
        number: U8

    class Server(Local, Epiface):
        def turn(self, outer: Outer) -> Inner:
            return outer.inner

        def later(self, outer: NotYet) -> None:
            pass

    local = Local(FakeGate(Server()))
    assert local.turn(Outer(Inner(1), [Inner(2)])) == Inner(1)
    with pytest.raises(
        TypeError, match=r"Local\.later: name 'NotYet' is not defined in the annotation of argument 'outer'"
    ):
        local.later(NotYet(1))


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
        (_no_b, "; `def add(self, a: int, b: U8 = 3, *, c: float = 1) -> int` would do"),
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


class Lists(Interface):
    @rpc
    def give(
        self, numbers: list[U8], pair: tuple[int, str], maybe: Annotated[Dataspace, Rights.R] | None
    ) -> list[bool]:
        raise NotImplementedError


def given(
    numbers: object = list[int],
    pair: object = tuple[int, str],
    maybe: object = Dataspace | None,
    result: object = list[bool],
) -> Any:
    def give(self, numbers, pair, maybe): ...  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202

    give.__annotations__ = {"numbers": numbers, "pair": pair, "maybe": maybe, "return": result}
    return type("Server", (Lists, Epiface), {"give": give})()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"numbers": list[U8], "maybe": Dataspace | Capability | None, "pair": tuple[object, str]},
        {"numbers": Sequence[int], "pair": tuple[int | None, Any], "maybe": object, "result": list[bool] | None},
        {"numbers": list, "pair": tuple, "maybe": Any},
        {"pair": tuple[Any, ...]},
    ],
)
def test_lists_and_tuples_may_be_wider_and_narrower_too(options: dict[str, object]) -> None:
    if options.get("result"):
        with pytest.raises(
            TypeError, match=r"Server\.give returns list\[bool\] \| None, and Lists\.give says list\[bool\]"
        ):
            check_implementation(given(**options))
    else:
        check_implementation(given(**options))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"numbers": list[str]}, "Server.give: argument 'numbers' is list[str], and Lists.give says list["),
        ({"numbers": bytes}, "Server.give: argument 'numbers' is bytes, and Lists.give says list["),
        (
            {"pair": tuple[int, int]},
            "Server.give: argument 'pair' is tuple[int, int], and Lists.give says tuple[int, str]",
        ),
        ({"pair": tuple[int]}, "Server.give: argument 'pair' is tuple[int], and"),
        ({"maybe": Dataspace}, "Server.give: argument 'maybe' is Dataspace, and Lists.give says"),
        ({"result": list[int]}, "Server.give returns list[int], and Lists.give says list[bool]"),
        ({"result": None}, "Server.give returns None, and Lists.give says list[bool]; `def give(self, numbers: "),
    ],
)
def test_lists_and_tuples_are_looked_into_at_registration(options: dict[str, object], words: str) -> None:
    with pytest.raises(TypeError) as caught:
        check_implementation(given(**options))
    assert words in str(caught.value)


class Defaults(Interface):
    protocol = 0x46

    @rpc
    def must(self, a: int) -> int:  # type: ignore[empty-body]
        """Has words, and no body."""

    @rpc
    def may(self, a: int, *, b: int = 1) -> int:
        """Return the sum."""
        return self.must(a) + b

    @rpc(default=True)
    def hear(self) -> None: ...

    @rpc(oneway=True)
    def note(self, text: str) -> None:
        self.noted = text


class Least(Defaults, Epiface):
    def must(self, a: int) -> int:
        return a


class More(Least):
    def may(self, a: int, *, b: int = 1) -> int:
        return super().may(a, b=b) * 10


def test_an_operation_with_a_body_need_not_be_implemented() -> None:
    for server in (Least(), More()):
        check_implementation(server)
    least, more = (Defaults(FakeGate(server)) for server in (Least(), More()))
    for _ in range(2):
        assert (least.may(3), least.may(3, b=4)) == (4, 7)
        assert (more.may(3), more.may(3, b=4)) == (40, 70)
    least.hear()
    server = Least()
    Defaults(FakeGate(server)).note("x")
    assert server.noted == "x"
    assert Least().may(1) == 2  # called directly, too


def words_only(self: object) -> None:
    """Say something."""


def words_and_dots(self: object) -> None:
    """Say something."""
    ...  # noqa: PIE790


def raising(self: object, number: int) -> None:
    """Say something."""
    raise NotImplementedError("soon")


def a_number(self: object) -> int:
    """Say something."""
    return 1


def a_text(self: object) -> str:
    return "text"


def an_argument(self: object, number: int) -> int:
    return number


@pytest.mark.parametrize("function", [fine, words_only, words_and_dots, raising])
def test_a_body_without_anything_in_it_is_none(function: Callable[..., Any]) -> None:
    for each in (function, functools.wraps(function)(lambda self: function(self))):
        mark = mark_of(rpc(each))
        assert mark is not None
        assert not mark.default
    mark = mark_of(rpc(default=True)(function))
    assert mark is not None
    assert mark.default


@pytest.mark.parametrize("function", [a_number, a_text, an_argument])
def test_a_body_that_returns_something_is_one(function: Callable[..., Any]) -> None:
    mark = mark_of(rpc(function))
    assert mark is not None
    assert mark.default


def test_the_client_never_runs_a_body(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = FakeGate(Least())
    defaults = Defaults(gate)
    defaults.may(3)
    assert [sent.words[0] for sent in gate.sent] == [1]
    assert not hasattr(defaults, "noted")


def test_what_is_not_implemented_nor_has_a_body_is_missed() -> None:
    with pytest.raises(TypeError, match=r"Server does not implement Defaults\.must; `def must\(self, a: int\) -> int`"):
        check_implementation(type("Server", (Defaults, Epiface), {})())
