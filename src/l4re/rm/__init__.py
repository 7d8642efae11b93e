"""The region map: which dataspace is attached where in this address space.

Here lives :class:`RegionMap`, which attaches dataspaces and finds what is attached, :class:`Region`, one piece
of attached memory, lent out through the buffer protocol, and :class:`Area`, a range of addresses that is kept free
for regions. The room promises that memory never disappears under a live view and never faults: what L4Re finds out
at the first touch (beyond the end, not writable) is refused at the call. The arithmetic of ranges is in ``ranges``,
who is where in ``books``; what memory is, and who may write it, is left to ``dataspace``.
"""

from l4re.rm.area import Area
from l4re.rm.process_map import process_map
from l4re.rm.region import Region
from l4re.rm.region_map import Attachable, Detached, RegionMap, RegionMapStats

__all__ = ["Area", "Attachable", "Detached", "Region", "RegionMap", "RegionMapStats", "process_map"]
