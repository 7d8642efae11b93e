"""Random numbers for whoever has no source of its own (L4Re's ``Random``)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar, Final

from l4re.errors import InvalidArgument, ServerError
from l4re.interface import U64, Epiface, Interface, rpc
from l4re.services.icu import Icu, IcuServer
from l4re.wire.protocols import Proto
from l4re.wire.tag import WORD, WORD_BYTES

if TYPE_CHECKING:
    from l4re.cap import Capability
    from l4re.interface import Answer

__all__ = ["Random", "RandomServer"]

#: Bytes that go in the words of one answer, behind their length.
AT_ONCE: Final = WORD_BYTES - WORD


class _Source(Interface):
    """The operation of `Random` with an answer of its own."""

    protocol = int(Proto.NONE)

    @rpc(opcode=0)
    def some(self, size: U64) -> bytes:
        """Return ``size`` bytes, or as many as there are at once."""
        raise NotImplementedError


class Random(_Source, Icu):
    """A source of random numbers of another program; see `RandomServer`. Its protocol is 0: nobody can ask for it."""

    protocol = int(Proto.NONE)

    def get_random(self, size: int) -> bytes:
        """Return ``size`` random bytes, in as many calls as that takes.

        Raises:
            InvalidArgument: a negative size.
            ServerError: the source gives none, or more than it was asked for.
        """
        if size < 0:
            raise InvalidArgument(f"0 bytes or more can be had, not {size}")
        data = b""
        while len(data) < size:
            more = self.some(size - len(data))
            if not 0 < len(more) <= size - len(data):
                raise ServerError(f"asked for {size - len(data)} random bytes, the source gave {len(more)}")
            data += more
        return data


class RandomServer(IcuServer):
    """Serves the kernel's random numbers; nobody can have them twice. A subclass may have others."""

    interface: ClassVar[type[Interface]] = Random

    def __init__(self) -> None:
        super().__init__(1)
        self._desk = _Desk(self)

    def get_random(self, size: int) -> bytes:
        """Return ``size`` bytes, or fewer; ``size`` is no more than goes in one answer."""
        return os.urandom(size)

    def serve_request(
        self, rights: int, label: int, words: bytes, data: bytes, caps: tuple[Capability | None, ...]
    ) -> Answer:
        """See `Served.serve_request`."""
        if label != Proto.NONE:
            return super().serve_request(rights, label, words, data, caps)
        return self._desk.serve_request(rights, label, words, data, caps)


class _Desk(_Source, Epiface):
    """Answers what is about numbers."""

    def __init__(self, server: RandomServer) -> None:
        self._server = server

    def some(self, size: U64) -> bytes:
        return self._server.get_random(min(size, AT_ONCE))
