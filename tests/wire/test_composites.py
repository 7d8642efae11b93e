"""Lists, dataclasses, tuples and what may be None: where each byte lies, and that nothing is believed unseen."""

from __future__ import annotations

import ctypes
import enum
import struct
import sys
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field, make_dataclass
from types import GenericAlias
from typing import Annotated, Any, ClassVar, NewType, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l4re.errors import InvalidArgument, L4Error, MessageTooLong, MessageTooShort, OutOfRange, WrongType
from l4re.wire.codecs import codec_for
from l4re.wire.marshal import Field, Layout
from l4re.wire.scalars import S8, S16, S32, S64, U8, U16, U32, U64, Length
from l4re.wire.tag import MAX_DATA


class Color(enum.Enum):
    RED = 1
    BLUE = -2


@dataclass
class Point:
    x: U8
    y: U32
    z: U16


@dataclass(frozen=True)
class Pair:
    small: U8
    wide: U16


@dataclass(frozen=True, slots=True)
class Outer:
    flag: bool
    pair: Pair
    size: U64


@dataclass(kw_only=True)
class Named:
    name: str
    at: Point
    colors: list[Color]
    note: str | None = None


def layout_of(*types: Any, opcode: int | None = None) -> Layout:
    return Layout("Some.method", [Field(f"argument 'v{n}'", codec_for(t)) for n, t in enumerate(types)], opcode)


def words_of(values: tuple[Any, ...], *types: Any) -> bytes:
    """What goes over the wire behind the opcode 7, and back again."""
    layout = layout_of(*types, opcode=7)
    words, data, caps = layout.pack(values)
    assert (data, caps) == (b"", ())
    assert layout.unpack(words, data, caps) == values
    assert words[:4] == b"\7\0\0\0"
    return words[4:]


# ---- bytes, by hand ----


def test_a_dataclass_of_fixed_sizes_lies_as_a_struct_of_c() -> None:
    words = words_of((Point(1, 2, 3), 0xAA), Point, U8)
    # struct { u8 x; u32 y; u16 z; } begins at 4, y at 8, z at 12, and has 12 bytes
    assert words == bytes([1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0xAA, 0, 0, 0, 0, 0, 0, 0])


def test_a_dataclass_in_a_dataclass_begins_at_its_own_alignment() -> None:
    words = words_of((Outer(True, Pair(2, 3), 4),), Outer)
    # 4 bytes up to a multiple of 8; then flag at 0, pair at 2, its wide at 4, size at 8
    assert words == bytes(4) + struct.pack("=?xBxHxxQ", True, 2, 3, 4)


def test_a_list_is_a_length_of_16_bits_and_its_elements() -> None:
    assert words_of(([1, 2],), list[U32]) == struct.pack("=HxxII", 2, 1, 2) + bytes(0)
    assert words_of(([1, 2, 3],), list[U8]) == struct.pack("=H3B7x", 3, 1, 2, 3)
    assert words_of(([-1],), list[int]) == struct.pack("=Hxxq", 1, -1)
    assert words_of(([0.5],), list[float]) == struct.pack("=Hxxd", 1, 0.5)


def test_a_list_without_elements_ends_where_its_first_would_lie() -> None:
    assert words_of(([], 9), list[U64], U8) == struct.pack("=H2xB7x", 0, 9)
    assert words_of(([], 9), list[U8], U8) == struct.pack("=HBx", 0, 9)
    assert words_of(([], 9), list[str], U8) == struct.pack("=HBx", 0, 9)


def test_the_length_may_have_another_width() -> None:
    assert words_of(([5],), Annotated[list[U8], Length(U8)]) == bytes([1, 5, 0, 0])
    assert words_of(([5],), Annotated[list[U8], Length(U32)]) == bytes([1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0])
    assert words_of(([5],), Annotated[list[U16], Length(U64)]) == struct.pack("=4xQH6x", 1, 5)
    assert words_of((b"ab",), Annotated[bytes, Length(U16)]) == b"\2\0ab"
    assert words_of(("ab",), Annotated[str, Length(U8)]) == b"\3ab\0"


