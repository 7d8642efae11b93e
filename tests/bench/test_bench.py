"""The bench runs, checks its answers and says what it measured. Nothing here looks at how fast anything is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]


def bench(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *args], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )


@pytest.mark.parametrize(
    ("scenario", "peer"),
    [
        ("call", "C futex"),
        ("typed", "mp.Pipe"),
        ("busy", "seqpacket"),
        ("capability", "mp.Pipe"),
        ("irq", "page+eventfd"),
        ("memory", "SharedMemory"),
        ("copy-in", "memfd+mmap"),
        ("sessions", "page+eventfd"),
        ("throughput", "mp.Pipe"),
    ],
)
def test_a_scenario_measures_us_and_a_peer_in_one_run(scenario: str, peer: str, tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    placement = "free" if scenario == "throughput" else "one"
    done = bench(
        "--repetitions", "1", "--seconds", "0.01", "--placement", placement, "--scenario", scenario,
        "--peer", "l4re", "--peer", peer, "--json", str(out),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "progress is for terminals"
    report = json.loads(out.read_text())
    assert report["machine"]["cores"] >= 1
    rows = report["rows"]
    assert {row["peer"] for row in rows} == {"l4re", peer}
    for row in rows:
        assert (row["scenario"], row["placement"], row["repetitions"]) == (scenario, placement, 1)
        assert row["samples"] >= 1
        assert row["unit"] in ("us", "1/s", "")
        if row["metric"] not in ("on top", "slowest share"):  # in so short a time one may get nothing done
            assert row["p50"] > 0, row
            assert row["ratio"] == 1 or row["peer"] == peer
    assert f"\n{scenario}: " in done.stdout


def test_the_list_names_scenarios_and_peers() -> None:
    done = bench("--list")
    assert done.returncode == 0
    for name in ("throughput", "mp.Pipe", "C spin+futex"):
        assert name in done.stdout
