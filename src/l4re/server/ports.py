"""Ports, seen from the server: who may call, with which label and rights, and who gave it to them.

A client's claims end here. Label and rights are the server's own record; a
derived port inherits the label and at most the rights of the one it came from.
The tree of derivations is what revocation cuts.
"""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

from l4re._native import leaf
from l4re.errors import Err, IpcErr
from l4re.linux.fd import Fd, plenty_left, take
from l4re.rights import Rights
from l4re.wire.port import PortKind, PortMessage, pack_refusal

if TYPE_CHECKING:
    from l4re.interface import Served
    from l4re.server.loop import RegistryServer

__all__ = ["Binding", "Port", "PortInfo", "PortNode", "PortTree"]

#: Messages of one port handled before others have their turn: to open a session takes as long as fifty calls.
ROUND = 1

#: Rounds that empty the queue of any port, whatever is in it.
ROUNDS = 4096

_SESSION_SEALS = 0x0002 | 0x0004  # F_SEAL_SHRINK | F_SEAL_GROW
_WRITE_SEALS = 0x0008 | 0x0010  # F_SEAL_WRITE | F_SEAL_FUTURE_WRITE


class PortInfo(NamedTuple):
    """What the server knows of one holder.

    ``parent`` is the ``id`` of the port it was derived from, or None. That one may be gone already and not
    be listed any more; ``revoke`` still knows it.
    """

    id: int
    label: int
    rights: Rights
    parent: int | None
    sessions: int
    requests: int


class PortNode(NamedTuple):
    """One port, and what was derived from it. ``gone``: its holder has left, others it handed it on to have not."""

    port: PortInfo
    gone: bool
    children: tuple[PortNode, ...]

    def __str__(self) -> str:
        port = self.port
        state = "gone" if self.gone else f"{port.sessions} sessions, {port.requests} requests"
        lines = [f"port {port.id}  {port.rights.letters()}  label {port.label:#x}  {state}"]
        lines += ["  " + line for child in self.children for line in str(child).splitlines()]
        return "\n".join(lines)


class PortTree(NamedTuple):
    """Who can call an object, and from whom they have it. ``str()`` shows it line by line."""

    object: str
    roots: tuple[PortNode, ...]

    def __str__(self) -> str:
        lines = [line for root in self.roots for line in str(root).splitlines()]
        return "\n".join([self.object, *("  " + line for line in lines)])


class Binding:
    """One registered object and everything through which it can be reached."""

    __slots__ = ("__weakref__", "gone", "holders", "object", "ports", "run", "serve", "served", "server")

    def __init__(self, server: RegistryServer, obj: Served) -> None:
        self.server = server
        self.object = obj
        #: What serves a request in the thread that calls it, and what the loop calls: that, or what has a worker do it.
        self.run = obj._l4_handler()
        workers = server._workers
        self.serve = self.run if workers is None else functools.partial(workers.serve, self)
        self.ports: dict[int, Port] = {}
        self.holders = 0
        #: Requests of ports that are no more.
        self.served = 0
        #: Why nobody can call the object any more; empty while they can.
        self.gone = ""

    def open(
        self,
        end: Fd,
        label: int,
        rights: Rights,
        *,
        parent: Port | None = None,
        owner: bool = False,
        counts: bool = True,
        first: bool = False,
    ) -> Port:
        """Take the server end of a port in; ``first``: all others are derived from it, no holder's limit applies.

        Raises:
            OSError: the kernel will not watch one more; the end stays the caller's.
        """
        port = Port(self, end, label, rights, parent, owner=owner, counts=counts, first=first)
        self.ports[port.id] = port
        return port

    def held(self, change: int) -> None:
        """Count holders, here and for the server."""
        self.holders += change
        self.server._held(change)

    def close(self, why: str) -> None:
        """Close every port: the object is out of reach, and callers are told ``why``."""
        self.gone = why
        for port in list(self.ports.values()):
            port.drain()
        for port in list(self.ports.values()):
            port.close(why)


