"""Composite values: lists, dataclasses, tuples, and what may be None.

A list is a length and its elements, as L4Re's ``Array``. A dataclass or a tuple whose members have fixed sizes is a
C struct: it begins at the alignment of its widest member and is filled up to a multiple of that. One with a member
of no fixed size (text, a list, something that may be None, a capability) has no counterpart in C, and its members
travel one after the other, as arguments do. What may be None is a bool, and behind True the value.

Capabilities inside are items of the message as any others, in the order in which the values hold them.
"""

from __future__ import annotations

import struct
import types
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from struct import Struct
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from l4re.errors import InvalidArgument, L4Error, MessageTooShort
from l4re.wire.codecs import BoolCodec, Codec, EnumCodec, ScalarCodec, name_of, scope, within
from l4re.wire.scalars import U16, Length
from l4re.wire.stream import Reader, Writer

__all__ = ["DataclassCodec", "ListCodec", "Member", "OptionalCodec", "StructCodec", "composite", "counted"]

_BOOL = Struct("=?")
#: L4Re's ``Array`` has this if nothing else is said.
_DEFAULT_LENGTH = Length(U16)

_CodecFor = Callable[[Any], Codec]


class ListCodec(Codec):
    """A length, then the elements."""

    def __init__(self, element: Codec, length: Length) -> None:
        self.name = f"list[{element.name}]"
        self.element = element
        self.length = Struct("=" + length.kind.format)
        self.least = self.length.size
        self._many = isinstance(element, ScalarCodec) and not isinstance(element, BoolCodec | EnumCodec)

    def put(self, out: Writer, value: Any) -> None:
        if not isinstance(value, Sequence) or isinstance(value, str | bytes | bytearray | memoryview):
            raise self.wrong(value)
        element = self.element
        out.count(self.length, len(value), "elements", element.least)
        if element.align:
            out.align(element.align)
        if isinstance(element, ScalarCodec) and self._many:
            try:
                out.buffer += struct.pack(f"={len(value)}{element.code}", *value)
                return
            except (struct.error, OverflowError, TypeError, ValueError):
                pass  # the way below finds out which one it is
        for n, each in enumerate(value):
            try:
                element.put(out, each)
            except L4Error as error:
                raise within(f"element {n}", error) from None

    def get(self, source: Reader) -> list[Any]:
        element = self.element
        number = source.scalar(self.length)
        if element.align:
            source.align(element.align)
        left = source.left
        if number * element.least > left[0] or number * element.items > left[1]:
            raise MessageTooShort(
                f"{number} elements are announced, and {left[0]} bytes and {left[1]} capabilities are there"
            )
        if isinstance(element, ScalarCodec) and self._many:
            return list(struct.unpack(f"={number}{element.code}", source.take(number * element.least)))
        found = []
        for n in range(number):
            try:
                found.append(element.get(source))
            except L4Error as error:
                raise within(f"element {n}", error) from None
        return found

    def empty(self) -> list[Any]:
        return []


class Member(NamedTuple):
    """One member of a struct: how messages call it, where a dataclass has it, how it travels."""

    place: str
    name: str
    codec: Codec


class StructCodec(Codec):
    """Members one after the other; of fixed sizes, as a C compiler lays them out."""

    def __init__(self, name: str, members: Sequence[Member]) -> None:
        self.name = name
        self.members = members
        fixed = all(member.codec.align for member in members)
        self.align = max(member.codec.align for member in members) if fixed else 0
        self.least = _size(self) if fixed else sum(member.codec.least for member in members)
        self.items = sum(member.codec.items for member in members)

    def parts(self, value: Any) -> Sequence[Any]:
        """Return the values of the members; `WrongType` if ``value`` is something else."""
        if not isinstance(value, tuple) or len(value) != len(self.members):
            raise self.wrong(value)
        return value

    def made(self, parts: list[Any]) -> Any:
        """Return the value that has these members; `InvalidArgument` if there is none."""
        return tuple(parts)

    def put(self, out: Writer, value: Any) -> None:
        parts = self.parts(value)
        if self.align:
            out.align(self.align)
        for member, part in zip(self.members, parts, strict=True):
            try:
                member.codec.put(out, part)
            except L4Error as error:
                raise within(member.place, error) from None
        if self.align:
            out.align(self.align)

    def get(self, source: Reader) -> Any:
        if self.align:
            source.align(self.align)
        parts = []
        for member in self.members:
            try:
                parts.append(member.codec.get(source))
            except L4Error as error:
                raise within(member.place, error) from None
        if self.align:
            source.align(self.align)
        return self.made(parts)


def _size(fixed: StructCodec) -> int:
    size = 0
    for member in fixed.members:
        size += -size % member.codec.align + member.codec.least
    return size + -size % fixed.align


