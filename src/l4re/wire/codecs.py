"""Codecs: how one value of a given annotation becomes bytes, and what comes back.

A codec says what a value must be in words a user understands; whoever calls it adds the method and the
argument. Rooms above add kinds of values with `register_codec` (capabilities are added by ``interface``).

A codec may be *fast*: then it also gives the source text that the code generator puts in line. Codecs of values
that hold others are in `composites`, which is loaded with the first of them.
"""

from __future__ import annotations

import enum
import functools
import operator
import reprlib
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from struct import Struct
from typing import Annotated, Any, Final, get_args, get_origin

from l4re.errors import InvalidArgument, L4Error, MessageTooShort, OutOfRange, WrongType
from l4re.wire.scalars import S64, Length, SizedInt
from l4re.wire.stream import LENGTH, Reader, Writer

__all__ = [
    "BlobCodec",
    "BoolCodec",
    "BytesCodec",
    "Codec",
    "EnumCodec",
    "FloatCodec",
    "ScalarCodec",
    "Shape",
    "StrCodec",
    "codec_for",
    "expanded",
    "name_of",
    "register_codec",
    "scope",
    "shown",
    "within",
]

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 60


def shown(value: object) -> str:
    """Return ``value`` short enough for a message."""
    try:
        text = _repr.repr(value)
    except Exception:  # a repr of the caller's own may do anything
        return f"a {type(value).__name__}"
    return "None" if value is None else f"{text} ({type(value).__name__})"


def within(place: str, error: L4Error) -> L4Error:
    """Return ``error`` again, its text and its facts, with ``place`` in front."""
    again = type(error)(f"{place} {error.text}", code=error.code)
    vars(again).update({name: fact for name, fact in vars(error).items() if name != "text"})
    return again


class Shape(enum.Enum):
    """How a codec's values sit in a message; tells the code generator what to do."""

    SCALAR = "one number at its natural alignment"
    STRUCT = "numbers at known distances"
    BLOB = "a length and bytes"
    ITEM = "a capability"
    OTHER = "only put() and get() know"


class Codec(ABC):
    """Marshals the values of one type."""

    #: What the annotation is called in messages.
    name: str
    shape: Shape = Shape.OTHER
    #: For values of a fixed size: a multiple of what they begin at, and their ``struct`` codes, padding included.
    align: int = 0
    code: str = ""
    #: What a value takes at least: bytes, and capabilities.
    least: int = 0
    items: int = 0

    @abstractmethod
    def put(self, out: Writer, value: Any) -> None:
        """Append ``value``; `WrongType`, `OutOfRange` or `InvalidArgument` say what it must be."""

    @abstractmethod
    def get(self, source: Reader) -> Any:
        """Return the next value; `MessageTooShort` or `InvalidArgument` if there is none."""

    def empty(self) -> Any:
        """Return what a raw stream gives past its end."""
        return None

    def wrong(self, value: object) -> WrongType:
        """Return the error for a value of another type."""
        return WrongType(f"must be {self.name}, not {shown(value)}")

    # Source text for fast codecs. ``bind`` puts an object into the generated code's names.
    def fits(self, var: str, bind: Callable[[object], str]) -> str:
        """An expression that is false for values which ``put`` must look at; "" if packing finds out itself."""
        return ""

    def to_wire(self, var: str, bind: Callable[[object], str]) -> str:
        """An expression for what is packed: a number, bytes, or a capability."""
        return var

    def numbers(self, var: str, bind: Callable[[object], str]) -> list[str]:
        """For values of a fixed size: an expression for each number that is packed."""
        return [self.to_wire(var, bind)]

    def targets(self, var: str) -> list[str]:
        """For values of a fixed size: a name for each number that is unpacked."""
        return [var]

    def arrived(self, var: str, bind: Callable[[object], str]) -> str:
        """For capabilities: an expression that is false for a received one which ``get`` must look at."""
        return ""

    def from_wire(self, var: str, bind: Callable[[object], str]) -> str:
        """An expression for the value made of what was unpacked; may raise anything, then ``get`` is asked."""
        return var


class ScalarCodec(Codec):
    """A number with a ``struct`` code."""

    shape = Shape.SCALAR

    def __init__(self, name: str, code: str, low: int = 0, high: int = 0, empty: object = 0) -> None:
        self.name = name
        self._empty = empty
        self.struct = Struct("=" + code)
        self.align = self.least = self.struct.size
        self.code = code
        self.low = low
        self.high = high

    def put(self, out: Writer, value: Any) -> None:
        try:
            out.scalar(self.struct, value)
        except (struct.error, OverflowError, TypeError, ValueError):
            raise self._refusal(value) from None

    def _refusal(self, value: object) -> Exception:
        try:
            number = value.__index__()  # type: ignore[attr-defined]
        except Exception:
            return self.wrong(value)
        return OutOfRange(f"must be {self.name} ({self.low} to {self.high}), not {shown(number)}")

    def get(self, source: Reader) -> Any:
        return source.scalar(self.struct)

    def empty(self) -> Any:
        return self._empty


