"""A program that is started with a scheduler starts where that says, and one that cannot does not start."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from l4re import IpcTimeout, RegistryServer, Scheduler, SchedulerServer, ServerError
from l4re.boot import Grant, Task, launch
from l4re.boot.program import find_command
from l4re.linux import process, scheduling
from l4re.testing import wait_until
from support.processes import Echo, Running

pytestmark = pytest.mark.processes

FIRST = min(os.sched_getaffinity(0))
BASE = os.getpriority(os.PRIO_PROCESS, 0)
#: Prints where it was at its first breath, and where a thread of it is.
LOOK = """
import os, threading
def look(): print(sorted(os.sched_getaffinity(0)), os.getpriority(os.PRIO_PROCESS, 0), flush=True)
look()
thread = threading.Thread(target=look)
thread.start()
thread.join()
"""


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with RegistryServer() as server, Running(server):
        yield server


def start(*words: str, scheduler: Any, stdin: int | None = None) -> Task:
    return launch(
        find_command(words, dict(os.environ)),
        grants={},
        services={"scheduler": Grant(scheduler)},
        env=dict(os.environ),
        stdin=stdin,
    )


def test_it_starts_there_with_all_its_threads(server: RegistryServer, capfd: pytest.CaptureFixture[str]) -> None:
    gate = server.registry.register_obj(SchedulerServer(255, 128, cpus={FIRST}))
    where = Scheduler(gate).place()
    with start(sys.executable, "-c", LOOK, scheduler=gate) as task:
        assert task.wait(60) == 0
    nice = max(where.nice, scheduling.least_nice())
    assert capfd.readouterr().out == f"[{FIRST}] {nice}\n" * 2


def test_it_can_ask_its_scheduler_itself(server: RegistryServer, capfd: pytest.CaptureFixture[str]) -> None:
    gate = server.registry.register_obj(SchedulerServer(cpus={FIRST}))
    ask = "import l4re; print(l4re.Scheduler(l4re.env()._services['scheduler']).info().cpus)"
    with start(sys.executable, "-c", ask, scheduler=gate) as task:
        assert task.wait(60) == 0
    assert capfd.readouterr().out == f"frozenset({{{FIRST}}})\n"


def test_a_scheduler_that_says_nothing_sensible_starts_nothing(server: RegistryServer) -> None:
    class Liar(Echo):
        def serve_request(self, *request: Any) -> Any:
            return 0, b"", b"", ()

    gate = server.registry.register_obj(Liar())
    with pytest.raises(ServerError):
        Scheduler(gate).place()
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(ServerError):
        start("true", scheduler=gate)
    wait_until(lambda: set(os.listdir("/proc/self/fd")) == before, 20, "everything to be let go of")


def test_a_scheduler_that_does_not_answer_is_given_up(server: RegistryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Echo):
        def serve_request(self, *request: Any) -> Any:
            return None

    monkeypatch.setattr(sys.modules["l4re.boot.launch"], "_PATIENCE", 0.05)
    with pytest.raises(IpcTimeout):
        start("true", scheduler=server.registry.register_obj(Silent()))


def test_cpus_that_are_not_there_start_nothing() -> None:
    with pytest.raises(process.StartFailed) as caught:
        process.spawn("/bin/true", ["true"], {}, placed=({3000}, BASE))
    assert caught.value.stage == process.Stage.CPUS


def test_a_nice_value_that_is_not_ours_to_give_is_the_nearest_one(capfd: pytest.CaptureFixture[str]) -> None:
    started = process.spawn("/usr/bin/nice", ["nice"], {}, placed=(os.sched_getaffinity(0), -20))
    process.wait_any([started.pidfd.fileno()])
    assert process.reap(started.pidfd.fileno()) == 0
    assert capfd.readouterr().out == f"{scheduling.least_nice()}\n"
