"""Victims: programs that run with the leaf of ``make debug`` and stop at a marked point."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import l4re
from l4re.testing import wait_until
from support.processes import PATIENCE

ROOT = Path(__file__).parents[2]
DEBUG = ROOT / "build" / "debug"


class Victim:
    """A program that is on its way to a point."""

    def __init__(self, task: l4re.Task, room: Path) -> None:
        self.task = task
        self.room = room

    def wait_until_stopped(self) -> None:
        """Wait until it stands still at the point."""

        def stopped() -> bool:
            assert self.task.returncode is None, f"the victim ended with {self.task.returncode} and never stopped"
            how = os.WSTOPPED | os.WNOHANG | os.WNOWAIT
            return os.waitid(os.P_PID, self.task.pid, how) is not None

        wait_until(stopped, PATIENCE, "the victim's arrival at its point")

    def kill(self) -> None:
        """Kill it with -9: no code of it runs any more; no program that it started and no file of it is left."""
        os.kill(self.task.pid, signal.SIGKILL)
        assert self.task.wait(PATIENCE) == 128 + signal.SIGKILL
        wait_until(lambda: self.programs() == [], PATIENCE, "the end of what the victim started")
        assert list(self.room.iterdir()) == []

    def programs(self) -> list[int]:
        """Whoever still runs with our room as its folder for temporary files."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if f"TMPDIR={self.room}".encode() in (path / "environ").read_bytes().split(b"\0"):
                    found.append(int(path.name))
        return found


Start = Callable[[str, str, int, Mapping[str, l4re.Capability]], Victim]


@pytest.fixture(scope="session")
def debug_leaf() -> Path:
    """The package with the leaf that stops; made if it is out of date."""
    environment = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    done = subprocess.run(
        ["make", "--quiet", "debug"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"make debug failed:\n{done.stdout}{done.stderr}"
    return DEBUG


@contextmanager
def victims(debug: Path, room: Path) -> Iterator[Start]:
    """Yield ``start(what, point, passing, caps)``; whoever is started is gone at the end."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("L4RE_")}
    environment = {**kept, "PYTHONPATH": str(debug), "L4RE_SPIN_US": "0", "TMPDIR": str(room)}
    tasks: list[l4re.Task] = []

    def start(what: str, point: str, passing: int, caps: Mapping[str, l4re.Capability]) -> Victim:
        program: list[str | Path] = [Path(__file__).with_name("victim.py"), what, point, str(passing)]
        tasks.append(l4re.spawn(program, caps=caps, env=environment, cwd=room))
        return Victim(tasks[-1], room)

    try:
        yield start
    finally:
        for task in tasks:
            task.kill()
            task.wait()


@pytest.fixture
def start(debug_leaf: Path, tmp_path: Path) -> Iterator[Start]:
    with victims(debug_leaf, tmp_path) as one:
        yield one
