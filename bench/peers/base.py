"""What a peer can be asked to do. A peer offers what it can by the classes it derives from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

from ..statistics import Summary
from ..wire import Wire

__all__ = [
    "ANSWER_SIZE",
    "Caller",
    "Calls",
    "Grants",
    "Listener",
    "Memory",
    "Notifier",
    "Notifies",
    "Peer",
    "Program",
    "nothing",
]

#: Bytes of a raw call, both ways.
ANSWER_SIZE = 64


def nothing() -> None:
    """Close what needs no closing."""


class Caller(NamedTuple):
    """The client's side of a connection, ready to be timed."""

    call: Callable[..., Any]
    #: What ``call`` returned, as something to compare; not timed.
    value: Callable[[Any], Any]
    close: Callable[[], None]


class Peer(ABC):
    """A way for two programs to talk; ``busy`` ones never sleep, so they need a core each."""

    name: ClassVar[str]
    busy: ClassVar[bool] = False

    def missing(self) -> str | None:
        """Return why it cannot run on this machine, or None."""
        return None


class Calls(Peer):
    """It can call and be called. ``work``: "echo" (bytes) or "add" (two integers of 64 bits in, their sum out)."""

    #: How many one client process can have open.
    connections: ClassVar[int] = 256
    #: Whether "echo" takes any number of bytes from 0 to 60 KiB, not just `ANSWER_SIZE`.
    any_size: ClassVar[bool] = False

    @abstractmethod
    def serve(self, wires: Sequence[Wire], work: str) -> None:
        """Connect one client on each wire, in order, and serve until all are gone."""

    @abstractmethod
    def connect(self, wire: Wire, work: str) -> Caller:
        """Return a new connection to the server at the other end of the wire."""


class Grants(Peer):
    """It can pass access to memory, or a right, in an answer."""

    #: What can be passed.
    grants: ClassVar[tuple[str, ...]] = ("dataspace",)

    @abstractmethod
    def serve_grants(self, wire: Wire, what: str, count: int = 1) -> None:
        """Answer requests, those that ask for it with ``count`` times ``what``, until the client is gone."""

    @abstractmethod
    def connect_grants(self, wire: Wire, what: str, count: int = 1) -> Caller:
        """Return a connection: ``call(True)`` asks for them, ``call(False)`` does not.

        ``value`` checks and closes what came, and returns how many there were.
        """


class Notifier(NamedTuple):
    """The side that notifies."""

    trigger: Callable[[], None]
    close: Callable[[], None]


class Listener(NamedTuple):
    """The side that is notified: both run the handler for each notification until ``done()``."""

    sleep: Callable[[Callable[[], None], Callable[[], bool]], None]
    spin: Callable[[Callable[[], None], Callable[[], bool]], None]


class Notifies(Peer):
    """It can wake another process up."""

    @abstractmethod
    def listen(self, wire: Wire) -> Listener:
        """Make the receiving side and hand the other one over."""

    @abstractmethod
    def notifier(self, wire: Wire) -> Notifier:
        """Take the sending side."""


class Memory(Peer):
    """It can make shared memory."""

    @abstractmethod
    def cycle(self, size: int) -> Callable[[Callable[[memoryview], None]], None]:
        """Return a function that allocates, maps, lets its argument touch, unmaps and frees ``size`` bytes."""


class Program(Peer):
    """A program of its own that plays all roles of a scenario itself: the C floor."""

    @abstractmethod
    def measures(self, scenario: str, case: str) -> bool:
        """Whether it has something to measure there."""

    @abstractmethod
    def measure(self, scenario: str, case: str, cpus: tuple[int, int], seconds: float) -> dict[str, Summary]:
        """Run it once; -1 stands for a CPU the scheduler chooses."""
