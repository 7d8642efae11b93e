"""Channels: a gate and the right to serve it.

Receive rights move: handing a :class:`Svr` over closes it here, so that the
server's end of life is the end of its process, whoever made the channel.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import ClassVar, NamedTuple, Self

from l4re._native import leaf
from l4re.cap import AtMost, Capability, Export, register_kind
from l4re.errors import Busy, Closed, Exists, InvalidArgument, OutOfRange
from l4re.gate.gate import Gate
from l4re.gate.link import Link
from l4re.linux.ends import sockets
from l4re.linux.fd import Fd
from l4re.rights import Rights
from l4re.wire.items import ItemKind
from l4re.wire.port import PortKind, PortMessage

__all__ = ["Channel", "Minter", "Svr", "check_label", "new_channel"]

#: What a server offers for a bound receive right: make a port with this label and these rights.
Minter = Callable[[int, Rights], Gate]


def check_label(label: int) -> None:
    """Raise unless ``label`` can be one: 64 bits, the low two free for rights."""
    if not 0 <= label < 2**64:
        raise OutOfRange(f"a label has 64 bits, {label} does not fit")
    if label & 3:
        raise InvalidArgument(f"label {label:#x}: the low two bits must be 0, the server sees rights there")


class Svr(Capability):
    """The receive right of a gate: whoever holds it may serve it.

    Handed over it moves; ``dup()`` is explicit. Not thread-safe.
    """

    __slots__ = ("_ends", "_link", "_minter", "_mints")

    kind: ClassVar[str] = "receive right"

    def __init__(self, ends: list[tuple[Fd, bool]], link: Link | None = None) -> None:
        """Take server ends; True beside one marks it as an owner port, whose holder may mint."""
        self._ends = ends
        self._link = link or Link()
        self._mints: Fd | None = None
        self._minter: Minter | None = None

    def mint(self, label: int = 0, rights: Rights = Rights.RWS) -> Gate:
        """Return a new gate to the same object whose calls the server sees with ``label`` and ``rights``.

        Raises:
            InvalidArgument: the low two bits of ``label`` are not free.
            Busy: too many were minted before a server ran.
            OutOfMemory: no descriptors are left.
        """
        check_label(label)
        if self._minter is not None:
            return self._minter(label, rights)
        self.fileno()
        if self._mints is None:
            self._mints, end = sockets()
            self._ends.append((end, True))
        client, end = sockets()
        gate = Gate(client, rights | Rights.R, link=self._link)
        with end:
            message = PortMessage(PortKind.MINT, rights=rights | Rights.R, label=label).pack()
            if not leaf.send(self._mints.fileno(), message, (end.fileno(),)):
                raise Busy("too many gates were minted before a server took them")
        return gate

    @property
    def rights(self) -> Rights:
        return Rights.RWSD

    @property
    def bound(self) -> bool:
        """Whether a server of this process took it."""
        return self._minter is not None

    @property
    def closed(self) -> bool:
        return not self.bound and (not self._ends or self._ends[0][0].closed)

    def fileno(self) -> int:
        if self._minter is not None:
            raise Exists("a server of this process is registered for this receive right")
        if not self._ends:
            raise Closed("this receive right is closed, or it was handed over")
        return self._ends[0][0].fileno()

    def close(self) -> None:
        """Give the right up: callers get ``PeerGone`` unless a server has it. A bound one is left to its server."""
        if self._minter is None:
            for end, _ in self._ends:
                end.close()
        self._ends = []
        if self._mints is not None:
            self._mints.close()

    def dup(self) -> Self:
        """Return a second receive right: two servers will compete for sessions."""
        self.fileno()
        return type(self)([(end.dup(), owner) for end, owner in self._ends], self._link)

    def export(self, rights: Rights | None = None) -> Export:
        """Prepare to move the right; this one is closed once it was sent."""
        self.fileno()
        owners = sum(1 << at for at, (_, owner) in enumerate(self._ends) if owner)
        fds = tuple(end.fileno() for end, _ in self._ends)
        return Export(ItemKind.RECEIVE, Rights.RWSD, owners, fds, on_sent=self.close, on_task=self._link.watch)

    def bind(self, minter: Minter) -> list[tuple[Fd, bool]]:
        """Give the server ends to a server of this process, which mints from now on.

        Raises:
            Exists: another server has it.
            Closed: it was closed or handed over.
        """
        self.fileno()
        ends, self._ends = self._ends, []
        self._minter = minter
        return ends

    def _key(self) -> Hashable:
        return os.fstat(self.fileno()).st_ino

    def __repr__(self) -> str:
        return f"<Svr {'closed' if self.closed else 'bound' if self.bound else f'fd {self.fileno()}'}>"


class Channel(NamedTuple):
    """Both sides of a new gate, as ned's ``loader:new_channel()`` makes it. Leaving a block with it closes both."""

    gate: Gate
    svr: Svr

    def m(self, rights: Rights | str) -> AtMost:
        """Return the client's side, to be handed over with at most these rights; it is lent."""
        return self.gate.m(rights)

    def close(self) -> None:
        """Drop both sides."""
        self.gate.close()
        self.svr.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def new_channel() -> Channel:
    """Return a new gate and its receive right; calls queue until somebody serves it.

    Raises:
        OutOfMemory: no descriptors are left.
    """
    client, server = sockets()
    link = Link()
    return Channel(Gate(client, Rights.RWS, link=link), Svr([(server, False)], link))


def _import_svr(rights: Rights, value: int, fds: tuple[Fd, ...]) -> Svr:
    if not fds or any(leaf.what(fd.fileno()) != "seqpacket" for fd in fds):
        raise InvalidArgument("what arrived as a receive right is not the server end of a port")
    ends = []
    for at, fd in enumerate(fds):
        ends.append((Fd(fd.detach(), guarded=True), bool(value >> at & 1)))
    return Svr(ends)


register_kind(ItemKind.RECEIVE, _import_svr)