def test_a_list_of_dataclasses_is_an_array_of_structs() -> None:
    words = words_of(([Point(1, 2, 3), Point(4, 5, 6)],), list[Point])
    assert words == struct.pack("=Hxx", 2) + struct.pack("=B3xIH2x", 1, 2, 3) + struct.pack("=B3xIH2x", 4, 5, 6)


def test_a_list_of_texts_is_one_after_the_other() -> None:
    words = words_of((["a", "bc"],), list[str])
    assert words == struct.pack("=HxxQ2s6xQ3s5x", 2, 2, b"a\0", 3, b"bc\0")


def test_a_list_of_lists_has_a_length_for_each() -> None:
    assert words_of(([[1], [], [2, 3]],), list[list[U8]]) == struct.pack("=HHBxHHBB8x", 3, 1, 1, 0, 2, 2, 3)[:12]


def test_what_may_be_none_is_a_bool_and_the_value() -> None:
    assert words_of((None, 1), U32 | None, U8) == bytes([0, 1, 0, 0])
    assert words_of((5, 1), U32 | None, U8) == struct.pack("=?xxxIBxxx", True, 5, 1)
    assert words_of((None,), Optional[str]) == bytes(4)  # noqa: UP045  the old spelling is the same type


def test_a_dataclass_of_open_size_is_its_members_as_arguments() -> None:
    value = Named(name="ab", at=Point(1, 2, 3), colors=[Color.BLUE], note=None)
    layout, flat = layout_of(Named, opcode=7), layout_of(str, Point, list[Color], str | None, opcode=7)
    assert layout.pack((value,)) == flat.pack(("ab", Point(1, 2, 3), [Color.BLUE], None))
    assert layout.unpack(*layout.pack((value,))) == (value,)


def test_a_tuple_is_a_struct_without_names() -> None:
    assert words_of(((1, 2, 3),), tuple[U8, U32, U16]) == words_of((Point(1, 2, 3),), Point)
    assert words_of(([(1, "x")],), list[tuple[U8, str]]) == struct.pack("=HBxQ2s6x", 1, 1, 2, b"x\0")[:24]


def test_a_list_that_does_not_fit_the_words_travels_in_the_long_area() -> None:
    layout = layout_of(list[U32], opcode=7)
    words, data, _ = layout.pack((list(range(1000)),))
    assert words == b""
    assert data == struct.pack("=iHxx1000I", 7, 1000, *range(1000))
    assert layout.unpack(words, data, ()) == (list(range(1000)),)


# ---- any struct, as a C compiler lays it out ----

C_TYPES: dict[Any, Any] = {
    U8: ctypes.c_uint8,
    U16: ctypes.c_uint16,
    U32: ctypes.c_uint32,
    U64: ctypes.c_uint64,
    S8: ctypes.c_int8,
    S16: ctypes.c_int16,
    S32: ctypes.c_int32,
    S64: ctypes.c_int64,
    bool: ctypes.c_bool,
    float: ctypes.c_double,
}
SHAPES = st.recursive(
    st.sampled_from(list(C_TYPES)), lambda inner: st.lists(inner, min_size=1, max_size=5).map(tuple), max_leaves=12
)


def both_kinds(shape: Any, count: list[int]) -> tuple[Any, Any, Any, Any]:
    """The annotation, a value, the C type and the same value for one shape."""
    if not isinstance(shape, tuple):
        count[0] += 1
        number = count[0] % 120
        value: Any = bool(number & 1) if shape is bool else float(number) if shape is float else number
        return shape, value, C_TYPES[shape], value
    members = [both_kinds(each, count) for each in shape]
    names = [f"m{n}" for n in range(len(members))]
    cls = make_dataclass("Made", [(name, member[0]) for name, member in zip(names, members, strict=True)])
    layout = [(name, member[2]) for name, member in zip(names, members, strict=True)]
    struct_ = type("Struct", (ctypes.Structure,), {"_fields_": layout})
    return cls, cls(*(member[1] for member in members)), struct_, struct_(*(member[3] for member in members))


