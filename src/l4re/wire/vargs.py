"""Vargs: arguments that say their own types, as factories take them.

Each is a head word, ``type | bytes << 16``, and its data, filled up to whole words. An unsigned word is what a sized
unsigned integer (`U64`) travels as; a plain int travels as a signed word.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntEnum
from struct import Struct
from typing import Final, TypeAlias

from l4re.errors import InvalidArgument, MessageTooShort, OutOfRange, WrongType
from l4re.wire.flexpages import Flexpage
from l4re.wire.scalars import SizedInt
from l4re.wire.tag import WORD

__all__ = ["Varg", "VargType", "pack_vargs", "unpack_vargs"]

#: What can be an argument; None is one that says nothing.
Varg: TypeAlias = int | str | Flexpage | None

_WORD = Struct("=Q")
_SIGNED = Struct("=q")
_SIZE: Final = 16


class VargType(IntEnum):
    """What an argument says it is."""

    NIL = 0
    UMWORD = 1
    STRING = 2
    FPAGE = 3
    MWORD = 0x81


def pack_vargs(args: Iterable[object]) -> bytes:
    """Return the arguments as whole words.

    Raises:
        WrongType: one is of a type that does not travel so.
        OutOfRange: a number needs more than 64 bits.
        InvalidArgument: a string with a NUL inside.
    """
    return b"".join(_packed(arg) for arg in args)


def _packed(arg: object) -> bytes:
    match arg:
        case None:
            return _WORD.pack(VargType.NIL)
        case Flexpage():
            kind, data = VargType.FPAGE, _WORD.pack(arg)
        case int():
            kind, data = _number(arg)
        case str():
            if "\0" in arg:
                raise InvalidArgument(f"a string argument ends at its first NUL, so {arg!r} would not arrive whole")
            kind, data = VargType.STRING, arg.encode() + b"\0"
        case _:
            raise WrongType(f"an argument is an int, a str, a Flexpage or None, not {arg!r}")
    return _WORD.pack(kind | len(data) << _SIZE) + data + bytes(-len(data) % WORD)


def _number(arg: int) -> tuple[VargType, bytes]:
    if isinstance(arg, SizedInt) and arg.low == 0:
        return VargType.UMWORD, _WORD.pack(arg)
    if not -(1 << 63) <= arg < 1 << 64:
        raise OutOfRange(f"{arg:#x} does not fit a machine word")
    return (VargType.UMWORD, _WORD.pack(arg)) if arg >> 63 > 0 else (VargType.MWORD, _SIGNED.pack(arg))


def unpack_vargs(words: bytes) -> tuple[Varg, ...]:
    """Return the arguments that somebody else wrote; unsigned words come back as ints.

    Raises:
        MessageTooShort: the last one is not there whole.
        InvalidArgument: a type that is none, or data that its type does not have.
    """
    return tuple(_unpacked(words))


def _unpacked(words: bytes) -> Iterator[Varg]:
    at = 0
    while at < len(words):
        if len(words) - at < WORD:
            raise MessageTooShort(f"an argument begins with a word, and {len(words) - at} bytes are left")
        (head,) = _WORD.unpack_from(words, at)
        kind, size = head & (1 << _SIZE) - 1, head >> _SIZE
        at += WORD
        if size > len(words) - at:
            raise MessageTooShort(f"an argument says it has {size} bytes, and {len(words) - at} are left")
        yield _value(kind, words[at : at + size])
        at += size + -size % WORD


def _value(kind: int, data: bytes) -> Varg:
    if kind != VargType.STRING and len(data) != (0 if kind == VargType.NIL else WORD):
        raise InvalidArgument(f"an argument of type {kind:#x} with {len(data)} bytes")
    match kind:
        case VargType.NIL:
            return None
        case VargType.UMWORD:
            return int(_WORD.unpack(data)[0])
        case VargType.MWORD:
            return int(_SIGNED.unpack(data)[0])
        case VargType.FPAGE:
            return Flexpage(_WORD.unpack(data)[0])
        case VargType.STRING:
            text, nul, _ = data.partition(b"\0")
            if not nul:
                raise InvalidArgument("a string argument does not end with a NUL")
            try:
                return text.decode()
            except UnicodeDecodeError:
                raise InvalidArgument(f"a string argument is not UTF-8: {text!r}") from None
    raise InvalidArgument(f"an argument of type {kind:#x}, which does not exist")
