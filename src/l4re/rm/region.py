"""A region: a part of a dataspace at an address.

The rule the rest leans on is the leaf's: memory is never unmapped under a live view. A region that is dropped
without `detach` goes when the last view of it is gone; one that has views refuses to be detached. `Region.release`
is for those that shall stay.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from l4re.errors import Closed, InvalidArgument, L4Error, NotFound, OutOfRange
from l4re.linux.maps import refusal
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
    works, and writing is refused where the region is read-only. A reserved region has no memory: asking for its
    buffer is a ``BufferError``, and touching its addresses ends the program. Take numpy arrays from `ndarray`: an array
    made as ``numpy.ndarray(shape, buffer=region)`` hides from the count of views (``buffer=memoryview(region)``
    does not).

    Safe to use from several threads; the bytes are shared memory, and ordering accesses to them is the
    program's business.
    """

    __slots__ = ("__weakref__", "_dataspace", "_kind", "_map", "_rest")

    closed_error = Closed

    _dataspace: Dataspace | None
    _map: RegionMap
    _kind: int  # what its flags say beyond R and W
    _rest: Region  # what was split off behind it, which lives as long as this object; often missing

    def __len__(self) -> int:
        return self.size

    def __repr__(self) -> str:
        if not self.mapped:
            return f"<Region {self.size} bytes detached>"
        where = f"<Region at {self.address:#x}, {self.size} bytes"
        if self.hollow:
            return f"{where} reserved>"
        rights = ("r" if self.readonly else "rw") + (" private" if self.private else "")
        return f"{where} {rights} of {self._dataspace!r}>" if self._dataspace is not None else f"{where} {rights}>"

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
        """The capability that was attached. The region goes on working when it is closed.

        Raises:
            NotFound: none was: the region is reserved or anonymous, or an area.
        """
        if self._dataspace is None:
            raise NotFound(f"no dataspace is attached at {self.address:#x}")
        return self._dataspace

    @property
    def flags(self) -> RmFlags:
        """What may be done here, R or R and W, and what kind of region it is: PRIVATE, ANONYMOUS, RESERVED, KERNEL."""
        rights = 0 if self.hollow else RmFlags.R if self.readonly else RmFlags.RW
        return RmFlags(self._kind | rights)

    def detach(self) -> None:
        """Take the memory out of the address space; a second call does nothing.

        Raises:
            BufferError: views are alive; the text says how many. Nothing changed.
            OutOfMemory: the process has as many mappings as it may have, and this would take one more.
        """
        try:
            self.unmap()
        except OSError as error:
            raise refusal(error, self.mapped_size) from error

    def release(self) -> int:
        """Leave the region in the address space whatever becomes of this object; return its address.

        As ``release()`` of upstream's ``Unique_region``: neither the end of a ``with`` block nor dropping the last
        reference detaches it any more, only `detach`, of the object or by its address. The object may still be used.

        Raises:
            Closed: it was detached.
        """
        self.keep()
        return self.address

    def __enter__(self) -> Self:
        if not self.mapped:
            raise Closed("this region was detached")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.kept:
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
            BufferError: the region is reserved, there is no memory.
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