@settings(deadline=None)
@given(SHAPES.filter(lambda shape: isinstance(shape, tuple)), st.integers(1, 3))
def test_structs_lie_as_a_c_compiler_lays_them_out(shape: Any, number: int) -> None:
    annotation, value, c_type, c_value = both_kinds(shape, [0])
    packed = layout_of(list_of((annotation, st.none()), U64)[0]).pack(([value] * number,))
    stream = packed[0] or packed[1]
    whole = bytes((c_type * number)(*[c_value] * number))
    assert stream == struct.pack("=Q", number) + whole + bytes(-len(whole) % 8)
    codec = codec_for(annotation)
    assert (codec.align, codec.least) == (ctypes.alignment(c_type), ctypes.sizeof(c_type))


# ---- anything at all ----

SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    **{kind: st.integers(kind.low, kind.high) for kind in (U8, U16, U32, U64, S8, S16, S32, S64)},  # type: ignore[attr-defined]
    int: st.integers(-(1 << 63), (1 << 63) - 1),
    bool: st.booleans(),
    float: st.floats(allow_nan=False),
    str: st.text(st.characters(codec="utf-8"), max_size=12),
    bytes: st.binary(max_size=12),
    Color: st.sampled_from(Color),
}
#: An annotation, and what its values may be.
Kind = tuple[Any, st.SearchStrategy[Any]]


def list_of(inner: Kind, width: Any) -> Kind:
    kind = GenericAlias(list, (inner[0],))
    return (Annotated[kind, Length(width)] if width else kind), st.lists(inner[1], max_size=4)


def optional(inner: Kind) -> Kind:
    return Optional[inner[0]], st.none() | inner[1]  # noqa: UP045  some are no types


def tuple_of(members: list[Kind]) -> Kind:
    return tuple[tuple(each[0] for each in members)], st.tuples(*(each[1] for each in members))  # type: ignore[misc]


def dataclass_of(members: list[Kind]) -> Kind:
    cls = make_dataclass("Made", [(f"m{n}", each[0]) for n, each in enumerate(members)], frozen=True)
    return cls, st.builds(cls, *(each[1] for each in members))


def composites(inner: st.SearchStrategy[Kind]) -> st.SearchStrategy[Kind]:
    members = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        st.builds(list_of, inner, st.sampled_from([None, U8, U16, U32, U64])),
        inner.map(optional),
        members.map(tuple_of),
        members.map(dataclass_of),
    )


def outcome(function: Callable[..., Any], *arguments: Any) -> Any:
    """What it returns, or the error of ours that it raises."""
    try:
        return function(*arguments)
    except L4Error as error:
        return error


KINDS: st.SearchStrategy[Kind] = st.recursive(st.sampled_from(list(SCALARS.items())), composites, max_leaves=8)


@settings(deadline=None)
@given(st.data(), st.lists(KINDS, max_size=4), st.none() | st.integers(-(1 << 31), (1 << 31) - 1))
def test_what_is_packed_is_unpacked(data: st.DataObject, kinds: list[Kind], opcode: int | None) -> None:
    layout = layout_of(*(kind for kind, _ in kinds), opcode=opcode)
    values = tuple(data.draw(strategy) for _, strategy in kinds)
    message = layout.pack(values)
    assert layout.unpack(*message) == values
    assert not (message[0] and message[1])
    assert len(message[0] or message[1]) % 8 == 0


@settings(deadline=None)
@given(
    st.lists(KINDS, min_size=1, max_size=4), st.binary(max_size=200), st.sampled_from([b"", b"\1\0", b"\2" + bytes(7)])
)
def test_any_bytes_are_values_of_these_types_or_an_error(kinds: list[Kind], noise: bytes, start: bytes) -> None:
    layout = layout_of(*(kind for kind, _ in kinds))
    values = outcome(layout.unpack, b"", start + noise, ())
    if isinstance(values, L4Error):
        assert str(values).startswith("Some.method: argument 'v")
        return
    again = layout.pack(values)  # what came in is what may go out
    assert repr(layout.unpack(*again)) == repr(values)  # nan is not equal to itself


ANYTHING = st.recursive(
    st.none() | st.integers() | st.text(max_size=3) | st.floats() | st.booleans() | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.builds(Pair, inner, inner),
    max_leaves=6,
)


