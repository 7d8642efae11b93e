"""Programs for tests: small Python files, and the command `l4re` as a process."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PATIENCE", "Outcome", "Rom", "alive", "l4re", "marked", "on_a_terminal", "running", "write"]

PATIENCE = 60.0


def write(folder: Path, name: str, text: str, *, mode: int = 0o644) -> Path:
    """Write a program or a script and return its path."""
    path = folder / name
    path.write_text(textwrap.dedent(text).lstrip("\n"))
    path.chmod(mode)
    return path


@dataclass(frozen=True)
class Outcome:
    """How a run of the command ended."""

    status: int
    out: str
    err: str


def _environment(variables: dict[str, str] | None) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("L4RE_", "NO_COLOR"))}
    return {**kept, **(variables or {})}


def _command(words: Sequence[str | Path], without: str | None) -> list[str]:
    """Return the command as it is, or as it is where the module ``without`` is not installed."""
    code = f"import sys; sys.modules[{without!r}] = None; from l4re.cli import main; sys.exit(main())"
    return [sys.executable, *(("-c", code) if without else ("-m", "l4re")), *map(str, words)]


def l4re(
    *words: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None, without: str | None = None
) -> Outcome:
    """Run the command and wait for its end."""
    done = subprocess.run(
        _command(words, without),
        cwd=cwd,
        env=_environment(env),
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=PATIENCE,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def on_a_terminal(
    *words: str | Path, env: dict[str, str] | None = None, without: str | None = None, typed: str = ""
) -> str:
    """Run the command, which must succeed, on a terminal of its own, and type; return what stands there."""
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            _command(words, without),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**_environment(None), "TERM": "xterm", **(env or {})},
        ) as process:
            os.close(theirs)
            os.write(ours, typed.encode())
            text = b""
            while True:
                try:
                    data = os.read(ours, 4096)
                except OSError:  # the last user of the other end is gone
                    break
                if not data:
                    break
                text += data
        assert process.returncode == 0
    finally:
        os.close(ours)
    return text.decode().replace("\r\n", "\n")


@contextmanager
def running(*words: str | Path, cwd: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """Start the command; the block reads its output and ends it."""
    with subprocess.Popen(
        [sys.executable, "-m", "l4re", *map(str, words)],
        cwd=cwd,
        env=_environment(None),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)


def alive(pids: Sequence[int]) -> list[int]:
    """Return those that are neither gone nor zombies."""
    found = []
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state not in "ZX":
            found.append(pid)
    return found


def marked(mark: str) -> list[int]:
    """Return the processes with this word in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


class Rom:
    """A folder with programs and one script."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def program(self, name: str, text: str) -> None:
        """Add ``rom/NAME``, in Python."""
        write(self.folder, f"{name}.py", text)

    def run(self, script: str, *words: str | Path) -> Outcome:
        """Run a script and wait for the end of everything."""
        write(self.folder, "script.lua", script)
        return l4re("run", "script.lua", *words, cwd=self.folder)
