"""Dataspaces that a program serves: memory whose contents it makes when they are wanted (L4Re's ``Dataspace``).

On L4Re such a server answers page faults. A Linux process cannot answer another's, so whoever wants to attach asks
before: the answer to ``map`` is a window, a part of a memfd. Once that is attached it is memory as any other, and the
server hears no more of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import TYPE_CHECKING

from l4re.cap import Capability
from l4re.dataspace import Dataspace, DataspaceInfo
from l4re.errors import (
    AccessDenied,
    BadProtocol,
    InvalidArgument,
    MessageTooShort,
    NotImplementedByServer,
    NotSupported,
    OutOfRange,
    PermissionDenied,
    ServerError,
    error_from_code,
)
from l4re.interface import U64, Interface, Served, WrongResult, rpc
from l4re.interface.meta import Meta, answer_meta
from l4re.linux.memfd import PAGE_SIZE
from l4re.rights import DsFlags, Rights, RmFlags
from l4re.rm import Region, RegionMap
from l4re.wire.marshal import OPCODE
from l4re.wire.protocols import Proto
from l4re.wire.stream import Reader, Writer

if TYPE_CHECKING:
    from l4re.interface import Answer

__all__ = ["DataspaceServer", "RemoteDataspace", "Window"]

_WORD = Struct("=Q")
_TWO = Struct("=QQ")
_KNOWN = int(DsFlags.RIGHTS_MASK | DsFlags.CACHING_MASK)
_R, _W, _X = int(DsFlags.R), int(DsFlags.W), int(DsFlags.X)


class _Op(IntEnum):
    """L4Re's numbers."""

    MAP = 0
    CLEAR = 1
    INFO = 2
    COPY_IN = 3
    ALLOCATE = 4


@dataclass(frozen=True, slots=True)
class Window:
    """Bytes ``[offset, offset + size)`` of a dataspace, which begin with a page: ``env.rm.attach(window)``.

    Raises:
        InvalidArgument: ``offset`` is no multiple of the page size.
        OutOfRange: the part is empty, or not all inside.
    """

    dataspace: Dataspace
    offset: U64
    size: U64

    def __post_init__(self) -> None:
        if self.offset % PAGE_SIZE:
            raise InvalidArgument(f"a window starts at a multiple of {PAGE_SIZE} bytes, offset {self.offset} is none")
        if self.offset < 0 or self.size <= 0 or self.offset + self.size > self.dataspace.size:
            raise OutOfRange(
                f"{self.size} bytes from offset {self.offset} are no part of a dataspace of {self.dataspace.size} bytes"
            )

    @property
    def rights(self) -> Rights:
        """What may be done with it."""
        return self.dataspace.rights

    def _l4_attach_to(
        self, rm: RegionMap, size: int | None, flags: RmFlags | int | None, offset: int, addr: int | None, align: int
    ) -> Region:
        if size is None:
            size = max(1, self.size - offset)
        if offset < 0 or offset + size > self.size:
            raise OutOfRange(f"{size} bytes from offset {offset} reach beyond the end of a window of {self.size} bytes")
        return rm.attach(self.dataspace, size, flags=flags, offset=self.offset + offset, addr=addr, align=align)


