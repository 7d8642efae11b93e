"""Files as dataspaces: copied once, shared by all who ask, made anew when the file has changed."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from l4re import (
    AccessDenied,
    Busy,
    Closed,
    Dataspace,
    DsFlags,
    FileDataspaces,
    InvalidArgument,
    L4Error,
    NotFound,
    OutOfMemory,
    OutOfRange,
    PermissionDenied,
    RegionMap,
    Rights,
)
from l4re.linux import copying
from support.processes import PATIENCE, UNPRIVILEGED, Child, Link, descriptors, processes

TEXT = b"#!/bin/sh\n" + bytes(range(256)) * 100


@pytest.fixture
def files() -> Iterator[FileDataspaces]:
    with FileDataspaces() as files:
        yield files


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "program"
    path.write_bytes(TEXT)
    return path


@pytest.fixture
def start() -> Iterator[Callable[..., Child]]:
    with processes() as fork:
        yield fork


def contents(ds: Dataspace) -> bytes:
    return ds.read(0, ds.size)


def test_a_file_is_memory_that_nobody_can_write(files: FileDataspaces, path: Path) -> None:
    with files.open(path) as ds:
        assert contents(ds) == TEXT
        assert (ds.size, ds.name, ds.enforcement) == (len(TEXT), "program", "sealed")
        assert (ds.flags, ds.rights) == (DsFlags.R, Rights.R)
        with pytest.raises(AccessDenied):
            ds.write(0, b"x")
        fd = os.open(f"/proc/self/fd/{ds.fileno()}", os.O_RDWR | os.O_CLOEXEC)
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"x", 0)
        os.close(fd)
        with RegionMap().attach(ds) as region:
            assert bytes(region) == TEXT
            assert region.readonly


def test_all_who_ask_share_one_copy_and_each_has_a_capability_of_its_own(files: FileDataspaces, path: Path) -> None:
    link = path.parent / "link"
    link.symlink_to(path)
    with files.open(path) as one, files.open(str(link)) as two:
        assert one == two
        one.close()
        assert contents(two) == TEXT
    with files.open(os.path.relpath(path)) as again:
        assert again == files.open(path)
    assert files.stats() == (1, len(TEXT))
    assert repr(files) == f"<FileDataspaces of 1 files, {len(TEXT)} bytes>"


def rewritten(path: Path) -> None:
    path.write_bytes(TEXT[::-1])


def replaced(path: Path) -> None:
    stat = path.stat()
    fresh = path.with_name("fresh")
    fresh.write_bytes(TEXT[::-1])
    os.utime(fresh, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    fresh.rename(path)


def put_back_in_time(path: Path) -> None:
    stat = path.stat()
    path.write_bytes(TEXT[::-1])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("change", [rewritten, replaced, put_back_in_time], ids=lambda change: change.__name__)
def test_a_file_that_changed_is_new_memory_and_the_old_one_stays_what_it_was(
    files: FileDataspaces, path: Path, change: Callable[[Path], None]
) -> None:
    with files.open(path) as old:
        change(path)
        with files.open(path) as new:
            assert new != old
            assert contents(new) == TEXT[::-1]
            assert contents(old) == TEXT
            assert files.open(path) == new
    assert files.stats().files == 1


def test_what_is_kept_costs_a_descriptor_and_goes_when_it_is_closed(path: Path) -> None:
    before = descriptors()
    files = FileDataspaces()
    for _ in range(3):
        files.open(path).close()
    assert descriptors() == before + 1
    rewritten(path)
    files.open(path).close()
    assert descriptors() == before + 1
    with files.open(path) as ds:
        files.close()
        files.close()
        assert contents(ds) == TEXT[::-1]
    assert descriptors() == before
    assert files.stats() == (0, 0)
    with pytest.raises(Closed):
        files.open(path)


def test_what_is_not_there_is_not_found_and_no_more_kept(files: FileDataspaces, path: Path) -> None:
    files.open(path).close()
    for wrong in (path / "below", path.parent / "nothing"):
        with pytest.raises(NotFound, match=str(wrong)):
            files.open(wrong)
    path.unlink()
    with pytest.raises(NotFound):
        files.open(path)
    assert files.stats() == (0, 0)


def test_what_is_no_regular_file_is_refused_and_not_even_opened(files: FileDataspaces, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for name, what in (
            ("", "directory"),
            ("pipe", "pipe"),
            ("socket", "socket"),
            ("/dev/null", "device"),
            ("/dev/zero", "device"),
            ("loop", "leads nowhere"),
            ("x" * 300, "leads nowhere"),
            ("a\0b", "no path"),
        ):
            with pytest.raises(InvalidArgument, match=what):
                files.open(os.path.join(tmp_path, name))
    (tmp_path / "empty").touch()
    with pytest.raises(OutOfRange, match="at least one byte"):
        files.open(tmp_path / "empty")
    assert files.stats() == (0, 0)


@pytest.mark.processes
@pytest.mark.skipif(os.getuid() != 0, reason="root may read everything, and only root can become somebody else")
def test_what_may_not_be_read_is_denied(start: Callable[..., Child]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # so that it is the file which says no
        path = Path(folder, "secret")
        path.write_bytes(b"secret")
        path.chmod(0o600)

        def other(link: Link) -> None:
            try:
                FileDataspaces().open(path)
            except PermissionDenied as error:
                link.say(str(error))

        child = start(other, user=UNPRIVILEGED)
        assert child.hear() == f"{path} cannot be read: Permission denied"
        child.end()


def test_a_file_that_takes_more_than_there_is_is_out_of_memory(files: FileDataspaces, path: Path) -> None:
    before = descriptors()
    os.truncate(path, 1 << 42)
    with pytest.raises(OutOfMemory, match=f"wanted {1 << 42} bytes .* can give [0-9]+"):
        files.open(path)
    assert descriptors() == before
    path.write_bytes(TEXT)
    assert contents(files.open(path)) == TEXT


def test_without_a_descriptor_it_is_out_of_memory(
    files: FileDataspaces, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", full)
        with pytest.raises(OutOfMemory, match="Too many open files"):
            files.open(path)
    assert contents(files.open(path)) == TEXT


@pytest.mark.parametrize("times", [1, 4, 5])
def test_a_file_that_changes_while_it_is_copied_is_copied_again_or_refused(
    files: FileDataspaces, path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    copy_file, copied = copying.copy_file, 0

    def disturbed(source: int, target: int, size: int) -> int:
        nonlocal copied
        copied += 1
        if copied <= times:
            path.write_bytes(b"%d" % copied if copied % 2 else TEXT + b"more")
        return copy_file(source, target, size)

    monkeypatch.setattr(copying, "copy_file", disturbed)
    before = descriptors()
    if times < 5:
        with files.open(path) as ds:
            assert contents(ds) == path.read_bytes()
            assert copied == times + 1
        return
    with pytest.raises(Busy, match="5 attempts"):
        files.open(path)
    assert descriptors() == before


@pytest.mark.parametrize(("code", "works"), [(errno.EINVAL, True), (errno.EIO, False)])
def test_a_file_system_that_cannot_splice_is_read(
    files: FileDataspaces, path: Path, monkeypatch: pytest.MonkeyPatch, code: int, works: bool
) -> None:
    sendfile, calls = os.sendfile, 0

    def half(target: int, source: int, at: int, size: int) -> int:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(code, os.strerror(code))
        return sendfile(target, source, at, size // 2)

    monkeypatch.setattr(os, "sendfile", half)
    if works:
        assert contents(files.open(path)) == TEXT
    else:
        with pytest.raises(L4Error, match="cannot be read: Input/output error"):
            files.open(path)


@pytest.mark.parametrize("name", ["ä" * 127, "x" * 255, os.fsdecode(b"\xff\xfe"), "new\nline"])
def test_any_name_will_do(files: FileDataspaces, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"data")
    with files.open(tmp_path / name) as ds:
        assert contents(ds) == b"data"
        assert ds.name[:1] in ("ä", "x", "?", "n")


def test_a_large_file_is_copied_whole(files: FileDataspaces, tmp_path: Path) -> None:
    size = (130 << 20) + 77  # several steps
    path = tmp_path / "large"
    with path.open("wb") as file:
        for at in range(0, size, 1 << 20):
            file.write(b"%09d" % at)
            file.seek(at + (1 << 20))
        file.truncate(size)
    with files.open(path) as ds:
        assert ds.size == size
        for at in (0, 63 << 20, 64 << 20, 130 << 20):
            assert ds.read(at, 9) == b"%09d" % at


def test_threads_that_ask_for_one_file_share_one_copy(
    files: FileDataspaces, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_file, copies = copying.copy_file, []

    def counted(source: int, target: int, size: int) -> int:
        copies.append(size)
        return copy_file(source, target, size)

    monkeypatch.setattr(copying, "copy_file", counted)
    barrier = threading.Barrier(8)
    found: list[Dataspace] = []

    def ask() -> None:
        barrier.wait(PATIENCE)
        found.append(files.open(path))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(copies) == 1
    assert len(found) == 8
    assert all(ds == found[0] for ds in found)


@pytest.mark.processes
def test_another_process_gets_it_and_keeps_it_when_the_file_is_gone(
    start: Callable[..., Child], files: FileDataspaces, path: Path
) -> None:
    def reader(link: Link) -> None:
        (ds,) = link.take()
        link.hear()
        with RegionMap().attach(ds) as region:
            assert bytes(region) == TEXT
            assert ds.enforcement == "sealed"

    child = start(reader)
    with files.open(path) as ds:
        child.give(ds)
    path.unlink()
    files.close()
    child.say("gone")
    child.end()
