"""Files as dataspaces: each is copied once, into memory that nobody can change, and all who ask share that.

A file itself is never mapped: whoever may write it could cut it short under a reader. The copy is what the file
was at one moment.
"""

from __future__ import annotations

import os
from threading import RLock
from typing import TYPE_CHECKING, Final, NamedTuple

from l4re.closing import Closing
from l4re.dataspace.dataspace import Dataspace
from l4re.errors import Busy, Closed, L4Error, NotSupported, OutOfRange
from l4re.linux import copying, memfd
from l4re.linux.memory import MemoryGauge
from l4re.linux.regular import Stamp, open_regular, stamp_of

if TYPE_CHECKING:
    from os import PathLike

__all__ = ["FileDataspaces", "FileDataspacesStats"]

_TRIES: Final = 5
_MAX_NAME: Final = 249


class FileDataspacesStats(NamedTuple):
    """How many files are kept, and the bytes they have."""

    files: int
    bytes: int


class _File:
    """What is kept of one file; who copies it holds the lock."""

    __slots__ = ("lock", "memory", "stamp")

    def __init__(self) -> None:
        self.lock = RLock()
        self.stamp: Stamp | None = None
        self.memory: Dataspace | None = None


class FileDataspaces(Closing):
    """Makes read-only dataspaces of files, and keeps them: the next one who asks for the file gets the same memory.

    A file that was changed or replaced since (another size, time or inode) is copied anew when somebody asks for it;
    who has the old memory keeps that. The memory of a file is kept until then, or until :meth:`close`, also when
    nobody else has it.

    May be used by several threads; different files are copied beside each other.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._files: dict[str, _File] | None = {}
        self._gauge = MemoryGauge()

    def open(self, path: str | PathLike[str]) -> Dataspace:
        """Return the contents of a file as a dataspace that nobody can write; the caller owns the capability.

        Links are followed. The dataspace is named as the file.

        Raises:
            NotFound: there is no such file.
            PermissionDenied: it cannot be read.
            InvalidArgument: a directory, a device or anything else that is no regular file.
            OutOfRange: it is empty, and a dataspace has at least one byte.
            OutOfMemory: the machine or its cgroup cannot give as much as it has.
            Busy: it changes again and again while it is copied.
            Closed: after :meth:`close`.
        """
        try:
            real = os.path.realpath(os.fspath(path))
        except ValueError:
            real = os.fspath(path)  # what is wrong with it is said below
        with self._lock:
            if self._files is None:
                raise Closed("these file dataspaces are closed")
            file = self._files.setdefault(real, _File())
        with file.lock:
            try:
                stamp = stamp_of(real)
                if file.memory is None or file.stamp != stamp:
                    file.stamp, file.memory = self._copied(real)
                return file.memory.dup()
            except L4Error:
                self._forget(real, file)
                raise

    def _forget(self, path: str, file: _File) -> None:
        file.stamp = file.memory = None
        with self._lock:
            if self._files is not None and self._files.get(path) is file:
                del self._files[path]

    def _copied(self, path: str) -> tuple[Stamp, Dataspace]:
        name = os.path.basename(path).encode(errors="replace")[:_MAX_NAME].decode(errors="ignore")
        for _ in range(_TRIES):
            with open_regular(path) as source:
                stamp = stamp_of(source.fileno())
                if not stamp.size:
                    raise OutOfRange(f"{path} is empty, and a dataspace has at least one byte")
                self._gauge.charge(stamp.size)
                with Dataspace(memfd.create(stamp.size, name), stamp.size, name=name) as copy:
                    try:
                        done = copying.copy_file(source.fileno(), copy.fileno(), stamp.size)
                    except OSError as error:
                        raise L4Error(f"{path} cannot be read: {error.strerror}") from error
                    if done == stamp.size and stamp_of(source.fileno()) == stamp:
                        copy.freeze()
                        return stamp, _read_only(copy)
        raise Busy(f"{path} changes while it is copied; {_TRIES} attempts came to nothing")

    def stats(self) -> FileDataspacesStats:
        """Return what is kept."""
        with self._lock:
            kept = [memory for file in (self._files or {}).values() if (memory := file.memory) is not None]
        return FileDataspacesStats(len(kept), sum(memory.size for memory in kept))

    def close(self) -> None:
        """Keep nothing any more; a second call does nothing. What was opened stays with those who have it."""
        with self._lock:
            self._files = None

    def __repr__(self) -> str:
        files, size = self.stats()
        return f"<FileDataspaces of {files} files, {size} bytes>"


def _read_only(frozen: Dataspace) -> Dataspace:
    """Return a capability of its own; where none that only reads can be made, the seal has to do."""
    try:
        return frozen.ro
    except NotSupported:
        return frozen.dup()