@settings(deadline=None)
@given(st.lists(KINDS, min_size=1, max_size=3), st.data())
def test_any_value_is_packed_or_refused_by_name(kinds: list[Kind], data: st.DataObject) -> None:
    layout = layout_of(*(kind for kind, _ in kinds))
    values = [data.draw(ANYTHING) for _ in kinds]
    message = outcome(layout.pack, values)
    if isinstance(message, L4Error):
        assert str(message).startswith("Some.method: argument 'v")
    else:
        assert len(layout.unpack(*message)) == len(values)


# ---- what is refused, and in which words ----


@pytest.mark.parametrize(
    ("kind", "value", "error", "words"),
    [
        (list[U8], [1, 2, 300], OutOfRange, "element 2 must be U8 (0 to 255), not 300"),
        (list[U8], [1, "2"], WrongType, "element 1 must be U8, not '2' (str)"),
        (list[bool], [True, 1], WrongType, "element 1 must be bool, not 1 (int)"),
        (list[U8], 7, WrongType, "must be list[U8], not 7 (int)"),
        (list[str], "text", WrongType, "must be list[str], not 'text' (str)"),
        (list[U8], b"text", WrongType, "must be list[U8], not b'text' (bytes)"),
        (list[U8], None, WrongType, "must be list[U8], not None"),
        (list[Color], [1], WrongType, "element 0 must be Color, not 1"),
        (
            Annotated[list[U8], Length(U8)],
            [0] * 256,
            OutOfRange,
            "has 256 elements, and its length of 8 bits says at most 255",
        ),
        (
            Annotated[bytes, Length(U8)],
            bytes(256),
            OutOfRange,
            "has 256 bytes, and its length of 8 bits says at most 255",
        ),
        (list[U64], [0] * 8000, MessageTooLong, "has 8000 elements, and a message takes at most 61440 bytes; put big"),
        (Point, (1, 2, 3), WrongType, "must be Point, not (1, 2, 3) (tuple)"),
        (Point, Point(1, 2, -3), OutOfRange, "field 'z' must be U16 (0 to 65535), not -3"),
        (list[Point], [Point(1, -2, 3)], OutOfRange, "element 0 field 'y' must be U32"),
        (Outer, Outer(True, Pair(1, 1 << 16), 2), OutOfRange, "field 'pair' field 'wide' must be U16"),
        (tuple[int, str], (1, 2), WrongType, "[1] must be str, not 2 (int)"),
        (tuple[int, str], (1,), WrongType, "must be tuple[int, str], not (1,) (tuple)"),
        (U8 | None, "x", WrongType, "must be U8, not 'x' (str)"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_its_place(
    kind: Any, value: object, error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        layout_of(kind).pack((value,))
    assert words in str(caught.value)


def test_a_deleted_member_is_no_value() -> None:
    point = Point(1, 2, 3)
    del point.y
    with pytest.raises(WrongType, match="argument 'v0' must be Point"):
        layout_of(Point).pack((point,))


def test_any_sequence_may_stand_for_a_list() -> None:
    import array

    for value in ((1, 2), range(1, 3), array.array("Q", (1, 2))):
        assert layout_of(list[U32]).pack((value,)) == layout_of(list[U32]).pack(([1, 2],))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (list, "list[U32]"),
        (list[object], "elements: values of type object do not travel"),
        (tuple, "a tuple has a stated length"),
        (tuple[int, ...], "a tuple has a stated length"),
        (int | str, "of unions only `X | None`"),
        (int | str | None, "of unions only `X | None`"),
        (dict[str, int], "dict[str, int] do not travel; int, U8 to S64"),
        (Annotated[int, Length(U8)], "Length(U8) is for list[...], str and bytes, not for int"),
        (set[int], "set[int] do not travel"),
    ],
)
def test_a_type_that_does_not_travel_is_refused_in_words(kind: object, words: str) -> None:
    with pytest.raises(TypeError) as caught:
        codec_for(kind)
    assert words in str(caught.value)


@dataclass
class Endless:
    children: list[Endless]


@dataclass
class Mutual:
    other: Optional[Partner]  # noqa: UP045  Partner is not there yet


@dataclass
class Partner:
    other: Mutual


@dataclass
class Holding:
    what: object


@dataclass
class Empty:
    what: ClassVar[int] = 0


@dataclass
class Initial:
    what: int
    only: InitVar[int]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Endless, "Endless contains itself"),
        (Mutual, "Mutual contains itself"),
        (Holding, "field 'what' of Holding: values of type object do not travel"),
        (Empty, "Empty has no fields"),
        (Initial, "field 'only' of Initial is for __init__ only"),
    ],
)
def test_a_dataclass_that_cannot_travel_is_refused_in_words(kind: type, words: str) -> None:
    with pytest.raises(TypeError) as caught:
        codec_for(kind)
    assert words in str(caught.value)
    with pytest.raises(TypeError):  # and again: nothing is left of the first attempt
        codec_for(list[kind])  # type: ignore[valid-type]


