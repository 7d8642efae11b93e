"""Semaphores of multiprocessing between processes that it did not start."""

from __future__ import annotations

from multiprocessing import get_context
from multiprocessing.synchronize import Lock, Semaphore, SemLock
from typing import Any

__all__ = ["made", "made_lock", "said", "taken", "taken_lock"]

#: Its semaphores keep their names, so that others can open them; they go with who made them.
_CONTEXT = get_context("spawn")


def made(value: int = 0) -> Semaphore:
    """Make a semaphore."""
    return _CONTEXT.Semaphore(value)


def made_lock() -> Lock:
    """Make a lock."""
    return _CONTEXT.Lock()


def said(semaphore: SemLock) -> list[int | str]:
    """Return what another process takes it by, as a process that multiprocessing spawns gets it."""
    lock: Any = semaphore._semlock  # type: ignore[attr-defined]
    return [-1, lock.kind, lock.maxvalue, lock.name]


def _taken(kind: Any, state: list[int | str]) -> Any:
    semaphore = kind.__new__(kind)
    semaphore.__setstate__(state)
    return semaphore


def taken(state: list[int | str]) -> Semaphore:
    """Open a semaphore."""
    semaphore: Semaphore = _taken(Semaphore, state)
    return semaphore


def taken_lock(state: list[int | str]) -> Lock:
    """Open a lock."""
    lock: Lock = _taken(Lock, state)
    return lock
