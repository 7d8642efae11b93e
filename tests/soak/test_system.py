"""Programs that do everything and are killed at random: nothing stays of descriptors, mappings, memory and quota.

``L4RE_SOAK_SECONDS`` says how long (default 60); a short run belongs to the ordinary tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("system.py")


def _run(seconds: float, workers: int) -> None:
    seed = int.from_bytes(os.urandom(4), "little")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("L4RE_")}
    command = [sys.executable, str(PROGRAM), str(seconds), str(workers), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=seconds + 200, check=False)
    assert done.returncode == 0, f"seed {seed}\n{done.stdout}{done.stderr}"
    said = json.loads(done.stdout)
    assert said["began"] > workers / 2
    assert said["killed"]
    print(f"\nsystem: {said['began']} programs, {said['killed']} kills, {said['handed']:,} handed over; seed {seed}")


@pytest.mark.processes
def test_a_short_run_leaves_nothing_behind() -> None:
    _run(2, 4)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_a_long_run_leaves_nothing_behind() -> None:
    _run(float(os.environ.get("L4RE_SOAK_SECONDS", "60")), 8)