class DataclassCodec(StructCodec):
    """A dataclass; received ones are made by calling the class, so its own checks hold."""

    def __init__(self, cls: type[Any], members: Sequence[Member]) -> None:
        super().__init__(cls.__name__, members)
        self.cls = cls

    def parts(self, value: Any) -> Sequence[Any]:
        if not isinstance(value, self.cls):
            raise self.wrong(value)
        try:
            return [getattr(value, member.name) for member in self.members]
        except AttributeError:  # deleted, or never set
            raise self.wrong(value) from None

    def made(self, parts: list[Any]) -> Any:
        try:
            return self.cls(**{member.name: part for member, part in zip(self.members, parts, strict=True)})
        except Exception as error:  # whatever its __post_init__ has against them
            raise InvalidArgument(f"must be {self.name}, and that refused what arrived: {error!r}") from None


class OptionalCodec(Codec):
    """A bool, and behind True the value."""

    def __init__(self, inner: Codec) -> None:
        self.name = f"{inner.name} | None"
        self.inner = inner
        self.least = _BOOL.size

    def put(self, out: Writer, value: Any) -> None:
        out.scalar(_BOOL, value is not None)
        if value is not None:
            self.inner.put(out, value)

    def get(self, source: Reader) -> Any:
        return self.inner.get(source) if source.scalar(_BOOL) else None


def composite(annotation: Any, codec_for: _CodecFor) -> Codec | None:
    """Return the codec of a composite annotation, None if it is none.

    Raises:
        TypeError: something in it does not travel; the message says what.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is list:
        raise TypeError("a list travels when it is said of what: list[U32], list[str]")
    if origin is list:
        return counted(annotation, _DEFAULT_LENGTH, codec_for)
    if origin in (Union, types.UnionType):
        inner = [each for each in arguments if each is not types.NoneType]
        if len(inner) != 1:
            raise TypeError(f"values of type {name_of(annotation)} do not travel; of unions only `X | None` does")
        return OptionalCodec(codec_for(inner[0]))
    if annotation is tuple or origin is tuple:
        if not arguments or Ellipsis in arguments:
            raise TypeError(
                f"values of type {name_of(annotation)} do not travel; a tuple has a stated length and stated types, "
                "as tuple[int, str], else it is a list"
            )
        members = [Member(f"[{n}]", "", _inner(f"[{n}]", each, codec_for)) for n, each in enumerate(arguments)]
        return StructCodec(f"tuple[{', '.join(member.codec.name for member in members)}]", members)
    if isinstance(annotation, type) and hasattr(annotation, "__dataclass_fields__"):
        return _dataclass(annotation, codec_for)
    return None


def counted(annotation: Any, length: Length, codec_for: _CodecFor) -> ListCodec:
    """Return the codec of a list with a stated length.

    Raises:
        TypeError: it is no list, or its elements do not travel.
    """
    if get_origin(annotation) is not list:
        raise TypeError(f"{length!r} is for list[...], str and bytes, not for {name_of(annotation)}")
    (element,) = get_args(annotation)
    return ListCodec(_inner("elements:", element, codec_for), length)


def _inner(place: str, annotation: Any, codec_for: _CodecFor) -> Codec:
    try:
        return codec_for(annotation)
    except TypeError as error:
        raise TypeError(f"{place} {error}") from None


def _hints(cls: type[Any]) -> dict[str, Any]:
    try:
        return get_type_hints(cls, include_extras=True)
    except NameError:
        return get_type_hints(cls, localns={**(scope.get() or {})}, include_extras=True)


#: Dataclasses whose members are being looked at, the outermost first.
_around: ContextVar[tuple[type[Any], ...]] = ContextVar("around", default=())


def _dataclass(cls: type[Any], codec_for: _CodecFor) -> Codec:
    if cls in _around.get():
        raise TypeError(f"{cls.__name__} contains itself, and what has no stated depth does not travel")
    inside = _around.set((*_around.get(), cls))
    try:
        hints = _hints(cls)
        members = []
        for field in cls.__dataclass_fields__.values():
            place = f"field {field.name!r}"
            kind = field._field_type.name  # a real one, a class variable, or a parameter of __post_init__
            if kind == "_FIELD_INITVAR":
                raise TypeError(f"{place} of {cls.__name__} is for __init__ only, so it cannot be read and sent")
            if kind == "_FIELD" and field.init:
                codec = _inner(f"{place} of {cls.__name__}:", hints[field.name], codec_for)
                members.append(Member(place, field.name, codec))
    finally:
        _around.reset(inside)
    if not members:
        raise TypeError(f"{cls.__name__} has no fields, so there is nothing to send")
    return DataclassCodec(cls, members)
