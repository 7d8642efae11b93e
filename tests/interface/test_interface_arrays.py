"""numpy arrays as values: where each byte lies, and what a hostile peer may send in their place."""

from __future__ import annotations

import struct
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import l4re
from l4re import Dataspace, MemAllocFlags
from l4re.errors import InvalidArgument, L4Error, MessageTooShort
from l4re.wire.codecs import codec_for
from l4re.wire.marshal import Field, Layout
from l4re.wire.tag import MAX_DATA

pytest.importorskip("numpy")
import numpy as np
import numpy.typing as npt
from hypothesis.extra import numpy as st_numpy

Floats = npt.NDArray[np.float32]
Any_ = npt.NDArray[Any]


def layout_of(*types: Any, opcode: int | None = None) -> Layout:
    return Layout("Some.method", [Field(f"argument 'v{n}'", codec_for(t)) for n, t in enumerate(types)], opcode)


def memory(data: bytes, *, frozen: bool = True) -> Dataspace:
    made = l4re.env().mem_alloc.alloc(len(data), flags=MemAllocFlags.SEALABLE)
    made.write(0, data)
    if frozen:
        made.freeze()
    return made


def test_an_array_in_line_is_its_shape_and_its_elements() -> None:
    words, _, caps = layout_of(Floats, opcode=7).pack((np.array([[1, 2, 3]], np.float32),))
    # in line, two dimensions, up to a word, 1, 3, then the elements
    assert words == struct.pack("=iBBxxQQ3f4x", 7, 0, 2, 1, 3, 1, 2, 3)
    assert caps == ()


def test_an_array_of_an_unstated_type_says_which() -> None:
    words, _, _ = layout_of(np.ndarray).pack((np.array([1, 2], np.uint8),))
    assert words == struct.pack("=BB6xQ4s4xQBB6x", 0, 1, 4, b"|u1\0", 2, 1, 2)


def test_an_array_that_does_not_fit_is_frozen_memory_beside_the_message() -> None:
    values = np.arange(20_000, dtype=np.float32)
    words, data, caps = layout_of(Floats, opcode=7).pack((values,))
    assert words == struct.pack("=iBBxxQ", 7, 1, 1, 20_000)
    assert data == b""
    (beside,) = caps
    assert beside.read(0, beside.size) == values.tobytes()
    assert (beside.size, beside.enforcement, beside.rights) == (80_000, "sealed", l4re.Rights.R)


def test_an_array_fits_as_long_as_the_whole_message_does() -> None:
    layout = layout_of(npt.NDArray[np.uint8], bytes)
    room = MAX_DATA - 16 - 8
    for size, beside in ((room, 0), (room + 1, 1)):
        _, data, caps = layout.pack((np.zeros(size, np.uint8), b""))
        assert len(caps) == beside
        assert len(data) == (0 if beside else MAX_DATA)
    with pytest.raises(l4re.MessageTooLong, match="put big data into a dataspace"):
        layout.pack((np.zeros(10, np.uint8), bytes(MAX_DATA - 8)))  # no use to put the array elsewhere


def test_no_memory_is_made_for_what_does_not_help(monkeypatch: pytest.MonkeyPatch) -> None:
    from l4re.interface import arrays

    made: list[int] = []

    def frozen(array: Any) -> Dataspace:
        made.append(array.nbytes)
        return memory(array.tobytes())

    monkeypatch.setattr(arrays, "_frozen", frozen)
    layout = layout_of(list[npt.NDArray[np.uint8]], bytes)
    layout.pack(([np.zeros(n, np.uint8) for n in (30_000, 29_000, 10)], b"x" * 20_000))
    assert made == [30_000]
    with pytest.raises(l4re.MessageTooLong):
        layout.pack(([np.zeros(10, np.uint8)], b"x" * (MAX_DATA - 4)))
    assert made == [30_000]


def same(one: Any, other: Any) -> bool:
    """Whether ``one`` is ``other`` in this machine's byte order."""
    return bool(one.dtype == other.dtype.newbyteorder("=") and one.shape == other.shape and np.array_equal(one, other))


SCALARS = st_numpy.boolean_dtypes() | st_numpy.integer_dtypes() | st_numpy.unsigned_integer_dtypes()
ARRAYS = st_numpy.arrays(SCALARS, st_numpy.array_shapes(min_dims=0, min_side=0, max_side=6))


@settings(deadline=None)
@given(st.lists(ARRAYS, max_size=4), st.text("abc"))
def test_what_is_packed_is_unpacked(arrays: list[Any], text: str) -> None:
    layout = layout_of(str, list[Any_], np.ndarray | None)
    last = arrays[-1] if arrays else None
    found, back, again = layout.unpack(*layout.pack((text, arrays, last)))
    assert found == text
    assert len(back) == len(arrays)
    assert all(same(one, other) and not one.flags.writeable for one, other in zip(back, arrays, strict=True))
    assert again is last is None or same(again, last)


