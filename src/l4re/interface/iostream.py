"""The message of a raw server or client: a stream of values and capabilities.

As in L4Re values past the end read as 0 or empty, and what does not fit the 63 words is dropped (here with a
warning); later values that are small enough still go in. Unlike there, reading and writing have buffers of their
own, so an answer may be begun before everything is read. The long area, which L4Re does not have, is `data` and
`put`.
"""

from __future__ import annotations

import warnings
from enum import Enum
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from l4re._native import leaf
from l4re.cap import Capability
from l4re.errors import MessageTooLong, MessageTooShort, MissingArgument, WrongType, error_from_code
from l4re.interface.proxy import Interface
from l4re.interface.values import capability_of
from l4re.wire.codecs import Shape, codec_for, shown
from l4re.wire.scalars import Opcode
from l4re.wire.stream import Reader, Writer
from l4re.wire.tag import MAX_CAPS, MAX_DATA, WORD, WORD_BYTES, Tag

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Iostream"]

_C = TypeVar("_C", bound=Capability)
_I = TypeVar("_I", bound=Interface)
_V = TypeVar("_V", int, float, str, bytes)
_E = TypeVar("_E", bound=Enum)

_ITEM = 2 * WORD


class Iostream(leaf.Frame):
    """One message, read with `get` and written with ``<<``. Not for several threads."""

    # A raw server sees one of these for each request, so nothing is made before it is asked for, and the leaf
    # fills the fields in without __init__.
    __slots__ = ()

    def __init__(
        self, label: int = 0, words: bytes = b"", data: bytes = b"", caps: Sequence[Capability | None] = ()
    ) -> None:
        #: The long data received, whole.
        self.data = data
        #: The capabilities received, whole; None is a void one.
        self.caps = tuple(caps)
        self._label = label
        self._words = words
        self._reader: Reader | None = None
        self._writer: Writer | None = None
        self._long = b""

    @property
    def tag(self) -> Tag:
        """What kind of message was received: label, words, items."""
        words = (len(self._words) + 7) >> 3
        word = (self._label & 0xFFFF_FFFF_FFFF) << 16 | len(self.caps) << 6 | (words if words < 63 else 63)
        return int.__new__(Tag, word)

    @property
    def _source(self) -> Reader:
        if self._reader is None:
            self._reader = Reader(self._words[:WORD_BYTES], self.caps)
        return self._reader

    @property
    def _out(self) -> Writer:
        if self._writer is None:
            self._writer = Writer()
        return self._writer

    @overload
    def get(self, kind: type[_C]) -> _C | None: ...
    @overload
    def get(self, kind: type[_I]) -> _I | None: ...
    @overload
    def get(self, kind: type[_V]) -> _V: ...
    @overload
    def get(self, kind: type[_E]) -> _E: ...
    def get(self, kind: type[Any]) -> Any:
        """Return the next value of type ``kind``: ``U8`` to ``S64``, int, bool, float, str, bytes, an enum.

        Past the end that is 0 or empty, and what is left can still be read as something smaller. For a capability
        class or an interface it is the next capability received, None if it is void or there is no other.

        Raises:
            InvalidArgument: what is there cannot be a ``kind``.
        """
        codec = codec_for(kind)
        source = self._source
        before = source.position
        try:
            return codec.get(source)
        except MissingArgument:
            return codec.empty()
        except MessageTooShort:
            source.position = before
            return codec.empty()

    def opcode(self) -> int:
        """Return the next value as an opcode, in the width it has."""
        return self.get(Opcode)

    def __lshift__(self, value: object) -> Self:
        """Append a value, or a capability to hand over (lent until the message is sent).

        An int is a machine word; ``ios << U8(200)`` writes fewer bytes.

        Raises:
            WrongType, OutOfRange, InvalidArgument: it cannot travel.
        """
        cap = capability_of(value)
        if cap is not None:
            out = self._writer or self._out  # what most raw servers do with one: without a codec
            if len(out.caps) < MAX_CAPS and len(out.buffer) + _ITEM * (len(out.caps) + 1) <= WORD_BYTES:
                out.caps.append(cap)
                return self
            return self._put(cap, Capability)
        return self._put(value, bytes if isinstance(value, bytearray | memoryview) else type(value))

    def write(self, value: object, kind: Any) -> Self:
        """Append ``value`` marshalled as ``kind``: ``ios.write(200, U8)``, ``ios.write(None, Dataspace | None)``.

        Raises:
            WrongType, OutOfRange, InvalidArgument: it cannot travel as that.
            MissingArgument: None for a capability that must be there.
        """
        return self._put(value, kind)

    def _put(self, value: object, kind: Any) -> Self:
        """Append ``value`` whole or, if it does not fit, not at all."""
        try:
            codec = codec_for(kind)
        except TypeError as error:
            raise WrongType(f"cannot send {shown(value)}: {error}") from None
        out = self._out
        size, caps = len(out.buffer), len(out.caps)
        try:
            codec.put(out, value)
            fits = len(out.caps) <= MAX_CAPS and len(out.buffer) + _ITEM * len(out.caps) <= WORD_BYTES
        except MessageTooLong:
            fits = False
        except BaseException:
            del out.buffer[size:], out.caps[caps:]
            raise
        if not fits:
            del out.buffer[size:], out.caps[caps:]
            what = "a capability" if codec.shape is Shape.ITEM else shown(value)
            warnings.warn(
                f"{what} does not fit the 63 words and {MAX_CAPS} capabilities of this message and was dropped",
                RuntimeWarning,
                stacklevel=3,
            )
        return self

    def put(self, data: bytes) -> None:
        """Set the long data to send, beside the words.

        Raises:
            MessageTooLong: more than 60 KiB.
        """
        if len(data) > MAX_DATA:
            raise MessageTooLong(size=len(data), limit=MAX_DATA)
        self._long = data if data.__class__ is bytes else bytes(data)

    def answer(self) -> tuple[bytes, bytes, tuple[Capability | None, ...]]:
        """Return what was written: words, long data, capabilities."""
        out = self._writer
        if out is None:
            return b"", self._long, ()
        return out.words() if out.buffer else b"", self._long, tuple(out.caps)

    def call(self, cap: Capability | Interface, label: int = 0, timeout: float | None = None) -> Tag:
        """Send what was written, wait for the answer, and let `get` read that. Return its tag.

        What was written stays; `reset` before writing the next request.

        Raises:
            L4Error: the object answered with an error, or the call failed.
        """
        words, data, caps = self.answer()
        result, words, data, received = _transact_of(cap)(label, words, data, caps, timeout)
        self._label, self._words, self.data, self.caps = result, words, data, received
        self._reader = None
        if result < 0:
            raise error_from_code(result, data.decode("utf-8", "replace"))
        return self.tag

    def tell(self, cap: Capability | Interface, label: int = 0) -> None:
        """Send what was written and wait for nothing; what the object makes of it stays unknown.

        Raises:
            L4Error: it could not be sent.
        """
        words, data, caps = self.answer()
        _transact_of(cap)(label, words, data, caps, None, True)

    def reset(self) -> None:
        """Forget what was written."""
        self._writer = None
        self._long = b""

    def __repr__(self) -> str:
        return f"<Iostream {self.tag!r}, {len(self._out.buffer)} bytes and {len(self._out.caps)} capabilities written>"


def _transact_of(cap: Capability | Interface) -> Callable[..., tuple[int, bytes, bytes, tuple[Any, ...]]]:
    transact: Callable[..., Any] | None = getattr(capability_of(cap), "transact", None)
    if transact is None:
        raise WrongType(f"only a gate can be called, not {shown(cap)}")
    return transact
