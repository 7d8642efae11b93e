"""numpy arrays as typed values: in the message if they fit, else frozen in a dataspace beside it.

The one rule: what the receiver gets is its own to read and nobody's to write. In line it is a copy; out of line it
is memory that the kernel lets nobody change any more, attached read-only, and gone with the last view of the array.

On the wire: a byte (0 in line, 1 out of line), a byte with the number of dimensions, the type as text unless the
annotation states it, a 64-bit word for each dimension; then the elements in C order at their natural alignment, or
as the next capability of the message a dataspace of exactly their size.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, get_args, get_origin

import numpy as np

from l4re.dataspace import Dataspace
from l4re.errors import InvalidArgument, WrongType
from l4re.factory import process_allocator
from l4re.linux.memfd import Seal, get_seals
from l4re.rights import MemAllocFlags, RmFlags
from l4re.rm import process_map
from l4re.wire.codecs import Codec, codec_for, name_of, shown
from l4re.wire.scalars import U8, U64
from l4re.wire.stream import Reader, Writer
from l4re.wire.tag import MAX_DATA

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ArrayCodec", "array_codec"]

_INSIDE, _BESIDE = 0, 1
#: numpy's own limit differs from version to version.
_MAX_DIMENSIONS = 32
_TYPES = {np.dtype(code).str: np.dtype(code) for code in "?bhilBHILefdFD"}
#: C has several names for one type.
_SCALARS = {np.dtype(code).type: np.dtype(code) for code in "?bhilqBHILQefdFD"}
_NAMES = ", ".join(sorted({dtype.name for dtype in _TYPES.values()}))
_BYTE, _WORD, _TEXT = codec_for(U8), codec_for(U64), codec_for(str)


class ArrayCodec(Codec):
    """An array, perhaps of a stated type and of a stated number of dimensions."""

    def __init__(self, dtype: np.dtype[Any] | None, dimensions: int | None) -> None:
        what = "" if dtype is None else f" of {dtype.name}"
        self.name = f"array{what}" if dimensions is None else f"array{what} with {dimensions} dimensions"
        self.dtype = dtype
        self.dimensions = dimensions
        self.least = 2

    def put(self, out: Writer, value: Any) -> None:
        if isinstance(value, np.generic):
            value = np.asarray(value)  # what numpy makes of an array without dimensions at every turn
        if not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray):
            raise self.wrong(value)
        dtype = self.dtype or _TYPES.get(value.dtype.newbyteorder("=").str)
        if dtype is None or not np.can_cast(value.dtype, dtype, "equiv"):
            raise self._unfit(value)
        if value.ndim > _MAX_DIMENSIONS or self.dimensions not in (None, value.ndim):
            raise self._unfit(value)
        block = len(out.blocks)
        inside = value.nbytes <= MAX_DATA and block not in out.beside
        out.blocks.append(value.nbytes if inside else 0)
        _BYTE.put(out, _INSIDE if inside else _BESIDE)
        _BYTE.put(out, value.ndim)
        if self.dtype is None:
            _TEXT.put(out, dtype.str)
        for length in value.shape:
            _WORD.put(out, length)
        if inside:
            out.align(dtype.alignment)
            out.buffer += value.astype(dtype, copy=False).tobytes()
            return
        if out.beside.get(block) is None:
            out.beside[block] = _frozen(value.astype(dtype, order="C", copy=False))
        out.caps.append(out.beside[block])

    def _unfit(self, value: NDArray[Any]) -> WrongType:
        known = "" if self.dtype else f" (of {_NAMES})"
        return WrongType(f"must be {self.name}{known}, not one of {value.dtype.name} with {value.ndim} dimensions")

    def get(self, source: Reader) -> NDArray[Any]:
        where, dimensions = _BYTE.get(source), _BYTE.get(source)
        if where not in (_INSIDE, _BESIDE) or dimensions > _MAX_DIMENSIONS:
            raise InvalidArgument(f"must be {self.name}, and what arrived is no array at all")
        if self.dimensions not in (None, dimensions):
            raise InvalidArgument(f"must be {self.name}, and one with {dimensions} dimensions arrived")
        dtype = self.dtype
        if dtype is None:
            text = _TEXT.get(source)
            dtype = _TYPES.get(text)
            if dtype is None:
                raise InvalidArgument(f"must be {self.name} of {_NAMES}, and one of {shown(text)} arrived")
        shape = tuple(_WORD.get(source) for _ in range(dimensions))
        size = math.prod(shape) * dtype.itemsize
        if where == _INSIDE:
            source.align(dtype.alignment)
            memory: Any = source.take(size)
        else:
            memory = _attached(source.cap(), size)
        try:
            array: NDArray[Any] = np.ndarray(shape, dtype, memory)
        except (ValueError, OverflowError) as error:  # of no elements, in dimensions beyond all measure
            raise InvalidArgument(f"must be {self.name}, and one of {shape} elements arrived: {error}") from None
        if dtype == np.bool_ and (array.view(np.uint8) > 1).any():
            raise InvalidArgument(f"must be {self.name}, and one with bytes that are no bools arrived")
        return array


def _frozen(array: NDArray[Any]) -> Dataspace:
    """Return new memory with the elements of ``array``, which nobody can change any more."""
    memory = process_allocator().alloc(array.nbytes, flags=MemAllocFlags.SEALABLE, name="array")
    memory.write(0, array.reshape(-1).view(np.uint8).data)
    memory.freeze()
    return memory


def _attached(cap: object, size: int) -> memoryview:
    """Return a view of what arrived out of line, and drop the capability: the view keeps the memory."""
    if not isinstance(cap, Dataspace):
        raise InvalidArgument(f"must be an array whose elements are in a dataspace, and {shown(cap)} arrived")
    with cap:
        if cap.size != size:
            raise InvalidArgument(f"must be an array of {size} bytes, and {cap.size} arrived")
        if not get_seals(cap.fileno()) & Seal.WRITE:
            raise InvalidArgument("must be an array that nobody can change any more, and its memory is not frozen")
        return memoryview(process_map().attach(cap, flags=RmFlags.R))


def array_codec(annotation: Any) -> Codec | None:
    """Return the codec for ``numpy.ndarray`` and ``NDArray[...]``; None for anything else of numpy.

    Raises:
        TypeError: elements of this type do not travel.
    """
    if annotation is np.ndarray:
        return ArrayCodec(None, None)
    if get_origin(annotation) is not np.ndarray:
        return None
    shape, stated = (*get_args(annotation), Any)[:2]
    lengths = get_args(shape)
    dimensions = None if Ellipsis in lengths or get_origin(shape) is not tuple else len(lengths)
    element = (*get_args(stated), Any)[0]
    if element in (Any, np.generic) or not isinstance(element, type):
        return ArrayCodec(None, dimensions)
    if element not in _SCALARS:
        raise TypeError(f"arrays of {name_of(element)} do not travel; arrays of {_NAMES} do")
    return ArrayCodec(_SCALARS[element], dimensions)
