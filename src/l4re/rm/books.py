"""What is mapped where, by address: the books of a region map.

What is mapped is only noted, in a queue that takes no lock, and entered into the table when somebody looks. So
what lives briefly costs next to nothing. That a mapping was cut or is gone is not noted at all: every answer is
compared with the mapping itself, and whatever overlaps one that is mapped cannot be mapped itself, so it is taken
out when the new one is entered.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import islice
from threading import RLock
from typing import Any, Generic, ParamSpec, TypeVar

from l4re.linux.memfd import Mapping
from l4re.rm.ranges import RangeTable

__all__ = ["Books"]

M = TypeVar("M", bound=Mapping)
R = TypeVar("R")
P = ParamSpec("P")

_MANY_NOTES = 64
_all: weakref.WeakSet[Books[Any]] = weakref.WeakSet()


@cache
def _renew_in_children() -> None:
    """See to it that a forked child can use its books even if another thread held a lock at that moment."""
    os.register_at_fork(after_in_child=_renew_all)


def _renew_all() -> None:
    for each in _all:
        each.lock = RLock()
        each._busy = False


class Books(Generic[M]):
    """Mappings by address, referred to weakly.

    All methods may be called from several threads, from signal handlers and from finalizers. Whoever cuts a mapping
    holds ``lock`` and notes it once more.
    """

    __slots__ = ("__weakref__", "_busy", "_notes", "_sweep_at", "_table", "lock")

    def __init__(self) -> None:
        self._table: RangeTable[weakref.ref[M]] = RangeTable()
        self._notes: deque[weakref.ref[M]] = deque()
        self._sweep_at = _MANY_NOTES
        self._busy = False
        self.lock = RLock()
        _all.add(self)
        _renew_in_children()

    def __len__(self) -> int:
        """Return how many entries and notes there are, those of what is gone included."""
        return len(self._table) + len(self._notes)

    def note(self, mapping: M) -> None:
        """Take down that this is mapped."""
        self._notes.append(weakref.ref(mapping))
        if len(self._notes) > _MANY_NOTES:
            self._look(len, self._notes)

    def at(self, address: int) -> M | None:
        """Return what covers an address."""
        there = self._look(self._table.at, address)
        entries = list(self._notes) if there is None else [there[2], *self._notes]
        return next(_reaching(entries, address, address + 1), None)

    def since(self, start: int) -> list[M]:
        """Return all that end behind ``start``, in the order of their addresses."""
        there = self._look(self._table.since, start)
        # Still on notes: those of other threads just now, or all of them inside a signal handler.
        entries = [*(entry for *_, entry in there), *self._notes]
        found = {mapping.address: mapping for mapping in _reaching(entries, start)}
        return [found[address] for address in sorted(found)]

    def first_two(self, start: int, end: int) -> list[M]:
        """Return the two lowest that share an address with ``[start, end)``, or what there is of them."""
        found = self._look(self._overlapping, start, end)
        if self._notes:
            return [mapping for mapping in self.since(start) if mapping.address < end][:2]
        return found

    def _overlapping(self, start: int, end: int) -> list[M]:
        entries = (entry for *_, entry in self._table.overlapping(start, end))
        return list(islice(_reaching(entries, start, end), 2))

    def _look(self, look: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Return what ``look`` says when the table is up to date and stands still.

        A signal handler or finalizer in the middle of that finds the table as it is, and the rest on the notes.
        """
        with self.lock:
            if self._busy:
                return look(*args, **kwargs)
            try:
                self._busy = True
                self._read_notes()
                return look(*args, **kwargs)
            finally:
                self._busy = False

    def _read_notes(self) -> None:
        """Bring the table up to date; the caller holds the lock and says that it is busy."""
        while self._notes:
            self._enter(self._notes[0])
            self._notes.popleft()  # only then: a handler finds it here or there
        if len(self._table) > self._sweep_at:
            for start, _, entry in self._table.since():
                if (mapping := entry()) is None or not mapping.mapped:
                    self._table.remove(start)
            self._sweep_at = 2 * len(self._table) + _MANY_NOTES

    def _enter(self, entry: weakref.ref[M]) -> None:
        mapping = entry()
        if mapping is None or not mapping.mapped:
            return
        start = mapping.address
        end = start + mapping.mapped_size
        for old, _, _ in self._table.overlapping(start, end):
            self._table.remove(old)
        self._table.add(start, end, entry)


def _reaching(entries: Iterable[weakref.ref[M]], start: int, end: int | None = None) -> Iterator[M]:
    """Yield those that are mapped and have an address in the range; the entries may be older than a cut."""
    for entry in entries:
        mapping = entry()
        if (
            mapping is not None
            and mapping.mapped
            and mapping.address + mapping.mapped_size > start
            and (end is None or mapping.address < end)
        ):
            yield mapping
