"""Calling an object of this process.

In the thread that runs the loop (or while nobody runs it) an object is called
directly: waiting for oneself would never end. From another thread a call goes
through a session like any other, so that the object keeps its one thread.
"""

from __future__ import annotations

import weakref
from threading import get_ident
from typing import TYPE_CHECKING, Any, Self

from l4re._native import leaf
from l4re.cap import Export, export_all, import_all
from l4re.errors import Closed, PeerGone
from l4re.gate.channel import check_label
from l4re.gate.gate import Answer, Gate, Message
from l4re.gate.threads import CallPath
from l4re.linux.ends import sockets
from l4re.linux.fd import Fd, dup_all
from l4re.rights import Rights
from l4re.server.ports import Binding
from l4re.server.replies import Caller, Serving, serving
from l4re.wire.items import ItemKind, join_items, split_items

if TYPE_CHECKING:
    from l4re.interface import Served
    from l4re.server.loop import RegistryServer

__all__ = ["DirectPath", "LocalGate"]

_WHY_NOT = "the caller is the thread that serves it, which waits for the answer here; none can be given later"


class DirectPath:
    """A call path that runs the object in the calling thread.

    Capabilities take the same way as between processes: exported, duplicated, imported; so what arrives is
    owned by whoever received it, and no right appears on the way.
    """

    def __init__(self, binding: Binding, caller: Caller) -> None:
        self._binding = weakref.ref(binding)
        self._caller = caller

    def call(self, label: int, words: bytes, data: Any, items: int, fds: Any, timeout_ns: int, flags: int, /) -> object:
        """Serve one message now."""
        binding = self._binding()
        if binding is None or binding.gone or binding.server.closed:
            return leaf.GONE
        if binding.server._runs_elsewhere():
            return leaf.STALE
        words, tail = split_items(words, items)
        caps = import_all(tail, dup_all(fds or ())) if items else ()
        before = serving.set(Serving(binding.server, self._caller, None, _WHY_NOT))
        try:
            answer = binding.server._answer(binding, int(self._caller.rights) & 3, label, words, bytes(data), caps)
        finally:
            serving.reset(before)
        if flags & leaf.ONE_WAY:
            return 0
        if answer is None:
            return leaf.RECEIVE_TIMEOUT  # no reply will ever come, and nobody else could send one
        label, words, data, out = answer
        if not out:
            return label, words + bytes(-len(words) % 8), data, ()
        payload, numbers, exports = export_all(out)
        received = dup_all(numbers)
        for export in exports:
            export.done()
        return label, join_items(words, payload), data, (len(out), received)

    def close(self) -> None:
        """Nothing is held."""


class LocalGate(Gate):
    """What ``register_obj`` returns: the capability to an object of this process.

    It is no holder: the loop can become orphaned while it exists. Handed out it becomes a fresh port.
    """

    __slots__ = ("_binding", "_gone")

    def __init__(self, binding: Binding) -> None:
        super().__init__(None, Rights.RWSD)
        self._binding = binding
        self._gone = False

    def _open(self, deadline: int | None) -> CallPath:
        self._check()
        if self._binding.server._runs_elsewhere():
            if self._port is None:
                self._port = self._new_port(self._rights, counts=False)
            return super()._open(deadline)
        return DirectPath(self._binding, Caller(0, self._rights, 0))

    def call(self, *args: Any, **options: Any) -> Message:
        self._settle()
        return super().call(*args, **options)

    def transact(self, *args: Any, **options: Any) -> Answer:
        self._settle()
        return super().transact(*args, **options)

    def _settle(self) -> None:
        """Take no session to a loop that nobody runs any more."""
        session = self._sessions.get(get_ident())
        if isinstance(session, leaf.Session) and not self._binding.server._runs_elsewhere():
            self._forget(session)

    def _check(self) -> None:
        if self._gone:
            raise Closed("this gate is closed")
        if self._binding.server.closed:
            raise Closed("the server of this object is closed")
        if self._binding.gone:
            raise self._refusal()

    def _refusal(self) -> Exception:
        return PeerGone(self._binding.gone) if self._binding.gone else super()._refusal()

    def _new_port(self, rights: Rights, *, label: int = 0, counts: bool = True) -> Fd:
        gate, end = sockets()
        self._binding.open(end, label, rights, counts=counts)
        return gate

    def mint(self, label: int = 0, rights: Rights = Rights.RWS) -> Gate:
        """Return a new gate to this object whose calls the server sees with ``label`` and ``rights``."""
        self._check()
        check_label(label)
        rights |= Rights.R
        return Gate(self._new_port(rights, label=label), rights)

    @property
    def host(self) -> RegistryServer:
        """The server of the object."""
        return self._binding.server

    @property
    def object(self) -> Served:
        """The object itself."""
        return self._binding.object

    @property
    def gone(self) -> bool:
        return bool(self._binding.gone) or self._binding.server.closed

    @property
    def closed(self) -> bool:
        return self._gone or self._binding.server.closed

    def fileno(self) -> int:
        self._check()
        if self._port is None:
            self._port = self._new_port(self._rights, counts=False)
        return self._port.fileno()

    def close(self) -> None:
        self._gone = True
        super().close()

    def dup(self) -> Self:
        self._check()
        return type(self)(self._binding)

    def export(self, rights: Rights | None = None) -> Export:
        self._check()
        weaker = self._rights if rights is None else self._rights & (rights | Rights.R)
        client = self._new_port(weaker)
        return Export(ItemKind.GATE, weaker, 0, (client.fileno(),), owned=(client,))

    def _key(self) -> Any:
        return id(self._binding)

    def __repr__(self) -> str:
        if self.closed:
            return "<Gate closed>"
        return f"<Gate {self._rights.letters()} local, to {type(self._binding.object).__name__}>"