CAPS = st.lists(st.none() | st.builds(memory, st.binary(min_size=1, max_size=8), frozen=st.booleans()), max_size=3)
HEADS = st.sampled_from([b"", b"\0\1" + bytes(6), b"\1\1" + bytes(6), b"\1\1" + bytes(6) + b"\1" + bytes(7)])


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([Floats, Any_, npt.NDArray[np.bool_], Any_ | None, list[Floats]]), min_size=1, max_size=3),
    HEADS,
    st.binary(max_size=60),
    CAPS,
)
def test_any_message_is_arrays_or_an_error(kinds: list[Any], head: bytes, noise: bytes, caps: list[Any]) -> None:
    layout = layout_of(*kinds)
    try:
        values = layout.unpack(b"", head + noise, tuple(caps))
    except L4Error as error:
        assert str(error).startswith("Some.method: argument 'v")  # noqa: PT017
        return
    assert len(values) == len(kinds)


WORD = (1).to_bytes(8, "little")


@pytest.mark.parametrize(
    ("kind", "stream", "caps", "words"),
    [
        (Floats, struct.pack("=BB6xQ", 2, 1, 1), (), "is no array at all"),
        (Floats, struct.pack("=BB6xQ", 0, 33, 1), (), "is no array at all"),
        (Floats, struct.pack("=BB6xQ", 0, 1, 1 << 40), (), "4398046511104 bytes are announced, 0 are there"),
        (Floats, struct.pack("=BB6xQQ", 0, 2, 0, 1 << 62), (), "must be array of float32, and one of (0, 46"),
        (Floats, struct.pack("=BB6xQQ", 0, 2, 0, (1 << 64) - 1), (), "must be array of float32, and one of (0, 18"),
        (Floats, struct.pack("=BB6xQ", 1, 1, 1), (), "0 capabilities arrived, more were expected"),
        (
            Floats,
            struct.pack("=BB6xQ", 1, 1, 1),
            (None,),
            "must be an array whose elements are in a dataspace, and None",
        ),
        (Floats, struct.pack("=BB6xQ", 1, 1, 2), (b"1234",), "must be an array of 8 bytes, and 4 arrived"),
        (Floats, struct.pack("=BB6xQ", 1, 1, 0), (b"1234",), "must be an array of 0 bytes, and 4 arrived"),
        (Floats, struct.pack("=BB6xQ", 1, 1, 1), ("1234",), "its memory is not frozen"),
        (Any_, struct.pack("=BB6xQ3s5xQQ", 0, 1, 3, b"|O\0", 1, 0), (), "and one of '|O' (str) arrived"),
        (Any_, struct.pack("=BB6xQ7s1xQQ", 0, 1, 7, b"i4, i4\0", 1, 0), (), "and one of 'i4, i4' (str) arrived"),
        (npt.NDArray[np.bool_], struct.pack("=BB6xQBB", 0, 1, 2, 1, 2), (), "one with bytes that are no bools arrived"),
        (npt.NDArray[np.bool_], struct.pack("=BB6xQ", 1, 1, 4), (b"\0\1\2\3",), "one with bytes that are no bools"),
        (
            np.ndarray[tuple[int, int], np.dtype[np.float32]],
            struct.pack("=BB6xQf", 0, 1, 1, 1),
            (),
            "and one with 1 dim",
        ),
    ],
)
def test_what_is_no_array_is_refused_in_words(kind: Any, stream: bytes, caps: tuple[Any, ...], words: str) -> None:
    memories = tuple(
        each and memory(each if type(each) is bytes else each.encode(), frozen=type(each) is bytes) for each in caps
    )
    with pytest.raises((InvalidArgument, MessageTooShort)) as caught:
        layout_of(kind).unpack(b"", stream, memories)
    assert words in str(caught.value)
    assert "Some.method: argument 'v0'" in str(caught.value)


@pytest.mark.parametrize(
    "element", [np.object_, np.str_, np.datetime64, np.integer, np.floating, np.void, np.longdouble]
)
def test_arrays_of_what_does_not_travel_are_refused_when_the_class_is_made(element: Any) -> None:
    with pytest.raises(TypeError, match=rf"arrays of {element.__name__} do not travel; arrays of bool, complex128"):
        codec_for(npt.NDArray[element])
    with pytest.raises(TypeError, match="do not travel; int, U8 to S64"):
        codec_for(element)


def test_numpy_is_not_loaded_by_an_interface_without_arrays() -> None:
    code = """
import sys
import l4re
class Some(l4re.Interface):
    @l4re.rpc
    def some(self, numbers: list[l4re.U8], more: tuple[int, str] | None) -> list[bytes]: ...
class Server(Some, l4re.Epiface):
    def some(self, numbers, more): return [bytes(numbers)]
with l4re.RegistryServer() as server:
    gate = server.registry.register_obj(Server())
    assert Some(gate).some([1, 2], None) == [b"\\1\\2"]
assert "numpy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
