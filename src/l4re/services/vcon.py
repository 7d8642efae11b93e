"""Consoles: bytes out, bytes in (L4's ``Vcon``; L4Re's ``Log`` is one).

To write is to send and wait for nothing, in pieces of 488 bytes; the next piece waits until the server has taken the
one before. To read never waits: line 0 of the console, which is an interrupt controller too, tells of input.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple

from l4re.errors import (
    InvalidArgument,
    MessageTooShort,
    NotImplementedByServer,
    PermissionDenied,
    ServerError,
    error_from_code,
)
from l4re.interface import U64, Interface, rpc
from l4re.rights import Rights
from l4re.services.icu import Icu, IcuServer
from l4re.wire.protocols import Proto
from l4re.wire.tag import WORD, WORD_BYTES

if TYPE_CHECKING:
    from l4re.cap import Capability
    from l4re.interface import Answer

__all__ = ["Vcon", "VconAttr", "VconInput", "VconServer"]

_WORD = Struct("=Q")
_TWO = Struct("=QQ")
_FLAGS = Struct("=8xQQQ")
#: Bytes that go in one message: beside opcode and size, beside the status.
WRITE_MAX: Final = WORD_BYTES - 2 * WORD
READ_MAX: Final = WORD_BYTES - WORD
_SIZE: Final = 0x3FFF_FFFF
_BREAK: Final = 1 << 30
_DONE: Final = 1 << 31


class _Op(IntEnum):
    """L4's numbers."""

    WRITE = 0
    READ = 1
    SET_ATTR = 2
    GET_ATTR = 3


@dataclass(frozen=True, slots=True)
class VconAttr:
    """How a console treats what goes through it; the numbers are those of termios. What they mean is its server's."""

    i_flags: U64 = 0
    o_flags: U64 = 0
    l_flags: U64 = 0

    INLCR = 0o100
    IGNCR = 0o200
    ICRNL = 0o400
    ONLCR = 4
    OCRNL = 8
    ONLRET = 32
    ICANON = 2
    ECHO = 8


class VconInput(NamedTuple):
    """What one message brought: bytes, whether there was a break before them, and whether nothing is left behind."""

    data: bytes
    broken: bool
    done: bool


class Vcon(Icu):
    """A console of another program, or of this one; see `VconServer`.

    An IRQ that is bound to line 0, and unmasked there, is triggered by input.
    """

    protocol = int(Proto.LOG)

    def write(self, text: str | bytes) -> None:
        """Write; a str travels as UTF-8. Waits only until the server has taken all but the last 488 bytes.

        What several threads or programs write comes out piece by piece.

        Raises:
            PeerGone: nobody serves the console any more.
        """
        data = text.encode() if isinstance(text, str) else bytes(text)
        for at in range(0, len(data), WRITE_MAX):
            piece = data[at : at + WRITE_MAX]
            words = _TWO.pack(_Op.WRITE, len(piece)) + piece + bytes(-len(piece) % WORD)
            self._l4_send(Vcon.protocol, words, oneway=True)

    def read(self, size: int = READ_MAX) -> bytes:
        """Return the input there is, at most ``size`` bytes; never waits for any.

        Raises:
            PermissionDenied: the capability lacks W.
        """
        data = b""
        while size > len(data):
            got = self.read_once(min(size - len(data), READ_MAX))
            data += got.data
            if got.done or not got.data:
                break
        return data

    def read_once(self, size: int = READ_MAX) -> VconInput:
        """Send one message to read ``size`` bytes, 496 at most.

        Raises:
            PermissionDenied: the capability lacks W.
            InvalidArgument: more than fits one message.
        """
        if not 0 <= size <= READ_MAX:
            raise InvalidArgument(f"0 to {READ_MAX} bytes are read at once, not {size}")
        label, words, data, _ = self._l4_transact(Vcon.protocol, _WORD.pack(_Op.READ | size << 16))
        if label < 0:
            raise error_from_code(label, data.decode("utf-8", "replace"))
        status = _WORD.unpack_from(words)[0] if len(words) >= WORD else 0
        count = status & _SIZE
        if not WORD + count <= len(words) or count > size:
            raise ServerError(f"the console says it sent {count} of {size} bytes, and the message has {len(words)}")
        return VconInput(words[WORD : WORD + count], bool(status & _BREAK), bool(status & _DONE))

    @rpc(opcode=_Op.SET_ATTR)
    def set_attr(self, attr: VconAttr) -> None:
        """Set all flags.

        Raises:
            PermissionDenied: the capability lacks W.
        """
        raise NotImplementedError

    def get_attr(self) -> VconAttr:
        """Return the flags."""
        return self._attr()[1]

    @rpc(opcode=_Op.GET_ATTR)
    def _attr(self) -> tuple[U64, VconAttr]:
        raise NotImplementedError