class Port:
    """One server end, watched by the loop.

    A port whose holder is gone stays in the tree while something derived from it lives: it can still be
    revoked, and handing on and leaving does not get a holder around its limit.
    """

    __slots__ = (
        "binding", "children", "counts", "depth", "end", "ended", "first", "id", "label", "low", "owner", "parent",
        "rights", "serve", "served", "sessions", "source", "used",
    )  # fmt: skip

    _ids = itertools.count(1)

    def __init__(
        self,
        binding: Binding,
        end: Fd,
        label: int,
        rights: Rights,
        parent: Port | None,
        *,
        owner: bool,
        counts: bool,
        first: bool,
    ) -> None:
        self.binding = binding
        self.serve = binding.serve
        self.end = end
        self.id = next(Port._ids)
        self.label = label
        self.rights = rights
        #: What ``dispatch`` sees: W and S, the low two bits of the label.
        self.low = int(rights) & 3
        self.parent = parent
        self.depth: int = 0 if parent is None else parent.depth + 1
        #: An owner port mints; calls over it are not served.
        self.owner = owner
        #: Whether it is a holder: the server's own ends are not.
        self.counts = counts and not owner
        self.children: set[Port] = set()
        self.sessions: set[leaf.Source] = set()
        #: Requests of sessions that ended.
        self.served = 0
        self.first = first
        #: Ports and sessions from here on down, those of holders that left included.
        self.used = 0
        #: The holder is gone, and so are its sessions.
        self.ended = False
        self.source = binding.server._leaf.watch(end.fileno(), self)
        if parent is not None:
            parent.children.add(self)
        self._use(1)
        if self.counts:
            binding.held(1)

    # ---- what the holder sends ----

    def ready(self) -> bool:
        """Handle a round of what is queued; at its end, go. True: there may be more."""
        for _ in range(ROUND):
            if self.end.closed:
                return False
            try:
                said = leaf.recv(self.end.fileno())
            except OSError:
                self._drop()  # truncated: more than any honest holder sends
                return False
            if said is None:
                return False
            data, numbers = said
            if not data:
                self.gone()
                return False
            fds = take(numbers, guarded=True)
            message = PortMessage.unpack(data, len(fds))
            if message is None or not self._obey(message, fds):
                for fd in fds:
                    fd.close()
                if message is None:
                    self._drop()
                    return False
        return True

    def drain(self) -> None:
        """Handle all that is queued now: that is bounded."""
        for _ in range(ROUNDS):
            if self.end.closed or not self.ready():
                break

    def _obey(self, message: PortMessage, fds: tuple[Fd, ...]) -> bool:
        """Do what is asked; False: it was refused, and the descriptors are to be closed."""
        if message.kind is PortKind.SESSION:
            return self._accept(*fds)
        end = fds[0]
        if leaf.what(end.fileno()) != "seqpacket":
            return False
        if (message.kind is PortKind.MINT) != self.owner:
            return self._refuse(
                end, "gates are minted by the holder of the receive right, and by nobody else", Err.EPERM
            )
        limits = self.binding.server.limits
        if len(self.binding.ports) >= limits.ports:
            return self._refuse(end, f"the object has {limits.ports} ports, its limit")
        if self.depth >= limits.depth:
            return self._refuse(end, f"the capability was handed on {limits.depth} times, the limit")
        if not self._room(end):
            return False
        try:
            if message.kind is PortKind.MINT:
                self.binding.open(end, message.label & ~3, Rights(message.rights))
            else:
                self.binding.open(end, self.label, self.rights & Rights(message.rights), parent=self)
        except OSError as error:
            return self._refuse(end, f"the server cannot watch one more port: {error.strerror}")
        return True

    def _accept(self, socket: Fd, memfd: Fd) -> bool:
        """Open a session, if the two descriptors are what the kernel says a session is made of."""
        limits = self.binding.server.limits
        try:
            size, seals, mode = leaf.memfd_info(memfd.fileno())
            sound = (
                leaf.what(socket.fileno()) == "seqpacket"
                and size == leaf.PAGE_BYTES
                and seals & _SESSION_SEALS == _SESSION_SEALS
                and not seals & _WRITE_SEALS
                and mode == 2  # O_RDWR
            )
        except OSError:
            sound = False
        if not sound:
            return self._refuse(socket, "what arrived is not a session", Err.EINVAL)
        if self.owner:
            return self._refuse(socket, "gates are minted here, nothing is called", Err.EPERM)
        if not self._room(socket):
            return False
        if len(self.sessions) >= limits.sessions:
            return self._refuse(socket, f"{limits.sessions} threads call over one capability, its limit")
        try:
            source = self.binding.server._leaf.accept(socket.fileno(), memfd.fileno(), self)
        except (OSError, ValueError) as error:
            return self._refuse(socket, f"the session page cannot be used: {error}", Err.EINVAL)
        socket.detach()
        memfd.close()
        self.sessions.add(source)
        self._use(1)
        if self.counts:
            self.binding.held(1)
        return True

    @staticmethod
    def _refuse(end: Fd, why: str, code: int = Err.ENOMEM) -> bool:
        """Say why, but to a port or a session only: a stranger's socket gets nothing in this process's name."""
        try:
            if leaf.what(end.fileno()) == "seqpacket":
                leaf.send(end.fileno(), pack_refusal(code, why))
        except OSError:
            pass
        return False

    # ---- what one holder may use ----

    def _use(self, change: int) -> None:
        port: Port | None = self
        while port is not None:
            port.used += change
            port = port.parent

    def _room(self, end: Fd) -> bool:
        """Whether there is room for one more port or session below this one; refuses ``end`` if not."""
        most = self.binding.server.limits.holder
        port: Port | None = self
        while port is not None:
            if port.used >= most and not (port.first or port.owner):
                return self._refuse(
                    end, f"a holder and those it handed the capability to use {most} ports and sessions, the limit"
                )
            port = port.parent
        if not plenty_left(end.fileno()):
            return self._refuse(end, "the server has few descriptors left")
        return True

    # ---- ends ----

    def session_ended(self, source: leaf.Source) -> None:
        """A session is over: its thread ended, or it broke the protocol."""
        if source in self.sessions:
            self.sessions.discard(source)
            self._use(-1)
            self.served += source.requests
            source.close()
            if self.counts:
                self.binding.held(-1)
            self.binding.server._client_left(source)
        self._reap()

    def gone(self) -> None:
        """The holder closed its end: nobody can open sessions or derive any more; open sessions go on."""
        self._shut()
        self._reap()

    def _shut(self) -> None:
        if not self.end.closed:
            self.source.close()
            self.end.close()
            if self.counts:
                self.binding.held(-1)

    def _reap(self) -> None:
        """Once nothing is left of this holder, say so, and leave the tree if nothing hangs below."""
        if self.ended or not self.end.closed or self.sessions:
            return
        self.ended = True
        port: Port | None = self
        while port is not None and port.ended and not port.children:
            port._use(-1)
            self.binding.served += port.served
            del self.binding.ports[port.id]
            if port.parent is not None:
                port.parent.children.discard(port)
            port = port.parent
        if self.counts:
            self.binding.server._notify(self.binding.object, "on_client_gone")
            if not (self.binding.holders or self.binding.gone):
                self.binding.server._notify(self.binding.object, "on_orphaned")

    def _drop(self) -> None:
        """Cut this holder, and none of those it handed the capability to."""
        for source in list(self.sessions):
            self.session_ended(source)
        self.gone()

    def close(self, why: str) -> None:
        """Cut this port, its sessions and every port derived from it; their callers are told ``why``."""
        below = [self]
        for port in below:  # grows as it goes
            port.drain()
            below.extend(port.children)
        for port in reversed(below):
            if not port.end.closed:
                port._refuse(port.end, why, IpcErr.ENOT_EXISTENT.code)
            port._drop()

    def info(self) -> PortInfo:
        """What the registry tells of it."""
        parent: Any = self.parent.id if self.parent is not None else None
        requests = self.served + sum(source.requests for source in self.sessions)
        return PortInfo(self.id, self.label, self.rights, parent, len(self.sessions), requests)

    def node(self) -> PortNode:
        """It and what was derived from it. The depth is limited, see `Limits`."""
        children = sorted(self.children, key=lambda port: port.id)
        return PortNode(self.info(), self.ended, tuple(child.node() for child in children))