class RemoteDataspace(Interface):
    """A dataspace that a program serves: a proxy for what a `DataspaceServer` serves.

    It is attached as any other: ``env.rm.attach(remote)`` asks for a window, which has to show all of the part. Every
    question is a call; what was attached is there without the server, also when that has ended.
    """

    protocol = int(Proto.DATASPACE)

    # ---- messages ----

    @rpc(opcode=_Op.MAP)
    def map(self, offset: U64, spot: U64, flags: U64, size: U64) -> Window:
        """Send the message behind `window`, whose answer is checked for less here.

        ``spot`` is where upstream's receive window has its hot spot; here it says nothing. ``size`` is how large that
        window is.
        """
        raise NotImplementedError

    @rpc(opcode=_Op.CLEAR)
    def clear(self, offset: U64, size: U64) -> None:
        """Fill a range with zeros, cut at the end of the dataspace.

        Raises:
            AccessDenied: the capability lacks W.
            OutOfRange: the range starts behind the last page.
        """
        raise NotImplementedError

    def info(self) -> DataspaceInfo:
        """Return size and flags; no W if the capability lacks it."""
        label, words, data, caps = self._l4_transact(RemoteDataspace.protocol, OPCODE.pack(_Op.INFO))
        for cap in caps:
            if cap is not None:
                cap.close()
        if label < 0:
            raise error_from_code(label, data.decode("utf-8", "replace"))
        if len(words) < _TWO.size:
            raise MessageTooShort(f"the dataspace's answer has {len(words)} bytes, {_TWO.size} were expected")
        size, flags = _TWO.unpack_from(words)
        return DataspaceInfo(size, DsFlags(flags))

    @rpc(opcode=_Op.COPY_IN)
    def copy_in(self, dst: U64, src_ds: Dataspace, src: U64, size: U64) -> None:
        """Have the server copy a part of another dataspace into this one, cut at both ends.

        Raises:
            AccessDenied: the capability lacks W.
            InvalidArgument: ``src_ds`` is of another provider: it is served, too.
            NotSupported: this server does not copy.
        """
        raise NotImplementedError

    @rpc(opcode=_Op.ALLOCATE)
    def allocate(self, offset: U64, size: U64) -> None:
        """Have the server reserve memory for a range.

        Raises:
            OutOfRange: it is not all inside.
            NotSupported: this server does not reserve.
        """
        raise NotImplementedError

    # ---- what they are for ----

    @property
    def size(self) -> int:
        """The size in bytes, as the server says."""
        return self.info().size

    @property
    def flags(self) -> DsFlags:
        """What may be done with the memory, as the server says."""
        return self.info().flags

    @property
    def rights(self) -> Rights:
        """R, and W if the memory may be written, as the server says."""
        return Rights.RW if self.flags & DsFlags.W else Rights.R

    def window(self, offset: int = 0, size: int | None = None, *, flags: DsFlags | int | None = None) -> Window:
        """Return a window on the bytes from ``offset`` on: ``size`` of them, or fewer if the server says so.

        Without ``size``: up to the end. Without ``flags``: with the rights that `flags` says. A window ends with a
        page, or with the dataspace. The caller owns the window's dataspace, and may use all of that.

        Raises:
            PermissionDenied: W without the right to write, or X.
            OutOfRange: ``offset`` is behind the last page.
            InvalidArgument: an empty part, or an offset that is no multiple of the page size.
            ServerError: the answer makes no sense.
        """
        size, flags = self._l4_wanted(offset, size, flags)
        window = self.map(U64(offset), U64(0), U64(flags), U64(size))
        if window.size > size or (flags & _W and not window.dataspace.rights & Rights.W):
            found = f"{window.size} bytes of {window.dataspace!r}"
            window.dataspace.close()
            raise ServerError(f"asked for {size} bytes {DsFlags(flags)!r}, the dataspace's server gave {found}")
        return window

    def windows(
        self, offset: int = 0, size: int | None = None, *, flags: DsFlags | int | None = None
    ) -> Iterator[Window]:
        """Yield windows that together show a part, one after the other.

        Raises:
            OutOfRange: the part is not all inside; what is was yielded before.
            L4Error: what `window` raises.
        """
        size, flags = self._l4_wanted(offset, size, flags)
        end = offset + size
        while offset < end:
            if offset % PAGE_SIZE:  # only the last page of a dataspace is not whole
                raise OutOfRange(f"the dataspace ends after {offset} bytes, {end} were asked for")
            window = self.window(offset, end - offset, flags=flags)
            yield window
            offset += window.size

    def _l4_attach_to(
        self, rm: RegionMap, size: int | None, flags: RmFlags | int | None, offset: int, addr: int | None, align: int
    ) -> Region:
        size, flags = self._l4_wanted(offset, size, flags)
        asked = flags & _KNOWN & (~_W if flags & RmFlags.PRIVATE else -1)  # who writes to copies needs no W
        window = self.window(offset, size, flags=asked)
        if window.size < size:
            window.dataspace.close()
            raise OutOfRange(
                f"the server shows {window.size} of {size} bytes from offset {offset} in one window: "
                "ask for no more than there are, or attach what windows() yields"
            )
        return rm.attach(window, flags=flags, addr=addr, align=align)

    def _l4_wanted(self, offset: int, size: int | None, flags: int | None) -> tuple[int, int]:
        """Return size and flags; what was not said is up to the end, and the rights there are."""
        if size is None or flags is None:
            about = self.info()
            size = max(1, about.size - offset) if size is None else size
            flags = about.flags & DsFlags.RW if flags is None else flags
        return size, int(flags)


