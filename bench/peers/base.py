"""What a peer can be asked to do. A peer offers what it can by the classes it derives from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, NamedTuple

from ..statistics import Summary
from ..wire import Wire

__all__ = [
    "ANSWER_SIZE",
    "Allocates",
    "Attackable",
    "Caller",
    "Calls",
    "Copier",
    "Copies",
    "Frames",
    "Grants",
    "HandsOver",
    "Listener",
    "Mapper",
    "Maps",
    "Memory",
    "Notifier",
    "Notifies",
    "Peer",
    "Program",
    "Publisher",
    "Spawns",
    "Starts",
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


class Attackable(Calls):
    """A client of it can be hostile."""

    @abstractmethod
    def attack(self, wire: Wire, how: str, turns: Iterable[Callable[[], bool]]) -> Iterable[int]:
        """Connect, and do ``how`` in each of ``turns`` while it lasts; yield how often.

        Hostile: "garbage" in what both share, "flags" flipped, "rings" without end, "silent" requests and going away.
        Innocent, and as hungry: "calls", and "visits", with a connection for each call.
        """


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


class Mapper(NamedTuple):
    """Shared memory of one page, ready to be mapped any number of times."""

    attach: Callable[[], Any]
    #: The first byte of what ``attach`` returned; it has to be ``mark``.
    look: Callable[[Any], int]
    detach: Callable[[Any], None]
    mark: int
    #: Where it is, and who is at an address; None: nobody keeps books.
    address: Callable[[Any], int]
    find: Callable[[int], Any] | None
    close: Callable[[], None]


class Maps(Peer):
    """It can map shared memory that is there."""

    #: Whether it can do so in a range that it keeps free for that.
    areas: ClassVar[bool] = False

    @abstractmethod
    def mapper(self, area: bool) -> Mapper:
        """Make the memory, and an area for 20,000 mappings of it if that is wanted."""


class Allocates(Memory):
    """It can also have shared memory made by another process, which counts it."""

    @abstractmethod
    def serve_allocator(self, wire: Wire) -> None:
        """Make memory for the client until it is gone."""

    @abstractmethod
    def allocated(self, wire: Wire, size: int) -> Callable[[Callable[[memoryview], None]], None]:
        """Return what `cycle` returns, for memory of that allocator."""


class Copier(NamedTuple):
    """Two pieces of shared memory of one size."""

    #: Write a byte at each of these offsets of the source.
    mark: Callable[[Sequence[int], int], None]
    #: Copy all of the source to the target; with a new one each time, make that first.
    copy: Callable[[], Any]
    #: Return the target's bytes at these offsets, from what ``copy`` returned; free it if it is new each time.
    sample: Callable[[Any, Sequence[int]], bytes]
    close: Callable[[], None]


class Copies(Peer):
    """It can copy shared memory to shared memory."""

    @abstractmethod
    def copier(self, size: int, fresh: bool) -> Copier:
        """Return two pieces of ``size`` bytes whose pages are all there; or one, to be copied to fresh ones."""


class HandsOver(Peer):
    """It can hand memory to a process that runs already."""

    @abstractmethod
    def serve_memory(self, wire: Wire, look: Callable[[memoryview], int]) -> None:
        """Take what comes until the client is gone: map it, let ``look`` read, unmap, answer with what it returned."""

    @abstractmethod
    def connect_memory(self, wire: Wire, size: int) -> Caller:
        """Return a connection: ``call(touch)`` makes ``size`` bytes, maps them, lets ``touch`` write, hands them over,
        and when the answer has come unmaps and frees them. ``value`` is what ``look`` returned, 0 to 255."""


class Publisher(NamedTuple):
    """The side that writes frames."""

    frame: memoryview
    #: Let all readers see the frame as it is; the next one may be written when they have.
    announce: Callable[[], None]
    close: Callable[[], None]


class Frames(Peer):
    """It can let several processes read one frame after another."""

    @abstractmethod
    def publish(self, wires: Sequence[Wire], size: int) -> Publisher:
        """Connect a reader on each wire; wait until all are there."""

    @abstractmethod
    def subscribe(self, wire: Wire, size: int) -> Callable[[Callable[[memoryview], None], Callable[[], bool]], None]:
        """Return a function that runs its first argument with each frame, until the second one says that was all."""


class Starts(Peer):
    """It is imported by a program before anything else."""

    #: The statement.
    imports: ClassVar[str]


class Spawns(Starts):
    """It can start a program that calls back."""

    @abstractmethod
    def spawner(self) -> Callable[[], int]:
        """Return a function that starts a program, answers its first call (checked there), and waits for its end.

        It returns when that call was done, by the program's own `time.perf_counter_ns`.
        """


class Program(Peer):
    """A program of its own that plays all roles of a scenario itself: the C floor."""

    @abstractmethod
    def measures(self, scenario: str, case: str) -> bool:
        """Whether it has something to measure there."""

    @abstractmethod
    def measure(self, scenario: str, case: str, cpus: tuple[int, int], seconds: float) -> dict[str, Summary]:
        """Run it once; -1 stands for a CPU the scheduler chooses."""
