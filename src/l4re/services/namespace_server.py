"""Namespaces, seen by who serves one.

A name has an object, or none yet, or stands for another namespace of this process, which is walked right here.
One rule: whoever waited is answered by the loop it waits for, in that loop's thread, whoever fills the name.
"""

from __future__ import annotations

import threading
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, cast

from l4re.cap import Capability, capability_behind
from l4re.closing import Closing
from l4re.errors import (
    BadProtocol,
    Busy,
    Closed,
    Exists,
    InvalidArgument,
    L4Error,
    MessageTooShort,
    NotFound,
    NotImplementedByServer,
    OutOfMemory,
    PeerGone,
    PermissionDenied,
    TryAgain,
)
from l4re.interface import Interface, Served
from l4re.interface.meta import Meta, answer_meta
from l4re.linux.fd import plenty_left
from l4re.rights import Rights
from l4re.services.namespace import (
    Namespace,
    NamespaceEntry,
    NsFlags,
    NsOp,
    beyond,
    check_kind,
    check_name,
    check_path,
    pack,
    rights_of,
    unpack,
)
from l4re.wire.codecs import codec_for
from l4re.wire.marshal import OPCODE
from l4re.wire.protocols import Proto
from l4re.wire.stream import Reader, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from l4re.cap import Export
    from l4re.interface import Answer

__all__ = ["NamespaceServer"]

#: Names that an error tells of.
_SHOWN: Final = 8
#: Bytes in one answer to LIST, and how many an entry has beside its name.
_PAGE: Final = 48 << 10
_BESIDE: Final = 64


class _Deferred(Protocol):
    """The right to answer a request later."""

    @property
    def gone(self) -> bool: ...
    def answer(self, label: int, words: bytes, data: bytes, caps: tuple[Capability, ...]) -> bool: ...
    def fail(self, error: BaseException) -> bool: ...


class _Registry(Protocol):
    def register_obj(self, obj: Served) -> Capability: ...


class _Host(Protocol):
    """The server of a namespace."""

    registry: _Registry

    def take_reply(self) -> _Deferred: ...
    def post(self, function: Callable[[], None]) -> None: ...


class _Entry:
    """What one name has: a capability, which is the namespace's; another namespace; or nothing yet."""

    __slots__ = ("cap", "rights", "space")

    def __init__(self, cap: Capability | None, space: NamespaceServer | None, rights: Rights) -> None:
        self.cap = cap
        self.space = space
        self.rights = rights

    @property
    def empty(self) -> bool:
        return self.cap is None and self.space is None

    @property
    def gone(self) -> bool:
        try:
            return self.cap is not None and self.cap.gone
        except Closed:  # by another thread, which has replaced it
            return True

    def close(self) -> None:
        if self.cap is not None:
            self.cap.close()


class _Place(NamedTuple):
    """Where a path leads: the namespace that has its last name, or the last one that could be walked to."""

    space: NamespaceServer
    name: str
    rest: str

    @property
    def path(self) -> str:
        return f"{self.name}/{self.rest}" if self.rest else self.name


class _Question(NamedTuple):
    """A query: who asked (the rights of the capability used), and through which server."""

    host: _Host
    rights: Rights
    reply: _Deferred | None = None


class _Found(Capability):
    """What an answer has: handed out as it leaves, in the loop's thread. What is gone by then is forgotten."""

    __slots__ = ("_entry", "_place", "_question")

    kind = "found"

    def __init__(self, place: _Place, entry: _Entry, question: _Question) -> None:
        self._place = place
        self._entry = entry
        self._question = question

    def export(self, rights: Rights | None = None) -> Export:
        entry, host = self._entry, self._question.host
        handed = self.rights if rights is None else self.rights & rights
        try:
            cap = entry.cap
            if entry.space is not None:
                cap = entry.space._l4_cap or host.registry.register_obj(entry.space)
            assert cap is not None
            return cap.export(handed)
        except (PeerGone, Closed):
            self._place.space._forget(self._place.name, entry)
            raise NotFound(f"who served {self._place.name!r} is gone") from None

    def close(self) -> None:
        """Nothing: it is lent."""

    @property
    def rights(self) -> Rights:
        """S goes through a capability that has S, as it came through one."""
        return self._entry.rights & (Rights.RW | (self._question.rights & Rights.S))


