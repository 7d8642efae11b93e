"""Memory groups: on folders of plain files, and with a real group where the kernel has one for us."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from l4re.errors import InvalidArgument, L4Error, NotSupported
from l4re.linux import process
from l4re.linux.cgroup import MemoryGroup, delegation
from l4re.linux.memory import unified_folder

ME = str(os.getpid())


@pytest.fixture
def fake(tmp_path: Path) -> Callable[..., str]:
    """``fake(**files)`` makes a machine with a group for this process, and returns its procfs."""

    def make(*, controllers: str = "cpu memory pids", procs: str = ME, mounted: bool = True) -> str:
        group = tmp_path / "cgroup" / "ours"
        group.mkdir(parents=True)
        (group / "cgroup.controllers").write_text(controllers + "\n")
        (group / "cgroup.procs").write_text(procs + "\n")
        (group / "cgroup.subtree_control").write_text("\n")
        own = tmp_path / "proc" / "self"
        own.mkdir(parents=True)
        kind = "cgroup2 cgroup2 rw" if mounted else "tmpfs tmpfs rw"
        (own / "mountinfo").write_text(f"30 20 0:26 / {tmp_path}/cgroup rw - {kind}\n")
        (own / "cgroup").write_text("0::/ours\n")
        return str(tmp_path / "proc")

    return make


def test_a_group_of_our_own_is_found(fake: Callable[..., str], tmp_path: Path) -> None:
    assert delegation(fake()) == (f"{tmp_path}/cgroup/ours", "")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"mounted": False}, "no cgroup v2 is mounted"),
        ({"controllers": "cpu pids"}, "no memory controller"),
        ({"procs": f"{ME}\n1\n2"}, "holds 2 more processes"),
    ],
)
def test_what_is_missing_is_said(fake: Callable[..., str], options: dict[str, object], problem: str) -> None:
    proc = fake(**options)
    assert problem in delegation(proc).problem
    with pytest.raises(NotSupported, match=problem):
        MemoryGroup.ours(proc)


def test_files_that_are_not_ours_are_named(
    fake: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proc = fake()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("procs") and access(path, mode))
    assert delegation(proc).problem == f"{tmp_path}/cgroup/ours/cgroup.procs is not ours to write"


def test_we_move_out_before_the_group_shares_out_memory(fake: Callable[..., str], tmp_path: Path) -> None:
    groups = MemoryGroup.ours(fake())
    ours = tmp_path / "cgroup" / "ours"
    assert (ours / f"l4re.{ME}" / "cgroup.procs").read_text() == ME
    assert (ours / "cgroup.subtree_control").read_text().startswith("+memory")
    group = groups.make(1 << 20)
    assert Path(group.path).parent == ours
    assert (Path(group.path) / "memory.max").read_text() == str(1 << 20)
    assert groups.make(1 << 20).path != group.path
    with pytest.raises(InvalidArgument):
        groups.make(0)
    inside = group.make()
    assert Path(inside.path).parent == Path(group.path)
    assert (Path(group.path) / "cgroup.subtree_control").read_text() == "+memory"
    assert not (Path(inside.path) / "memory.max").exists()  # it has what the group around has


def test_a_group_tells_what_it_uses(fake: Callable[..., str]) -> None:
    group = MemoryGroup.ours(fake()).make(1 << 20)
    assert group.used == 0
    (Path(group.path) / "memory.current").write_text("4096\n")
    assert group.used == 4096


def test_empty_groups_of_others_that_are_gone_are_swept(fake: Callable[..., str], tmp_path: Path) -> None:
    proc = fake()
    left = tmp_path / "cgroup" / "ours" / "l4re.1.7"
    left.mkdir()
    in_use = tmp_path / "cgroup" / "ours" / "l4re.1.8"
    in_use.mkdir()
    (in_use / "cgroup.procs").write_text("1\n")
    MemoryGroup.ours(proc)
    assert not left.exists()
    assert in_use.exists()


@pytest.mark.processes
def test_a_program_enters_before_it_runs(fake: Callable[..., str]) -> None:
    group = MemoryGroup.ours(fake()).make(1 << 20)
    with group.entrance() as entrance:
        started = process.spawn("/bin/true", ["true"], {}, cgroup=entrance.fileno())
    process.wait_any([started.pidfd.fileno()])
    assert process.reap(started.pidfd.fileno()) == 0
    assert (Path(group.path) / "cgroup.procs").read_text() == "0"  # to the kernel: whoever writes it


@pytest.mark.processes
def test_a_group_that_is_gone_starts_nothing(tmp_path: Path) -> None:
    with pytest.raises(L4Error, match="cannot enter"):
        MemoryGroup(str(tmp_path / "none")).entrance()
    nobody_reads, entrance = os.pipe()
    os.close(nobody_reads)
    try:
        with pytest.raises(process.StartFailed) as caught:
            process.spawn("/bin/true", ["true"], {}, cgroup=entrance)
    finally:
        os.close(entrance)
    assert caught.value.stage == process.Stage.CGROUP


@pytest.fixture
def real() -> Iterator[MemoryGroup]:
    """A group of the kernel's, without a limit."""
    folder = unified_folder()
    group = MemoryGroup(f"{folder}/l4re-test.{ME}")
    try:
        os.mkdir(group.path)
    except OSError as error:
        pytest.skip(f"no cgroup v2 that is ours: {error.strerror}")
    yield group
    group.close()
    assert not os.path.exists(group.path)
    group.close()


@pytest.mark.processes
def test_the_kernel_has_the_program_in_its_group(real: MemoryGroup) -> None:
    with real.entrance() as entrance:
        started = process.spawn("/bin/sleep", ["sleep", "1000"], {}, cgroup=entrance.fileno())
    try:
        assert Path(real.path, "cgroup.procs").read_text() == f"{started.pid}\n"
        os.mkdir(f"{real.path}/empty")
        real.close()
        assert os.listdir(real.path)  # somebody is in it
        assert not os.path.exists(f"{real.path}/empty")
    finally:
        process.kill(started.pidfd.fileno(), 9)
        process.wait_any([started.pidfd.fileno()])
        process.reap(started.pidfd.fileno())
