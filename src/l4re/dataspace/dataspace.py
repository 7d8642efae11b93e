"""The capability to shared memory.

The rule the rest leans on: a read-write capability is a descriptor open for writing, a read-only one is another
descriptor, open for reading only. So nobody writes by accident through a right that was not given; against malice
of the same user only seals help, and `Dataspace.enforcement` says whether they are there.
"""

from __future__ import annotations

import errno
import operator
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, NoReturn, ParamSpec, TypeAlias, TypeVar

from l4re._native import leaf
from l4re.cap import Capability, Export, register_kind
from l4re.errors import (
    AccessDenied,
    Busy,
    Closed,
    InvalidArgument,
    L4Error,
    NotSupported,
    OutOfRange,
    PermissionDenied,
)
from l4re.linux import copying, maps, memfd
from l4re.linux.fd import Fd
from l4re.linux.memfd import Mapping, Seal
from l4re.linux.memory import MemoryGauge
from l4re.rights import DsFlags, Rights
from l4re.wire.items import ItemKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

__all__ = ["NO_HINTS", "Dataspace", "DataspaceInfo", "Hints"]

M = TypeVar("M", bound=Mapping)
P = ParamSpec("P")

_PAGE = memfd.PAGE_SIZE
_CHUNK = 1 << 20
_ZEROS = memoryview(bytes(_CHUNK))
_W, _R = int(Rights.W), int(Rights.R)
_RO, _RW = Rights.R, Rights.RW
_DATASPACE = ItemKind.DATASPACE
_ANY_WRITE = int(Seal.ANY_WRITE)
#: From here on what was never written is looked for, and not copied.
_SPARSE = 1 << 20
_gauge = MemoryGauge()


class DataspaceInfo(NamedTuple):
    """What ``info`` answers: the byte size asked for, and what may be done with the memory."""

    size: int
    flags: DsFlags


class Hints(NamedTuple):
    """How this process would like to map the memory; not part of the capability, not handed over."""

    align: int = 0
    huge: bool = False
    sealable: bool = False


NO_HINTS = Hints()


