"""The ledger: who pays for which memory, until it is gone.

Memory is charged before it is made. It is given back when its last holder anywhere is gone, which the kernel tells;
we look when somebody asks.
"""

from __future__ import annotations

import threading
from typing import NamedTuple, Protocol

from l4re.dataspace import Dataspace
from l4re.factory import MemAlloc
from l4re.linux.memfd import PAGE_SIZE
from l4re.linux.watch import MemoryWatch

__all__ = ["Ledger", "Payer"]


class Payer(Protocol):
    """Whoever pays: an account, or several at once."""

    def charge(self, size: int) -> None:
        """Pay for ``size`` bytes, or raise `OutOfMemory`."""

    def refund(self, size: int) -> None:
        """Take ``size`` bytes back."""


class _Entry(NamedTuple):
    payer: Payer
    size: int


class Ledger:
    """Makes memory that somebody pays for. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._alloc = MemAlloc()
        self._watch = MemoryWatch()
        self._entries: dict[int, _Entry] = {}

    def __len__(self) -> int:
        """How many pieces of memory are held by somebody, as far as we have looked."""
        return len(self._entries)

    def alloc(self, size: int, payer: Payer, *, name: str) -> Dataspace:
        """Return new memory, whole pages of which ``payer`` pays for.

        Raises:
            OutOfMemory: more than the payer has, or the machine; or it cannot be watched. Nothing is charged.
            OutOfRange, InvalidArgument: as of `MemAlloc.alloc`.
        """
        self.settle()
        pages = -(-size // PAGE_SIZE) * PAGE_SIZE
        payer.charge(pages)
        try:
            ds = self._alloc.alloc(size, name=name)
            try:
                with self._lock:
                    self._entries[self._watch.add(ds.fileno())] = _Entry(payer, pages)
            except BaseException:
                ds.close()
                raise
        except BaseException:
            payer.refund(pages)
            raise
        return ds

    def settle(self) -> None:
        """Give back what nobody holds any more."""
        with self._lock:
            for number in self._watch.gone():
                payer, size = self._entries.pop(number)
                payer.refund(size)

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._watch.close()
            self._entries.clear()
