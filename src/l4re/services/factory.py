"""Factories behind a gate: who may call one has new objects made, by L4's FACTORY protocol.

A request is the protocol of the object and its arguments, each of which says its type; there is no opcode. The answer
has the new capability: for a gate two, since the right to serve it is one of its own. An IRQ is received by whoever
made it, so of an IRQ the answer has a void capability, and the caller makes it once it is allowed.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Protocol, TypeVar

from l4re.cap import Capability
from l4re.errors import (
    BadProtocol,
    InvalidArgument,
    MessageTooLong,
    MessageTooShort,
    NotSupported,
    PermissionDenied,
    ServerError,
    error_from_code,
)
from l4re.factory import MemAlloc
from l4re.factory.kernel import KernelFactory
from l4re.gate import Channel, Gate, Svr
from l4re.interface import S64, Interface, Served
from l4re.interface.meta import Meta, answer_meta
from l4re.irq import Irq
from l4re.rights import Rights
from l4re.wire.protocols import Proto
from l4re.wire.stream import Reader, Writer
from l4re.wire.tag import WORD_BYTES
from l4re.wire.vargs import Varg, pack_vargs, unpack_vargs

if TYPE_CHECKING:
    from collections.abc import Collection

    from l4re.interface import Answer
    from l4re.irq import Semaphore

__all__ = ["Creator", "Factory", "FactoryServer", "Maker"]

_PROTOCOL = Struct("=q")
_T = TypeVar("_T")


class Creator(Protocol):
    """What makes objects: ``env.factory``, ``env.user_factory``, a `Factory`, or something of yours."""

    def create(self, protocol: int, *args: Varg) -> Capability | Channel:
        """Return a new object; the caller owns it."""


class Maker(Creator, Protocol):
    """What makes objects and says which."""

    @property
    def kinds(self) -> Collection[int]:
        """The protocols of what it makes."""


class Factory(Interface):
    """Makes objects in another process's name: a proxy for what a `FactoryServer` serves (L4's ``Factory``).

    It needs a capability with S. The caller owns what is made.
    """

    protocol = int(Proto.FACTORY)

    def create(self, protocol: int, *args: Varg) -> Capability | Channel:
        """Return a new object by the number of its protocol, made with these arguments.

        An int travels as a signed word, ``U64(n)`` as an unsigned one; strings and flexpages as upstream's do.

        Raises:
            PermissionDenied: the capability to the factory lacks S.
            NotSupported: it makes no such objects.
            WrongType, OutOfRange, InvalidArgument: an argument cannot travel; MessageTooLong: all of them together.
        """
        words = _PROTOCOL.pack(S64(protocol)) + pack_vargs(args)
        if len(words) > WORD_BYTES:
            raise MessageTooLong(size=len(words), limit=WORD_BYTES)
        label, _, data, caps = self._l4_transact(Factory.protocol, words)
        if label < 0:
            raise error_from_code(label, data.decode("utf-8", "replace"))
        match caps:
            case (None,) if protocol == Proto.IRQ_SENDER:
                return Irq.create()
            case (Capability() as made,):
                return made
            case (Gate() as gate, Svr() as svr):
                return Channel(gate, svr)
        for cap in caps:
            if cap is not None:
                cap.close()
        raise ServerError(f"the factory's answer makes no sense: {caps!r}")

    def create_gate(self) -> Channel:
        """Return a new gate and the right to serve it; errors as of :meth:`create`."""
        return self._l4_made(Channel, Proto.KOBJECT)

    def create_irq(self) -> Irq:
        """Return a new IRQ that its owner can trigger, hand out and wait for; errors as of :meth:`create`."""
        return self._l4_made(Irq, Proto.IRQ_SENDER)

    def create_semaphore(self, value: int = 0) -> Semaphore:
        """Return a new semaphore with so many tokens; errors as of :meth:`create`."""
        from l4re.irq import Semaphore

        return self._l4_made(Semaphore, Proto.SEMAPHORE, *(value,) if value else ())

    def _l4_made(self, kind: type[_T], protocol: int, *args: Varg) -> _T:
        made = self.create(protocol, *args)
        if not isinstance(made, kind):
            made.close()
            raise ServerError(f"the factory made {made!r}, no {kind.__name__}")
        return made


class FactoryServer(Served):
    """Serves what ``makers`` make to everybody who has a capability with S to it.

    By default that is what ``env.factory`` and ``env.mem_alloc`` make. It keeps nothing of what it made: an object
    lives as long as whoever asked for it, and those they handed it to. A maker that counts, or refuses, is a class
    with ``kinds`` and ``create``, or a subclass with another :meth:`create`.
    """

    def __init__(self, *makers: Maker) -> None:
        self._makers = makers or (KernelFactory(), MemAlloc())

    def create(self, protocol: int, *args: Varg) -> Capability | Channel | None:
        """Return a new object, for the caller alone; None for an IRQ that the caller is to make.

        Raises:
            NotSupported: no maker makes such objects.
            L4Error: whatever the maker raises; it reaches the caller as it is.
        """
        for maker in self._makers:
            if protocol in maker.kinds:
                made = maker.create(protocol, *args)
                if isinstance(made, Irq):  # whoever makes one receives it
                    made.close()
                    return None
                return made
        kinds = sorted({int(kind) for maker in self._makers for kind in maker.kinds})
        raise NotSupported(f"this factory makes objects of the protocols {kinds}, not of {protocol}")

    def serve_request(
        self, rights: int, label: int, words: bytes, data: bytes, caps: tuple[Capability | None, ...]
    ) -> Answer:
        """See `Served.serve_request`; S is needed before anything is looked at."""
        if label == Meta.PROTOCOL:
            out = Writer()
            return answer_meta(Factory, Reader(words), out), out.words(), b"", ()
        if label != Proto.FACTORY:
            raise BadProtocol(f"a factory speaks protocol {Factory.protocol}, not {label:#x}")
        if not rights & Rights.S:
            raise PermissionDenied(wanted=Rights.S, held=Rights.R | rights)
        if len(words) < _PROTOCOL.size:
            raise MessageTooShort("what is to be created? The request has no protocol")
        if caps:
            raise InvalidArgument("no object that can be made here takes a capability as an argument")
        made = self.create(_PROTOCOL.unpack_from(words)[0], *unpack_vargs(words[_PROTOCOL.size :]))
        return 0, b"", b"", tuple(made) if isinstance(made, Channel) else (made,)

    def __repr__(self) -> str:
        return f"<FactoryServer of {', '.join(map(repr, self._makers))}>"
