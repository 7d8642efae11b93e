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
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from struct import Struct
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from l4re.errors import InvalidArgument, L4Error, MessageTooShort
from l4re.wire.codecs import Codec, ScalarCodec, Shape, name_of, scope, within
from l4re.wire.scalars import U16, Length
from l4re.wire.source import Run, Source
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
        self._packers: _Packers | None = None

    def put(self, out: Writer, value: Any) -> None:
        if not isinstance(value, Sequence) or isinstance(value, str | bytes | bytearray | memoryview):
            raise self.wrong(value)
        if not isinstance(value, list | tuple):
            value = list(value)  # so that its length is that of what follows
        element = self.element
        out.count(self.length, len(value), "elements", element.least)
        if element.align:
            out.align(element.align)
            try:
                out.buffer += self._fast().pack(value)
                return
            except Exception:
                pass  # the way below finds out what it is about
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
        if element.align:
            data = source.take(number * element.least)
            try:
                return self._fast().unpack(data)
            except Exception:
                source = Reader(data)
        found = []
        for n in range(number):
            try:
                found.append(element.get(source))
            except L4Error as error:
                raise within(f"element {n}", error) from None
        return found

    def _fast(self) -> _Packers:
        if self._packers is None:
            self._packers = _packers_of(self.element)
        return self._packers

    def empty(self) -> list[Any]:
        return []


class _Packers(NamedTuple):
    """Pack and unpack many values of a fixed size; raise whatever they like for one that is not usual."""

    pack: Callable[[Sequence[Any]], bytes]
    unpack: Callable[[bytes], list[Any]]


def _packers_of(element: Codec) -> _Packers:
    source = Source()
    each, fits, one = "_l4_each", element.fits("_l4_each", source.bind), Struct(f"={element.code}")
    if isinstance(element, ScalarCodec) and not fits:
        return _Packers(
            lambda values: struct.pack(f"={len(values)}{element.code}", *values),
            lambda data: list(struct.unpack(f"={len(data) // one.size}{element.code}", data)),
        )
    source.line("def pack(values):")
    with source.indented():
        source.line(f"for {each} in values:")
        with source.indented():
            source.line(f"if not ({fits}): raise {source.bind(TypeError)}")
        numbers = ", ".join(element.numbers(each, source.bind))
        source.line(f"return {source.bind(b'')}.join([{source.bind(one.pack)}({numbers}) for {each} in values])")
    source.line("def unpack(data):")
    with source.indented():
        value = element.from_wire(each, source.bind)
        targets = ", ".join(element.targets(each))
        source.line(f"return [{value} for {targets}, in {source.bind(one.iter_unpack)}(data)]")
    unpack = source.compiled("unpack", f"elements of {element.name}")
    return _Packers(source.names["pack"], unpack)


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
        self.items = sum(member.codec.items for member in members)
        if all(member.codec.align for member in members):
            self.shape = Shape.STRUCT
            self.align = max(member.codec.align for member in members)
            run = Run(self.align)
            for member in members:
                codec = member.codec
                run.append(codec.code, codec.align, codec.least, [], codec.targets(""))
            tail = -run.reach % self.align
            self.code = f"{run.code}{tail}x" if tail else run.code
            self.least = run.reach + tail
            self._numbers = len(run.targets)
        else:
            self.least = sum(member.codec.least for member in members)

    def parts(self, value: Any) -> Sequence[Any]:
        """Return the values of the members; `WrongType` if ``value`` is something else."""
        if not isinstance(value, tuple) or len(value) != len(self.members):
            raise self.wrong(value)
        return value

    def made(self, parts: list[Any]) -> Any:
        """Return the value that has these members; `InvalidArgument` if there is none."""
        return tuple(parts)

    # Source text for those of a fixed size.
    def part(self, var: str, n: int) -> str:
        """An expression for the value of member ``n``."""
        return f"{var}[{n}]"

    def is_one(self, var: str, bind: Callable[[object], str]) -> str:
        """An expression that is false for what is no such value."""
        return f"{var}.__class__ is {bind(tuple)} and {bind(len)}({var}) == {len(self.members)}"

    def build(self, parts: list[str], bind: Callable[[object], str]) -> str:
        """An expression that makes a value of its members."""
        return f"({', '.join(parts)},)"

    def fits(self, var: str, bind: Callable[[object], str]) -> str:
        checks = (member.codec.fits(self.part(var, n), bind) for n, member in enumerate(self.members))
        return " and ".join([self.is_one(var, bind), *filter(None, checks)])

    def numbers(self, var: str, bind: Callable[[object], str]) -> list[str]:
        found = []
        for n, member in enumerate(self.members):
            found += member.codec.numbers(self.part(var, n), bind)
        return found

    def targets(self, var: str) -> list[str]:
        return [f"_l4_{var}_{n}" for n in range(self._numbers)]

    def from_wire(self, var: str, bind: Callable[[object], str]) -> str:
        return self.made_of(iter(self.targets(var)), bind)

    def made_of(self, names: Iterator[str], bind: Callable[[object], str]) -> str:
        """An expression for the value whose numbers have the next of these names."""
        parts = []
        for member in self.members:
            codec = member.codec
            if isinstance(codec, StructCodec):
                parts.append(codec.made_of(names, bind))
            else:
                parts.append(codec.from_wire(next(names), bind))
        return self.build(parts, bind)

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

    def part(self, var: str, n: int) -> str:
        return f"{var}.{self.members[n].name}"

    def is_one(self, var: str, bind: Callable[[object], str]) -> str:
        return f"{var}.__class__ is {bind(self.cls)}"

    def build(self, parts: list[str], bind: Callable[[object], str]) -> str:
        named = (f"{member.name}={part}" for member, part in zip(self.members, parts, strict=True))
        return f"{bind(self.cls)}({', '.join(named)})"

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