class Dataspace(Capability, leaf.Memory):
    """Memory that several processes may hold, map, read and write.

    Comes from an allocator, from a message or from the parent. Rights are R and W only. ``==`` tells whether two
    capabilities lead to the same memory, whatever their rights.

    Several threads may use one object, also while one of them closes it: the descriptor goes away when the last
    operation that uses it is done.
    """

    # The fields are the leaf's, which makes one of memory that arrives without __init__.
    __slots__ = ("__weakref__",)
    _fd: Fd | None
    _hints: Hints
    _made: dict[str, Dataspace] | None

    kind: ClassVar[str] = "dataspace"
    F: TypeAlias = DsFlags

    def __init__(
        self, fd: Fd, size: int, *, writable: bool = True, name: str | None = None, hints: Hints = NO_HINTS
    ) -> None:
        """Take ``fd``, a memfd of exactly ``size`` bytes that was made here or validated."""
        self._fd = fd
        self._size = size
        self._writable = writable
        self._name = name
        self._hints = hints

    # ---- ownership ----

    # Whoever uses the descriptor holds a reference to its owner for that time, and close() only drops ours. So
    # the number cannot be given to a stranger while a system call of another thread is on its way. The references
    # are deleted on the way out, or a traceback would keep the descriptor open; helpers that raise get the number.
    def _use(self) -> Fd:
        fd = self._fd
        if fd is None:
            raise Closed(f"this dataspace{self._called()} is closed")
        return fd

    def _called(self) -> str:
        return f" {self._name!r}" if self._name else ""

    @property
    def closed(self) -> bool:
        """Whether the capability was dropped."""
        return self._fd is None

    def close(self) -> None:
        """Drop the capability; a second call does nothing. Regions and other capabilities to the memory stay."""
        self._fd = None
        self._made = None

    def fileno(self) -> int:
        """Return the descriptor, lent: a memfd that other libraries may map or pass on as well."""
        return self._use().fileno()

    def dup(self) -> Dataspace:
        """Return a capability of the caller's own to the same memory, with the same rights."""
        fd = self._use()
        try:
            return self._another(fd.dup(), writable=self._writable)
        finally:
            del fd

    def _another(self, fd: Fd, *, writable: bool) -> Dataspace:
        other = Dataspace(fd, self._size, writable=writable, name=self._name, hints=self._hints)
        other._identity = self._identity
        return other

    def _key(self) -> tuple[int, int]:
        if self._identity is None:
            fd = self._use()
            try:
                self._identity = memfd.identity(fd.fileno())
            finally:
                del fd
        return self._identity

    def __repr__(self) -> str:
        if self._fd is None:
            return f"<Dataspace{self._called()} closed>"
        return f"<Dataspace {self.name!r} {self._size} bytes {self.rights.letters()} {self.enforcement}>"

    # ---- what it is ----

    def _seals(self) -> int:
        fd = self._use()
        try:
            return memfd.get_seals(fd.fileno())
        finally:
            del fd

    @property
    def size(self) -> int:
        """The size in bytes, exactly as asked for; it never changes."""
        if self._fd is None:
            self._use()
        return self._size

    @property
    def rights(self) -> Rights:
        """R, and W while it may be written; nobody has W any more once it is frozen or published."""
        return Rights.R if self._seals() & _ANY_WRITE or not self._writable else Rights.RW

    @property
    def flags(self) -> DsFlags:
        """What may be done with the memory. Never X: the memory of a dataspace is not executable."""
        return DsFlags.RW if self.rights & Rights.W else DsFlags.R

    def info(self) -> DataspaceInfo:
        """Return size and flags together."""
        return DataspaceInfo(self.size, self.flags)

    @property
    def name(self) -> str:
        """What its maker called it, for people to read. It names nothing, and nobody vouches for it."""
        if self._name is None:
            fd = self._use()
            try:
                self._name = memfd.name_of(fd.fileno())
            finally:
                del fd
        return self._name

    def place(self, hints: Hints, name: str | None = None) -> None:
        """Say how this process would like to map the memory, and what it calls it; for who had it allocated."""
        self._hints = hints
        self._name = name or self._name

    @property
    def hints(self) -> Hints:
        """How the allocator was asked to place this memory (this process only)."""
        return self._hints

    # ---- rights ----

    @property
    def ro(self) -> Dataspace:
        """A read-only capability of its own: own descriptor, made once, outlives this one.

        A read-only dataspace returns itself.

        Raises:
            NotSupported: making one takes procfs, and there is none here.
        """
        fd = self._use()
        try:
            if not self._writable:
                return self
            made = self._made
            if made is None:
                made = self._made = {}
            known = made.get("ro")
            if known is not None and not known.closed:
                return known
            fresh = self._another(memfd.reopen_readonly(fd.fileno()), writable=False)
            if known is not None:
                made["ro"] = fresh  # the one made before was closed by its holder
            return made.setdefault("ro", fresh)
        finally:
            del fd

    @property
    def rw(self) -> Dataspace:
        """This capability, if it may write.

        Raises:
            PermissionDenied: it is read-only, frozen or published.
        """
        if not self._writable:
            self._use()
            raise PermissionDenied(wanted=Rights.RW, held=Rights.R)
        if seals := self._seals() & _ANY_WRITE:
            raise PermissionDenied(_sealed_text(seals), wanted=Rights.RW, held=Rights.R)
        return self

    @property
    def enforcement(self) -> Literal["sealed", "advisory"]:
        """Who keeps readers from writing.

        ``"sealed"``: the kernel, against everybody (after `freeze` or `publish`). ``"advisory"``: the descriptor,
        against mistakes; a process of the same user that sees procfs could reopen the memory for writing.
        """
        return "sealed" if self._seals() & _ANY_WRITE else "advisory"

    def freeze(self) -> None:
        """Let nobody write any more, ever; a second call does nothing.

        Raises:
            PermissionDenied: this capability is read-only, or the memory was handed out read-write before.
            Busy: a writable mapping exists; the text names those of this process.
        """
        self._seal(Seal.WRITE | Seal.SEAL, done=int(Seal.WRITE), verb="freeze")

    def publish(self) -> None:
        """Let only those write who map it for writing already; no new writable mapping, no `write`, for anybody.

        Raises:
            PermissionDenied: this capability is read-only, or the memory was handed out read-write before.
        """
        self._seal(Seal.FUTURE_WRITE, done=_ANY_WRITE, verb="publish")

    def _seal(self, seals: Seal, *, done: int, verb: str) -> None:
        fd = self._use()
        try:
            if memfd.get_seals(fd.fileno()) & done:
                return
            if not self._writable:
                raise PermissionDenied(f"cannot {verb} through a read-only capability", wanted=Rights.W, held=Rights.R)
            try:
                memfd.add_seals(fd.fileno(), seals)
            except OSError as error:
                self._explain_seal(fd.fileno(), error, verb)
        finally:
            del fd

    def _explain_seal(self, fd: int, error: OSError, verb: str) -> NoReturn:
        if error.errno == errno.EBUSY:
            writers = maps.writers_of(fd)
            where = ", ".join(f"{w.start:#x} ({w.end - w.start} bytes)" for w in writers)
            who = f"this process at {where}; detach first" if writers else "another process"
            raise Busy(f"cannot freeze while the memory is mapped for writing by {who}") from error
        if error.errno == errno.EPERM and memfd.get_seals(fd) & Seal.SEAL:
            raise PermissionDenied(
                f"cannot {verb}: this memory was handed out read-write, and that settles its seals. "
                "Allocate with MemAlloc.F.SEALABLE to keep the choice, and share it read-only (ds.ro)"
            ) from error
        raise L4Error(f"cannot {verb}: {error.strerror}") from error

    # ---- contents ----

    def _range(self, offset: int, size: int) -> tuple[int, int]:
        """Check a range strictly; return it as integers."""
        offset, size = operator.index(offset), operator.index(size)
        if offset < 0 or size < 0 or offset + size > self._size:
            raise OutOfRange(f"{size} bytes from offset {offset} are not inside a dataspace of {self._size} bytes")
        return offset, size

    def _require_write(self) -> None:
        if not self._writable:
            raise AccessDenied(wanted=Rights.W, held=Rights.R)

    def read(self, offset: int, size: int) -> bytes:
        """Return a copy of ``size`` bytes.

        Raises:
            OutOfRange: they are not all inside.
        """
        fd = self._use()
        try:
            return memfd.read_at(fd.fileno(), *self._range(offset, size))
        finally:
            del fd

    def write(self, offset: int, data: Buffer) -> None:
        """Write the bytes of any contiguous buffer.

        Raises:
            AccessDenied: without W, or sealed.
            OutOfRange: they do not fit; nothing was written.
        """
        fd = self._use()
        try:
            self._require_write()
            if not isinstance(data, bytes):
                view = memoryview(data)
                data = view.cast("B") if view.nbytes else b""
            offset, _ = self._range(offset, len(data))
            _writing(fd.fileno(), memfd.write_at, fd.fileno(), offset, data)
        finally:
            del fd

    def clear(self, offset: int, size: int) -> int:
        """Fill a range with zeros, cut at the end of the dataspace; return how many bytes that were.

        Memory that was never written stays untouched and costs nothing, memory that was reserved stays reserved.

        Raises:
            AccessDenied: without W, or sealed; nothing changed.
            OutOfRange: the range starts behind the last page.
        """
        fd = self._use()
        try:
            self._require_write()
            offset, size = operator.index(offset), operator.index(size)
            if offset < 0 or size < 0 or offset >= _whole_pages(self._size):
                raise OutOfRange(
                    f"cannot clear {size} bytes from offset {offset}: the dataspace has {self._size} bytes"
                )
            end = max(offset, min(offset + size, self._size))
            if seals := memfd.get_seals(fd.fileno()) & _ANY_WRITE:
                raise AccessDenied(_sealed_text(seals), wanted=Rights.W, held=Rights.R)
            _fill_with_zeros(fd.fileno(), offset, end)
            return end - offset
        finally:
            del fd

    def allocate(self, offset: int, size: int) -> None:
        """Reserve the pages of a range, so that whoever touches them later finds them. Their contents stay.

        It takes no right: who may read memory may have it, and a reader's pages count as the writer's.

        Raises:
            OutOfRange: they are not all inside.
            OutOfMemory: the machine or its cgroup cannot give them.
            NotSupported: through a read-only capability, on Linux before 5.14.
        """
        fd = self._use()
        try:
            offset, size = self._range(offset, size)
            if not size:
                return
            most = min(size, max(0, self._size - memfd.reserved(fd.fileno())))  # a part may be there
            _gauge.charge(most)
            (memfd.reserve if self._writable else memfd.populate)(fd.fileno(), size, offset)
        finally:
            del fd

    def copy_in(self, dst: int, src_ds: Dataspace, src: int, size: int) -> int:
        """Copy a range of another dataspace into this one, cut at both ends; return how many bytes that were.

        The copy is a snapshot: later changes on either side do not show on the other. Overlapping ranges of one
        dataspace are copied as if through a buffer. The kernel copies; neither side needs to be attached. What was
        never written there costs no memory here, of copies of 1 MiB and more. Who has attached both, and copies again
        and again, is faster through the regions.

        Raises:
            AccessDenied: without W here, or sealed.
            InvalidArgument: ``src_ds`` is not a dataspace, or one of another provider (`RemoteDataspace`).
            OutOfRange: an offset or the size is negative.
            OutOfMemory: the pages cannot be had; a part may have been copied.
        """
        fd = self._use()
        try:
            self._require_write()
            if not isinstance(src_ds, Dataspace):
                raise InvalidArgument(f"copies come from a dataspace, not from {src_ds!r}")
            dst, src, size = operator.index(dst), operator.index(src), operator.index(size)
            if dst < 0 or src < 0 or size < 0:
                raise OutOfRange(f"cannot copy {size} bytes from offset {src} to offset {dst}")
            source = src_ds._use()
            try:
                size = max(0, min(size, self._size - dst, src_ds._size - src))
                if abs(dst - src) < size and self._key() == src_ds._key():
                    copy = copying.copy_buffered
                else:
                    copy = copying.copy if size < _SPARSE else _copy_sparse
                _writing(fd.fileno(), copy, source.fileno(), src, fd.fileno(), dst, size)
                return size
            finally:
                del source
        finally:
            del fd

    # ---- mapping ----

    def map(
        self,
        kind: type[M],
        size: int | None = None,
        offset: int = 0,
        writable: bool | None = None,
        addr: int = 0,
        align: int = 12,
        eager: bool = False,
        private: bool = False,
        host: Mapping | None = None,
        search: bool = False,
    ) -> M:
        """Map a part into this address space: the step below ``attach``, which keeps the books.

        Without ``size``: up to the end. ``writable`` None maps with the rights there are. ``addr`` 0 searches. What is
        written to a ``private`` mapping stays there. A ``host`` is a mapping without memory that this one replaces a
        part of, at ``addr``, or with ``search`` at the first free address from there.

        Raises:
            PermissionDenied: ``writable`` without W, or sealed, and not ``private``.
            OutOfRange: the part is not all inside.
            AddressNotAvailable: something is there, the kernel does not give this address out, or the host is full.
            OutOfMemory: no address space or no slot for one more mapping.
        """
        fd = self._use()
        try:
            if offset % _PAGE:
                raise InvalidArgument(f"a mapping starts at a multiple of {_PAGE} bytes, offset {offset} is none")
            if size is None:
                size = max(1, self._size - offset)
            elif size <= 0:
                raise InvalidArgument(f"cannot map {size} bytes")
            if self._hints.align > align:
                align = self._hints.align
            if offset < 0 or offset + size > self._size:
                raise OutOfRange(
                    f"{size} bytes from offset {offset} reach beyond the end of a dataspace of {self._size} bytes"
                )
            huge = self._hints.huge
            if private:
                try:
                    return kind(fd.fileno(), size, offset, bool(writable), addr, align, eager, huge, True, host, search)
                except OSError as error:
                    raise maps.refusal(error, size, addr) from error
            if writable and not self._writable:
                raise PermissionDenied(wanted=Rights.RW, held=Rights.R)
            if self._writable and writable is not False:
                try:
                    return kind(fd.fileno(), size, offset, True, addr, align, eager, huge, False, host, search)
                except PermissionError as error:
                    seals = memfd.get_seals(fd.fileno()) & _ANY_WRITE
                    if not seals:
                        raise maps.refusal(error, size, addr) from error
                    if writable:
                        raise PermissionDenied(_sealed_text(seals), wanted=Rights.RW, held=Rights.R) from error
                except OSError as error:
                    raise maps.refusal(error, size, addr) from error
            # Through a read-only descriptor, so that nothing can make the pages writable later.
            try:
                reader = self.ro._use()
            except NotSupported:
                reader = fd
            try:
                return kind(reader.fileno(), size, offset, False, addr, align, eager, huge, False, host, search)
            except OSError as error:
                raise maps.refusal(error, size, addr) from error
            finally:
                del reader
        finally:
            del fd

    # ---- hand-over ----

    def export(self, rights: Rights | None = None) -> Export:
        """Prepare a hand-over, weakened to ``rights``.

        A read-write hand-over first seals the seals, so that no receiver can seal its owner out; from then on
        `freeze` and `publish` are refused.

        Raises:
            PermissionDenied: read-write, of memory that was allocated SEALABLE.
            InvalidArgument: ``rights`` lacks R: nothing would arrive.
        """
        if rights is not None and not int(rights) & _R:
            raise InvalidArgument(f"a capability handed over without r is none: {rights.letters()!r}")
        fd = self._use()
        try:
            wanted = self._writable and (rights is None or int(rights) & _W)
            # Once it was handed out its seals are settled: what they allowed then they allow for ever.
            if wanted and (self._handed_out or not self._seals() & _ANY_WRITE):
                if self._hints.sealable:
                    raise PermissionDenied(
                        "this memory was allocated SEALABLE: handed out read-write it could never be frozen or "
                        "published. Share it read-only (ds.ro)"
                    )
                if not self._handed_out:
                    self._settle_seals(fd)
                return Export(_DATASPACE, _RW, self._size, (fd.fileno(),), lent=fd)
            reader = self.ro._use()
            return Export(_DATASPACE, _RO, self._size, (reader.fileno(),), lent=reader)
        finally:
            del fd

    def _settle_seals(self, fd: Fd) -> None:
        try:
            memfd.add_seals(fd.fileno(), Seal.SEAL)
        except PermissionError:
            pass  # they are sealed already
        self._handed_out = True


