"""Descriptors on their way: the kernel counts them per user, so whoever parks many is felt by its own user only."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Callable
from typing import Any

import pytest

from l4re import MemAlloc, OutOfMemory
from l4re.testing import wait_until
from support.processes import PATIENCE, UNPRIVILEGED, Link, processes
from support.rawpeer import memfd, pair, send

from .conftest import Victim, serve

pytestmark = pytest.mark.processes

FEW = 128


def _park(link: Link) -> None:
    """Keep as many descriptors in flight as this user may have, and say so."""
    parked: list[socket.socket] = []
    fd = memfd(4096)
    try:
        while len(parked) < FEW:
            ours, theirs = pair()
            parked += [ours, theirs]
            while send(ours, b"parked", [fd] * 50):
                pass
    except OSError as error:
        link.say("full" if error.errno == errno.ETOOMANYREFS else str(error))
    link.wait_for_end()


def test_a_user_with_too_many_in_flight_gets_errors_and_recovers() -> None:
    root = os.geteuid() == 0
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    user = UNPRIVILEGED if root else None

    def limited(body: Callable[[Link], object]) -> Callable[[Link], object]:
        def run(link: Link) -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (FEW, before[1]))
            body(link)

        return run

    def client(link: Link) -> None:
        (gate,) = link.take()
        with MemAlloc().alloc(4096) as ds:
            talk(link, gate, ds)

    def talk(link: Link, gate: Any, ds: Any) -> None:
        assert gate.call(b"first", timeout=PATIENCE).data == b"first"
        link.say("ready")
        assert link.hear() == "try"
        attempts: list[Callable[[], object]] = [
            gate.dup,
            lambda: gate.call(caps=(gate,)),
            lambda: gate.call(caps=(ds,)),
            lambda: gate.call(label=2, timeout=PATIENCE),
        ]
        for attempt in attempts:
            with pytest.raises(OutOfMemory):
                attempt()
        assert gate.call(b"without", timeout=PATIENCE).data == b"without"
        link.say("refused")
        assert link.hear() == "again"

        def works() -> bool:
            try:
                caps: Any = gate.call(label=2, timeout=PATIENCE).caps
            except OutOfMemory:
                return False
            for cap in caps:
                cap.close()
            return True

        wait_until(works, PATIENCE)
        link.say("recovered")
        gate.close()

    with processes() as start:
        server = start(limited(serve(None)), user=user)
        victim = Victim(server)
        innocent = start(limited(client), user=user)
        innocent.give(victim.gate)
        assert innocent.hear() == "ready"
        hostile = start(limited(_park), user=user)
        assert hostile.hear() == "full"
        innocent.say("try")
        assert innocent.hear() == "refused"
        victim.serves()
        hostile.kill()
        innocent.say("again")
        assert innocent.hear() == "recovered"
        innocent.end()
        victim.is_unharmed()
        victim.gate.close()
        server.end()
