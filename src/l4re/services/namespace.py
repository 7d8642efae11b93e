"""Namespaces, seen by who uses one: capabilities by name (L4's ``Namespace``).

A request is an opcode and a name; the answer to a query is the capability and, if the path goes on in somebody
else's namespace, what is left of it, laid out as the request to be sent there. Two operations are beyond L4Re: to wait
until a name is filled, and to list the names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeVar, overload

from l4re.cap import AtMost, Capability, capability_behind
from l4re.errors import (
    Err,
    InvalidArgument,
    IpcTimeout,
    L4Error,
    MessageTooShort,
    ServerError,
    TryAgain,
    WrongType,
    error_from_code,
)
from l4re.gate import Svr
from l4re.interface import Interface, rpc
from l4re.irq import Semaphore
from l4re.linux.clock import deadline_after, nanoseconds_left
from l4re.rights import Rights
from l4re.wire.items import ITEM_BYTES
from l4re.wire.marshal import OPCODE
from l4re.wire.protocols import Proto
from l4re.wire.stream import Reader, Writer
from l4re.wire.tag import WORD_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from l4re.interface import Served

__all__ = [
    "NAME_MAX",
    "Namespace",
    "NamespaceEntry",
    "NsFlags",
    "NsOp",
    "Resolved",
    "beyond",
    "check_kind",
    "check_name",
    "check_path",
    "pack",
    "rights_of",
    "unpack",
]

_T = TypeVar("_T")
_FLAGS = Struct("=I")
#: Bytes of one name; a path may have as many as its message takes.
NAME_MAX: Final = 255
#: L4Re's ``To_default``, in seconds.
_AN_HOUR: Final = 3600.0


class NsOp(IntEnum):
    """L4's numbers, and ours from 0x100 on."""

    QUERY = 0
    REGISTER_OBJ = 1
    UNLINK = 3
    #: As QUERY; answered when there is something to say, never with EAGAIN.
    WAIT = 0x100
    #: The entries behind a name, in their order, as many as one message takes.
    LIST = 0x101


class NsFlags(IntFlag):
    """How a name is registered, and what a query says (``L4Re::Namespace``).

    The rights bits are those a capability is handed out with at most; D never is. ``STRONG`` is S by another name.
    ``PARTLY_RESOLVED`` is in the answer to a query whose path goes on in somebody else's namespace.
    """

    NONE = 0
    STRONG = 2
    RO = 4
    RW = 5
    RS = 6
    RWS = 7
    CAP_FLAGS = 0x0F
    PARTLY_RESOLVED = 0x20
    OVERWRITE = 0x200


_KNOWN: Final = NsFlags.CAP_FLAGS | NsFlags.OVERWRITE


# ---- messages ----


def check_path(path: str) -> bytes:
    """Return a path as it travels.

    Raises:
        InvalidArgument: it is empty, or one of its names is.
        L4Error: a name is longer than 255 bytes (ENAMETOOLONG).
    """
    for name in path.split("/"):
        check_name(name, path)
    return path.encode()


def check_name(name: str, path: str = "") -> None:
    """Raise unless something can have this name, which stands in ``path``.

    Raises:
        InvalidArgument: it is empty, or has a "/" or a NUL in it.
        L4Error: it is longer than 255 bytes (ENAMETOOLONG).
    """
    if not name:
        raise InvalidArgument(f"there is an empty name in {path!r}" if path else "a name has at least one character")
    if "/" in name or "\0" in name:
        raise InvalidArgument(f"a name has no '/' and no NUL in it, unlike {name!r}")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidArgument(f"a name travels as UTF-8, and {name!r} cannot") from None
    if size > NAME_MAX:
        raise L4Error(f"a name has at most {NAME_MAX} bytes, {name[:20]!r}... has {size}", code=Err.ENAMETOOLONG)


def pack(op: NsOp, name: bytes, flags: int | None = None) -> bytes:
    """Return the words of a request, or of what is left of one.

    Raises:
        L4Error: they are more than fit a message (ENAMETOOLONG).
    """
    out = Writer()
    out.scalar(OPCODE, op)
    if flags is not None:
        out.scalar(_FLAGS, flags)
    out.blob(name)
    words = out.words()
    if len(words) > WORD_BYTES - ITEM_BYTES:  # a capability is beside it
        raise L4Error(f"a path of {len(name)} bytes does not fit a message", code=Err.ENAMETOOLONG)
    return words


