"""Integers of a stated width, for annotations and for raw streams.

In an annotation ``U8`` says how a value travels; to a type checker it is ``int``, so plain integers are
passed and returned. Called, ``U8(200)`` checks the range and remembers the width: ``ios << U8(200)``.

``Annotated[list[U32], Length(U8)]`` says how wide the length is that travels in front of something.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from l4re.errors import OutOfRange

__all__ = ["S8", "S16", "S32", "S64", "U8", "U16", "U32", "U64", "Length", "Opcode", "SizedInt"]


class SizedInt(int):
    """Base of the sized integers."""

    __slots__ = ()
    format: ClassVar[str]
    low: ClassVar[int]
    high: ClassVar[int]

    def __new__(cls, value: Any = 0) -> SizedInt:
        """Return ``value`` with this width.

        Raises:
            OutOfRange: it does not fit.
        """
        self = super().__new__(cls, value)
        if not cls.low <= self <= cls.high:
            raise OutOfRange(f"{int(self)} does not fit {cls.__name__} ({cls.low} to {cls.high})")
        return self

    def __init_subclass__(cls, *, code: str, bits: int, signed: bool = False) -> None:
        cls.format = code
        cls.low = -(1 << bits - 1) if signed else 0
        cls.high = (1 << (bits - 1 if signed else bits)) - 1


if TYPE_CHECKING:
    U8: TypeAlias = int
    U16: TypeAlias = int
    U32: TypeAlias = int
    U64: TypeAlias = int
    S8: TypeAlias = int
    S16: TypeAlias = int
    S32: TypeAlias = int
    S64: TypeAlias = int
    Opcode: TypeAlias = int
else:

    class U8(SizedInt, code="B", bits=8):
        """8 bits, unsigned."""

    class U16(SizedInt, code="H", bits=16):
        """16 bits, unsigned."""

    class U32(SizedInt, code="I", bits=32):
        """32 bits, unsigned."""

    class U64(SizedInt, code="Q", bits=64):
        """64 bits, unsigned; L4Re's ``l4_umword_t``."""

    class S8(SizedInt, code="b", bits=8, signed=True):
        """8 bits, signed."""

    class S16(SizedInt, code="h", bits=16, signed=True):
        """16 bits, signed."""

    class S32(SizedInt, code="i", bits=32, signed=True):
        """32 bits, signed."""

    class S64(SizedInt, code="q", bits=64, signed=True):
        """64 bits, signed: what a plain ``int`` is on the wire."""

    class Opcode(SizedInt, code="i", bits=32, signed=True):
        """The number of an operation, first in a request."""


class Length:
    """In an annotation, how wide the length in front of a list, a str or bytes is: ``Annotated[bytes, Length(U16)]``.

    Without it a list has 16 bits, as L4Re's ``Array``; a str and bytes have a machine word, as L4Re's strings.
    """

    def __init__(self, kind: type[int]) -> None:
        """Say one of ``U8``, ``U16``, ``U32`` and ``U64``."""
        if not (issubclass(kind, SizedInt) and kind.low == 0):
            raise TypeError(f"a length is U8, U16, U32 or U64, not {kind.__name__}")
        self.kind: type[SizedInt] = kind

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Length) and other.kind is self.kind

    def __hash__(self) -> int:
        return hash((Length, self.kind))

    def __repr__(self) -> str:
        return f"Length({self.kind.__name__})"
