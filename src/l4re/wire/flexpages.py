"""Flexpages: a power of two of memory pages, I/O ports or capability slots, with rights, in one word.

Bits 0-3 are the rights, 4-5 the kind, 6-11 the order (log2 of the size), the others say where it begins. Linux
maps nothing by flexpages; here they are what L4 programs and traces mean by such a word.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar, Final, Self

from l4re.errors import InvalidArgument
from l4re.rights import DsFlags, Rights
from l4re.wire.number import Number

__all__ = ["PAGE_SHIFT", "SUPERPAGE_SHIFT", "Flexpage", "FlexpageKind"]

#: Order of a page of memory, and of a large one.
PAGE_SHIFT: Final = 12
SUPERPAGE_SHIFT: Final = 21

_ALL_ORDER = 63
_START = 12


class FlexpageKind(IntEnum):
    """What a flexpage is a range of."""

    SPECIAL = 0
    MEMORY = 1
    IO = 2
    OBJ = 3


class Flexpage(Number):
    """A range of memory, I/O ports or capability slots; `memory`, `io`, `obj`, `everything`, or any word."""

    __slots__ = ()

    INVALID: ClassVar[Flexpage]
    """The flexpage that is none: 0."""

    @classmethod
    def make(cls, kind: int, number: int, order: int, rights: int = 0) -> Self:
        """Compose one of its fields; ``number`` is that of the first page, port or slot.

        Raises:
            OutOfRange: one does not fit its field.
        """
        return cls(
            cls._field("number", number, 52) << _START
            | cls._field("order", order, 6) << 6
            | cls._field("kind", kind, 2) << 4
            | cls._field("rights", rights, 4)
        )

    @classmethod
    def memory(cls, address: int, order: int = PAGE_SHIFT, rights: DsFlags = DsFlags.RO) -> Self:
        """Return ``1 << order`` bytes from ``address``.

        Raises:
            InvalidArgument: less than a page, or the address is no multiple of the size.
            OutOfRange: a field does not fit.
        """
        if order < PAGE_SHIFT:
            raise InvalidArgument(f"memory comes in pages: order {PAGE_SHIFT} at least, not {order}")
        return cls.make(FlexpageKind.MEMORY, cls._aligned(address, order) >> PAGE_SHIFT, order, rights)

    @classmethod
    def io(cls, port: int, order: int = 0) -> Self:
        """Return ``1 << order`` I/O ports from ``port``.

        Raises:
            InvalidArgument: the first is no multiple of the size.
            OutOfRange: a field does not fit.
        """
        return cls.make(FlexpageKind.IO, cls._aligned(port, order), order, Rights.RW)

    @classmethod
    def obj(cls, index: int, order: int = 0, rights: Rights = Rights.R) -> Self:
        """Return ``1 << order`` capability slots from ``index``.

        Raises:
            InvalidArgument: the first is no multiple of the size.
            OutOfRange: a field does not fit.
        """
        return cls.make(FlexpageKind.OBJ, cls._aligned(index, order), order, rights)

    @classmethod
    def everything(cls, rights: int = 0) -> Self:
        """Return the flexpage that covers all there is of any kind."""
        return cls.make(FlexpageKind.SPECIAL, 0, _ALL_ORDER, rights)

    @classmethod
    def _aligned(cls, start: int, order: int) -> int:
        cls._field("order", order, 6)
        if start & (1 << order) - 1:
            raise InvalidArgument(f"{start:#x} is no multiple of {1 << order:#x}, the size of order {order}")
        return start

    @property
    def kind(self) -> FlexpageKind:
        """What it is a range of."""
        return FlexpageKind(int(self) >> 4 & 3)

    @property
    def order(self) -> int:
        """Log2 of the size."""
        return int(self) >> 6 & 0x3F

    @property
    def size(self) -> int:
        """Bytes of memory, ports, or slots."""
        return 1 << self.order

    @property
    def number(self) -> int:
        """The first page, port or slot."""
        return int(self) >> _START

    @property
    def address(self) -> int:
        """The first byte, for memory."""
        return self.number << PAGE_SHIFT

    @property
    def rights(self) -> Rights | DsFlags:
        """The rights, in the alphabet of its kind: `DsFlags` for memory, else `Rights`."""
        bits = int(self) & 0xF
        return DsFlags(bits) if self.kind is FlexpageKind.MEMORY else Rights(bits)

    def __bool__(self) -> bool:
        """Whether it is a flexpage at all."""
        return int(self) != 0

    def __repr__(self) -> str:
        if not self:
            return "<Flexpage invalid>"
        letters = self._letters()
        if self.kind is FlexpageKind.SPECIAL:
            return f"<Flexpage {'everything' if self.order == _ALL_ORDER else f'special {int(self):#x}'} {letters}>"
        start = f"{self.address:#x}" if self.kind is FlexpageKind.MEMORY else f"{self.number:#x}"
        return f"<Flexpage {self.kind.name.lower()} {start} order {self.order} {letters}>"

    def _letters(self) -> str:
        alphabet = "xwr" if self.kind is FlexpageKind.MEMORY else "wsrd"
        held = {letter for bit, letter in enumerate(alphabet) if int(self) >> bit & 1}
        return "".join(letter for letter in "rwxsd" if letter in held) or "-"


Flexpage.INVALID = Flexpage(0)
