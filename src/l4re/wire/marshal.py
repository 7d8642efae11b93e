"""Layouts: the arguments of one operation, or its results, as one stream.

`Layout.pack` and `Layout.unpack` are the plain way, slow and exact in what they say about a bad value.
`emit_pack` and `emit_unpack` write the same as straight-line source for the generated stubs: numbers with a
known place share one precompiled ``struct``, and anything unusual is left to the plain way.

A stream that does not fit the words of a message travels whole in the long area.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Any, NamedTuple

from l4re.errors import L4Error, MessageTooLong
from l4re.wire.codecs import Codec, Shape, within
from l4re.wire.source import Source
from l4re.wire.stream import LENGTH, Reader, Writer
from l4re.wire.tag import MAX_CAPS, MAX_DATA, MAX_WORDS, WORD, WORD_BYTES

__all__ = ["OPCODE", "Field", "Layout", "Packed"]

#: The number of an operation in front of a request.
OPCODE = Struct("=i")

#: Words, long data, capabilities.
Packed = tuple[bytes, bytes, tuple[Any, ...]]

_ITEM_WORDS = 2
_MESSAGE = "_l4_words, _l4_data, _l4_caps"


class Field(NamedTuple):
    """One value: what it is called in messages, and its codec."""

    name: str
    codec: Codec


class Layout:
    """The order of the values in a stream; ``where`` opens every message about one of them."""

    def __init__(self, where: str, fields: Sequence[Field], opcode: int | None = None) -> None:
        self.where = where
        self.fields = tuple(fields)
        self.opcode = opcode
        self.items = sum(field.codec.items for field in self.fields)
        #: Bytes for which the words have room beside these capabilities.
        self.limit = WORD_BYTES - _ITEM_WORDS * WORD * self.items
        #: Numbers only, and few enough for the words: no long data, no capabilities.
        self.plain = len(self.fields) < MAX_WORDS and all(f.codec.shape is Shape.SCALAR for f in self.fields)
        self.fast = all(field.codec.shape is not Shape.OTHER for field in self.fields)
        if self.items > MAX_CAPS:
            raise TypeError(f"{where}: {self.items} capabilities, and a message takes at most {MAX_CAPS}")

    def pack(self, values: Sequence[Any]) -> Packed:
        """Return the message for ``values``, one for each field.

        Raises:
            WrongType, OutOfRange, InvalidArgument, MissingArgument: a value that does not fit its field.
            PermissionDenied: a capability that carries less than its field promises.
            MessageTooLong: more than a message takes, in bytes or in capabilities.
        """
        beside: dict[int, Any] = {}
        while True:
            out = self._written(values, beside)
            stream = out.words()
            if len(stream) <= MAX_DATA or len(stream) - sum(out.blocks) > MAX_DATA:
                break
            beside[out.blocks.index(max(out.blocks))] = None
        if len(out.caps) > MAX_CAPS:
            raise MessageTooLong(
                f"{self.where}: {len(out.caps)} capabilities, and a message takes at most {MAX_CAPS}",
                size=len(out.caps),
                limit=MAX_CAPS,
            )
        if len(stream) <= WORD_BYTES - _ITEM_WORDS * WORD * len(out.caps):
            return stream, b"", tuple(out.caps)
        if len(stream) > MAX_DATA:
            raise MessageTooLong(
                f"{self.where}: {len(stream)} bytes, and a message takes at most {MAX_DATA}; "
                "put big data into a dataspace and send its capability",
                size=len(stream),
                limit=MAX_DATA,
            )
        return b"", stream, tuple(out.caps)

    def _written(self, values: Sequence[Any], beside: dict[int, Any]) -> Writer:
        out = Writer(beside)
        if self.opcode is not None:
            out.scalar(OPCODE, self.opcode)
        for field, value in zip(self.fields, values, strict=True):
            try:
                field.codec.put(out, value)
            except L4Error as error:
                raise within(f"{self.where}: {field.name}", error) from None
        return out

    def unpack(self, words: bytes, data: bytes, caps: Sequence[Any]) -> tuple[Any, ...]:
        """Return the values of a received message, checked.

        Raises:
            MessageTooShort: bytes or capabilities are missing.
            InvalidArgument, MissingArgument: a value that cannot be one of its field.
            PermissionDenied: a capability that carries less than its field promises.
        """
        source = Reader(words or data, caps)
        if self.opcode is not None:
            source.scalar(OPCODE)
        values = []
        for field in self.fields:
            try:
                values.append(field.codec.get(source))
            except L4Error as error:
                raise within(f"{self.where}: {field.name}", error) from None
        return tuple(values)

    def emit_pack(self, source: Source, variables: Sequence[str], slow: str) -> None:
        """Write code that sets ``_l4_words``, ``_l4_data`` and ``_l4_caps`` from ``variables``.

        For a plain layout it sets only ``_l4_words``; the rest is empty.

        ``slow`` is an expression that does the same by `pack`; it is asked whenever anything is unusual.
        """
        if not self.fast:
            source.line(f"{_MESSAGE} = {slow}")
            return
        pairs = list(zip(variables, self.fields, strict=True))
        checks = [c for v, f in pairs if (c := f.codec.fits(v, source.bind))]
        runs = source.runs(self, pairs)
        items = [f.codec.to_wire(v, source.bind) for v, f in pairs if f.codec.shape is Shape.ITEM]
        source.line("try:")
        with source.indented():
            if checks:
                source.line(f"if not ({' and '.join(checks)}): raise {source.bind(TypeError)}")
            dynamic = source.pack_runs(runs)
            if not self.plain:
                source.line(f"_l4_caps = ({''.join(item + ', ' for item in items)})")
                source.line("_l4_data = b''")
            if dynamic or runs.size > self.limit:
                source.line(f"if {source.bind(len)}(_l4_words) > {self.limit}:")
                with source.indented():
                    source.line(f"if {source.bind(len)}(_l4_words) > {MAX_DATA}: raise {source.bind(ValueError)}")
                    source.line("_l4_words, _l4_data = _l4_data, _l4_words")
        source.line(f"except {source.bind(Exception)}:")
        with source.indented():
            source.line(f"_l4_words = {slow}[0]" if self.plain else f"{_MESSAGE} = {slow}")

    def emit_unpack(self, source: Source, variables: Sequence[str], slow: str) -> None:
        """Write code that sets ``variables`` from ``_l4_words``, ``_l4_data`` and ``_l4_caps``.

        ``slow`` is an expression that does the same by `unpack`.
        """
        if not self.fields:
            return
        targets = ", ".join(variables) + ","
        if not self.fast:
            source.line(f"{targets} = {slow}")
            return
        pairs = list(zip(variables, self.fields, strict=True))
        runs = source.runs(self, pairs)
        source.line("try:")
        with source.indented():
            if not self.plain:
                source.line("_l4_stream = _l4_words or _l4_data")
            source.unpack_runs(runs, "_l4_words" if self.plain else "_l4_stream")
            for index, (variable, field) in enumerate((v, f) for v, f in pairs if f.codec.shape is Shape.ITEM):
                source.line(f"{variable} = _l4_caps[{index}]")
                source.line(f"if not ({field.codec.arrived(variable, source.bind)}): raise {source.bind(TypeError)}")
            for variable, field in pairs:
                value = field.codec.from_wire(variable, source.bind)
                if value != variable:
                    source.line(f"{variable} = {value}")
        source.line(f"except {source.bind(Exception)}:")
        with source.indented():
            source.line(f"{targets} = {slow}")


assert LENGTH.size == WORD
