"""Ports, seen from the server: who may call, with which label and rights, and who gave it to them.

A client's claims end here. Label and rights are the server's own record; a
derived port inherits the label and at most the rights of the one it came from.
The tree of derivations is what revocation cuts.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from l4re._native import leaf
from l4re.errors import Err
from l4re.linux.fd import Fd, take
from l4re.rights import Rights
from l4re.wire.port import PortKind, PortMessage, pack_refusal

if TYPE_CHECKING:
    from l4re.interface import Served
    from l4re.server.loop import RegistryServer

__all__ = ["Binding", "Port", "PortInfo"]

#: Messages of one port handled before others have their turn.
ROUND = 64

_SESSION_SEALS = 0x0002 | 0x0004  # F_SEAL_SHRINK | F_SEAL_GROW
_WRITE_SEALS = 0x0008 | 0x0010  # F_SEAL_WRITE | F_SEAL_FUTURE_WRITE


@dataclass(frozen=True, slots=True)
class PortInfo:
    """What the server knows of one holder. ``parent`` is the port it was derived from (its ``id``), or None."""

    id: int
    label: int
    rights: Rights
    parent: int | None
    sessions: int
    requests: int


class Binding:
    """One registered object and everything through which it can be reached."""

    __slots__ = ("__weakref__", "object", "ports", "serve", "server")

    def __init__(self, server: RegistryServer, obj: Served) -> None:
        self.server = server
        self.object = obj
        self.serve = obj.serve_request
        self.ports: dict[int, Port] = {}

    def open(
        self, end: Fd, label: int, rights: Rights, *, parent: Port | None = None, owner: bool = False, counts: bool = True
    ) -> Port:
        """Take the server end of a port in."""
        port = Port(self, end, label, rights, parent, owner=owner, counts=counts)
        self.ports[port.id] = port
        return port

    def close(self) -> None:
        """Close every port: the object is out of reach."""
        for port in list(self.ports.values()):
            port.close()


class Port:
    """One server end, watched by the loop."""

    __slots__ = (
        "binding", "children", "counts", "depth", "end", "id", "label", "low", "owner", "parent", "rights", "sessions",
        "source",
    )  # fmt: skip

    _ids = itertools.count(1)

    def __init__(
        self, binding: Binding, end: Fd, label: int, rights: Rights, parent: Port | None, *, owner: bool, counts: bool
    ) -> None:
        self.binding = binding
        self.end = end
        self.id = next(Port._ids)
        self.label = label
        self.rights = rights
        #: What ``dispatch`` sees: W and S, the low two bits of the label (reference, section 4).
        self.low = int(rights) & 3
        self.parent = parent
        self.depth = 0 if parent is None else parent.depth + 1
        #: An owner port mints; calls over it are not served.
        self.owner = owner
        #: Whether it is a holder: the server's own ends are not.
        self.counts = counts and not owner
        self.children: set[Port] = set()
        self.sessions: set[leaf.Source] = set()
        self.source = binding.server._leaf.watch(end.fileno(), self)
        if parent is not None:
            parent.children.add(self)
        if self.counts:
            binding.server._held(1)

    # ---- what the holder sends ----

    def ready(self) -> None:
        """Handle what is queued; at its end, go."""
        for _ in range(ROUND):
            try:
                said = leaf.recv(self.end.fileno())
            except OSError:
                self.close()  # truncated: more than any honest holder sends
                return
            if said is None:
                return
            data, numbers = said
            if not data:
                self.gone()
                return
            fds = take(numbers, guarded=True)
            message = PortMessage.unpack(data, len(fds))
            if message is None or not self._obey(message, fds):
                for fd in fds:
                    fd.close()
                if message is None:
                    self.close()
                    return

    def _obey(self, message: PortMessage, fds: tuple[Fd, ...]) -> bool:
        """Do what is asked; False: it was refused, and the descriptors are to be closed."""
        if message.kind is PortKind.SESSION:
            return self._accept(*fds)
        if leaf.what(fds[0].fileno()) != "seqpacket" or (message.kind is PortKind.MINT) != self.owner:
            return False
        limits = self.binding.server.limits
        if len(self.binding.ports) >= limits.ports:
            return self._refuse(fds[0], f"the object has {limits.ports} ports, its limit")
        if self.depth >= limits.depth:
            return self._refuse(fds[0], f"the capability was handed on {limits.depth} times, the limit")
        if message.kind is PortKind.MINT:
            self.binding.open(fds[0], message.label & ~3, Rights(message.rights))
        else:
            self.binding.open(fds[0], self.label, self.rights & Rights(message.rights), parent=self)
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
        if not sound or self.owner:
            return self._refuse(socket, "what arrived is not a session", Err.EINVAL)
        if len(self.sessions) >= limits.sessions:
            return self._refuse(socket, f"{limits.sessions} threads call over one capability, its limit")
        try:
            source = self.binding.server._leaf.accept(socket.fileno(), memfd.fileno(), self)
        except (OSError, ValueError) as error:
            return self._refuse(socket, f"the session page cannot be used: {error}", Err.EINVAL)
        socket.detach()
        memfd.close()
        self.sessions.add(source)
        if self.counts:
            self.binding.server._held(1)
        return True

    @staticmethod
    def _refuse(end: Fd, why: str, code: Err = Err.ENOMEM) -> bool:
        try:
            leaf.send(end.fileno(), pack_refusal(code, why))
        except OSError:
            pass
        return False

    # ---- ends ----

    def session_ended(self, source: leaf.Source) -> None:
        """A session is over: its thread ended, or it broke the protocol."""
        if source in self.sessions:
            self.sessions.discard(source)
            source.close()
            if self.counts:
                self.binding.server._held(-1)
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
                self.binding.server._held(-1)

    def _reap(self) -> None:
        """Leave the tree once nothing is left of this port; its children hang on to its parent."""
        if not self.end.closed or self.sessions or self.id not in self.binding.ports:
            return
        del self.binding.ports[self.id]
        if self.parent is not None:
            self.parent.children.discard(self)
            self.parent.children.update(self.children)
        for child in self.children:
            child.parent = self.parent
        self.children = set()
        if self.counts:
            self.binding.server._client_gone(self.binding)

    def close(self) -> None:
        """Cut this port, its sessions and every port derived from it."""
        for child in list(self.children):
            child.close()
        for source in list(self.sessions):
            self.session_ended(source)
        self._shut()
        self._reap()

    def info(self) -> PortInfo:
        """What the registry tells of it."""
        parent: Any = self.parent.id if self.parent is not None else None
        requests = sum(source.requests for source in self.sessions)
        return PortInfo(self.id, self.label, self.rights, parent, len(self.sessions), requests)
