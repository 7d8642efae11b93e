"""The message tag: one word that says what a message is.

Bits 0-5 count the words, 6-11 the items (capabilities), 12-15 are flags, the rest is the signed label:
the protocol of a request, the result of a reply.
"""

from __future__ import annotations

from enum import IntFlag
from typing import Final, Self

from l4re.wire.number import WORD_MASK, Number

__all__ = ["MAX_CAPS", "MAX_DATA", "MAX_WORDS", "PROTO_EMPTY", "WORD", "WORD_BYTES", "Tag", "TagFlags"]

#: Bytes of a machine word.
WORD: Final = 8
#: Untyped words in a message, two per capability included.
MAX_WORDS: Final = 63
WORD_BYTES: Final = MAX_WORDS * WORD
#: Bytes in the long area, which L4Re does not have.
MAX_DATA: Final = 60 * 1024
#: Capabilities in one message.
MAX_CAPS: Final = 16
#: The label of an interface without a protocol of its own; it is passed over in dispatch and META.
PROTO_EMPTY: Final = -19

_LABEL_SIGN = 1 << 47


class TagFlags(IntFlag):
    """Flags of a tag, at their place in the word."""

    NONE = 0
    TRANSFER_FPU = 0x1000
    SCHEDULE = 0x2000
    PROPAGATE = 0x4000
    ERROR = 0x8000


class Tag(Number):
    """A tag as the unsigned machine word it is; ``Tag(word)`` or `Tag.make`."""

    __slots__ = ()

    @classmethod
    def make(cls, label: int, words: int = 0, items: int = 0, flags: int = 0) -> Self:
        """Compose a tag. As in L4 a word count above 63 becomes 63; other fields keep their low bits."""
        if words > MAX_WORDS:
            words = MAX_WORDS
        word = (int(label) << 16) | (int(flags) & 0xF000) | ((items & 0x3F) << 6) | (words & 0x3F)
        return int.__new__(cls, word & WORD_MASK)  # past the check that nothing could fail

    @property
    def label(self) -> int:
        """The signed label."""
        value = self >> 16
        return value if value < _LABEL_SIGN else (value & 0xFFFF_FFFF_FFFF ^ _LABEL_SIGN) - _LABEL_SIGN

    @property
    def words(self) -> int:
        """Number of untyped words."""
        return int(self) & 0x3F

    @property
    def items(self) -> int:
        """Number of items."""
        return int(self) >> 6 & 0x3F

    @property
    def flags(self) -> TagFlags:
        """The four flag bits."""
        return TagFlags(int(self) & 0xF000)

    @property
    def has_error(self) -> bool:
        """Whether the call itself failed."""
        return bool(int(self) & 0x8000)

    def __repr__(self) -> str:
        flags = f", flags={int(self) & 0xF000:#x}" if int(self) & 0xF000 else ""
        return f"Tag(label={self.label}, words={self.words}, items={self.items}{flags})"
