"""Marshalling: L4Re's layout, and generated code against the plain way."""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l4re.errors import InvalidArgument, L4Error, MessageTooLong, MessageTooShort, OutOfRange, WrongType
from l4re.wire.codecs import codec_for
from l4re.wire.marshal import Field, Layout
from l4re.wire.scalars import S8, S16, S32, S64, U8, U16, U32, U64, Length
from l4re.wire.source import Source
from l4re.wire.tag import MAX_DATA


class Color(enum.Enum):
    RED = 1
    BLUE = -2


class Access(enum.IntFlag):
    READ = 1
    WRITE = 0x4000_0000
    ALL = WRITE << 2


@dataclass(frozen=True)
class Inner:
    flag: bool
    number: U16


@dataclass(frozen=True)
class Outer:
    small: S8
    inner: Inner
    color: Color
    more: tuple[Inner, float]


INNER = st.builds(Inner, st.booleans(), st.integers(0, 65535))
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    U8: st.integers(0, 255),
    S8: st.integers(-128, 127),
    U16: st.integers(0, 65535),
    S16: st.integers(-32768, 32767),
    U32: st.integers(0, (1 << 32) - 1),
    S32: st.integers(-(1 << 31), (1 << 31) - 1),
    U64: st.integers(0, (1 << 64) - 1),
    S64: st.integers(-(1 << 63), (1 << 63) - 1),
    int: st.integers(-(1 << 63), (1 << 63) - 1),
    bool: st.booleans(),
    float: st.floats(allow_nan=False),
    str: st.text(st.characters(codec="utf-8"), max_size=40),
    bytes: st.binary(max_size=400),
    Color: st.sampled_from(Color),
    Access: st.sampled_from([Access.READ, Access.READ | Access.WRITE, Access(0), Access.ALL]),
    Annotated[Color, S8]: st.sampled_from(Color),
    Annotated[str, Length(U8)]: st.text(st.characters(codec="utf-8"), max_size=40),
    Annotated[bytes, Length(U16)]: st.binary(max_size=400),
    Inner: INNER,
    Outer: st.builds(
        Outer,
        st.integers(-128, 127),
        INNER,
        st.sampled_from(Color),
        st.tuples(INNER, st.floats(allow_nan=False)),
    ),
    tuple[U8, Inner]: st.tuples(st.integers(0, 255), INNER),
}
TYPES = st.lists(st.sampled_from(list(VALUES)), max_size=8)
OPCODES = st.none() | st.integers(-(1 << 31), (1 << 31) - 1)


def layout_of(types: list[Any], opcode: int | None = None) -> Layout:
    return Layout("Some.method", [Field(f"argument 'v{n}'", codec_for(t)) for n, t in enumerate(types)], opcode)


def generated(layout: Layout, *, slow: bool = True) -> tuple[Any, Any]:
    """Return a packer and an unpacker as a stub has them."""

    def refuse(*_args: object) -> Any:
        raise AssertionError("generated code asked the plain way")

    names = [f"v{n}" for n in range(len(layout.fields))]
    source = Source()
    source.line(f"def pack({', '.join(names)}):")
    with source.indented():
        if layout.plain:
            source.line("_l4_data, _l4_caps = b'', ()")
        layout.emit_pack(
            source, names, f"{source.bind(layout.pack if slow else refuse)}(({''.join(n + ',' for n in names)}))"
        )
        source.line("return _l4_words, _l4_data, _l4_caps")
    pack = source.compiled("pack", "test")
    source = Source()
    source.line("def unpack(_l4_words, _l4_data, _l4_caps):")
    with source.indented():
        plain = source.bind(layout.unpack if slow else refuse)
        layout.emit_unpack(source, names, f"{plain}(_l4_words, _l4_data, _l4_caps)")
        source.line(f"return ({''.join(n + ',' for n in names)})")
    return pack, source.compiled("unpack", "test")


def outcome(function: Any, *args: Any) -> Any:
    try:
        return function(*args)
    except L4Error as error:
        return type(error), str(error)


@settings(deadline=None)  # compiling takes as long as it takes
@given(st.data(), TYPES, OPCODES)
def test_what_is_packed_is_unpacked_and_generated_code_agrees(
    data: st.DataObject, types: list[Any], opcode: int | None
) -> None:
    layout = layout_of(types, opcode)
    values = tuple(data.draw(VALUES[t]) for t in types)
    pack, unpack = generated(layout, slow=False)
    message = layout.pack(values)
    assert pack(*values) == message
    assert layout.unpack(*message) == values
    if message[0] or not message[1]:
        assert unpack(*message) == values
    assert len(message[0]) % 8 == 0
    assert not (message[0] and message[1])


@settings(deadline=None)  # compiling takes as long as it takes
@given(TYPES, OPCODES, st.binary(max_size=120), st.booleans())
def test_any_bytes_are_values_or_an_error(types: list[Any], opcode: int | None, noise: bytes, long: bool) -> None:
    layout = layout_of(types, opcode)
    _, unpack = generated(layout)
    message = (b"", noise, ()) if long else (noise, b"", ())
    plain, fast = outcome(layout.unpack, *message), outcome(unpack, *message)
    if not types:
        return  # nothing to unpack, so nobody looks
    assert repr(plain) == repr(fast)  # nan is not equal to itself


