"""Arithmetic of address ranges, and a table of ranges that do not overlap.

Addresses are integers, ranges are half open: ``[start, end)``. Nothing here knows memory; the region map
turns these answers into mappings.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["RangeTable", "page_ceil", "page_floor"]

T = TypeVar("T")


def page_floor(address: int, page: int) -> int:
    """Round down to the start of a page."""
    return address - address % page


def page_ceil(address: int, page: int) -> int:
    """Round up to the start of a page."""
    return -(-address // page) * page


class RangeTable(Generic[T]):
    """Ranges by address: look-up by bisection, one entry for each range.

    Not thread-safe by itself. But a finalizer or a signal handler may run in the middle of a method and change
    the table (the owner's lock lets the same thread in), so a position found is never used without a second look.
    """

    __slots__ = ("_changes", "_entries", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._entries: dict[int, tuple[int, T]] = {}
        self._changes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, start: int, end: int, item: T) -> None:
        """Enter a range.

        Raises:
            ValueError: it is empty or overlaps one that is there.
        """
        if start >= end:
            raise ValueError(f"empty range {start:#x}-{end:#x}")
        starts = self._starts
        if starts and (there := self._first(start)) is not None and there[0] < end:
            raise ValueError(f"{start:#x}-{end:#x} overlaps {there[0]:#x}-{there[1]:#x}")
        self._changes += 1
        self._entries[start] = (end, item)
        insort(starts, start)

    def remove(self, start: int, item: T) -> bool:
        """Take out the range that begins at ``start`` if it is ``item``'s; return whether it was there."""
        entry = self._entries.get(start)
        if entry is None or entry[1] is not item:
            return False
        self._changes += 1
        del self._entries[start]
        starts = self._starts
        index = bisect_left(starts, start)
        try:
            if starts[index] == start:
                del starts[index]
                return True
        except IndexError:
            pass
        starts.remove(start)
        return True

    def at(self, address: int) -> T | None:
        """Return what covers an address."""
        there = self._first(address)
        return there[2] if there is not None and there[0] <= address else None

    def overlapping(self, start: int, end: int) -> Iterator[T]:
        """Yield what lies in a range, in the order of addresses."""
        at = start
        while (there := self._first(at)) is not None and there[0] < end:
            yield there[2]
            at = there[1]

    def since(self, address: int = 0) -> list[T]:
        """Return everything that ends behind ``address``, in the order of addresses."""
        while True:
            changes = self._changes
            first = self._first(address)
            if first is None:
                return []
            starts = self._starts[bisect_left(self._starts, first[0]) :]
            found = [entry[1] for start in starts if (entry := self._entries.get(start)) is not None]
            if changes == self._changes:
                return found

    def _first(self, address: int) -> tuple[int, int, T] | None:
        """The first range that ends behind ``address``."""
        while True:
            changes = self._changes
            try:
                index = bisect_right(self._starts, address)
                if index:
                    start = self._starts[index - 1]
                    end, item = self._entries[start]
                    if end > address:
                        found: tuple[int, int, T] | None = (start, end, item)
                        if changes == self._changes:
                            return found
                        continue
                if index == len(self._starts):
                    found = None
                else:
                    start = self._starts[index]
                    end, item = self._entries[start]
                    found = (start, end, item)
            except (IndexError, KeyError):
                continue
            if changes == self._changes:
                return found
