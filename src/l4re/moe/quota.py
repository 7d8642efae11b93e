"""Quotas: how much memory those who share an account may hold, wherever it has gone.

An account that is opened inside another takes its limit from it at once, and gives back what is free of it when it
is closed; what is still held then stays charged to the account around it until it is gone. So nothing is promised
that is not there: all limits and charges inside an account together never exceed its own limit.
"""

from __future__ import annotations

import threading

from l4re.errors import InvalidArgument, OutOfMemory

__all__ = ["Account"]


class Account:
    """A limit in bytes, and what is charged of it. Thread-safe, as are all accounts inside one another together."""

    def __init__(self, limit: int, *, within: Account | None = None) -> None:
        """Open an account of ``limit`` bytes, taken from ``within``.

        Raises:
            InvalidArgument: a limit of 0 or less.
            OutOfMemory: more than ``within`` has left.
        """
        if limit <= 0:
            raise InvalidArgument(f"a quota is a number of bytes above 0, not {limit}")
        self.limit = limit
        self._within = within
        self._lock: threading.Lock = threading.Lock() if within is None else within._lock
        self._used = 0
        self._closed = False
        if within is not None:
            within.charge(limit)

    @property
    def used(self) -> int:
        """Bytes that are charged; of the accounts inside, their limits."""
        return self._used

    @property
    def left(self) -> int:
        """Bytes that can still be charged."""
        return 0 if self._closed else self.limit - self._used

    @property
    def closed(self) -> bool:
        """Whether nothing can be charged any more."""
        return self._closed

    def charge(self, size: int) -> None:
        """Charge ``size`` bytes.

        Raises:
            OutOfMemory: that is more than is left, or the account is closed; nothing was charged.
        """
        with self._lock:
            if size > self.left:
                raise OutOfMemory(f"wanted {size} bytes, {self.left} are left of a quota of {self.limit}")
            self._used += size

    def refund(self, size: int) -> None:
        """Take back a charge, or a part of one."""
        with self._lock:
            account: Account | None = self
            while account is not None:
                if not 0 <= size <= account._used:
                    raise InvalidArgument(f"{size} bytes cannot be given back, {account._used} are charged")
                account._used -= size
                account = account._within if account._closed else None

    def close(self) -> None:
        """Charge nothing any more, and give back what is free. A second call does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            free = self.limit - self._used
        if self._within is not None:
            self._within.refund(free)

    def __repr__(self) -> str:
        return f"<Account {self._used} of {self.limit} bytes{' closed' if self._closed else ''}>"
