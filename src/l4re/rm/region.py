"""A region: a part of a dataspace at an address.

The rule the rest leans on is the leaf's: memory is never unmapped under a live view. A region that is dropped
without `detach` goes when the last view of it is gone; one that has views refuses to be detached.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from l4re.errors import Closed, InvalidArgument, L4Error, OutOfRange
from l4re.linux.memfd import Mapping
from l4re.rights import RmFlags

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from l4re.dataspace import Dataspace
    from l4re.rm.region_map import RegionMap

__all__ = ["Region"]


class Region(Mapping):
    """Attached memory. Made by `RegionMap.attach`; a buffer of exactly `size` bytes.

    ``memoryview(region)``, ``bytes(region)``, ``numpy.frombuffer(region)`` and everything else that takes a buffer
    works, and writing is refused where the region is read-only. Take numpy arrays from `ndarray`: an array made as
    ``numpy.ndarray(shape, buffer=region)`` hides from the count of views (``buffer=memoryview(region)`` does not).

    Safe to use from several threads; the bytes are shared memory, and ordering accesses to them is the
    program's business.
    """

    __slots__ = ("__weakref__", "_dataspace", "_map", "_offset")

    closed_error = Closed

    _dataspace: Dataspace
    _map: RegionMap
    _offset: int

    def __len__(self) -> int:
        return self.size

    def __repr__(self) -> str:
        if not self.mapped:
            return f"<Region {self.size} bytes detached>"
        return (
            f"<Region at {self.address:#x}, {self.size} bytes {'r' if self.readonly else 'rw'} of {self._dataspace!r}>"
        )

    @property
    def addr(self) -> int:
        """The address of the first byte.

        Raises:
            Closed: it was detached; there may be something else by now.
        """
        if not self.mapped:
            raise Closed("this region was detached; its address may belong to something else by now")
        return self.address

    @property
    def dataspace(self) -> Dataspace:
        """The capability that was attached. The region goes on working when it is closed."""
        return self._dataspace

    @property
    def offset(self) -> int:
        """Where in the dataspace the region begins."""
        return self._offset

    @property
    def flags(self) -> RmFlags:
        """What may be done here: R, or R and W."""
        return RmFlags.R if self.readonly else RmFlags.RW

    def detach(self) -> None:
        """Take the memory out of the address space; a second call does nothing.

        Raises:
            BufferError: views are alive; the text says how many. Nothing changed.
        """
        self.unmap()

    def __enter__(self) -> Self:
        if not self.mapped:
            raise Closed("this region was detached")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    def ndarray(
        self, shape: int | Sequence[int] | None = None, dtype: npt.DTypeLike = "uint8", *, offset: int = 0
    ) -> np.ndarray[Any, Any]:
        """Return a numpy array over this memory, without a copy.

        The array is read-only where the region is, and keeps the memory mapped as long as it or a slice of it
        lives. Without ``shape``: one dimension, as many items as fit behind ``offset`` (in bytes).

        Raises:
            OutOfRange: the array does not fit.
            InvalidArgument: items of this type cannot lie in shared memory (Python objects).
            L4Error: numpy is not installed.
        """
        try:
            import numpy
        except ImportError as error:
            raise L4Error("region.ndarray() needs numpy: pip install 'pyl4re[numpy]'") from error
        item = numpy.dtype(dtype)
        if item.hasobject:
            raise InvalidArgument(f"{item} holds Python objects, and those mean nothing to another process")
        offset = operator.index(offset)
        room = self.size - offset
        if shape is None:
            dimensions: tuple[int, ...] = (max(0, room) // item.itemsize if item.itemsize else 0,)
        elif isinstance(shape, Sequence):
            dimensions = tuple(operator.index(n) for n in shape)
        else:
            dimensions = (operator.index(shape),)
        needed = item.itemsize
        for n in dimensions:
            needed *= n
        if offset < 0 or needed > room or any(n < 0 for n in dimensions):
            raise OutOfRange(
                f"an array of {dimensions} {item} takes {needed} bytes, there are {max(0, room)} from offset {offset}"
            )
        return numpy.ndarray(dimensions, item, buffer=memoryview(self), offset=offset)
