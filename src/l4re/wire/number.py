"""Numbers with fields in them: the base of every value that is one machine word or less."""

from __future__ import annotations

from typing import ClassVar, Final, Self

from l4re.errors import OutOfRange

__all__ = ["WORD_MASK", "Number", "unsigned"]

#: All bits of a machine word.
WORD_MASK: Final = (1 << 64) - 1


class Number(int):
    """An unsigned number of `bits` bits. Frozen and hashable; equal to the plain integer."""

    __slots__ = ()

    bits: ClassVar[int] = 64
    """How wide it is."""

    def __new__(cls, number: int = 0) -> Self:
        """Take the number as it is; every one of this width has a meaning.

        Raises:
            OutOfRange: it is negative or has more bits.
        """
        if number < 0 or number >> cls.bits:
            raise OutOfRange(f"a {cls.__name__} is an unsigned number of {cls.bits} bits, not {number:#x}")
        return super().__new__(cls, number)

    @classmethod
    def _field(cls, name: str, value: int, bits: int) -> int:
        """Return ``value`` if it fits the field."""
        if value < 0 or value >> bits:
            raise OutOfRange(f"the {name} of a {cls.__name__} has {bits} bits, {value:#x} does not fit")
        return int(value)


def unsigned(value: int) -> int:
    """Return a signed or unsigned word as the unsigned word with the same bits.

    Raises:
        OutOfRange: it has more than 64 bits.
    """
    if not -(1 << 63) <= value <= WORD_MASK:
        raise OutOfRange(f"{value:#x} does not fit a machine word")
    return int(value) & WORD_MASK
