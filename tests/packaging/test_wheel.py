"""What `pip install` puts into place: one wheel for each architecture, and nothing that is only for building."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source tree."""
    source = tmp_path_factory.mktemp("source")
    shown = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if shown.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, shown.stdout.decode().split("\0")):
        if (ROOT / name).is_file() or (ROOT / name).is_symlink():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name, follow_symlinks=False)
    return source


def build(kind: str, source: Path, made: Path) -> None:
    """Build with what is installed here."""
    code = f"import sys, setuptools.build_meta as b; b.build_{kind}(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(made)], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def distributions(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("made")
    for kind in ("wheel", "sdist"):
        build(kind, source, made)
    return made


def test_the_wheel_serves_every_python_from_3_11_on(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    assert re.fullmatch(r"pyl4re-[0-9.]+-cp311-abi3-linux_\w+\.whl", wheel.name)


def test_the_wheel_holds_what_a_program_needs(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src/l4re").rglob("*.py")}
    assert package <= names
    needed = {"py.typed", "_native/leaf.abi3.so", "_native/leaf.pyi", "ned/l4.lua"}
    assert {f"l4re/{name}" for name in needed} <= names
    ours = [name for name in names if not name.startswith("l4re_bench/")]
    assert [name for name in ours if name.endswith((".c", ".h")) or not name.startswith(("l4re/", "pyl4re-"))] == []


def test_the_wheel_holds_the_bench_and_none_of_its_results(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("l4re_bench/")}
    code = {f"l4re_bench/{path.relative_to(ROOT / 'bench').as_posix()}" for path in (ROOT / "bench").rglob("*.py")}
    assert names == code | {"l4re_bench/floor.c"}


def test_an_editable_installation_is_one_path(source: Path, tmp_path: Path) -> None:
    """Anything else would run at the start of every program of that environment."""
    build("editable", source, tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    names = [name for name in zipfile.ZipFile(wheel).namelist() if "dist-info" not in name]
    assert [name.endswith(".pth") for name in names] == [True]
    assert zipfile.ZipFile(wheel).read(names[0]).decode().strip() == str(source / "src")


def test_the_source_distribution_can_be_built(distributions: Path) -> None:
    (archive,) = distributions.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "src/l4re").rglob("*.[ch]")}
    assert sources
    assert sources <= names
    assert {"LICENSE", "README.md", "Makefile", "setup.py", "examples/shared_ds/shared_ds.lua"} <= names


@pytest.fixture
def installed(distributions: Path, tmp_path: Path) -> Path:
    """A folder that holds what the wheel holds, and nothing else."""
    (wheel,) = distributions.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    return tmp_path / "installed"


def python(*args: str, installed: Path, folder: Path) -> str:
    """Run what is installed, in another folder; return what it says."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *args],
        cwd=folder,
        env={"PYTHONPATH": str(installed), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_works_where_the_sources_are_not(installed: Path, tmp_path: Path) -> None:
    code = (
        "import l4re; ds = l4re.env().mem_alloc.alloc(4096); ds.write(0, b'x');"
        "print(l4re.__file__, ds.read(0, 1), l4re.env().rm.attach(ds).size)"
    )
    assert python("-c", code, installed=installed, folder=tmp_path) == f"{installed}/l4re/__init__.py b'x' 4096\n"


def test_the_bench_of_the_wheel_measures_from_any_folder(installed: Path, tmp_path: Path) -> None:
    """Its workers and the source of its C programs come from where it is installed."""
    folder = tmp_path / "empty"
    folder.mkdir()
    peers = ("l4re", *(("C futex",) if shutil.which("cc") else ()))
    words = ["--scenario", "call", "--placement", "one", "--repetitions", "1", "--seconds", "0.01", "--json", "-"]
    words += [word for peer in peers for word in ("--peer", peer)]
    measured = json.loads(python("-m", "l4re", "bench", *words, installed=installed, folder=folder))
    assert [row["peer"] for row in measured["rows"]] == list(peers)
    code = "import l4re_bench.command; print(l4re_bench.__file__)"
    assert python("-c", code, installed=installed, folder=folder) == f"{installed}/l4re_bench/__init__.py\n"
    assert list(folder.iterdir()) == []
