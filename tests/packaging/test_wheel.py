"""What `pip install` puts into place: one wheel for each architecture, and nothing that is only for building."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both distributions, built from a copy of the source tree with what is installed here."""
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
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    made = tmp_path_factory.mktemp("made")
    for kind in ("wheel", "sdist"):
        code = f"import sys, setuptools.build_meta as b; b.build_{kind}(sys.argv[1])"
        done = subprocess.run(
            [sys.executable, "-c", code, str(made)], cwd=source, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
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
    assert [name for name in names if name.endswith((".c", ".h")) or not name.startswith(("l4re/", "pyl4re-"))] == []


def test_the_source_distribution_can_be_built(distributions: Path) -> None:
    (archive,) = distributions.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "src/l4re").rglob("*.[ch]")}
    assert sources
    assert sources <= names
    assert {"LICENSE", "README.md", "Makefile", "setup.py", "examples/shared_ds/shared_ds.lua"} <= names


def test_the_wheel_works_where_the_sources_are_not(distributions: Path, tmp_path: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        "import l4re; ds = l4re.env().mem_alloc.alloc(4096); ds.write(0, b'x');"
        "print(l4re.__file__, ds.read(0, 1), l4re.env().rm.attach(ds).size)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"{tmp_path}/l4re/__init__.py b'x' 4096\n", done.stderr
