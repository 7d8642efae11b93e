"""An area: addresses that are kept free for regions.

The kernel keeps them free: an area is mapped without memory and without any right, so that neither a plain attach
nor ``malloc`` nor another library gets in. A region in the area replaces a part of that, and when it goes the area
has the hole back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from l4re.dataspace import Dataspace
from l4re.errors import AddressNotAvailable, Closed
from l4re.rights import Rights, RmFlags
from l4re.rm.region import Region

if TYPE_CHECKING:
    from l4re.rm.region_map import Attachable

__all__ = ["Area"]

_R, _RW = int(RmFlags.R), int(RmFlags.RW)
_SEARCH, _IN_AREA = int(RmFlags.SEARCH_ADDR), int(RmFlags.IN_AREA)
_MAY_WRITE = int(Rights.W)


class Area(Region):
    """A reserved range of addresses. Made by `RegionMap.reserve_area`.

    It is a region without memory: it has an address and a size, no buffer and no dataspace. The end of its ``with``
    block frees it, and so does dropping the last reference, to it and to the regions inside; `release` leaves it to
    the map. Regions inside stay when it is freed.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        if not self.mapped:
            return f"<Area {self.size} bytes freed>"
        return f"<Area at {self.address:#x}, {self.size} bytes>"

    @property
    def flags(self) -> RmFlags:
        """IN_AREA, and RESERVED or KERNEL if it was made so."""
        return RmFlags(self._kind | RmFlags.IN_AREA)

    def attach(
        self,
        ds: Dataspace | Attachable | None,
        size: int | None = None,
        *,
        flags: RmFlags | int | None = None,
        offset: int = 0,
        addr: int | None = None,
        align: int = 12,
    ) -> Region:
        """Attach inside: the same as `RegionMap.attach` with IN_AREA.

        Without ``addr``: at the lowest address that is free. With ``addr``: exactly there, or, with SEARCH_ADDR, at the
        lowest free address from there.

        Raises:
            AddressNotAvailable: no room, ``addr`` is taken or outside, or the area is RESERVED.
            Closed: the area was freed.
        """
        if not self.mapped:
            raise Closed("this area was freed")
        bits = _rights(ds) if flags is None else int(flags)
        if addr is None:
            addr, bits = self.address, bits | _SEARCH
        elif not self.address <= addr < self.address + self.mapped_size:
            raise AddressNotAvailable(f"{addr:#x} is not in {self!r}")
        return self._map.attach(ds, size, flags=bits | _IN_AREA, offset=offset, addr=addr, align=align)

    def detach(self) -> None:
        """Free the area; a second call does nothing. Regions inside stay where they are.

        Raises:
            OutOfMemory: the process has as many mappings as it may have, and this would take one more.
        """
        super().detach()

    def regions(self) -> list[Region]:
        """Return the regions inside, in the order of their addresses."""
        end = self.address + self.mapped_size
        return [region for region in self._map.regions(self.address) if region.address < end]


def _rights(ds: Dataspace | Attachable | None) -> int:
    """Return the flags for all that may be done."""
    return _R if ds is None or not int(ds.rights) & _MAY_WRITE else _RW
