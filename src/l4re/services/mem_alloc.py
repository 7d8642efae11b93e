"""An allocator behind a gate: memory that somebody else makes, counts and gives away (L4Re's ``Mem_alloc``)."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Final

from l4re.dataspace import Dataspace
from l4re.errors import OutOfRange, ServerError
from l4re.factory import MemAlloc, MemoryInfo
from l4re.gate import Gate
from l4re.interface import U64, rpc
from l4re.rights import MemAllocFlags, Rights
from l4re.services.factory import Factory
from l4re.wire.protocols import Proto

if TYPE_CHECKING:
    from l4re.wire.vargs import Varg

__all__ = ["NO_QUOTA", "MemoryFactory", "RemoteMemAlloc"]

#: The word that stands for no quota.
NO_QUOTA: Final = 2**64 - 1


class MemoryFactory(Factory):
    """The protocol of an allocator: a factory that tells how much there is."""

    protocol = int(Proto.MEM_ALLOC)

    @rpc
    def info(self) -> tuple[U64, U64, U64, U64, U64]:
        """Return quota, bytes of it that are used, and limit, use and rest of the machine's memory."""
        raise NotImplementedError


class RemoteMemAlloc(MemAlloc):
    """Makes dataspaces as `MemAlloc` does, but has them made, and charged, behind a gate.

    The memory is the caller's alone: the allocator keeps nothing of it, and hears when nobody holds it any more.
    """

    def __init__(self, gate: Gate) -> None:
        """Use ``gate``, which needs S and stays the caller's."""
        super().__init__()
        self.factory: Final = MemoryFactory(gate)

    def create(self, protocol: int, *args: Varg) -> Dataspace:
        """Return a new dataspace; `user_factory` of the environment makes all the other kinds."""
        if protocol not in self.kinds:
            return super().create(protocol, *args)
        return self._received(self.factory.create(protocol, *args))

    def alloc(
        self, size: int, *, flags: MemAllocFlags | int = MemAllocFlags.NONE, align: int = 0, name: str = "l4re"
    ) -> Dataspace:
        """Return a new dataspace of exactly ``size`` zeroed bytes; see `MemAlloc.alloc`.

        Raises:
            OutOfMemory: more than is left of the quota, or than the machine can give; the text says how much it is.
            PermissionDenied: the gate lacks S.
            PeerGone: the allocator is gone.
        """
        size = operator.index(size)
        if size <= 0:
            raise OutOfRange(f"a dataspace has at least one byte, not {size}")
        hints = self._hints(int(flags), align)
        ds = self._received(self.factory.create(Proto.DATASPACE, size, U64(int(flags)), U64(align), name))
        if ds.size != size or not ds.rights & Rights.W:
            text = f"asked for {size} bytes to write, and got {ds!r}"
            ds.close()
            raise ServerError(text)
        ds.place(hints, name)
        self._reserve(ds, int(flags))
        return ds

    def info(self) -> MemoryInfo:
        quota, used, *machine = self.factory.info()
        return MemoryInfo(None if quota == NO_QUOTA else quota, used, *machine)

    def _received(self, made: object) -> Dataspace:
        if isinstance(made, Dataspace):
            return made
        raise ServerError(f"the allocator made {made!r}, no dataspace")

    def __repr__(self) -> str:
        return f"<RemoteMemAlloc {self.factory.cap!r}>"
