"""A server in a process of its own, an innocent client here, and what the server holds before and after."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from l4re import Capability, Gate, Irq, L4Error, Limits, MemAlloc, RegistryServer, new_channel
from l4re.interface import Served
from l4re.irq import IrqHandler
from l4re.testing import Holdings, holdings, wait_until
from support.processes import PATIENCE, Child, Link, processes
from support.rawpeer import RawClient

#: What every server of these tests may at most grow by, whatever it is sent.
MEMORY = 128 << 20


class Target(Served):
    """What is attacked. Label 0 echoes; 1 tells label and rights of the caller; 2 gives a gate, an IRQ and a
    dataspace; 3 uses every capability that came; 4 tells how often the IRQ came; 5 revokes the caller."""

    def __init__(self, server: RegistryServer) -> None:
        self.server = server
        self.handler = Counter()
        self.irq = server.registry.register_irq_obj(self.handler)

    def serve_request(
        self, rights: int, label: int, words: bytes, data: bytes, caps: tuple[Capability | None, ...]
    ) -> tuple[int, bytes, bytes, Any] | None:
        caller = self.server.caller
        match label:
            case 1:
                return 0, b"", f"{caller.label} {int(caller.rights)}".encode(), ()
            case 2:
                with MemAlloc().alloc(4096) as ds:
                    return 0, b"", b"", (self._l4_cap, self.irq, ds.dup())
            case 3:
                return 0, b"", ",".join(_use(cap) for cap in caps).encode(), ()
            case 4:
                return 0, b"", str(self.handler.came).encode(), ()
            case 5:
                self.server.registry.revoke(self, caller.port)
        return 0, words, data, ()


class Counter(IrqHandler):
    """Counts its IRQs."""

    def __init__(self) -> None:
        self.came = 0

    def dispatch(self) -> None:
        self.came += 1


def _use(cap: Any) -> str:
    try:
        match cap:
            case None:
                return "none"
            case Irq():
                cap.trigger()
            case Gate():
                cap.dup().close()
            case _ if hasattr(cap, "read"):
                cap.read(0, 1)
        return str(cap.kind)
    except L4Error as error:
        return type(error).__name__
    finally:
        if cap is not None:
            cap.close()


def serve(limits: Limits | None) -> Callable[[Link], None]:
    def body(link: Link) -> None:
        logging.disable()
        gate, svr = new_channel()
        with RegistryServer(limits=limits) as server:
            server.registry.register_obj(Target(server), svr)
            link.give(gate)
            gate.close()
            server.loop()

    return body


class Victim:
    """The server under attack, seen by its innocent client."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.pid = child.pid
        (self.gate,) = child.take()
        self.serves()
        self.before = holdings(self.pid)
        self.peak_before = self.peak()

    def serves(self) -> None:
        """The innocent client is served, over the session and the port it always had."""
        assert self.gate.call(b"innocent", timeout=PATIENCE).data == b"innocent"

    def port(self) -> Gate:
        """Return a port for somebody else, and wait until the server has it."""
        gate: Gate = self.gate.dup()
        self.serves()
        return gate

    def held_beyond(self) -> dict[str, int]:
        return holdings(self.pid).beyond(self.before)

    def holds_what_it_held(self) -> None:
        """Everything that hostile peers brought along is gone again."""
        left: dict[str, int] = {}

        def clean() -> bool:
            nonlocal left
            left = self.held_beyond()
            return not left

        try:
            wait_until(clean, PATIENCE)
        except TimeoutError:
            raise AssertionError(f"the server keeps {left}") from None

    def holds_what_it_held_but_a_port(self) -> None:
        """Of the hostile client nothing is left but its port."""
        wait_until(lambda: self.held_beyond() in ({}, {"descriptor socket": 1}), PATIENCE, "the server to clean up")

    def holds_what_it_held_but_a_port_and_a_session(self) -> None:
        """A session costs it a socket and the page."""
        wait_until(lambda: set(self.held_beyond().values()) <= {1, 2}, PATIENCE, "the server to clean up")

    def asleep(self) -> bool:
        """Whether it waits in the kernel."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"

    def is_unharmed(self) -> None:
        """It serves, it holds what it held, and it did not grow."""
        self.serves()
        self.holds_what_it_held()
        assert self.peak() < self.peak_before + MEMORY

    def peak(self) -> int:
        """The most memory it ever had resident."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM"))

    @property
    def held(self) -> Holdings:
        return holdings(self.pid)


@contextmanager
def victims(limits: Limits | None = None) -> Iterator[Victim]:
    """Yield a server; at the end it is still unharmed, and ends by itself once nobody can reach it."""
    with processes() as start:
        child = start(serve(limits))
        victim = Victim(child)
        try:
            yield victim
            victim.is_unharmed()
        finally:
            victim.gate.close()
        child.end()


T = TypeVar("T")


@contextmanager
def attacking(victim: Victim) -> Iterator[RawClient]:
    """Yield a raw client with a port of its own and no session yet."""
    with victim.port() as gate, RawClient(gate.fileno(), open=False) as client:
        yield client
    victim.serves()


@contextmanager
def attacking_in_session(victim: Victim) -> Iterator[RawClient]:
    """Yield a raw client that behaved well for one call."""
    with attacking(victim) as client:
        client.open()
        assert client.call() is not None
        yield client


def for_each(
    cases: Iterable[T], attack: Callable[[Victim], AbstractContextManager[RawClient]] = attacking
) -> Callable[[Callable[[Victim, RawClient, T], None]], Callable[[Victim], None]]:
    """Make one test of a check and its cases, each with an attacker of its own; one server bears them all."""

    def decorate(check: Callable[[Victim, RawClient, T], None]) -> Callable[[Victim], None]:
        def test(victim: Victim) -> None:
            for case in cases:
                with the_case(case), attack(victim) as client:
                    check(victim, client, case)

        test.__doc__ = check.__doc__
        return test

    return decorate


def for_all(cases: Iterable[T]) -> Callable[[Callable[[T], None]], Callable[[], None]]:
    """Make one test of a check and its cases."""

    def decorate(check: Callable[[T], None]) -> Callable[[], None]:
        def test() -> None:
            for case in cases:
                with the_case(case):
                    check(case)

        test.__doc__ = check.__doc__
        return test

    return decorate


@contextmanager
def the_case(case: object) -> Iterator[None]:
    """Say which case it was when one fails."""
    try:
        yield
    except Exception as error:
        error.add_note(f"in the case {case!r}")
        raise


@pytest.fixture
def attacker(victim: Victim) -> Iterator[RawClient]:
    """A raw client with a port of its own and no session yet."""
    with attacking(victim) as client:
        yield client


@pytest.fixture
def victim() -> Iterator[Victim]:
    """A server that must be unharmed when the test ends."""
    with victims() as one:
        yield one