class VconServer(IcuServer, ABC):
    """Serves a console: a subclass says what :meth:`write` does; what it is fed is there to be read.

    It runs in the loop's thread, but :meth:`feed` is thread-safe.
    """

    interface: ClassVar[type[Interface]] = Vcon

    def __init__(self, *, room: int = 1 << 16) -> None:
        """Make one that keeps at most ``room`` bytes of input that nobody has read."""
        super().__init__(1)
        #: The flags, as they were set last.
        self.attr = VconAttr()
        self._room = room
        self._input = bytearray()
        self._broken = False
        self._guard = threading.Lock()

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Take what a client wrote, 488 bytes at most; lines may come in pieces."""

    def read(self, size: int) -> bytes:
        """Return at most ``size`` bytes of input; fewer: nothing is left. This one returns what was fed."""
        with self._guard:
            data = bytes(self._input[:size])
            del self._input[:size]
        return data

    def feed(self, data: bytes, *, broken: bool = False) -> int:
        """Have ``data`` read, behind a break if ``broken``, and tell the clients; return how much fitted."""
        with self._guard:
            taken = data[: max(0, self._room - len(self._input))]
            self._input += taken
            self._broken |= broken
        self.pulse(0)
        return len(taken)

    def serve_request(
        self, rights: int, label: int, words: bytes, data: bytes, caps: tuple[Capability | None, ...]
    ) -> Answer:
        """See `Served.serve_request`."""
        if label != Proto.LOG:
            return super().serve_request(rights, label, words, data, caps)
        if len(words) < WORD:
            raise MessageTooShort("the request has no opcode")
        (word,) = _WORD.unpack_from(words)
        match word & 0xFFFF:
            case _Op.WRITE:
                self._written(words)
                return 0, b"", b"", ()
            case _Op.GET_ATTR:
                attr = self.attr
                return 0, _FLAGS.pack(attr.i_flags, attr.o_flags, attr.l_flags), b"", ()
            case _Op.READ | _Op.SET_ATTR if not rights & Rights.W:
                raise PermissionDenied(wanted=Rights.W, held=Rights.R | Rights(rights & 3))
            case _Op.READ:
                return 0, self._read(min(word >> 16 & 0xFFFF_FFFF, READ_MAX)), b"", ()
            case _Op.SET_ATTR:
                if len(words) < _FLAGS.size:
                    raise MessageTooShort("the request does not have all flags")
                self.attr = VconAttr(*map(U64, _FLAGS.unpack_from(words)))
                return 0, b"", b"", ()
        raise NotImplementedByServer(f"a console has no operation {word & 0xFFFF}")

    def _written(self, words: bytes) -> None:
        size = _TWO.unpack_from(words)[1] if len(words) >= _TWO.size else 0
        if size > len(words) - _TWO.size:
            raise MessageTooShort(f"{size} bytes are announced, {max(0, len(words) - _TWO.size)} are there")
        self.write(words[_TWO.size : _TWO.size + size])

    def _read(self, size: int) -> bytes:
        with self._guard:
            status = _BREAK if self._broken else 0
            self._broken = False
        data = self.read(size)[:size]
        status |= _DONE if len(data) < size else 0
        return _WORD.pack(status | len(data)) + data + bytes(-len(data) % WORD)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} with {len(self._input)} bytes of input>"
