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
    """Ranges by address: look-up by bisection, answers as ``(start, end, item)``.

    Not thread-safe by itself. But a finalizer or a signal handler may run in the middle of a method and look too
    (its owner's lock lets the same thread in), so every step leaves a table that can be read.
    """

    __slots__ = ("_ranges", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ranges: dict[int, tuple[int, int, T]] = {}  # by start; entered before, removed after its start is

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, start: int, end: int, item: T) -> None:
        """Enter a range.

        Raises:
            ValueError: it is empty or overlaps one that is there.
        """
        if start >= end:
            raise ValueError(f"empty range {start:#x}-{end:#x}")
        for there in self.overlapping(start, end):
            raise ValueError(f"{start:#x}-{end:#x} overlaps {there[0]:#x}-{there[1]:#x}")
        self._ranges[start] = (start, end, item)
        insort(self._starts, start)

    def remove(self, start: int) -> T:
        """Take out the range that begins at ``start`` and return its item.

        Raises:
            KeyError: none does.
        """
        item = self._ranges[start][2]
        del self._starts[bisect_left(self._starts, start)]
        del self._ranges[start]
        return item

    def at(self, address: int) -> tuple[int, int, T] | None:
        """Return what covers an address."""
        index = bisect_right(self._starts, address)
        if index == 0:
            return None
        there = self._ranges[self._starts[index - 1]]
        return there if there[1] > address else None

    def since(self, address: int = 0) -> list[tuple[int, int, T]]:
        """Return every range that ends behind ``address``, in order."""
        first = self.at(address)
        starts = self._starts[bisect_left(self._starts, address if first is None else first[0]) :]
        return [self._ranges[start] for start in starts]

    def overlapping(self, start: int, end: int) -> Iterator[tuple[int, int, T]]:
        """Yield the ranges that share an address with ``[start, end)``, in order; the table may change meanwhile."""
        while start < end:
            there = self.at(start)
            if there is None:
                index = bisect_right(self._starts, start)
                if index == len(self._starts) or self._starts[index] >= end:
                    return
                there = self._ranges[self._starts[index]]
            yield there
            start = there[1]