def _writing(fd: int, write: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    """Do what writes to ``fd``; what the kernel has against it is a seal."""
    try:
        write(*args, **kwargs)
    except PermissionError as error:
        seals = memfd.get_seals(fd) & _ANY_WRITE
        raise AccessDenied(_sealed_text(seals), wanted=Rights.W, held=Rights.R) from error


def _fill_with_zeros(fd: int, start: int, end: int) -> None:
    """Write zeros where there is anything; the rest reads as zeros as it is."""
    for begin, after in memfd.extents(fd, start, end):
        for at in range(begin, after, _CHUNK):
            _writing(fd, memfd.write_at, fd, at, _ZEROS[: min(_CHUNK, after - at)])


def _copy_sparse(source: int, src: int, target: int, dst: int, size: int) -> None:
    """Copy what there is, and fill with zeros where there is nothing."""
    shift, done, end = dst - src, src, src + size
    for begin, after in memfd.extents(source, src, end):
        _fill_with_zeros(target, done + shift, begin + shift)
        copying.copy(source, begin, target, begin + shift, after - begin)
        done = after
    _fill_with_zeros(target, done + shift, end + shift)


def _whole_pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


def _sealed_text(seals: int) -> str:
    state = "frozen" if seals & Seal.WRITE else "published"
    return f"this dataspace is {state}: nobody can get at it for writing any more"


def _import(rights: Rights, value: int, fds: tuple[Fd, ...]) -> Dataspace:
    """Make a dataspace of what arrived; the peer is believed in nothing.

    It is one descriptor, or from an allocator two: the second one can only read the same memory.
    """
    if len(fds) not in (1, 2):
        raise InvalidArgument(f"a dataspace is one descriptor or two, {len(fds)} arrived")
    bits = int(rights)
    if not bits & _R:
        raise InvalidArgument("received a dataspace without the right to read it")
    writable = bool(bits & _W)
    memfd.validate(fds[0].fileno(), size=value, writable=writable)
    ds = Dataspace(fds[0], value, writable=writable)
    if len(fds) == 2:
        memfd.validate(fds[1].fileno(), size=value, writable=False)
        reader = ds._another(fds[1], writable=False)
        if not writable or memfd.identity(fds[1].fileno()) != ds._key():
            raise InvalidArgument("what arrived beside a dataspace does not read the same memory")
        ds._made = {"ro": reader}
    return ds


register_kind(ItemKind.DATASPACE, _import)
leaf.receive_memory(Dataspace, ItemKind.DATASPACE, Fd, NO_HINTS)
