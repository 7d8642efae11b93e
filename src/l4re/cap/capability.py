"""The base of every capability.

A capability object *is* the capability: closing it drops it, and whoever uses
it afterwards gets :class:`~l4re.errors.Closed`. Nothing else holds the right.
"""

from __future__ import annotations

from collections.abc import Hashable
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Self

from l4re.errors import Closed, PermissionDenied
from l4re.rights import Rights

if TYPE_CHECKING:
    from l4re.cap.transfer import Export

__all__ = ["AtMost", "Capability"]


class Capability:
    """Something this process was handed, with the rights it carries.

    Every capability is a context manager; leaving the block closes it. Dropping
    the last reference closes it too.
    """

    __slots__ = ("__weakref__",)

    kind: ClassVar[str] = "capability"

    @property
    def rights(self) -> Rights:
        """What the holder may do, in L4Re's letters: W 1, S 2, R 4, D 8."""
        raise NotImplementedError

    @property
    def closed(self) -> bool:
        """Whether the capability was dropped."""
        raise NotImplementedError

    def close(self) -> None:
        """Drop the capability; a second call does nothing."""
        raise NotImplementedError

    def fileno(self) -> int:
        """Return the descriptor that stands for it, lent; :class:`Closed` afterwards."""
        raise NotImplementedError

    @property
    def gone(self) -> bool:
        """Whether nobody is left behind it: the server of a gate, the receiver of an IRQ. Memory never goes so."""
        return False

    def dup(self) -> Self:
        """Return a capability of the caller's own to the same object, with the same rights."""
        raise NotImplementedError

    def dup_local(self) -> Self:
        """Return one that stays in this process: to what is served here, it keeps nobody's loop from ending."""
        return self.dup()

    def export(self, rights: Rights | None = None) -> Export:
        """Prepare a hand-over to another process, weakened to ``rights``.

        Rights this capability lacks are dropped silently, as in L4Re: they only
        shrink on the way. The caller sends
        the descriptors and then calls ``done()`` or ``failed()``.
        """
        raise NotImplementedError

    def m(self, rights: Rights | str) -> AtMost:
        """Return this capability to be handed over with at most these rights, as in ned's ``cap:m("rw")``; it is lent.

        Raises:
            InvalidArgument: letters that name no rights.
        """
        return AtMost(self, Rights.parse(rights) if isinstance(rights, str) else rights)

    def _key(self) -> Hashable:
        """Return what this process can know of the object's identity."""
        raise NotImplementedError

    def require(self, wanted: Rights) -> None:
        """Raise :class:`PermissionDenied` unless every right in ``wanted`` is held."""
        if wanted & ~self.rights:
            raise PermissionDenied(wanted=wanted, held=self.rights)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Capability) or self.kind != other.kind or self.closed or other.closed:
            return False
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self.kind)

    def __enter__(self) -> Self:
        if self.closed:
            raise Closed(f"this {self.kind} is closed")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} closed>" if self.closed else f"<{type(self).__name__} {self.rights.letters()}>"


class AtMost(Capability):
    """A capability about to be handed over, lent by its owner: what arrives carries no more than ``rights``."""

    __slots__ = ("_cap", "_most")

    def __init__(self, cap: Capability, rights: Rights) -> None:
        self._cap = cap
        self._most = rights

    @property
    def rights(self) -> Rights:
        return self._cap.rights & self._most

    @property
    def closed(self) -> bool:
        return self._cap.closed

    def close(self) -> None:
        """Nothing: it is lent."""

    def fileno(self) -> int:
        return self._cap.fileno()

    @property
    def gone(self) -> bool:
        return self._cap.gone

    @property
    def cap(self) -> Capability:
        """The capability itself, lent."""
        return self._cap

    @property
    def most(self) -> Rights:
        """The rights that are handed over at most."""
        return self._most

    def export(self, rights: Rights | None = None) -> Export:
        return self._cap.export(self._most if rights is None else self._most & rights)

    def _key(self) -> Hashable:
        return self._cap._key()
