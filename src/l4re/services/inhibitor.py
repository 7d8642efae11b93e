"""Inhibitors: what must not happen while somebody needs it not to (L4Re's ``Inhibitor``).

A program serves locks with numbers and names: "suspend", "shutdown". Clients hold them, each with a reason; before it
does such a thing, the program looks who holds the lock.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from enum import IntEnum
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, cast

from l4re.errors import InvalidArgument, NotFound, NotSupported, error_from_code
from l4re.interface import U64, Epiface, Interface, Served, rpc
from l4re.interface.meta import Meta, answer_meta
from l4re.wire.codecs import codec_for
from l4re.wire.marshal import OPCODE
from l4re.wire.protocols import Proto
from l4re.wire.stream import Reader, Writer

if TYPE_CHECKING:
    from l4re.cap import Capability
    from l4re.interface import Answer

__all__ = ["Inhibitor", "InhibitorServer", "LockInfo"]

#: Bytes of a lock's name, and of a reason.
NAME_MAX: Final = 20
REASON_MAX: Final = 255
#: Numbers of locks: one is the label of an answer.
_MAX_ID: Final = (1 << 15) - 1
_WORD = Struct("=q")


class _Op(IntEnum):
    """L4Re's numbers."""

    ACQUIRE = 0
    RELEASE = 1
    NEXT_LOCK_INFO = 2


class LockInfo(NamedTuple):
    """A lock that there is."""

    id: int
    name: str


class _Locks(Interface):
    """The operations of `Inhibitor` with answers of their own."""

    protocol = int(Proto.INHIBITOR)

    @rpc(opcode=_Op.ACQUIRE)
    def acquire(self, id: U64, reason: str) -> None:
        """Hold a lock, until `release` or the end of this capability. Once more says another reason.

        Raises:
            NotFound: there is no such lock.
            InvalidArgument: no reason, or one of more than 255 bytes.
        """
        raise NotImplementedError

    @rpc(opcode=_Op.RELEASE)
    def release(self, id: U64) -> None:
        """Hold a lock no more.

        Raises:
            NotFound: there is no such lock, or it is not held through this capability.
        """
        raise NotImplementedError


class Inhibitor(_Locks):
    """The locks of another program; see `InhibitorServer`."""

    protocol = int(Proto.INHIBITOR)

    def next_lock_info(self, current_id: int = -1) -> LockInfo:
        """Return the lock with the next higher number.

        Raises:
            NotSupported: there is none (ENODEV).
        """
        words = OPCODE.pack(_Op.NEXT_LOCK_INFO) + bytes(4) + _WORD.pack(current_id)
        label, words, data, _ = self._l4_transact(Inhibitor.protocol, words)
        if label < 0:
            raise error_from_code(label, data.decode("utf-8", "replace"))
        return LockInfo(label, codec_for(str).get(Reader(words or data)))

    def locks(self) -> Iterator[LockInfo]:
        """Yield all locks there are."""
        current = -1
        while True:
            try:
                lock = self.next_lock_info(current)
            except NotSupported:
                return
            if lock.id <= current:
                raise NotSupported(f"the inhibitor names lock {lock.id} behind {current}")
            yield lock
            current = lock.id


class _Host(Protocol):
    """The server of an inhibitor."""

    caller: Any
    registry: Any


class InhibitorServer(Served):
    """Serves locks. A client holds one as long as it has the capability through which it acquired it.

    :meth:`reasons` is thread-safe.
    """

    def __init__(self, locks: Mapping[int, str]) -> None:
        """Make locks with these numbers and names.

        Raises:
            InvalidArgument: a number beyond 0 to 32767, or a name that is empty or has more than 20 bytes.
        """
        for number, name in locks.items():
            if not 0 <= number <= _MAX_ID or not 0 < len(name.encode()) <= NAME_MAX:
                raise InvalidArgument(
                    f"a lock has a number from 0 to {_MAX_ID} and a name of 1 to {NAME_MAX} bytes, "
                    f"not {number} and {name!r}"
                )
        self._names = dict(sorted(locks.items()))
        self._guard = threading.Lock()
        self._held: dict[int, dict[int, str]] = {number: {} for number in locks}
        self._desk = _Desk(self)

    def reasons(self, id: int) -> tuple[str, ...]:
        """Return why the lock is held, for each that holds it; empty if nobody does.

        Raises:
            NotFound: there is no such lock.
        """
        with self._guard:
            return tuple(self._lock(id).values())

    def released(self, id: int) -> None:
        """Hear that nobody holds a lock any more; in the loop's thread. This one does nothing."""

    def _lock(self, id: int) -> dict[int, str]:
        try:
            return self._held[id]
        except KeyError:
            raise NotFound(f"there is no lock {id}; there is {self._names}") from None

    @property
    def _host(self) -> _Host:
        return cast(_Host, cast(Any, self.obj_cap()).host)

    def _acquire(self, id: int, reason: str) -> None:
        if not 0 < len(reason.encode()) <= REASON_MAX:
            raise InvalidArgument(f"a reason has 1 to {REASON_MAX} bytes, not {len(reason.encode())}")
        with self._guard:
            self._lock(id)[self._host.caller.port] = reason

    def _release(self, id: int) -> None:
        with self._guard:
            held = self._lock(id)
            if held.pop(self._host.caller.port, None) is None:
                raise NotFound(f"lock {id} is not held through this capability")
        if not held:
            self.released(id)

    def on_client_gone(self) -> None:
        """See `Served.on_client_gone`; what it held is free."""
        try:
            there = {0, *(port.id for port in self._host.registry.ports(self))}
        except NotFound:  # it is unregistered: all are gone
            there = set()
        freed = []
        with self._guard:
            for number, held in self._held.items():
                gone = held.keys() - there
                for port in gone:
                    del held[port]
                if gone and not held:
                    freed.append(number)
        for number in freed:
            self.released(number)

    def serve_request(
        self, rights: int, label: int, words: bytes, data: bytes, caps: tuple[Capability | None, ...]
    ) -> Answer:
        """See `Served.serve_request`."""
        stream = words or data
        if label == Meta.PROTOCOL:
            out = Writer()
            return answer_meta(Inhibitor, Reader(stream), out), out.words(), b"", ()
        if label == Proto.INHIBITOR and stream[: OPCODE.size] == OPCODE.pack(_Op.NEXT_LOCK_INFO):
            return self._next(stream)
        return self._desk.serve_request(rights, label, words, data, caps)

    def _next(self, stream: bytes) -> Answer:
        source = Reader(stream)
        source.scalar(OPCODE)
        current = source.scalar(_WORD)
        for number, name in self._names.items():
            if number > current:
                out = Writer()
                codec_for(str).put(out, name)
                return number, out.words(), b"", ()
        raise NotSupported(f"there is no lock behind {current}")

    def __repr__(self) -> str:
        return f"<InhibitorServer of {', '.join(self._names.values()) or 'nothing'}>"


class _Desk(_Locks, Epiface):
    """Answers what is about one lock."""

    def __init__(self, server: InhibitorServer) -> None:
        self._server = server

    def acquire(self, id: U64, reason: str) -> None:
        self._server._acquire(id, reason)

    def release(self, id: U64) -> None:
        self._server._release(id)
