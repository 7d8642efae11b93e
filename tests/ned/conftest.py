"""What these tests share."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from l4re.ned import ScriptError
from l4re.ned.plan import Plan
from l4re.ned.planner import plan_of
from support.programs import Rom, l4re, write


@pytest.fixture
def rom(tmp_path: Path) -> Rom:
    """A folder with a few programs in it."""
    rom = Rom(tmp_path)
    rom.program("hello", "import sys; print('hello', *sys.argv[1:])")
    rom.program("exit", "import sys; sys.exit(int(sys.argv[1]))")
    rom.program("forever", "import signal; signal.pause()")
    rom.program(
        "patient",  # ends once the script has made the file "go"
        """
        import os, sys, time
        while not os.path.exists("go"):
            time.sleep(0.001)
        sys.exit(int(sys.argv[1]))
        """,
    )
    rom.program(
        "caps",
        """
        import l4re
        for name, cap in l4re.env().caps.items():
            print(name, cap.kind, cap.rights.letters())
        """,
    )
    return rom


@dataclass(frozen=True)
class Said:
    """What a script printed, line by line, and what else was told."""

    lines: list[str]
    err: str
    status: int


@dataclass(frozen=True)
class Speaker:
    """One of the two worlds, and a folder for scripts."""

    world: str
    folder: Path

    def run(self, script: str, *words: str) -> Said:
        """Run a script in this world."""
        write(self.folder, "script.lua", script)
        if self.world == "live":
            done = l4re("run", "script.lua", *words, cwd=self.folder)
            return Said(done.out.splitlines(), done.err, done.status)
        out = io.StringIO()
        status, err = 0, ""
        with contextlib.chdir(self.folder), contextlib.redirect_stderr(out):
            try:
                plan_of("script.lua", arguments=words[1:])
            except ScriptError as error:
                status, err = 2, f"l4re: {error}\n"
        return Said(out.getvalue().splitlines(), err, status)

    def say(self, script: str, *words: str) -> list[str]:
        """Run a script that has no mistake and starts nothing that speaks, and return what it printed."""
        said = self.run(script, *words)
        assert said.status == 0, said.err
        return said.lines

    def mistake(self, script: str) -> str:
        """Return what is told of a script that has a mistake."""
        said = self.run(script)
        assert said.status == 2
        assert "Traceback" not in said.err
        return said.err.removeprefix("l4re: ").rstrip("\n")


@pytest.fixture(params=["planned", "live"])
def both(request: pytest.FixtureRequest, rom: Rom) -> Speaker:
    """Each world in turn."""
    return Speaker(request.param, rom.folder)


@pytest.fixture
def planned(rom: Rom) -> Speaker:
    """The world where nothing is started."""
    return Speaker("planned", rom.folder)


@pytest.fixture
def plan(rom: Rom) -> Callable[..., Plan]:
    """Make the plan of a script."""

    def make(script: str, **options: Any) -> Plan:
        write(rom.folder, "script.lua", script)
        with contextlib.chdir(rom.folder):
            return plan_of("script.lua", **options)

    return make