class BoolCodec(ScalarCodec):
    """A bool in one byte; any byte but 0 is True."""

    def __init__(self) -> None:
        super().__init__("bool", "?", empty=False)

    def put(self, out: Writer, value: Any) -> None:
        if not isinstance(value, bool):
            inner = getattr(value, "item", None)  # numpy's bool
            plain = inner() if callable(inner) and type(value).__module__ == "numpy" else None
            if not isinstance(plain, bool):
                raise self.wrong(value)
            value = plain
        out.scalar(self.struct, value)

    def fits(self, var: str, bind: Callable[[object], str]) -> str:
        return f"{var}.__class__ is {bind(bool)}"


class FloatCodec(ScalarCodec):
    """A double."""

    def __init__(self) -> None:
        super().__init__("float", "d", empty=0.0)

    def _refusal(self, value: object) -> Exception:
        if isinstance(value, int):
            return OutOfRange(f"must be float, {shown(value)} is too large for one")
        return self.wrong(value)


class EnumCodec(ScalarCodec):
    """An enum with integer values: an int as in C, wider only if a value asks for it."""

    def __init__(self, cls: type[enum.Enum], width: type[SizedInt] | None = None) -> None:
        values = [member.value for member in cls]
        if not all(isinstance(value, int) for value in values):
            raise TypeError(f"enum {cls.__name__} has values that are not integers; only integers travel")
        low, high = min(values, default=0), max(values, default=0)
        if issubclass(cls, enum.Flag):
            high = functools.reduce(operator.or_, (v for v in values if v > 0), 0)
        code = width.format if width else "i" if low >= -(1 << 31) and high < 1 << 31 else "q"
        if width is None and not -(1 << 63) <= low <= high < 1 << 63:
            raise TypeError(f"enum {cls.__name__} has values that do not fit a machine word")
        empty: enum.Enum | None
        try:
            empty = cls(0)
        except ValueError:
            empty = next(iter(cls), None)
        super().__init__(cls.__name__, code, empty=empty)
        self.cls = cls

    def put(self, out: Writer, value: Any) -> None:
        if not isinstance(value, self.cls):
            raise self.wrong(value)
        try:
            out.scalar(self.struct, value.value)
        except struct.error:
            raise OutOfRange(f"must be {self.name} in {self.struct.size} bytes, not {shown(value)}") from None

    def get(self, source: Reader) -> Any:
        number = source.scalar(self.struct)
        try:
            return self.cls(number)
        except ValueError:
            raise InvalidArgument(f"must be {self.name}, and {number} is none of its values") from None

    def fits(self, var: str, bind: Callable[[object], str]) -> str:
        return f"{bind(isinstance)}({var}, {bind(self.cls)})"

    def to_wire(self, var: str, bind: Callable[[object], str]) -> str:
        return f"{var}.value"

    def from_wire(self, var: str, bind: Callable[[object], str]) -> str:
        return f"{bind(self.cls)}({var})"


class BlobCodec(Codec):
    """Bytes behind their length, which is a machine word unless the annotation says otherwise."""

    shape = Shape.BLOB

    def __init__(self, length: type[SizedInt] | None = None) -> None:
        self.length = LENGTH if length is None else Struct("=" + length.format)
        self.code = self.length.format[1:]
        self.least = self.length.size


class StrCodec(BlobCodec):
    """UTF-8 with a length that counts the closing NUL, as L4Re's strings."""

    name = "str"
    tail: Final = b"\0"

    def put(self, out: Writer, value: Any) -> None:
        if not isinstance(value, str):
            raise self.wrong(value)
        try:
            data = value.encode()
        except UnicodeEncodeError as error:
            raise InvalidArgument(f"must be text that UTF-8 can express, not {shown(value)} ({error.reason})") from None
        out.blob(data, self.tail, self.length)

    def get(self, source: Reader) -> str:
        data = source.blob(self.length)
        if not data:
            raise MessageTooShort("a string has at least its closing NUL, and this one has length 0")
        try:
            return data[:-1].decode()
        except UnicodeDecodeError:
            raise InvalidArgument(f"must be UTF-8 text, and {shown(data)} is not") from None

    def empty(self) -> str:
        return ""

    def fits(self, var: str, bind: Callable[[object], str]) -> str:
        return f"{var}.__class__ is {bind(str)}"

    def to_wire(self, var: str, bind: Callable[[object], str]) -> str:
        return f"{var}.encode() + {bind(self.tail)}"

    def from_wire(self, var: str, bind: Callable[[object], str]) -> str:
        return f"{bind(_text)}({var})"


