"""Millions of calls of every kind, each answer checked, while clients are killed.

Twice: with the leaf as it is, and with the one of ``make debug``, which delays at the points of the protocol where
the other side could do harm. ``L4RE_SOAK_SECONDS`` bounds all of it together (default 60).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("calls.py")
DEBUG = Path(__file__).parents[2] / "build" / "debug"

#: Leaf, placement and kind of loop.
RUNS = [
    ("plain", "two", "loop"),
    ("plain", "one", "loop"),
    ("plain", "free", "outer"),
    ("debug", "two", "loop"),
    ("debug", "one", "loop"),
    ("debug", "free", "loop"),
    ("debug", "free", "outer"),
]


def _seconds() -> float:
    return float(os.environ.get("L4RE_SOAK_SECONDS", "60"))


def _cpus(placement: str) -> tuple[str, str]:
    """CPUs of the server and of its clients."""
    ours = sorted(os.sched_getaffinity(0))
    if placement == "free":
        every = ",".join(map(str, ours))
        return every, every
    return str(ours[0]), str(ours[-1] if placement == "two" else ours[0])


def _soak(seconds: float, leaf: str, placement: str, loop: str) -> dict[str, Any]:
    """Run it, and return what the server said; a line on standard output says it too."""
    seed = int.from_bytes(os.urandom(4), "little")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("L4RE_")}
    if leaf == "debug":
        environment["PYTHONPATH"] = str(DEBUG)
    command = [sys.executable, str(PROGRAM), "serve", str(seconds), "3", *_cpus(placement), loop, str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=seconds + 200, check=False)
    assert done.returncode == 0, f"seed {seed}\n{done.stdout}{done.stderr}"
    *clients, server = [json.loads(line) for line in done.stdout.splitlines()]
    calls = sum(client["calls"] for client in clients)
    taken_back, abandoned = (sum(client[what] for client in clients) for what in ("taken back", "abandoned"))
    print(
        f"\n{leaf} leaf, {placement}, {loop}: {server['requests']:,} requests; of {calls:,} calls {taken_back:,} taken "
        f"back and {abandoned:,} abandoned; {server['killed']} clients killed; seed {seed}"
    )
    assert [client["client"] for client in sorted(clients, key=lambda client: int(client["client"]))] == [1, 2]
    assert ("debug" in server["leaf"]) == (leaf == "debug"), server["leaf"]
    assert server["gone"] == server["killed"] + 3  # the two others, and the gate they were all given
    assert taken_back
    return dict(server)


@pytest.mark.processes
def test_every_answer_is_the_right_one() -> None:
    server = _soak(1.5, "plain", "free", "loop")
    assert server["requests"] > 100


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("leaf", "placement", "loop"), RUNS)
def test_every_one_of_many_answers_is_the_right_one(leaf: str, placement: str, loop: str) -> None:
    if leaf == "debug" and not DEBUG.is_dir():
        pytest.skip("the leaf that delays is not built: make debug")
    server = _soak(_seconds() / len(RUNS), leaf, placement, loop)
    assert server["requests"] > 100
