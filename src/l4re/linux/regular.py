"""Regular files: opened for reading, and told apart from what they were before."""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple, NoReturn

from l4re.errors import InvalidArgument, L4Error, NotFound, OutOfMemory, PermissionDenied
from l4re.linux.fd import Fd

__all__ = ["Stamp", "open_regular", "stamp_of"]

_WHAT = "file"
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


class Stamp(NamedTuple):
    """What changes when a file is replaced or written.

    Two changes within one tick of the kernel's clock may look like one: some milliseconds, before Linux 6.13.
    """

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


def stamp_of(file: str | int) -> Stamp:
    """Return the stamp of a regular file, named by path or descriptor.

    Raises:
        NotFound, PermissionDenied: it is not there, or cannot be looked at.
        InvalidArgument: it is no regular file.
    """
    try:
        about = os.stat(file)
    except (OSError, ValueError) as error:
        _explain(file, error)
    if not stat.S_ISREG(about.st_mode):
        kind = _KINDS.get(stat.S_IFMT(about.st_mode), "something else")
        raise InvalidArgument(f"{file} is {kind}, and no regular file")
    return Stamp(about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)


def open_regular(path: str) -> Fd:
    """Return a descriptor that reads a regular file; nothing else is opened, if nobody replaces it meanwhile.

    Raises:
        NotFound, PermissionDenied, InvalidArgument: as `stamp_of`.
        OutOfMemory: no descriptor is left.
    """
    stamp_of(path)
    try:
        return Fd(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY), False, _WHAT)
    except OSError as error:
        _explain(path, error)


def _explain(file: str | int, error: OSError | ValueError) -> NoReturn:
    if isinstance(error, ValueError):
        raise InvalidArgument(f"{file!r} is no path: {error}") from error
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        raise NotFound(f"there is no file {file}") from error
    if error.errno in (errno.EACCES, errno.EPERM):
        raise PermissionDenied(f"{file} cannot be read: {error.strerror}") from error
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        raise OutOfMemory(f"{file} cannot be opened: {error.strerror}") from error
    if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
        raise InvalidArgument(f"{file} leads nowhere: {error.strerror}") from error
    raise L4Error(f"{file} cannot be read: {error.strerror}") from error