class DataspaceServer(Served):
    """Serves a dataspace to everybody who has a capability to it; W is needed to write.

    With ``memory``, which is lent, that is what it serves. A subclass overrides `info` and `map` to serve what
    is put together when it is wanted. Whoever may map a window gets the whole dataspace that it is a part of.
    """

    def __init__(self, memory: Dataspace | None = None) -> None:
        self._memory = memory

    @property
    def memory(self) -> Dataspace:
        """What it serves.

        Raises:
            NotSupported: it was made without memory, and does not say otherwise in `info` and `map`.
        """
        if self._memory is None:
            raise NotSupported(f"this {type(self).__name__} has no memory of its own: override info() and map()")
        return self._memory

    # ---- to be overridden ----

    def info(self) -> DataspaceInfo:
        """Return the size in bytes, and what may be done at most; W is taken out for callers without it."""
        return self.memory.info()

    def map(self, offset: int, size: int, flags: DsFlags, rights: Rights) -> Window:
        """Return where ``size`` bytes from ``offset`` on can be attached, or fewer, if these are whole pages.

        The part is inside, begins with a page, and the caller has the rights that ``flags`` ask for. ``rights`` are
        those of the capability that was used. The window's dataspace is lent until the answer is sent. A caller
        that does not ask for W gets it read-only.
        """
        return Window(self.memory, offset, size)

    def clear(self, offset: int, size: int) -> None:
        """Fill a range with zeros; it is inside and not empty, and the caller has W."""
        self.memory.clear(offset, size)

    def copy_in(self, dst: int, src_ds: Dataspace, src: int, size: int) -> None:
        """Copy a part of ``src_ds``, which is lent. By default refused.

        Both ranges are inside and not empty, and the caller has W.
        """
        raise NotSupported(f"a {type(self).__name__} does not copy: attach it, and copy what you see")

    def allocate(self, offset: int, size: int) -> None:
        """Reserve memory for a range, which is inside and not empty. By default refused."""
        raise NotSupported(f"a {type(self).__name__} does not reserve memory")

    # ---- the clients ----

    def serve_request(
        self, rights: int, label: int, words: bytes, data: bytes, caps: tuple[Capability | None, ...]
    ) -> Answer:
        """See `Served.serve_request`."""
        source = Reader(words or data, caps)
        if label == Meta.PROTOCOL:
            out = Writer()
            return answer_meta(RemoteDataspace, source, out), out.words(), b"", ()
        if label != Proto.DATASPACE:
            raise BadProtocol(f"a dataspace speaks protocol {RemoteDataspace.protocol:#x}, not {label:#x}")
        opcode = source.scalar(OPCODE)
        held = Rights.R | Rights(rights & Rights.RWS)
        if opcode in (_Op.CLEAR, _Op.COPY_IN) and not held & Rights.W:
            raise AccessDenied(wanted=Rights.W, held=held)
        match opcode:
            case _Op.MAP:
                return self._map(source, held)
            case _Op.CLEAR:
                self._clear(source)
            case _Op.INFO:
                size, flags = self.info()
                return 0, _TWO.pack(size, int(flags) if held & Rights.W else int(flags) & ~_W), b"", ()
            case _Op.COPY_IN:
                self._copy_in(source)
            case _Op.ALLOCATE:
                self._allocate(source)
            case _:
                raise NotImplementedByServer(f"a dataspace has no operation {opcode}")
        return 0, b"", b"", ()

    def _map(self, source: Reader, held: Rights) -> Answer:
        offset, _, flags, wanted = (source.scalar(_WORD) for _ in range(4))
        if flags & ~_KNOWN:
            raise InvalidArgument(f"a dataspace is not mapped with the flags {flags & ~_KNOWN:#x}")
        if flags & _X:
            raise PermissionDenied("the memory of a dataspace is not executable", wanted=Rights.R, held=held)
        if flags & _W and not held & Rights.W:
            raise PermissionDenied(wanted=Rights.RW, held=held)
        if not wanted or offset % PAGE_SIZE:
            raise InvalidArgument(f"{wanted} bytes from offset {offset} cannot be mapped: pages can")
        size = self._inside(offset, wanted)
        window = self.map(offset, size, DsFlags(flags | _R), held)
        if not _answers(window, size):
            whole = f"{size} bytes, or of fewer that are whole pages"
            raise WrongResult(f"{type(self).__name__}.map must return a Window of {whole}, not {window!r}")
        memory = window.dataspace.rw if flags & _W else window.dataspace.ro
        return 0, _TWO.pack(window.offset, window.size), b"", (memory,)

    def _clear(self, source: Reader) -> None:
        offset, size = source.scalar(_WORD), source.scalar(_WORD)
        if size := self._inside(offset, size):
            self.clear(offset, size)

    def _copy_in(self, source: Reader) -> None:
        dst, src, size = (source.scalar(_WORD) for _ in range(3))
        with _provided_here(source.cap()) as src_ds:
            size = min(size, self.info().size - dst, src_ds.size - src)
            if size > 0:
                self.copy_in(dst, src_ds, src, size)

    def _allocate(self, source: Reader) -> None:
        offset, size = source.scalar(_WORD), source.scalar(_WORD)
        there = self.info().size
        if offset + size > there:
            raise OutOfRange(f"{size} bytes from offset {offset} are not inside a dataspace of {there} bytes")
        if size:
            self.allocate(offset, size)

    def _inside(self, offset: int, size: int) -> int:
        """Return how many of these bytes there are, none behind the last one but in its page."""
        there = self.info().size
        if offset >= -(-there // PAGE_SIZE) * PAGE_SIZE:
            raise OutOfRange(f"offset {offset} is behind the last page of a dataspace of {there} bytes")
        return max(0, min(size, there - offset))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{'' if self._memory is None else f' of {self._memory!r}'}>"


def _answers(window: object, size: int) -> bool:
    return isinstance(window, Window) and (window.size == size or (window.size < size and not window.size % PAGE_SIZE))


def _provided_here(cap: Capability | None) -> Dataspace:
    if isinstance(cap, Dataspace):
        return cap
    if cap is not None:
        cap.close()
    raise InvalidArgument("a copy is made of memory that comes along, not of what another program serves")
