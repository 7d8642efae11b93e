"""Dataspaces: memory that several processes may hold and map.

Here live :class:`Dataspace`, the capability to a memfd sealed against shrinking and growing, and
:class:`~l4re.dataspace.files.FileDataspaces`, which makes read-only ones of files. The room promises
that no mapping of one can fault because somebody cut it short, that what arrives from another process is checked
against the kernel before it is believed, and that rights on memory are stated as they are (``enforcement``). Where
memory comes from is left to the allocator, where it is placed to the region map.
"""

from l4re.dataspace.dataspace import NO_HINTS, Dataspace, DataspaceInfo, Hints
from l4re.dataspace.owner import ToOwner

__all__ = ["NO_HINTS", "Dataspace", "DataspaceInfo", "Hints", "ToOwner"]
