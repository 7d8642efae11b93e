"""Streams: values one after the other, each at its natural alignment, capabilities beside them.

`Writer` and `Reader` are the plain way to marshal; generated code does the same faster for the usual
signatures, and tests hold the two against each other. A reader believes no length before it has checked it.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Any

from l4re.errors import MessageTooLong, MessageTooShort, OutOfRange
from l4re.wire.tag import MAX_DATA, WORD

__all__ = ["LENGTH", "Reader", "Writer"]

#: A length in front of a string or of bytes: L4Re's ``unsigned long``.
LENGTH = Struct("=Q")


class Writer:
    """Bytes and capabilities of a message in the making.

    ``beside`` and ``blocks`` are about blocks of data that may travel in a dataspace beside the message: which of
    them do, by number, and how many bytes each has that does not.
    """

    __slots__ = ("beside", "blocks", "buffer", "caps")

    def __init__(self, beside: dict[int, Any] | None = None) -> None:
        self.buffer = bytearray()
        self.caps: list[Any] = []
        self.beside: dict[int, Any] = {} if beside is None else beside
        self.blocks: list[int] = []

    def align(self, size: int) -> None:
        """Fill with zeros up to the next multiple of ``size``, a power of two."""
        self.buffer.extend(bytes(-len(self.buffer) & (size - 1)))

    def scalar(self, struct: Struct, value: Any) -> None:
        """Append one number at its natural alignment; ``struct.error`` if it does not fit."""
        packed = struct.pack(value)
        self.align(struct.size)
        self.buffer += packed

    def count(self, length: Struct, number: int, what: str, least: int = 1) -> None:
        """Append how many ``what`` follow, each of which takes ``least`` bytes or more.

        Raises:
            MessageTooLong: no message takes that many.
            OutOfRange: the length cannot say that many.
        """
        if number * least > MAX_DATA:
            raise MessageTooLong(
                f"has {number} {what}, and a message takes at most {MAX_DATA} bytes; "
                "put big data into a dataspace and send its capability",
                size=number * least,
                limit=MAX_DATA,
            )
        if number >> 8 * length.size:
            most = (1 << 8 * length.size) - 1
            raise OutOfRange(f"has {number} {what}, and its length of {8 * length.size} bits says at most {most}")
        self.scalar(length, number)

    def blob(self, data: bytes, tail: bytes = b"", length: Struct = LENGTH) -> None:
        """Append a length, ``data`` and ``tail``; the tail counts in the length.

        Raises:
            MessageTooLong: no message takes that much.
            OutOfRange: the length cannot say that much.
        """
        self.count(length, len(data) + len(tail), "bytes")
        self.buffer += data
        self.buffer += tail

    def words(self) -> bytes:
        """Return the bytes, filled up to whole words."""
        return bytes(self.buffer) + bytes(-len(self.buffer) & (WORD - 1))


class Reader:
    """A position in bytes that somebody else wrote, and one in the capabilities that came along."""

    __slots__ = ("_at", "_caps", "_data", "_item")

    def __init__(self, data: bytes, caps: Sequence[Any] = ()) -> None:
        self._data = data
        self._at = 0
        self._caps = caps
        self._item = 0

    @property
    def position(self) -> tuple[int, int]:
        """How many bytes and capabilities were read; set it to read on from there."""
        return self._at, self._item

    @position.setter
    def position(self, position: tuple[int, int]) -> None:
        self._at, self._item = position

    def scalar(self, struct: Struct) -> Any:
        """Return the next number.

        Raises:
            MessageTooShort: the message ends before; the position stays.
        """
        size = struct.size
        start = -(-self._at // size) * size
        if start + size > len(self._data):
            raise MessageTooShort(f"the message ends after {len(self._data)} bytes, {start + size} were expected")
        self._at = start + size
        return struct.unpack_from(self._data, start)[0]

    def align(self, size: int) -> None:
        """Go to the next multiple of ``size``, a power of two."""
        self._at += -self._at & (size - 1)

    @property
    def left(self) -> tuple[int, int]:
        """How many bytes and how many capabilities were not read yet."""
        return max(0, len(self._data) - self._at), len(self._caps) - self._item

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes.

        Raises:
            MessageTooShort: the message ends before; the position stays.
        """
        end = self._at + size
        if end > len(self._data):
            raise MessageTooShort(f"{size} bytes are announced, {self.left[0]} are there")
        data = self._data[self._at : end]
        self._at = end
        return data

    def blob(self, length: Struct = LENGTH) -> bytes:
        """Return the bytes that the next length announces.

        Raises:
            MessageTooShort: the message ends before; the position stays.
        """
        before = self._at
        try:
            return self.take(self.scalar(length))
        except MessageTooShort:
            self._at = before
            raise

    def cap(self) -> Any:
        """Return the next capability; None is a void one.

        Raises:
            MessageTooShort: no capability is left.
        """
        if self._item >= len(self._caps):
            raise MessageTooShort(f"{len(self._caps)} capabilities arrived, more were expected")
        cap = self._caps[self._item]
        self._item += 1
        return cap
