"""The untyped words of a message, as the numbers they are."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Self

from l4re.errors import MessageTooLong
from l4re.wire.number import unsigned
from l4re.wire.tag import MAX_WORDS, WORD, WORD_BYTES

__all__ = ["Words"]


class Words(tuple[int, ...]):
    """Up to 63 unsigned machine words. ``Words([1, -2])``; `from_bytes` and `to_bytes` are the wire."""

    __slots__ = ()

    def __new__(cls, numbers: Iterable[int] = ()) -> Self:
        """Take numbers, signed or unsigned.

        Raises:
            MessageTooLong: more than a message has words for.
            OutOfRange: one does not fit a word.
        """
        self = super().__new__(cls, map(unsigned, numbers))
        if len(self) > MAX_WORDS:
            raise MessageTooLong(size=len(self) * WORD, limit=WORD_BYTES)
        return self

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read words; a last one that is not whole is filled up with zeros.

        Raises:
            MessageTooLong: more than 504 bytes.
        """
        if len(data) > WORD_BYTES:
            raise MessageTooLong(size=len(data), limit=WORD_BYTES)
        data = bytes(data) + bytes(-len(data) % WORD)
        return cls(struct.unpack(f"={len(data) // WORD}Q", data))

    def to_bytes(self) -> bytes:
        """Return the words as they travel."""
        return struct.pack(f"={len(self)}Q", *self)

    def signed(self, index: int) -> int:
        """Return one word as the signed number with the same bits."""
        return (self[index] ^ 1 << 63) - (1 << 63)

    def __repr__(self) -> str:
        return f"Words([{', '.join(map(hex, self))}])"
