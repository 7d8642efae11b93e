"""Owners: who closes a capability, when that is to be said apart from the capability itself.

A capability closes itself when nothing refers to it, and ``dup()`` makes one for a second owner. These are for
programs that hand the one capability around, as L4Re's do with `Unique_cap` and `Shared_cap`: a second owner costs
no descriptor.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Generic, Self, TypeVar

from l4re.cap.capability import Capability
from l4re.closing import Closing
from l4re.errors import Closed

__all__ = ["SharedCap", "UniqueCap"]

C = TypeVar("C", bound=Capability)


class UniqueCap(Closing, Generic[C]):
    """Owns one capability and closes it at the end of its ``with`` block, unless it was released (``Unique_cap``).

    For one thread.
    """

    __slots__ = ("_cap",)

    def __init__(self, cap: C) -> None:
        """Take ``cap``."""
        self._cap: C | None = cap

    def get(self) -> C:
        """Return the capability, lent.

        Raises:
            Closed: it was released or closed.
        """
        if self._cap is None:
            raise Closed("this owner has no capability any more")
        return self._cap

    def release(self) -> C:
        """Give the capability away: the caller owns it.

        Raises:
            Closed: it was released or closed.
        """
        cap = self.get()
        self._cap = None
        return cap

    def reset(self, cap: C | None = None) -> None:
        """Close the capability, and take ``cap`` in its place."""
        old, self._cap = self._cap, cap
        if old is not None and old is not cap:
            old.close()

    def close(self) -> None:
        """Close the capability. A second call does nothing."""
        self.reset()

    def __bool__(self) -> bool:
        return self._cap is not None

    def __repr__(self) -> str:
        return f"<UniqueCap {self._cap!r}>"


class SharedCap(Generic[C]):
    """One capability with several owners, the last of whom closes it (``Shared_cap``). Thread-safe.

    Each owner calls :meth:`release` once, or :meth:`take` and hands on what it is. Who leaves a ``with`` block has
    released.
    """

    __slots__ = ("_cap", "_lock", "_owners")

    def __init__(self, cap: C) -> None:
        """Take ``cap``; the caller is its first owner."""
        self._cap = cap
        self._owners = 1
        self._lock = threading.Lock()

    @property
    def owners(self) -> int:
        """How many there are."""
        return self._owners

    def get(self) -> C:
        """Return the capability, lent.

        Raises:
            Closed: its last owner has released it.
        """
        if not self._owners:
            raise Closed("the last owner of this capability has released it")
        return self._cap

    def take(self) -> Self:
        """Become one more owner, and return this.

        Raises:
            Closed: its last owner has released it.
        """
        with self._lock:
            self.get()
            self._owners += 1
        return self

    def release(self) -> bool:
        """Be an owner no more; True if that was the last one, and the capability is closed.

        One release too many changes nothing.
        """
        with self._lock:
            if not self._owners:
                return False
            self._owners -= 1
            if self._owners:
                return False
        self._cap.close()
        return True

    def __enter__(self) -> C:
        return self.get()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<SharedCap of {self._owners} owners {self._cap!r}>"
