"""Looking into memory of another program for a debugger (L4Re's ``Remote_access``).

Whoever serves one gives a dataspace to be looked at, not an address space: a process has no say over another's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from l4re.errors import MessageTooLong, NotImplementedByServer, OutOfRange
from l4re.interface import U64, Epiface, Interface, rpc
from l4re.interface.meta import Meta, answer_meta
from l4re.services.dataspace import DataspaceServer, RemoteDataspace
from l4re.wire.protocols import Proto
from l4re.wire.stream import Reader, Writer

if TYPE_CHECKING:
    from l4re.cap import Capability
    from l4re.dataspace import Dataspace
    from l4re.interface import Answer

__all__ = ["RemoteAccess", "RemoteAccessServer"]

#: Bytes that are read at once.
AT_ONCE: Final = 32 << 10


class _Access(Interface):
    """The operations that are not a dataspace's."""

    protocol = int(Proto.REMOTE_ACCESS)

    @rpc(opcode=0)
    def read_mem(self, addr: U64, size: U64) -> bytes:
        """Return ``size`` bytes from ``addr`` on.

        Raises:
            OutOfRange: they are not all there.
            MessageTooLong: more than 32 KiB; attach what is to be read at once.
        """
        raise NotImplementedError

    @rpc(opcode=1)
    def write_mem(self, addr: U64, data: bytes) -> None:
        """Ask to have memory written.

        Raises:
            NotImplementedByServer: always, as upstream.
        """
        raise NotImplementedError

    @rpc(opcode=2, rights="w", oneway=True)
    def terminate(self) -> None:
        """Ask the program to end what is looked at; it needs W. Waits for nothing, learns of no error."""
        raise NotImplementedError


class RemoteAccess(_Access, RemoteDataspace):
    """Memory of another program, to be looked at by offset, or attached; see `RemoteAccessServer`."""

    protocol = int(Proto.REMOTE_ACCESS)


class RemoteAccessServer(DataspaceServer):
    """Serves a dataspace, which is lent, to be looked at; a subclass says what :meth:`terminate` does."""

    def __init__(self, memory: Dataspace | None = None) -> None:
        super().__init__(memory)
        self._desk = _Desk(self)

    def terminate(self) -> None:
        """Hear that a client with W wants the end; this one does nothing."""

    def serve_request(
        self, rights: int, label: int, words: bytes, data: bytes, caps: tuple[Capability | None, ...]
    ) -> Answer:
        """See `Served.serve_request`."""
        if label == Meta.PROTOCOL:
            out = Writer()
            return answer_meta(RemoteAccess, Reader(words or data), out), out.words(), b"", ()
        if label != Proto.REMOTE_ACCESS:
            return super().serve_request(rights, label, words, data, caps)
        return self._desk.serve_request(rights, label, words, data, caps)


class _Desk(_Access, Epiface):
    """Answers what is not a dataspace's."""

    def __init__(self, server: RemoteAccessServer) -> None:
        self._server = server

    def read_mem(self, addr: U64, size: U64) -> bytes:
        if size > AT_ONCE:
            raise MessageTooLong(size=size, limit=AT_ONCE)
        memory = self._server.memory
        if addr + size > memory.size:
            raise OutOfRange(f"{size} bytes from offset {addr} are not all among the {memory.size} bytes there are")
        return memory.read(addr, size)

    def write_mem(self, addr: U64, data: bytes) -> None:
        raise NotImplementedByServer("memory that is looked at is not written; attach it, with the right to")

    def terminate(self) -> None:
        self._server.terminate()
