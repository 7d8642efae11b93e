"""A program in C takes part: what it finds by name in the page, it can map, read and trigger."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.programs import PATIENCE

pytestmark = pytest.mark.processes

HERE = Path(__file__).parents[2] / "examples" / "other_language"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("rom") / "reader"
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-Wall", "-Wextra", "-Werror", "-O1", "-o", program, HERE / "reader.c"], check=True)
    return program


def test_it_is_short() -> None:
    assert len((HERE / "reader.c").read_text().splitlines()) < 60


def test_it_reads_the_memory_and_triggers_the_irq(reader: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-u", HERE / "other_language.py", reader],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    expected = "C read: Hello from Python!\nPython heard that it was read\nit ended with 0\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")


@pytest.mark.parametrize("page", [None, "3", "0", "nonsense"])
def test_without_a_page_of_its_own_it_says_so(reader: Path, page: str | None) -> None:
    environment = {} if page is None else {"L4RE_ENV": page}
    done = subprocess.run(
        [reader],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "nobody handed this program anything" in done.stderr
