"""The model of the sleep/wake protocol: it runs, it holds, and it would notice."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MODEL = Path(__file__).parents[2] / "model"

#: Small searches only: one configuration of each kind, and the mutants the protocol is famous for.
QUICK = ["one", "post-no-fence", "server-no-fence", "server-no-look", "client-no-look", "withdraw-stores"]


def _run(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": path} if path is not None else None
    command = [sys.executable, str(MODEL / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.skipif(shutil.which("spin") is None, reason="spin is not installed (Debian: apt-get install spin)")
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_protocol_holds_and_its_mutants_are_caught(tmp_path: Path) -> None:
    done = _run("--room", str(tmp_path), *QUICK)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(QUICK)} variants" in done.stdout
    assert done.stdout.count("lost wake-up") == 4
    assert "a withdrawn request is served" in done.stdout


def test_without_spin_it_says_what_to_install(tmp_path: Path) -> None:
    done = _run(path=str(tmp_path))
    assert done.returncode == 2
    assert "apt-get install spin" in done.stderr


def test_an_unknown_variant_is_a_misuse() -> None:
    done = _run("no-such-variant")
    assert done.returncode == 2


def test_the_readme_lists_every_variant() -> None:
    listed = subprocess.run([sys.executable, MODEL / "run.py", "--list"], capture_output=True, text=True, check=True)
    readme = (MODEL / "README.md").read_text()
    names = listed.stdout.split()
    assert len(names) > 20
    assert [name for name in names if f"| `{name}` |" not in readme] == []
