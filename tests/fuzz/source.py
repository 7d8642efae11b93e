"""Choices out of bytes: the same for a fuzzer that mutates them, for hypothesis, and for a seed in a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

__all__ = ["Source"]

_T = TypeVar("_T")


class Source:
    """Reads numbers and choices from the front; beyond the end everything is 0 or empty."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """Whether anything is left."""
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        """Return at most that many bytes."""
        data = self._data[self._at : self._at + size]
        self._at += size
        return data

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def signed(self, size: int) -> int:
        return int.from_bytes(self.take(size).ljust(size, b"\0"), "little", signed=True)

    def blob(self) -> bytes:
        """Bytes with their length in front."""
        return self.take(self.number(1))

    def rest(self) -> bytes:
        return self.take(len(self._data))

    def choose(self, among: Sequence[_T]) -> _T:
        return among[self.number(1) % len(among)]
