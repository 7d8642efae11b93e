"""Who waits does nothing: no polling, no timers, not one system call."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from l4re import Irq, RegistryServer
from l4re.testing import wait_until
from support.processes import PATIENCE, Background, Child, Echo, Link, Running

Start = Callable[..., Child]

#: How long nothing may happen. Ten seconds in the soak test.
WHILE = [2.0, pytest.param(10.0, marks=pytest.mark.soak)]


@contextmanager
def traced(*pids: int) -> Iterator[Callable[[], list[str]]]:
    """Attach strace; yields what it has written so far."""
    program = shutil.which("strace")
    if program is None:
        pytest.skip("strace is not installed")
    arguments = [argument for pid in pids for argument in ("-p", str(pid))]
    with subprocess.Popen([program, "-f", *arguments], stderr=subprocess.PIPE, bufsize=0) as strace:
        assert strace.stderr is not None
        os.set_blocking(strace.stderr.fileno(), False)
        said = bytearray()

        def lines() -> list[str]:
            while chunk := strace.stderr and strace.stderr.read(65536):
                said.extend(chunk)
            return said.decode().splitlines()

        def attached() -> bool:
            text = lines()
            if any("not permitted" in line for line in text):
                pytest.skip("strace may not attach here")
            return sum("attached" in line for line in text) >= len(pids)

        try:
            wait_until(attached, PATIENCE, "strace to attach")
            yield lines
        finally:
            strace.send_signal(signal.SIGINT)
            strace.wait()


def settled(lines: Callable[[], list[str]], children: list[Child]) -> None:
    """Wait until everybody sleeps again; attaching interrupts a sleep once."""
    before: list[str] | None = None
    while before != (before := lines()):
        for child in children:
            wait_until(lambda child=child: child.states() <= {"S", "t"}, PATIENCE)  # type: ignore[misc]
        time.sleep(0.2)  # strace writes a little later


@pytest.mark.processes
@pytest.mark.parametrize("seconds", WHILE)
def test_idle_servers_and_idle_clients_make_no_system_calls(start: Start, seconds: float) -> None:
    class Silent(Echo):
        def serve_request(self, *request: object) -> None:
            self.heard.append(b"")

    def serving(link: Link) -> None:
        with RegistryServer() as server:
            link.give(server.registry.register_obj(Echo()), server.registry.register_obj(Silent()))
            server.loop()

    def between_calls(link: Link) -> None:
        (gate, _) = link.take()
        for at in range(1000):
            assert gate.call(b"%d" % at).data == b"%d" % at
        link.say("idle")
        link.wait_for_end()

    def in_a_call(link: Link) -> None:
        (_, gate) = link.take()
        link.say("idle")
        gate.call()

    def in_receive(link: Link) -> None:
        link.take()
        with Irq.create() as irq:
            link.say("idle")
            irq.receive()

    server = start(serving)
    clients = [start(does) for does in (between_calls, in_a_call, in_receive)]
    gates = server.take()
    for client in clients:
        client.give(*gates)
        assert client.hear() == "idle"
    for child in (server, *clients):
        child.wait_until_waiting()
    with gates[0], gates[1], traced(*(child.pid for child in (server, *clients))) as lines:
        settled(lines, [server, *clients])
        before = lines()
        time.sleep(seconds)
        assert lines()[len(before) :] == []
        spent = {child.pid: Path(f"/proc/{child.pid}/stat").read_text().split()[13:15] for child in clients}
        print(f"no system call in {seconds} s; CPU ticks of the clients: {spent}")
        assert gates[0].call(b"awake").data == b"awake"
        assert len(lines()) > len(before), "strace saw nothing at all"


def test_the_counters_of_an_idle_server_and_an_idle_session_stand_still() -> None:
    with RegistryServer() as server:
        local = server.registry.register_obj(Echo())
        gate = local.mint()
        with Running(server):
            for at in range(1000):
                assert gate.call(b"%d" % at).data == b"%d" % at
            (session,) = gate._sessions.values()
            wait_until(lambda: server.stats().hot == 0)
            before, mine = server.stats(), session.stats()  # type: ignore[attr-defined]
            time.sleep(1)
            assert server.stats() == before
            assert session.stats() == mine  # type: ignore[attr-defined]
        gate.close()


def test_a_client_that_waits_long_sleeps_once() -> None:
    with RegistryServer() as server:
        gate = server.registry.register_obj(Echo()).mint()
        call = Background(gate.call).wait_until_asleep_in(gate)
        (session,) = gate._sessions.values()
        time.sleep(0.5)
        assert session.stats()["sleeps"] == 1  # type: ignore[attr-defined]
        with Running(server):
            call.join()
        gate.close()
