"""Turns: one process leads, others act when it is their turn, and rest in the kernel when it is not."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ..wire import Wire

__all__ = ["Turns"]

_PAGE = 4096
_NOBODY, _END = 0, 1 << 32
_TURN, _ACTING = 0, 8  # words of the shared page: whose turn it is; for each player, whether it acts
_PATIENCE = 20.0


class Turns:
    """One process's view of them. Players count from 1."""

    def __init__(self, fds: Sequence[int]) -> None:
        memory, *self._bells = fds
        self._words = memoryview(mmap.mmap(memory, _PAGE)).cast("Q")

    @classmethod
    def share(cls, wires: Sequence[Wire], players: int) -> None:
        """Make them and hand them to everybody."""
        fds = [os.memfd_create("bench"), *(os.eventfd(0) for _ in range(players))]
        os.ftruncate(fds[0], _PAGE)
        for wire in wires:
            wire.send(fds=fds)
        for fd in fds:
            os.close(fd)

    @classmethod
    def taken(cls, wire: Wire) -> Turns:
        """Take what was shared."""
        return cls(wire.receive()[1])

    # ---- for the one who leads ----

    @contextmanager
    def turn(self, player: int) -> Iterator[None]:
        """Within the block the player acts; before and after it nobody does."""
        self._words[_TURN] = player
        os.eventfd_write(self._bells[player - 1], 1)
        self._wait(player, acting=True)
        try:
            yield
        finally:
            self._words[_TURN] = _NOBODY
            self._wait(player, acting=False)

    def _wait(self, player: int, *, acting: bool) -> None:
        deadline = time.monotonic() + _PATIENCE
        while bool(self._words[_ACTING + player]) != acting:
            time.sleep(0.001)
            if time.monotonic() > deadline:
                raise AssertionError(f"player {player} does not {'begin' if acting else 'end'}")

    def end(self) -> None:
        """There are no more turns."""
        self._words[_TURN] = _END
        for bell in self._bells:
            os.eventfd_write(bell, 1)

    # ---- for the others ----

    def of(self, player: int) -> Iterator[Callable[[], bool]]:
        """Yield, for each turn of the player's, a function that says whether it lasts."""
        words, acting = self._words, _ACTING + player

        def lasts() -> bool:
            return words[_TURN] == player

        while os.eventfd_read(self._bells[player - 1]) and words[_TURN] != _END:
            words[acting] = 1
            yield lasts
            words[acting] = 0
