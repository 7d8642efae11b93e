"""Tags and items, bit by bit."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4re.errors import MessageTooShort, OutOfRange
from l4re.wire.items import ITEM_BYTES, ItemKind, pack_item, unpack_item
from l4re.wire.tag import Tag, TagFlags


@given(
    label=st.integers(-(1 << 47), (1 << 47) - 1),
    words=st.integers(0, 63),
    items=st.integers(0, 31),
    flags=st.sampled_from([0, 0x1000, 0x8000, 0xF000]),
)
def test_a_tag_gives_back_what_it_was_made_of(label: int, words: int, items: int, flags: int) -> None:
    tag = Tag.make(label, words, items, flags)
    assert (tag.label, tag.words, tag.items, tag.flags) == (label, words, items, flags)
    assert 0 <= tag < 1 << 64


@given(st.integers(0, (1 << 64) - 1))
def test_any_word_is_a_tag(word: int) -> None:
    tag = Tag(word)
    assert Tag.make(tag.label, tag.words, tag.items, tag.flags) == word


@given(st.integers(max_value=-1) | st.integers(min_value=1 << 64))
def test_what_is_no_word_is_no_tag(number: int) -> None:
    with pytest.raises(OutOfRange, match="64 bits"):
        Tag(number)


@given(st.integers(0, (1 << 64) - 1))
def test_a_tag_is_a_frozen_value_that_can_be_read(word: int) -> None:
    tag = Tag(word)
    assert hash(tag) == hash(word)
    assert pickle.loads(pickle.dumps(tag)) == tag
    assert f"label={tag.label}, words={tag.words}" in repr(tag)
    with pytest.raises(AttributeError):
        tag.label = 1  # type: ignore[misc]


def test_the_bits_of_a_tag() -> None:
    assert Tag.make(-21, 2, 1, TagFlags.ERROR) == 0xFFFF_FFFF_FFEB_8042
    assert Tag.make(0, 64).words == 63
    assert Tag.make(0, flags=0x8000).has_error


def test_a_tag_matches_by_its_label() -> None:
    match Tag.make(0x5348, 1).label:
        case 0x5348:
            pass
        case other:
            pytest.fail(str(other))


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 0xFFFF), st.integers(0, (1 << 64) - 1))
def test_an_item_gives_back_what_it_was_made_of(kind: int, rights: int, nfds: int, value: int) -> None:
    words = pack_item(kind, rights, nfds, value)
    assert len(words) == ITEM_BYTES
    assert unpack_item(words) == (kind, rights, nfds, value)


def test_the_bits_of_an_item() -> None:
    words = pack_item(ItemKind.DATASPACE, 5, 2, 4096)
    assert int.from_bytes(words[:8], "little") == ItemKind.DATASPACE | 5 << 8 | 2 << 16


@given(st.binary(max_size=ITEM_BYTES - 1))
def test_half_an_item_is_an_error(words: bytes) -> None:
    with pytest.raises(MessageTooShort):
        unpack_item(words)
