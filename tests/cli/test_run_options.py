"""What the command line of a run says: ned's options, and ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.programs import PATIENCE, l4re, write

pytestmark = pytest.mark.processes

HANDLER = """
local t = L4.default_loader:start({}, "rom/hello")
t:exit_handler(function(code) print("handler", code) end)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, "hello.py", "import os; print('hello', os.environ.get('A'), os.environ.get('B'))")
    write(tmp_path, "forever.py", "import signal; print('ready'); signal.pause()")
    write(tmp_path, "script.lua", "L4.default_loader:start({}, 'rom/hello', { A = before })")
    return tmp_path


def test_statements_run_before_the_script_in_order(folder: Path) -> None:
    run = l4re("run", "-e", "before = 1", "--execute", "before = before + 1", "script.lua", cwd=folder)
    assert (run.status, run.out, run.err) == (0, "hello   | hello 2 None\n", "")


def test_a_statement_that_fails_is_told_and_passed_over(folder: Path) -> None:
    run = l4re("run", "-e", "error('no')", "-e", "print(", "-e", "before = 3", "script.lua", cwd=folder)
    assert run.out == "hello   | hello 3 None\n"
    assert run.err.splitlines() == [
        "lua error: error('no'):1: no.",
        "Error executing cmdline statement",
        "lua error: print(:1: unexpected symbol near <eof>.",
        "Error executing cmdline statement",
    ]
    assert run.status == 2


def test_statements_alone_are_a_script(folder: Path) -> None:
    run = l4re("run", "-e", "L4.default_loader:start({}, 'rom/hello')", "-e", "print(arg)", cwd=folder)
    assert (run.status, sorted(run.out.splitlines()), run.err) == (0, ["hello   | hello None None", "nil"], "")


def test_variables_for_every_program_unless_the_script_says_others(folder: Path) -> None:
    run = l4re("run", "-e", "before = 'script'", "--env", "A=x", "--env", "B=y=z", "script.lua", cwd=folder)
    assert run.out == "hello   | hello script y=z\n"


@pytest.mark.parametrize(
    "statement", ["L4.default_loader:start({}, 'rom/forever')", "while true do end", "L4.sleep(600)"]
)
def test_a_time_limit_ends_everything_with_status_124(folder: Path, statement: str) -> None:
    run = l4re("run", "--timeout", "1", "-e", statement, cwd=folder)
    assert (run.status, run.err) == (124, "")


def test_a_run_that_ends_in_time_does_not_notice_its_limit(folder: Path) -> None:
    run = l4re("run", "--timeout", "50", "script.lua", cwd=folder)
    assert (run.status, run.out, run.err) == (0, "hello   | hello None None\n", "")


@pytest.mark.parametrize(("option", "handled"), [("--exit", False), ("--wait-and-exit", True), (None, True)])
def test_after_exit_programs_go_on_and_no_handler_runs(folder: Path, option: str | None, handled: bool) -> None:
    write(folder, "handler.lua", HANDLER)
    run = l4re("run", *([option] if option else []), "handler.lua", cwd=folder)
    lines = ["hello   | hello None None", *(["handler\t0"] if handled else [])]
    assert (run.status, run.out.splitlines(), run.err) == (0, lines, "")


def test_a_dry_run_shows_and_starts_nothing(folder: Path) -> None:
    run = l4re("run", "--dry-run", "script.lua", cwd=folder)
    assert run.status == 0
    assert run.out == l4re("check", "script.lua", cwd=folder).out
    assert "rom/hello" in run.out
    assert "hello None" not in run.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--timeout", "-1", "script.lua"], "'-1' is no time"),
        (["--timeout", "soon", "script.lua"], "'soon' is no time"),
        (["--env", "A", "script.lua"], "'A' is no variable, as in NAME=VALUE"),
        (["--exit", "--wait-and-exit", "script.lua"], "not allowed with"),
        (["--dry-run", "-e", "x = 1"], "--dry-run takes a script in Lua"),
        (["-e", "x = 1", "system.py"], "-e takes Lua"),
        (["--dry-run", "system.py"], "--dry-run takes a script in Lua"),
    ],
)
def test_misuse_is_told(folder: Path, words: list[str], message: str) -> None:
    write(folder, "system.py", "")
    run = l4re("run", *words, cwd=folder)
    assert run.status == 2
    assert message in run.err
    assert "Traceback" not in run.err


def test_without_standard_input_nothing_else_is_read(folder: Path) -> None:
    write(folder, "ask.py", "import sys; print(repr(sys.stdin.read()))")
    done = subprocess.run(
        [sys.executable, "-m", "l4re", "run", "-e", "L4.default_loader:start({ log = L4.Env.log }, 'rom/ask')"],
        cwd=folder,
        preexec_fn=lambda: os.close(0),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "''\n", "")