def unpack(words: bytes, *, flags: bool = False) -> tuple[str, int]:
    """Return the name, and the flags if there are to be some, behind the opcode of a message.

    Raises:
        MessageTooShort: they are not all there.
        InvalidArgument: the name is not UTF-8.
    """
    source = Reader(words)
    source.scalar(OPCODE)
    number: int = source.scalar(_FLAGS) if flags else 0
    name = source.blob()
    try:
        return name.decode(), number
    except UnicodeDecodeError:
        raise InvalidArgument(f"a name is UTF-8, and {name!r} is not") from None


# ---- what can have a name ----


def rights_of(flags: NsFlags) -> Rights:
    """Return the rights that an object is handed out with at most.

    Raises:
        InvalidArgument: a flag that there is not.
    """
    if flags & ~_KNOWN:
        raise InvalidArgument(f"a name is registered with rights and OVERWRITE, not with {int(flags & ~_KNOWN):#x}")
    return Rights.R | Rights(int(flags) & Rights.RWS)


def check_kind(cap: Capability, rights: Rights) -> None:
    """Raise unless a capability can be handed out with these rights, again and again.

    Raises:
        InvalidArgument: it cannot.
    """
    if isinstance(cap, Svr):
        raise InvalidArgument("a receive right is handed over to whoever is to serve; it cannot have a name")
    if isinstance(cap, Semaphore) and not cap.rights & rights & ~Rights.R:
        raise InvalidArgument(
            f"a semaphore with {cap.rights.letters()!r}, handed out with {rights.letters()!r} at most, would be none"
        )


# ---- the proxy ----


@dataclass(frozen=True, slots=True)
class NamespaceEntry:
    """What a namespace says of one name: what kind of thing is there, and the rights it is handed out with at most.

    ``kind`` is ``"namespace"``, the ``kind`` of a capability, or empty for a name without an object.
    """

    name: str
    kind: str
    rights: Rights


_Entries = list[NamespaceEntry]


class Resolved(NamedTuple):
    """How far a query came without going on: what was found, owned by whoever asked, and what is left of the path.

    ``flags`` is ``PARTLY_RESOLVED`` if something is left.
    """

    cap: Capability
    flags: NsFlags
    rest: str


