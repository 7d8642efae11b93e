"""Handing memory over to its owner: an allocator gives away what it made, with every choice that it had."""

from __future__ import annotations

from l4re.cap import Capability, Export
from l4re.dataspace.dataspace import Dataspace
from l4re.errors import Closed
from l4re.rights import Rights
from l4re.wire.items import ItemKind

__all__ = ["ToOwner"]


class ToOwner(Capability):
    """A dataspace about to become somebody else's: its seals stay as they are, the receiver may freeze or publish it.

    It travels with a read-only descriptor beside, since making one takes procfs, which a receiver may lack. Closing
    it closes the dataspace.
    """

    __slots__ = ("_ds", "_ro")

    kind = Dataspace.kind

    def __init__(self, ds: Dataspace) -> None:
        """Take ``ds``, which nobody else was given.

        Raises:
            NotSupported: there is no procfs here.
        """
        self._ds = ds
        self._ro = ds.ro

    @property
    def rights(self) -> Rights:
        return self._ds.rights

    @property
    def closed(self) -> bool:
        return self._ds.closed

    def close(self) -> None:
        self._ro.close()
        self._ds.close()

    def fileno(self) -> int:
        return self._ds.fileno()

    def export(self, rights: Rights | None = None) -> Export:
        if self.closed:
            raise Closed("this dataspace is closed")
        if rights is not None and not rights & Rights.W:
            return self._ro.export(rights)
        fds = (self._ds.fileno(), self._ro.fileno())
        return Export(ItemKind.DATASPACE, Rights.RW, self._ds.size, fds, on_sent=self.close)
