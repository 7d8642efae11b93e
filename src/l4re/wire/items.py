"""Items: how a capability is announced in a message, in two words.

The first word holds the kind, the rights and how many descriptors belong to it, the second one number
(the size of a dataspace). The descriptors themselves travel beside the message, in the order of the items.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final

from l4re.errors import MessageTooShort

__all__ = ["ITEM_BYTES", "ItemKind", "join_items", "pack_item", "split_items", "unpack_item"]

ITEM_BYTES: Final = 16
_ITEM = Struct("=BBHIQ")


class ItemKind(IntEnum):
    """What a capability is a capability to."""

    VOID = 0
    DATASPACE = 1
    GATE = 2
    IRQ = 3
    RECEIVE = 4
    SEMAPHORE = 5


def pack_item(kind: int, rights: int, nfds: int, value: int) -> bytes:
    """Return the two words of an item with ``nfds`` descriptors."""
    return _ITEM.pack(kind, rights, nfds, 0, value)


def unpack_item(words: bytes, at: int = 0) -> tuple[int, int, int, int]:
    """Return kind, rights, number of descriptors and value of the item that begins at byte ``at``.

    All four are as hostile as the peer: the kind may be one that `ItemKind` does not know.

    Raises:
        MessageTooShort: there are not two whole words.
    """
    if len(words) - at < ITEM_BYTES:
        raise MessageTooShort(f"an item takes {ITEM_BYTES} bytes, there are {len(words) - at}")
    kind, rights, nfds, _, value = _ITEM.unpack_from(words, at)
    return kind, rights, nfds, value


def join_items(words: bytes, items: bytes) -> bytes:
    """Return the words of a message whose items follow its untyped words, which are filled up to whole ones."""
    return words + bytes(-len(words) % 8) + items if items else words


def split_items(words: bytes, count: int) -> tuple[bytes, bytes]:
    """Return the untyped words of a message and, apart, the words of its last ``count`` items."""
    cut = len(words) - ITEM_BYTES * count
    return words[:cut], words[cut:]
