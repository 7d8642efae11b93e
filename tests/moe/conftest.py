"""Fixtures of the tests of the root task."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from l4re.log import Console, Multiplexer
from l4re.moe import Services
from l4re.services.mem_alloc import MemoryFactory, RemoteMemAlloc
from l4re.testing import wait_until
from support.processes import PATIENCE, Child, processes

QUOTA = 1 << 20


@pytest.fixture
def start() -> Iterator[Callable[..., Child]]:
    """``start(function)`` runs ``function(link)`` in a forked process."""
    with processes() as fork:
        yield fork


@dataclass
class Moe:
    """Services on an account of `QUOTA` bytes, and what was printed."""

    services: Services
    log: Multiplexer
    console: io.StringIO

    def factory(self) -> MemoryFactory:
        """A factory as one program has it."""
        return MemoryFactory(self.services.factory())

    def alloc(self) -> RemoteMemAlloc:
        """The same, as an allocator."""
        return RemoteMemAlloc(self.services.factory())

    @property
    def used(self) -> int:
        """Bytes that are charged."""
        self.services.ledger.settle()
        return self.services.account.used

    def wait_until_used(self, size: int) -> None:
        wait_until(lambda: self.used == size, PATIENCE)

    def printed(self) -> str:
        """Everything that was written before this call."""
        self.services.do(lambda: None)
        assert self.log.flush(PATIENCE)
        return self.console.getvalue()


@pytest.fixture
def moe() -> Iterator[Moe]:
    console = io.StringIO()
    with Multiplexer(Console(console, colours=False)) as log:
        services = Services(quota=QUOTA, log=log)
        try:
            yield Moe(services, log, console)
        finally:
            services.close()