class Namespace(Interface):
    """Capabilities by name, in another program or in this one: a proxy for what a `NamespaceServer` serves.

    To register and to unlink, the capability to the namespace needs W. S is handed on through one that has S only.
    """

    protocol = int(Proto.NAMESPACE)

    @overload
    def query(self, name: str, *, timeout: float | None = ...) -> Capability: ...
    @overload
    def query(self, name: str, *, timeout: float | None = ..., iterate: Literal[False]) -> Resolved: ...
    @overload
    def query(self, name: str, interface: type[_T], *, timeout: float | None = ...) -> _T: ...
    @overload
    def query(self, name: str, interface: Callable[[Any], _T], *, timeout: float | None = ...) -> _T: ...
    def query(
        self,
        name: str,
        interface: Callable[[Any], object] | None = None,
        *,
        timeout: float | None = _AN_HOUR,
        iterate: bool = True,
    ) -> object:
        """Return the capability with this name; the caller owns it.

        ``"dir/obj"`` is looked up in the namespace that is registered as ``dir``. ``interface`` says what it is to be
        returned as: a typed interface, which is taken on trust, or a class of capabilities, which is checked.

        A name that was registered without an object is waited for, ``timeout`` seconds at most (None: without end);
        in an asyncio program, ``await asyncio.to_thread(names.query, name)`` does so beside the others.
        ``iterate=False`` asks this namespace only, and returns how far it came.

        Raises:
            NotFound: there is no such name, or who served the object is gone.
            TryAgain: the name still has no object.
            InvalidArgument: an empty name, or a negative timeout.
            WrongType: it is not of the class ``interface``.
            L4Error: what stands in the middle of the path is no namespace (ENOTDIR).
        """
        path = check_path(name).decode()
        deadline = deadline_after(timeout)
        cap, rest = self._l4_find(path, deadline)
        if not iterate:
            return Resolved(cap, NsFlags.PARTLY_RESOLVED if rest else NsFlags.NONE, rest)
        while rest:
            with cap:
                cap, rest = beyond(cap, name, rest).within(self._l4_timeout)._l4_find(rest, deadline)
        if interface is None:
            return cap
        wanted: object = interface
        if not isinstance(wanted, type) or not issubclass(wanted, Capability):
            return interface(cap)
        if not isinstance(cap, wanted):
            cap.close()
            raise WrongType(f"{name!r} is a {cap.kind}, not a {wanted.kind}")
        return cap

    def _l4_find(self, path: str, deadline: int | None) -> tuple[Capability, str]:
        """Ask this namespace; return what it has, and what is left of the path."""
        try:
            return self._l4_ask(NsOp.QUERY, path)
        except TryAgain:
            left = None if deadline is None else nanoseconds_left(deadline) / 1e9
            if left == 0:
                raise
        mine = self._l4_timeout
        shorter = left is not None and (mine is None or left < mine)
        try:
            return (self.within(left) if shorter else self)._l4_ask(NsOp.WAIT, path)
        except IpcTimeout:
            if not shorter:
                raise
            raise TryAgain(f"{path!r} still has no object after the time given") from None

    def _l4_ask(self, op: NsOp, path: str) -> tuple[Capability, str]:
        label, words, data, caps = self._l4_transact(Namespace.protocol, pack(op, path.encode()))
        if label == -Err.ENOSYS and op is NsOp.WAIT:
            raise TryAgain(f"{path!r} has no object, and this namespace lets nobody wait for one")
        if label < 0:
            raise error_from_code(label, data.decode("utf-8", "replace"))
        cap = caps[0] if len(caps) == 1 else None
        try:
            partly = label & NsFlags.PARTLY_RESOLVED
            rest = unpack(words or data)[0] if partly else ""
            if cap is None or (partly and not path.endswith(f"/{rest}")):
                raise InvalidArgument(f"{path!r} led to {cap!r}, with {rest!r} left")
        except (MessageTooShort, InvalidArgument) as error:
            for each in caps:
                if each is not None:
                    each.close()
            raise ServerError(f"the namespace's answer makes no sense: {error}") from None
        return cap, rest

    def register_obj(
        self, name: str, obj: Capability | Interface | Served | None = None, flags: NsFlags = NsFlags.RW
    ) -> None:
        """Register an object, which is lent; the namespace becomes a holder of it. None: a name to be filled later.

        ``flags`` say which rights the namespace gets, and hands out, at most; and whether to replace what is there.

        Raises:
            PermissionDenied: the capability to the namespace lacks W.
            Exists: the name has an object, and ``OVERWRITE`` was not said.
            InvalidArgument: a name that is empty or has a "/" in it, an unknown flag, what cannot have a name.
            OutOfMemory: the namespace has as many names as it takes.
        """
        check_name(name)
        rights = rights_of(flags)
        cap = None
        if obj is not None:
            behind = capability_behind(obj)
            check_kind(behind, rights)
            cap = AtMost(behind, rights)
        self._l4_tell(pack(NsOp.REGISTER_OBJ, name.encode(), int(flags)), (cap,))

    def unlink(self, name: str) -> None:
        """Forget a name. Whoever waits for it hears that there is none.

        Raises:
            PermissionDenied: the capability to the namespace lacks W.
            NotFound: there is no such name.
        """
        check_name(name)
        self._l4_tell(pack(NsOp.UNLINK, name.encode()))

    def list(self) -> tuple[NamespaceEntry, ...]:
        """Return what there is, by name (beyond L4Re: operation 0x101)."""
        return tuple(self._l4_all())

    def _l4_all(self) -> Iterator[NamespaceEntry]:
        after = ""
        while page := self._page(after):
            yield from page
            if page[-1].name <= after:
                raise ServerError(f"the namespace lists {page[-1].name!r} behind {after!r}")
            after = page[-1].name

    @rpc(opcode=NsOp.LIST)
    def _page(self, after: str) -> _Entries:
        raise NotImplementedError

    def _l4_tell(self, words: bytes, caps: tuple[Capability | None, ...] = ()) -> None:
        label, _, data, _ = self._l4_transact(Namespace.protocol, words, b"", caps)
        if label < 0:
            raise error_from_code(label, data.decode("utf-8", "replace"))


def beyond(cap: Capability, name: str, rest: str) -> Namespace:
    """Return the namespace in which a query for ``name`` goes on with ``rest``.

    Raises:
        L4Error: nobody could be asked (ENOTDIR).
    """
    if not hasattr(cap, "transact"):
        raise L4Error(f"{name!r} leads to a {cap.kind}, in which {rest!r} cannot be looked up", code=Err.ENOTDIR)
    return Namespace(cap)
