"""``/dev/null``: nothing to read, and nobody who reads."""

from __future__ import annotations

import os

from l4re.linux.fd import Fd

__all__ = ["no_input", "silence"]


def no_input() -> Fd:
    """Return a descriptor that is at its end."""
    return Fd(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), what="/dev/null")


def silence(fd: int) -> None:
    """Let what is written to ``fd`` from now on go nowhere."""
    with Fd(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), what="/dev/null") as nowhere:
        os.dup2(nowhere.fileno(), fd)
