"""How much one client may ask of a server."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Limits"]


class Limits(NamedTuple):
    """Bounds that a :class:`RegistryServer` keeps; whoever goes beyond gets an error that names the limit.

    ``ports`` counts all ports of one object, derived ones included; ``depth`` how often a capability may be
    handed on, one from the other; ``sessions`` the threads that may call over one port at a time. ``holder``
    counts the ports and sessions of one holder together with those of everybody it handed the capability on
    to, so that no holder can take all there is; the gate made with the receive right, from which all others
    are derived, is exempt. ``waiting`` is how many requests of one session may wait for a worker or a coroutine:
    calls beyond it get an error, one-way messages are dropped and the log says so. Besides, a quarter of the
    descriptors of the process stays free.
    """

    ports: int = 4096
    depth: int = 64
    sessions: int = 1024
    holder: int = 2048
    waiting: int = 256