def test_only_unsigned_integers_are_lengths() -> None:
    for kind in (S8, int, str):
        with pytest.raises(TypeError, match="a length is U8, U16, U32 or U64"):
            Length(kind)  # type: ignore[arg-type]
    assert (repr(Length(U16)), Length(U16) == Length(U16), Length(U16) == Length(U8)) == ("Length(U16)", True, False)


@dataclass
class Checked:
    low: int
    high: int
    span: int = field(init=False)
    unit: ClassVar[str] = "mm"

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"{self.low} is above {self.high}")
        self.span = self.high - self.low


def test_a_dataclass_checks_what_arrived() -> None:
    layout = layout_of(Checked)
    assert layout.unpack(struct.pack("=qq", 3, 5), b"", ()) == (Checked(3, 5),)
    assert layout.unpack(struct.pack("=qq", 3, 5), b"", ())[0].span == 2
    with pytest.raises(InvalidArgument, match=r"must be Checked, and that refused what arrived: .*5 is above 3"):
        layout.unpack(struct.pack("=qq", 5, 3), b"", ())


Celsius = NewType("Celsius", float)


def test_a_new_type_travels_as_what_it_stands_for() -> None:
    assert layout_of(list[Celsius]).pack(([Celsius(0.5)],)) == layout_of(list[float]).pack(([0.5],))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="this Python has no type statement")
def test_an_alias_travels_as_what_it_stands_for() -> None:
    names: dict[str, Any] = {"U8": U8, "Annotated": Annotated, "Length": Length}
    exec("type Numbers = list[U8]\ntype Swapped[K, V] = tuple[V, K]\ntype Both = Swapped[Numbers, str] | None", names)
    assert layout_of(names["Numbers"]).pack(([1],)) == layout_of(list[U8]).pack(([1],))
    assert layout_of(names["Both"]).pack((("x", [1]),)) == layout_of(tuple[str, list[U8]] | None).pack((("x", [1]),))
    numbers = names["Numbers"]
    assert layout_of(Annotated[numbers, Length(U8)]).pack(([1],)) == layout_of(Annotated[list[U8], Length(U8)]).pack(
        ([1],)
    )


@pytest.mark.parametrize("kind", [list[U64], list[str], list[Point], list[list[U8]], list[U8 | None]])
@pytest.mark.parametrize("width", [U16, U64])
def test_a_hostile_length_costs_nothing(kind: Any, width: Any) -> None:
    layout = layout_of(Annotated[kind, Length(width)])
    number = (1 << 8 * struct.calcsize(width.format)) - 1
    stream = number.to_bytes(struct.calcsize(width.format), "little") + bytes(64)
    with pytest.raises(MessageTooShort, match=rf"argument 'v0' {number} elements are announced, and \d+ bytes"):
        layout.unpack(b"", stream, ())


def test_a_whole_message_of_lists_is_read_in_a_moment() -> None:
    layout = layout_of(Annotated[list[list[U8]], Length(U32)])
    inner = MAX_DATA // 2 - 2
    (value,) = layout.unpack(b"", struct.pack("=I", inner) + bytes(2 * inner), ())
    assert value == [[]] * inner
