"""The demo, killed at any moment: nothing of it stays."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from l4re.testing import wait_until

SCRIPT = Path(__file__).parents[2] / "examples" / "shared_ds" / "shared_ds.lua"


def _remains(marker: str) -> list[str]:
    """Processes that carry our marker in their words."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except (OSError, IndexError):
                continue
            if marker in words and state != "Z":
                found.append(f"{entry.name} {words}")
    return found


def _names() -> set[str]:
    folders = [folder for folder in ("/dev/shm", "/dev/mqueue") if os.path.isdir(folder)]
    return {f"{folder}/{name}" for folder in folders for name in os.listdir(folder)}


def _kill_runs(rounds: int, rom: Path, seed: int) -> None:
    chance = random.Random(seed)
    for example in SCRIPT.parent.glob("*.py"):
        (rom / example.name).write_text(example.read_text())
    script = rom / SCRIPT.name
    script.write_text(SCRIPT.read_text())
    before = _names()
    alive = 0
    for _ in range(rounds):
        root = subprocess.Popen(
            [sys.executable, "-m", "l4re", "run", str(script), "--", "1"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            root.wait(chance.uniform(0.0, 2.0))
        except subprocess.TimeoutExpired:
            alive += len(_remains(str(rom))) > 1
            root.send_signal(signal.SIGKILL)
            root.wait()
        else:
            assert root.returncode == 0
        wait_until(lambda: not _remains(str(rom)), what="the end of the demo's programs")
    assert _names() <= before
    assert alive, "no run was killed while its programs ran: the test tests nothing"
    print(f"{alive} of {rounds} were killed while their programs ran")


@pytest.mark.processes
def test_a_killed_demo_leaves_nothing(tmp_path: Path) -> None:
    _kill_runs(4, tmp_path, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_two_hundred_killed_demos_leave_nothing(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    _kill_runs(200, tmp_path, seed)
