"""Counts of a server and of its objects."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ObjectStats", "ServerStats"]


class ServerStats(NamedTuple):
    """Counts of a :class:`RegistryServer`: since it was made, and of what there is now."""

    requests: int  # served
    sleeps: int
    polls: int
    spins_paid: int
    spins_failed: int
    rings: int
    hot: int  # sessions that are looked at while the loop spins
    spin_ns: int  # how long it spins at most, as it has learned
    holders: int  # ports, sessions and triggers of others
    objects: int
    handlers: int  # of IRQs
    deferred: int  # requests that wait for a reply from a `Reply`, a worker or a coroutine
    timeouts: int  # pending


class ObjectStats(NamedTuple):
    """Counts of one object."""

    requests: int  # since it was registered
    holders: int  # ports and sessions of others
    ports: int
    sessions: int
    deferred: int
