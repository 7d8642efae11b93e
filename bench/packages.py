"""Packages that peers are made of: which version there is, and how to get one that is missing.

A module of `bench.peers` imports what it needs at its top, so that an `ImportError` tells what that is.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["ALONE", "EXTRA", "INSTALL", "how_to_get", "versions"]

#: What brings everything here but `ALONE`.
INSTALL = "pip install 'pyl4re[bench]'"
#: Distributions by the name that is imported.
EXTRA = {
    "zmq": "pyzmq",
    "iceoryx2": "iceoryx2",
    "zenoh": "eclipse-zenoh",
    "posix_ipc": "posix_ipc",
    "pynng": "pynng",
}
#: Used when they are there, and too big to be brought along.
ALONE = {"torch": "torch"}


def how_to_get(error: ImportError) -> str:
    """Return the command that brings the package whose import failed, or what the error says if none does."""
    package = (error.name or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and package in EXTRA:
        return INSTALL
    if isinstance(error, ModuleNotFoundError) and package in ALONE:
        return f"pip install {ALONE[package]}"
    return str(error)


def versions() -> dict[str, str]:
    """Return the versions of this package and of those that peers are made of, as far as they are installed."""
    found = {}
    for name in ("pyl4re", *EXTRA.values(), *ALONE.values()):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            pass
    return found
