"""Progress on standard error, for somebody who watches; nothing elsewhere.

A bar where `rich` is installed, a plain line where it is not. It is drawn between two measurements and never beside
one: nothing of it runs while somebody is timed.
"""

from __future__ import annotations

import os
import sys
from typing import Protocol

from .packages import INSTALL

__all__ = ["Progress", "progress_of"]


class Progress(Protocol):
    """What is shown while a run goes on."""

    def __call__(self, text: str, seconds: float) -> None:
        """Say what begins now, and how long it takes, about."""

    def clear(self) -> None:
        """Take it off the screen, for other words or at the end; the next call brings it back."""


def progress_of(total: float) -> Progress:
    """Return what suits standard error, for a run of ``total`` seconds."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return _Silent()
    try:
        return _bar(total)
    except ImportError:
        return _Line(total)


class _Silent:
    def __call__(self, text: str, seconds: float) -> None:
        pass

    def clear(self) -> None:
        pass


class _Line:
    def __init__(self, total: float) -> None:
        print(f"For a progress bar: {INSTALL}", file=sys.stderr)
        self._total, self._done = total, 0.0

    def __call__(self, text: str, seconds: float) -> None:
        print(f"\r\033[K{self._done / self._total:4.0%} {text}", end="", file=sys.stderr, flush=True)
        self._done += seconds

    def clear(self) -> None:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def _bar(total: float) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    class Bar:
        def __init__(self) -> None:
            self._progress = Progress(
                TaskProgressColumn(),
                BarColumn(30),
                TimeRemainingColumn(),
                TextColumn("{task.description}", markup=False),
                console=Console(stderr=True),
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._task = self._progress.add_task("", total=total)
            self._shown, self._last = False, 0.0

        def __call__(self, text: str, seconds: float) -> None:
            if not self._shown:
                self._progress.start()
                self._shown = True
            self._progress.update(self._task, advance=self._last, description=text, refresh=True)
            self._last = seconds

        def clear(self) -> None:
            if self._shown:
                self._progress.stop()
                self._shown = False

    return Bar()
