"""The table of ranges behaves like a list that is searched from end to end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from l4re.rm.ranges import RangeTable, page_ceil, page_floor

ADDRESSES = st.integers(0, 120)


@given(address=st.integers(0, 1 << 64), page=st.sampled_from([4096, 16384, 65536]))
def test_rounding_finds_the_pages_around_an_address(address: int, page: int) -> None:
    low, high = page_floor(address, page), page_ceil(address, page)
    assert low % page == high % page == 0
    assert low <= address <= high
    assert high - low == (0 if address % page == 0 else page)


class TableAgainstList(RuleBasedStateMachine):
    """`RangeTable` beside the simplest thing that could be right."""

    def __init__(self) -> None:
        super().__init__()
        self.table: RangeTable[str] = RangeTable()
        self.model: list[tuple[int, int, str]] = []

    def hits(self, start: int, end: int) -> list[tuple[int, int, str]]:
        return [entry for entry in self.model if entry[0] < end and start < entry[1]]

    @rule(start=ADDRESSES, size=st.integers(0, 20), name=st.text("ab", max_size=2))
    def add(self, start: int, size: int, name: str) -> None:
        if size == 0 or self.hits(start, start + size):
            with pytest.raises(ValueError, match="empty" if size == 0 else "overlaps"):
                self.table.add(start, start + size, name)
            return
        self.table.add(start, start + size, name)
        self.model = sorted([*self.model, (start, start + size, name)])

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.model))
        assert self.table.remove(entry[0]) == entry[2]
        self.model.remove(entry)

    @rule(start=ADDRESSES)
    def remove_what_may_be_missing(self, start: int) -> None:
        if all(entry[0] != start for entry in self.model):
            with pytest.raises(KeyError):
                self.table.remove(start)

    @rule(start=ADDRESSES, size=st.integers(0, 60))
    def look(self, start: int, size: int) -> None:
        assert list(self.table.overlapping(start, start + size)) == (self.hits(start, start + size) if size else [])
        assert self.table.at(start) == next(iter(self.hits(start, start + 1)), None)
        assert self.table.since(start) == [entry for entry in self.model if entry[1] > start]

    @rule(start=ADDRESSES, size=st.integers(1, 60))
    def clear_while_looking(self, start: int, size: int) -> None:
        for begin, _, _ in self.table.overlapping(start, start + size):
            self.table.remove(begin)
        for entry in self.hits(start, start + size):
            self.model.remove(entry)

    @invariant()
    def same_contents(self) -> None:
        assert self.table.since() == self.model
        assert len(self.table) == len(self.model)


TestTableAgainstList = TableAgainstList.TestCase