@settings(deadline=None)  # compiling takes as long as it takes
@given(
    TYPES,
    st.lists(
        st.none()
        | st.integers()
        | st.text(max_size=4)
        | st.floats()
        | st.booleans()
        | st.builds(Inner, st.booleans() | st.none(), st.integers())
        | st.tuples(st.integers(), INNER),
        min_size=8,
        max_size=8,
    ),
)
def test_any_value_is_packed_or_refused_by_name(types: list[Any], values: list[Any]) -> None:
    layout = layout_of(types, 1)
    pack, _ = generated(layout)
    values = values[: len(types)]
    plain, fast = outcome(layout.pack, values), outcome(pack, *values)
    assert plain == fast
    if isinstance(plain[0], type):
        assert "Some.method: argument 'v" in plain[1]


def test_values_lie_at_their_natural_alignment() -> None:
    layout = layout_of([U8, U16, U32, U64, bool, float], 7)
    words, data, caps = layout.pack((1, 2, 3, 4, True, 0.5))
    assert words == struct.pack("@iBHIQ?d", 7, 1, 2, 3, 4, True, 0.5)
    assert (data, caps) == (b"", ())


def test_a_string_counts_its_nul() -> None:
    words, _, _ = layout_of([str, U16], 0).pack(("abc", 0x1234))
    assert words == struct.pack("=i4xQ", 0, 4) + b"abc\0" + b"\x34\x12" + bytes(2)


def test_a_string_of_another_language_need_not_be_closed() -> None:
    layout = layout_of([str])
    assert layout.unpack(struct.pack("=Q", 4) + b"abcX", b"", ()) == ("abc",)
    with pytest.raises(MessageTooShort, match="argument 'v0'"):
        layout.unpack(bytes(8), b"", ())


def test_a_hostile_length_is_too_short() -> None:
    for length in (1, 9, 1 << 40, (1 << 64) - 1):
        with pytest.raises(MessageTooShort):
            layout_of([bytes]).unpack(struct.pack("=Q", length), b"", ())


def test_what_does_not_fit_the_words_travels_in_the_long_area() -> None:
    layout = layout_of([bytes], 0)
    assert len(layout.pack((bytes(504 - 16),))[0]) == 504
    words, data, _ = layout.pack((bytes(504 - 15),))
    assert words == b""
    assert len(data) == 512
    assert layout.unpack(words, data, ()) == (bytes(489),)


def test_the_limit_is_named_and_so_is_the_way_out() -> None:
    layout = layout_of([bytes, bytes], 0)
    for values in ((bytes(MAX_DATA + 1), b""), (bytes(40000), bytes(40000)), (bytes(MAX_DATA), b"")):
        with pytest.raises(MessageTooLong, match="dataspace") as caught:
            layout.pack(values)
        assert caught.value.size is not None
        assert caught.value.size > MAX_DATA - 16
        assert caught.value.limit == MAX_DATA
        with pytest.raises(MessageTooLong):
            generated(layout)[0](*values)


@pytest.mark.parametrize(
    ("kind", "value", "error"),
    [
        (int, "x", WrongType),
        (int, 1.0, WrongType),
        (int, None, WrongType),
        (int, 1 << 63, OutOfRange),
        (U8, -1, OutOfRange),
        (U8, 256, OutOfRange),
        (bool, 1, WrongType),
        (float, "1", WrongType),
        (float, 10**400, OutOfRange),
        (str, b"x", WrongType),
        (str, "\ud800", InvalidArgument),
        (bytes, "x", WrongType),
        (Color, 1, WrongType),
        (Annotated[Access, U8], Access.ALL, OutOfRange),
    ],
)
def test_a_value_that_does_not_fit_is_refused(kind: Any, value: object, error: type[L4Error]) -> None:
    layout = layout_of([kind])
    for pack in (lambda: layout.pack((value,)), lambda: generated(layout)[0](value)):
        with pytest.raises(error, match=r"Some\.method: argument 'v0' must be"):
            pack()


def test_a_number_that_is_no_enum_value_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="Color"):
        layout_of([Color]).unpack(struct.pack("=i4x", 3), b"", ())


def test_numpy_scalars_are_numbers() -> None:
    numpy = pytest.importorskip("numpy")
    layout = layout_of([int, U8, float, bool])
    values = (numpy.int32(-3), numpy.uint8(7), numpy.float32(0.5), numpy.bool_(True))
    assert layout.unpack(*layout.pack(values)) == layout.unpack(*generated(layout)[0](*values)) == (-3, 7, 0.5, True)


def test_bytes_may_come_from_any_buffer() -> None:
    layout = layout_of([bytes])
    for value in (bytearray(b"abc"), memoryview(b"abc")):
        assert layout.unpack(*generated(layout)[0](value)) == (b"abc",)


def test_sized_integers_know_their_range() -> None:
    assert U8(255) == 255
    for kind, value in ((U8, 256), (U8, -1), (S8, 128), (S64, 1 << 63), (U64, -1)):
        with pytest.raises(OutOfRange, match=str(value)):
            kind(value)


class Words(enum.Enum):
    A = "a"


class Huge(enum.Enum):
    A = 1 << 64


@pytest.mark.parametrize("kind", [dict, object, Words, Huge, complex, int | str, tuple[int, ...]])
def test_types_that_do_not_travel_are_an_error(kind: object) -> None:
    with pytest.raises(TypeError):
        codec_for(kind)
