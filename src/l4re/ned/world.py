"""The world a script speaks to: what its capabilities denote, and what happens when it asks for something.

A script holds handles (`ned.handles`): a capability, the rights it means to give, and a type. What they denote is
the world's business, and only a world looks into it. There are two: the live one starts programs, the plan one
writes down what would be started. Both refuse with an `L4Error`, whose code the script may read.

A world belongs to one thread, the one that runs Lua.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from l4re.ned.handles import CapHandle

__all__ = ["Denoted", "Execute", "Program", "Started", "Word", "World"]

#: An argument of ``create``: what a script's number, string or nil travels as.
Word: TypeAlias = int | str | None
#: Runs a text in the script's Lua state: (0, what to show), or (a negative code, what went wrong).
Execute: TypeAlias = Callable[[str], tuple[int, str]]


class Denoted(Protocol):
    """What a capability denotes. Two handles with the same one are equal. ``mask`` is that of the handle."""

    def valid(self, mask: int) -> bool:
        """Return whether this side of it is still there."""

    def address(self, mask: int) -> int:
        """Return the number that ``tostring`` shows."""


class Started(Protocol):
    """A program that a script started."""

    @property
    def name(self) -> str:
        """What the program is called in messages."""

    @property
    def returncode(self) -> int | None:
        """The exit status, None while it runs; does not wait."""


@dataclass(frozen=True, slots=True)
class Program:
    """What a script asks to be started."""

    words: tuple[str, ...]
    """As the script wrote them; the first names the program, as in ``rom/hello``."""
    caps: Mapping[str, CapHandle]
    """By the names under which the program finds them."""
    log: CapHandle
    """What its output goes to: a log that ``create`` made, or any capability the script names."""
    services: Mapping[str, CapHandle] = field(default_factory=dict)
    """Of mem, factory, scheduler, rm_fab, dbg_events those that are set."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """The environment variables, all of them."""
    numbers: Mapping[str, int | str] = field(default_factory=dict)
    """Of l4re_dbg, ldr_flags, base, itas_base, l4re_loader those that are set."""


class World(Protocol):
    """What ned asks of the system around it. Every method may raise an `L4Error`: the script is told."""

    def check(self) -> None:
        """Raise what ends the run, if it is to end; Lua cannot catch that."""

    def environment(self) -> Mapping[str, CapHandle]:
        """Return what ``L4.Env`` holds."""

    def create(self, factory: Denoted, protocol: int, arguments: Sequence[Word]) -> Denoted:
        """Ask a factory, or a server behind a channel, for an object."""

    def query(self, namespace: Denoted, name: str) -> Denoted | None:
        """Return what a namespace has under a name without ``/``; None if there is no such name.

        Raises:
            TryAgain: the name is reserved, and nobody has filled it.
        """

    def register(self, namespace: Denoted, name: str, cap: CapHandle | None) -> None:
        """Put a capability under a name, replacing what is there; None reserves the name."""

    def unregister(self, namespace: Denoted, name: str) -> None:
        """Take a name away; nothing happens if it is not there."""

    def interface(self, cap: CapHandle) -> str | None:
        """Return the name of the interface that an object says it has, such as ``L4::Factory``; may wait for it.

        None if it does not answer that.
        """

    def debug(self, cap: Denoted, number: int) -> int:
        """Ask an object for its debug output."""

    def power(self, cap: Denoted, what: str, argument: int) -> None:
        """Suspend or shut down the machine: ``what`` is "suspend" or "shutdown"."""

    def start(self, program: Program) -> Started:
        """Start a program."""

    def wait(self, task: Started) -> int:
        """Wait until a program has ended and return its exit status."""

    def kill(self, task: Started) -> None:
        """End a program; afterwards it has an exit status."""

    def next_ended(self) -> Started | None:
        """Wait until some program has ended that nobody waited for; None if none runs any more."""

    def sleep(self, seconds: float) -> None:
        """Let time pass."""

    def serve(self, channel: CapHandle, execute: Execute) -> None:
        """Serve commands on a channel from now on, whenever `next_ended` waits."""

    def script_ended(self) -> None:
        """Drop what only a running script needs: our ends of its channels."""

    def print(self, text: str) -> None:
        """Print a whole line of the script's own."""
