"""Items: their two words, and their place at the end of a message."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from l4re.wire.items import ITEM_BYTES, join_items, pack_item, split_items, unpack_item

ITEM = st.tuples(st.integers(0, 255), st.integers(0, 255), st.integers(0, 65535), st.integers(0, 2**64 - 1))


@given(st.binary(max_size=100), st.lists(ITEM, max_size=16))
def test_items_come_back_from_behind_whole_words(words: bytes, items: list[tuple[int, int, int, int]]) -> None:
    packed = b"".join(pack_item(*item) for item in items)
    plain, tail = split_items(join_items(words, packed), len(items))
    assert plain.startswith(words)
    assert not plain[len(words) :].strip(b"\0")
    assert len(plain) % 8 == 0 if items else plain == words
    assert [unpack_item(tail[at : at + ITEM_BYTES]) for at in range(0, len(tail), ITEM_BYTES)] == items
