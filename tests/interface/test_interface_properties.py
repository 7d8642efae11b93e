"""Any signature, any values, any bytes."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated, Any

from fake_gate import FakeCap, FakeGate, FakeIrq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from l4re.cap import Capability
from l4re.errors import L4Error, MessageTooLong
from l4re.interface import S8, S16, S32, S64, U8, U16, U32, U64, Epiface, Interface, Length, rpc


class Color(enum.Enum):
    RED = 1
    BLUE = -2


def integers(kind: Any) -> st.SearchStrategy[int]:
    return st.integers(kind.low, kind.high)


CAPS = st.builds(FakeCap), st.builds(FakeIrq)


@dataclass(frozen=True)
class Holder:
    name: str
    cap: Capability
    more: list[FakeIrq | None]
    number: U16 | None = None


VALUES: dict[Any, st.SearchStrategy[Any]] = {
    **{kind: integers(kind) for kind in (U8, U16, U32, U64, S8, S16, S32, S64)},
    int: integers(S64),
    bool: st.booleans(),
    float: st.floats(allow_nan=False),
    str: st.text(st.characters(codec="utf-8"), max_size=300),
    bytes: st.binary(max_size=300),
    Color: st.sampled_from(Color),
    Capability: st.one_of(*CAPS),
    FakeIrq: CAPS[1],
    FakeIrq | None: st.none() | CAPS[1],
    list[FakeIrq]: st.lists(CAPS[1], max_size=2),
    list[tuple[U8, FakeIrq | None]]: st.lists(st.tuples(integers(U8), st.none() | CAPS[1]), max_size=2),
    Holder: st.builds(
        Holder,
        st.text("ab", max_size=5),
        st.one_of(*CAPS),
        st.lists(st.none() | CAPS[1], max_size=1),
        st.none() | integers(U16),
    ),
    Holder | None: st.none() | st.builds(Holder, st.just("x"), CAPS[0], st.just([])),
    Annotated[list[list[S16]], Length(U8)]: st.lists(st.lists(integers(S16), max_size=3), max_size=3),
}
TYPES = st.lists(st.sampled_from(list(VALUES)), max_size=7)
#: What a hostile peer sends beside its bytes.
ANY_CAPS = st.lists(st.none() | st.one_of(*CAPS), max_size=4)


def interface_of(takes: list[Any], gives: list[Any], *, single: bool, opcode: int | None) -> type[Interface]:
    names = ", ".join(f"a{n}" for n in range(len(takes)))
    namespace: dict[str, Any] = {}
    exec(f"def call(self, {names}): ...", namespace)
    function = namespace["call"]
    function.__annotations__ = {f"a{n}": kind for n, kind in enumerate(takes)}
    function.__annotations__["return"] = None if not gives else gives[0] if single else tuple[tuple(gives)]  # type: ignore[misc]
    return type("Any_", (Interface,), {"protocol": 5, "call": rpc(opcode=opcode)(function)})


def server_of(interface: type[Interface], result: Any) -> Any:
    class Server(interface, Epiface):  # type: ignore[misc, valid-type]
        arguments: tuple[Any, ...] = ()

        def call(self, *arguments: Any) -> Any:
            self.arguments = arguments
            return result

    return Server()


LOOSE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@LOOSE
@given(st.data(), TYPES, TYPES, st.none() | st.integers(0, 9))
def test_what_goes_in_comes_out(data: st.DataObject, takes: list[Any], gives: list[Any], opcode: int | None) -> None:
    single = len(gives) == 1 and data.draw(st.booleans())
    interface = interface_of(takes, gives, single=single, opcode=opcode)
    arguments = tuple(data.draw(VALUES[kind]) for kind in takes)
    results = tuple(data.draw(VALUES[kind]) for kind in gives)
    server = server_of(interface, None if not gives else results[0] if single else results)
    proxy: Any = interface(FakeGate(server))
    for _ in range(2):
        answer = proxy.call(*arguments)
        assert server.arguments == arguments
        assert answer == (None if not gives else results[0] if single else results)


@LOOSE
@given(
    TYPES,
    st.sampled_from([None, 0, 1]),
    st.sampled_from([5, -21, 6]),
    st.lists(
        st.tuples(
            st.binary(max_size=64) | st.binary(max_size=60).map(lambda b: bytes(4) + b),
            st.binary(max_size=64),
            ANY_CAPS,
        )
    ),
)
def test_any_request_is_answered_or_refused(
    takes: list[Any],
    opcode: int | None,
    label: int,
    requests: list[tuple[bytes, bytes, list[Capability | None]]],
) -> None:
    server = server_of(interface_of(takes, [], single=False, opcode=opcode), None)
    for words, data, caps in requests:
        try:
            answer = server.serve_request(0, label, words, data, tuple(caps))
        except L4Error:
            continue
        assert len(answer) == 4


class Liar:
    """A gate whose server answers anything."""

    def __init__(self, *answer: Any) -> None:
        self.answer = answer

    def transact(self, *_message: Any, **_options: Any) -> Any:
        return self.answer


@LOOSE
@given(TYPES, st.integers(-3000, 3000), st.binary(max_size=64), st.binary(max_size=64), ANY_CAPS)
def test_any_answer_is_a_result_or_an_error(
    gives: list[Any], label: int, words: bytes, data: bytes, caps: list[Capability | None]
) -> None:
    proxy: Any = interface_of([], gives, single=False, opcode=0)(Liar(label, words, data, tuple(caps)))  # type: ignore[arg-type]
    try:
        answer = proxy.call()
    except L4Error:
        return
    assert label >= 0
    assert len(answer or ()) == len(gives)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 70000), min_size=1, max_size=3))
def test_any_size_travels_or_is_too_long(sizes: list[int]) -> None:
    interface = interface_of([bytes] * len(sizes), [bytes] * len(sizes), single=False, opcode=0)
    values = tuple(bytes(size) for size in sizes)
    proxy: Any = interface(FakeGate(server_of(interface, values)))
    total = sum(8 + -(-size // 8) * 8 for size in sizes)
    try:
        assert proxy.call(*values) == values
    except MessageTooLong:
        assert total > 61440 - 16
    else:
        assert total <= 61440 + 8