class NamespaceServer(Served, Closing):
    """Serves a namespace: capabilities by name, and other namespaces of this process inside.

    It owns a duplicate of what is registered; an object whose server is gone is forgotten. A `NamespaceServer` that
    is registered here is walked in place, and served by the same loop when somebody asks for it as a whole; it stays
    the caller's.

    The methods are for the program that has it and thread-safe; they need no rights.
    """

    def __init__(self, *, entries: int = 4096, waiting: int = 4096) -> None:
        """Make an empty one, with at most so many names, and so many queries that wait for one to be filled."""
        self._most = entries
        self._most_waiting = waiting
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._waiting: dict[str, list[tuple[_Question, str]]] = {}

    # ---- for the program that has it ----

    def register(
        self, name: str, obj: Capability | Interface | Served | None = None, flags: NsFlags = NsFlags.RW
    ) -> None:
        """Register an object; None: a name to be filled later, for which queries wait.

        Raises:
            Exists: the name has an object, and ``OVERWRITE`` was not said.
            InvalidArgument: a name that is empty or has a "/" in it, an unknown flag, what cannot have a name.
            OutOfMemory: there are as many names as it takes.
        """
        check_name(name)
        rights = rights_of(flags)
        space = obj if isinstance(obj, NamespaceServer) else None
        cap = None
        if obj is not None and space is None:
            behind = capability_behind(obj)
            inner = getattr(behind, "object", None)  # a capability to a namespace of this process
            space = inner if isinstance(inner, NamespaceServer) else None
            if space is None:
                check_kind(behind, rights)
                cap = behind.dup_local()
        self._put(name, _Entry(cap, space, rights), bool(flags & NsFlags.OVERWRITE))

    def query(self, name: str) -> Capability:
        """Return a duplicate of what was registered, with all its rights; the caller owns it. Does not wait.

        Raises:
            NotFound: there is no such name, or who served the object is gone.
            TryAgain: the name has no object.
        """
        place, entry = self._walk(check_path(name).decode())
        if place.space._gone(place.name, entry):
            entry = None
        if entry is None:
            raise place.space._missing(place.name)
        if entry.empty:
            raise _nothing_yet(place)
        cap = entry.cap if entry.space is None else entry.space.obj_cap()
        assert cap is not None
        if not place.rest:
            return cap.dup_local()
        return beyond(cap, place.name, place.rest).query(place.rest, timeout=0)

    def unlink(self, name: str) -> None:
        """Forget a name; queries that wait for it get NotFound.

        Raises:
            NotFound: there is no such name.
        """
        with self._lock:
            entry = self._entries.pop(name, None)
            waiting = self._waiting.pop(name, ())
        if entry is None:
            raise self._missing(name)
        entry.close()
        self._resume(waiting)

    @property
    def names(self) -> tuple[str, ...]:
        """The names there are, in their order; those of objects that are gone are forgotten."""
        with self._lock:
            self._sweep()
            return tuple(sorted(self._entries))

    @property
    def waiting(self) -> int:
        """How many queries wait for a name to be filled."""
        with self._lock:
            self._drop_gone()
            return self._count()

    def close(self) -> None:
        """Forget all names; a second call does nothing."""
        with self._lock:
            entries, waiting = list(self._entries.values()), list(self._waiting.values())
            self._entries.clear()
            self._waiting.clear()
        for entry in entries:
            entry.close()
        for each in waiting:
            self._resume(each)

    # ---- names ----

    def _put(self, name: str, entry: _Entry, overwrite: bool) -> None:
        """Take an entry in; it is closed if it cannot be."""
        waiting: list[tuple[_Question, str]] = []
        with self._lock:
            before = self._entries.get(name)
            error: L4Error | None = None
            if before is None and len(self._entries) >= self._most:
                self._sweep()
                if len(self._entries) >= self._most:
                    error = OutOfMemory(f"this namespace has {self._most} names, its limit")
            elif before is not None and not (overwrite or before.empty or before.gone):
                error = Exists(f"{name!r} has an object; say OVERWRITE to replace it")
            if error is None:
                self._entries[name] = entry
                if not entry.empty:
                    waiting = self._waiting.pop(name, [])
        if error is not None:
            entry.close()
            raise error
        if before is not None:
            before.close()
        self._resume(waiting)

    def _forget(self, name: str, entry: _Entry) -> None:
        """Drop an entry whose object is gone, unless another has taken its place."""
        with self._lock:
            if self._entries.get(name) is entry:
                del self._entries[name]
        entry.close()

    def _gone(self, name: str, entry: _Entry | None) -> bool:
        if entry is None or not entry.gone:
            return False
        self._forget(name, entry)
        return True

    def _swept(self) -> bool:
        """Forget what is gone; whether there was any."""
        with self._lock:
            before = len(self._entries)
            self._sweep()
            return len(self._entries) < before

    def _sweep(self) -> None:
        for name, entry in list(self._entries.items()):
            if entry.gone:
                del self._entries[name]
                entry.close()

    def _walk(self, path: str) -> tuple[_Place, _Entry | None]:
        """Go through the namespaces of this process, as far as they go."""
        space = self
        while True:
            name, _, rest = path.partition("/")
            with space._lock:
                entry = space._entries.get(name)
            if not rest or entry is None or entry.space is None:
                return _Place(space, name, rest), entry
            space, path = entry.space, rest

    def _missing(self, name: str) -> NotFound:
        with self._lock:
            names, count = tuple(islice(self._entries, _SHOWN)), len(self._entries)
        shown = ", ".join(map(repr, names)) or "no name at all"
        more = f" and {count - _SHOWN} more" if count > _SHOWN else ""
        return NotFound(f"there is no {name!r} in this namespace; there is {shown}{more}", name=name, names=names)

    # ---- queries ----

    def _look(self, path: str, question: _Question) -> Answer | _Place:
        """Return the answer to a query, or the place that is still empty.

        Raises:
            NotFound: there is no such name.
        """
        place, entry = self._walk(path)
        if entry is None or place.space._gone(place.name, entry):
            raise place.space._missing(place.name)
        if entry.empty:
            return place
        found = (_Found(place, entry, question),)
        if place.rest:
            return int(NsFlags.PARTLY_RESOLVED), pack(NsOp.QUERY, place.rest.encode()), b"", found
        return 0, b"", b"", found

    def _wait(self, path: str, question: _Question) -> None:
        """Answer a query now, or when the name is filled."""
        space, reply = self, question.reply
        assert reply is not None
        while True:
            try:
                found = space._look(path, question)
                if not isinstance(found, _Place):
                    reply.answer(*cast(Any, found))
                    return
                if found.space._enter(found, question):
                    return
            except L4Error as error:
                reply.fail(error)
                return
            space, path = found.space, found.path

    def _enter(self, place: _Place, question: _Question) -> bool:
        """Have a query wait here; False: the name is not empty any more.

        Raises:
            Busy: too many wait.
        """
        with self._lock:
            entry = self._entries.get(place.name)
            if entry is None or not entry.empty:
                return False
            if self._count() >= self._most_waiting:
                self._drop_gone()
            if self._count() >= self._most_waiting:
                raise Busy(f"{self._most_waiting} queries wait for names of this namespace, its limit")
            self._waiting.setdefault(place.name, []).append((question, place.path))
            return True

    def _count(self) -> int:
        return sum(map(len, self._waiting.values()))

    def _drop_gone(self) -> None:
        """Forget queries that nobody waits for any more."""
        for name, waiting in list(self._waiting.items()):
            left = [each for each in waiting if each[0].reply is not None and not each[0].reply.gone]
            if left:
                self._waiting[name] = left
            else:
                del self._waiting[name]

    def _resume(self, waiting: list[tuple[_Question, str]] | tuple[()]) -> None:
        for question, path in waiting:
            question.host.post(partial(self._wait, path, question))

    def on_client_gone(self) -> None:
        """See `Served.on_client_gone`; it may have waited."""
        with self._lock:
            self._drop_gone()

    # ---- the clients ----

    def serve_request(
        self, rights: int, label: int, words: bytes, data: bytes, caps: tuple[Capability | None, ...]
    ) -> Answer:
        """See `Served.serve_request`."""
        if label == Meta.PROTOCOL:
            out = Writer()
            return answer_meta(Namespace, Reader(words), out), out.words(), b"", ()
        if label != Proto.NAMESPACE:
            raise BadProtocol(f"a namespace speaks protocol {Namespace.protocol:#x}, not {label:#x}")
        stream = words or data
        if len(stream) < OPCODE.size:
            raise MessageTooShort("the request has no opcode")
        (opcode,) = OPCODE.unpack_from(stream)
        match opcode:
            case NsOp.QUERY | NsOp.WAIT:
                return self._query(unpack(stream)[0], Rights.R | Rights(rights & 3), opcode == NsOp.WAIT)
            case NsOp.LIST:
                return self._list(stream)
            case NsOp.REGISTER_OBJ | NsOp.UNLINK:
                if not rights & Rights.W:
                    raise PermissionDenied(wanted=Rights.W, held=Rights.R | Rights(rights & 3))
                if opcode == NsOp.UNLINK:
                    self.unlink(unpack(stream)[0])
                else:
                    self._register(*unpack(stream, flags=True), rights, caps)
                return 0, b"", b"", ()
        raise NotImplementedByServer(f"a namespace has no operation {opcode}")

    def _query(self, path: str, rights: Rights, wait: bool) -> Answer:
        check_path(path)
        host: _Host = cast(Any, self.obj_cap()).host
        question = _Question(host, rights)
        found = self._look(path, question)
        if not isinstance(found, _Place):
            return found
        if not wait:
            raise _nothing_yet(found)
        try:
            question = question._replace(reply=host.take_reply())
        except InvalidArgument as error:
            raise TryAgain(f"{found.path!r} has no object, and cannot be waited for: {error}") from None
        self._wait(path, question)
        return None

    def _register(self, name: str, number: int, rights: int, caps: tuple[Capability | None, ...]) -> None:
        check_name(name)
        flags = NsFlags(number)
        handed = rights_of(flags) if rights & Rights.S else rights_of(flags) & ~Rights.S
        if len(caps) > 1:
            raise InvalidArgument(f"a name has one object, not {len(caps)}")
        cap = caps[0] if caps else None
        if cap is not None:
            check_kind(cap, handed)
            if not plenty_left(cap.fileno()) and not self._swept():
                raise OutOfMemory("this namespace's process has few descriptors left")
        self._put(name, _Entry(cap, None, handed), bool(flags & NsFlags.OVERWRITE))

    def _list(self, stream: bytes) -> Answer:
        source = Reader(stream)
        source.scalar(OPCODE)
        after = codec_for(str).get(source)
        page: list[NamespaceEntry] = []
        size = 0
        for entry in self._after(after):
            page.append(entry)
            size += len(entry.name.encode()) + _BESIDE
            if size >= _PAGE:
                break
        out = Writer()
        codec_for(list[NamespaceEntry]).put(out, page)
        return 0, b"", out.words(), ()

    def _after(self, name: str) -> Iterable[NamespaceEntry]:
        """Return the entries behind a name, in their order."""
        with self._lock:
            self._sweep()
            return [
                NamespaceEntry(
                    each,
                    "namespace" if entry.space is not None else "" if entry.cap is None else entry.cap.kind,
                    entry.rights,
                )
                for each, entry in sorted(self._entries.items())
                if each > name
            ]

    def __repr__(self) -> str:
        return f"<NamespaceServer with {len(self._entries)} names>"


def _nothing_yet(place: _Place) -> TryAgain:
    return TryAgain(f"{place.name!r} is registered and has no object yet")
