"""Vargs: arguments that say their own types, word by word and both ways."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4re import U64, Flexpage, InvalidArgument, L4Error, MessageTooShort, OutOfRange, WrongType
from l4re.wire.vargs import Varg, VargType, pack_vargs, unpack_vargs

VARGS: st.SearchStrategy[Varg] = st.one_of(
    st.none(),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.integers(0, (1 << 64) - 1).map(Flexpage),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40),
)


@pytest.mark.parametrize(
    ("arg", "words"),
    [
        (None, (0,)),
        (5, (0x81 | 8 << 16, 5)),
        (-1, (0x81 | 8 << 16, (1 << 64) - 1)),
        (U64(5), (1 | 8 << 16, 5)),
        (1 << 63, (1 | 8 << 16, 1 << 63)),
        (Flexpage(0x30), (3 | 8 << 16, 0x30)),
        ("", (2 | 1 << 16, 0)),
        ("1234567", (2 | 8 << 16, int.from_bytes(b"1234567\0", "little"))),
        ("12345678", (2 | 9 << 16, int.from_bytes(b"12345678", "little"), 0)),
    ],
)
def test_each_type_has_its_head_word_and_whole_words(arg: Varg, words: tuple[int, ...]) -> None:
    assert pack_vargs((arg,)) == struct.pack(f"={len(words)}Q", *words)


@given(st.lists(VARGS, max_size=8))
def test_arguments_come_back_as_they_were(args: list[Varg]) -> None:
    packed = pack_vargs(args)
    back = unpack_vargs(packed)
    assert list(back) == args
    assert [isinstance(arg, Flexpage) for arg in back] == [isinstance(arg, Flexpage) for arg in args]
    assert len(packed) % 8 == 0


@given(st.binary(max_size=80))
def test_any_bytes_at_all_are_arguments_or_an_error(data: bytes) -> None:
    try:
        args = unpack_vargs(data)
    except L4Error:
        return
    assert unpack_vargs(pack_vargs(args)) == args


@pytest.mark.parametrize(
    ("arg", "error"),
    [(1 << 64, OutOfRange), (-(1 << 63) - 1, OutOfRange), (b"x", WrongType), ("a\0b", InvalidArgument)],
)
def test_what_does_not_travel_is_refused_before_it_is_sent(arg: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        pack_vargs((arg,))


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ((VargType.MWORD | 8 << 16,), MessageTooShort),
        ((VargType.UMWORD | 4 << 16, 0), InvalidArgument),
        ((VargType.FPAGE,), InvalidArgument),
        ((VargType.STRING,), InvalidArgument),
        ((VargType.STRING | 2 << 16, 0x4141), InvalidArgument),
        ((VargType.STRING | 2 << 16, 0x00FF), InvalidArgument),
        ((7 | 8 << 16, 0), InvalidArgument),
        ((VargType.STRING | (1 << 47) << 16, 0), MessageTooShort),
    ],
)
def test_what_is_no_argument_is_refused(words: tuple[int, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        unpack_vargs(struct.pack(f"={len(words)}Q", *words))