def _text(data: bytes) -> str:
    if not data:
        raise ValueError
    return data[:-1].decode()


class BytesCodec(BlobCodec):
    """Any bytes."""

    name = "bytes"

    def put(self, out: Writer, value: Any) -> None:
        if not isinstance(value, bytes | bytearray | memoryview):
            raise self.wrong(value)
        out.blob(bytes(value), b"", self.length)

    def get(self, source: Reader) -> bytes:
        return source.blob(self.length)

    def empty(self) -> bytes:
        return b""

    def fits(self, var: str, bind: Callable[[object], str]) -> str:
        return f"{var}.__class__ is {bind(bytes)}"


_INT = ScalarCodec("int", S64.format, -(1 << 63), (1 << 63) - 1)  # type: ignore[attr-defined]
_known: dict[object, Codec] = {int: _INT, bool: BoolCodec(), float: FloatCodec(), str: StrCodec(), bytes: BytesCodec()}
#: Local names of the place where an annotation stands; a dataclass defined there may need them.
scope: ContextVar[Mapping[str, Any] | None] = ContextVar("scope", default=None)
_makers: list[Callable[[Any, tuple[Any, ...]], Codec | None]] = []


def register_codec(maker: Callable[[Any, tuple[Any, ...]], Codec | None]) -> None:
    """Let ``maker`` have a look at annotations nobody knows, and the notes on them; it returns a codec or None."""
    _makers.append(maker)


def codec_for(annotation: Any) -> Codec:
    """Return the codec for a resolved annotation.

    Raises:
        TypeError: values of this type do not travel; the message says which do.
    """
    try:
        found = _known.get(annotation)
    except TypeError:  # not hashable
        return _make(annotation)
    if found is None:
        found = _known[annotation] = _make(annotation)
    return found


def expanded(annotation: Any) -> Any:
    """Return what an alias made by a ``type`` statement stands for; anything else as it is."""
    alias = get_origin(annotation) or annotation
    if isinstance(alias, type) or not hasattr(alias, "__value__"):
        return annotation
    value = alias.__value__
    if alias is not annotation:
        given = dict(zip(alias.__type_params__, get_args(annotation), strict=True))
        value = value[tuple(given[parameter] for parameter in value.__parameters__)]
    return expanded(value)


def _make(annotation: Any) -> Codec:
    annotation = expanded(annotation)
    if get_origin(annotation) is Annotated:
        base, *notes = get_args(annotation)
        codec = _noted(expanded(base), tuple(notes))
        return codec_for(base) if codec is None else codec
    if hasattr(annotation, "__supertype__"):  # a NewType
        return codec_for(annotation.__supertype__)
    if isinstance(annotation, type):
        if issubclass(annotation, SizedInt):
            return ScalarCodec(annotation.__name__, annotation.format, annotation.low, annotation.high)
        if issubclass(annotation, enum.Enum):
            return EnumCodec(annotation)
    for maker in _makers:
        codec = maker(annotation, ())
        if codec is not None:
            return codec
    from l4re.wire.composites import composite

    codec = composite(annotation, codec_for)
    if codec is not None:
        return codec
    raise TypeError(
        f"values of type {name_of(annotation)} do not travel; int, U8 to S64, bool, float, str, bytes, enums of "
        "integers, capabilities and numpy arrays do, and dataclasses, lists, tuples and `| None` of these"
    )


def _noted(base: Any, notes: tuple[Any, ...]) -> Codec | None:
    """Return the codec for ``Annotated[base, *notes]`` if the notes change anything."""
    for note in notes:
        if isinstance(note, type) and issubclass(note, SizedInt):
            if isinstance(base, type) and issubclass(base, enum.Enum):
                return EnumCodec(base, note)
            if base is int:
                return codec_for(note)
        if isinstance(note, Length):
            if base in (str, bytes):
                return (StrCodec if base is str else BytesCodec)(note.kind)
            from l4re.wire.composites import counted

            return counted(base, note, codec_for)
    for maker in _makers:
        codec = maker(base, notes)
        if codec is not None:
            return codec
    return None


def name_of(annotation: Any) -> str:
    """Return how messages call an annotation."""
    if annotation in (None, type(None)):
        return "None"
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
