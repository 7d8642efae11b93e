"""Accounts: what is taken is given back, and nothing is promised twice."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from l4re import InvalidArgument, OutOfMemory
from l4re.moe.quota import Account


def test_an_account_inside_another_takes_its_limit_at_once_and_gives_it_back() -> None:
    root = Account(100)
    inner = Account(60, within=root)
    assert (root.used, root.left, inner.left) == (60, 40, 60)
    with pytest.raises(OutOfMemory, match="wanted 41 bytes, 40 are left of a quota of 100"):
        Account(41, within=root)
    inner.charge(25)
    inner.close()
    assert root.used == 25, "what is held stays charged"
    with pytest.raises(OutOfMemory):
        inner.charge(1)
    inner.refund(25)
    assert root.used == 0
    inner.close()
    assert root.used == 0


@pytest.mark.parametrize("limit", [0, -1])
def test_a_quota_is_above_zero(limit: int) -> None:
    with pytest.raises(InvalidArgument):
        Account(limit)


def test_more_than_was_charged_is_not_given_back() -> None:
    account = Account(10)
    account.charge(3)
    with pytest.raises(InvalidArgument):
        account.refund(4)
    assert account.used == 3


class Bank(RuleBasedStateMachine):
    """Accounts inside accounts, against a list of who holds what."""

    def __init__(self) -> None:
        super().__init__()
        self.accounts = [Account(1000)]
        self.inside: dict[int, int] = {}
        self.held: list[tuple[int, int]] = []

    def expected(self, index: int) -> int:
        """Charges of this account, those it took over from closed ones included, and open limits inside."""
        used = sum(size for where, size in self.held if where == index)
        for inner, outer in self.inside.items():
            if outer == index:
                used += self.expected(inner) if self.accounts[inner].closed else self.accounts[inner].limit
        return used

    @rule(data=st.data(), limit=st.integers(1, 400))
    def open(self, data: st.DataObject, limit: int) -> None:
        outer = data.draw(st.integers(0, len(self.accounts) - 1))
        fits = limit <= self.accounts[outer].left
        try:
            account = Account(limit, within=self.accounts[outer])
        except OutOfMemory:
            assert not fits
        else:
            assert fits
            self.inside[len(self.accounts)] = outer
            self.accounts.append(account)

    @rule(data=st.data(), size=st.integers(1, 300))
    def charge(self, data: st.DataObject, size: int) -> None:
        index = data.draw(st.integers(0, len(self.accounts) - 1))
        fits = size <= self.accounts[index].left
        try:
            self.accounts[index].charge(size)
        except OutOfMemory:
            assert not fits
        else:
            assert fits
            self.held.append((index, size))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def refund(self, data: st.DataObject) -> None:
        index, size = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        self.accounts[index].refund(size)

    @precondition(lambda self: len(self.accounts) > 1)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        self.accounts[data.draw(st.integers(1, len(self.accounts) - 1))].close()

    @invariant()
    def everything_is_accounted_for(self) -> None:
        for index, account in enumerate(self.accounts):
            assert account.used == self.expected(index)
            assert 0 <= account.used <= account.limit


TestBank = Bank.TestCase
