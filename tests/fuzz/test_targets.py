"""Every decoder bears every seed and any bytes; ``make fuzz`` does it for long, and with coverage (`run.py`)."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"

_ANY = st.one_of(st.binary(max_size=64), st.lists(st.integers(0, 7), max_size=40).map(bytes), st.binary(max_size=2000))


@pytest.fixture(scope="module", autouse=True)
def targets() -> Iterator[None]:
    """What the live targets keep is made once, and outlives every test here."""
    from . import targets as module

    module.warm()
    yield
    module.cool()
    logging.disable(logging.NOTSET)
    gc.collect()


def names() -> list[str]:
    from .targets import TARGETS

    return list(TARGETS)


@pytest.mark.parametrize("name", names())
def test_a_decoder_bears_every_seed(name: str) -> None:
    from .targets import TARGETS

    seeds = sorted((CORPUS / name).iterdir())
    assert seeds, "a target begins with something"
    for seed in seeds:
        TARGETS[name](seed.read_bytes())


@pytest.mark.parametrize("name", names())
def test_a_decoder_bears_any_bytes(name: str) -> None:
    _bears(name, 30)


@pytest.mark.fuzz
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", names())
def test_a_decoder_bears_very_many_bytes(name: str) -> None:
    _bears(name, 1000)


def _bears(name: str, examples: int) -> None:
    from .targets import TARGETS

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(_ANY)
    def check(data: bytes) -> None:
        TARGETS[name](data)

    check()


@pytest.mark.fuzz
@pytest.mark.processes
def test_a_run_tells_what_it_did_and_a_finding_fails_it(tmp_path: Path) -> None:
    pytest.importorskip("atheris")
    command = [sys.executable, str(HERE / "run.py"), "--room", str(tmp_path), "--seconds", "2"]
    done = subprocess.run([*command, "tag"], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tag" in (tmp_path / "fuzz.log").read_text()
    assert list((tmp_path / "corpus" / "tag").iterdir())
    done = subprocess.run([*command, "a_finding"], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert "a_finding" in done.stdout
    assert list((tmp_path / "findings").iterdir())
