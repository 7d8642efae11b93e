"""The command ``l4re``: misuse, colours, and how a run is stopped."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from l4re.testing import wait_until
from support.programs import PATIENCE, alive, l4re, on_a_terminal, running, write

pytestmark = pytest.mark.processes

FOREVER = "import signal; print('ready'); signal.pause()"


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., Path]:
    """``script(text, **programs)`` writes a script and its programs, and returns its path."""

    def make(text: str, **programs: str) -> Path:
        for name, program in programs.items():
            write(tmp_path, f"{name}.py", program)
        return write(tmp_path, "script.lua", "local l = L4.default_loader\n" + text)

    return make


def test_the_version() -> None:
    run = l4re("--version")
    assert run.status == 0
    assert re.fullmatch(r"l4re \d+\.\d+\.\d+\n", run.out)


def test_help_says_what_there_is() -> None:
    assert "run" in l4re("--help").out
    run = l4re("run", "--help")
    assert run.status == 0
    assert "l4re run [OPTIONS] SCRIPT [--rom DIR ...] [-- ARGS]" in run.out
    assert "Ctrl-C" in run.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "COMMAND"),
        (["frob"], "frob"),
        (["run"], "SCRIPT is missing"),
        (["run", "a.lua", "b"], "Arguments for the script come behind --"),
        (["run", "--frob", "a.lua"], "--frob"),
        (["run", "/no/such/script.lua"], "cannot open /no/such/script.lua: No such file or directory"),
        (["run", "--quota", "1X", "a.lua"], "'1X' is no size: a number of bytes, or of K, M, G, T as in 512M"),
        (["run", "--quota", "0", "a.lua"], "'0' is no size"),
        (["doctor", "me"], "me"),
        (["run", "/"], "cannot open /: Is a directory"),
        (["run", "/dev/null", "--rom", "/no/such/rom"], "the rom folder /no/such/rom does not exist"),
    ],
)
def test_misuse_is_told_and_is_status_2(words: list[str], message: str) -> None:
    run = l4re(*words)
    assert run.status == 2
    assert message in run.err
    assert "Traceback" not in run.err
    assert run.out == ""


def test_the_script_may_come_before_or_behind_the_rom_folders(script: Callable[..., Path]) -> None:
    path = script("l:start({}, 'rom/hello')", hello="print('hello')")
    orders: list[list[str | Path]] = [
        [path, "--rom", path.parent],
        ["--rom", path.parent, path],
        ["--rom", "/", path.parent, path],
    ]
    for words in orders:
        assert l4re("run", *words).out == "hello   | hello\n"


def test_importing_the_package_is_quick() -> None:
    code = "import l4re, sys; print([name for name in ('lupa', 'asyncio', 'argparse', 'numpy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# ---- colours ----


COLOURED = "l:start({ log = { 'a', 'yellow' } }, 'rom/hello'):wait() l:start({ log = { 'b', 'G' } }, 'rom/hello')"


def test_tags_have_their_colours_on_a_terminal(script: Callable[..., Path]) -> None:
    path = script(COLOURED, hello="print('hello')")
    assert on_a_terminal("run", path) == "\x1b[33ma       | hello\x1b[0m\n\x1b[01;32mb       | hello\x1b[0m\n"


def test_colours_can_be_declined(script: Callable[..., Path]) -> None:
    path = script(COLOURED, hello="print('hello')")
    plain = "a       | hello\nb       | hello\n"
    assert on_a_terminal("run", path, "--no-color") == plain
    assert on_a_terminal("run", path, env={"NO_COLOR": "1"}) == plain
    assert on_a_terminal("run", path, env={"TERM": "dumb"}) == plain
    assert l4re("run", path).out == plain


# ---- the end ----


def pids_of(process: subprocess.Popen[str], count: int) -> list[int]:
    found: list[int] = []

    def came() -> bool:
        found[:] = [
            int(word)
            for task in Path(f"/proc/{process.pid}/task").iterdir()
            for word in (task / "children").read_text().split()
        ]
        return len(found) == count

    wait_until(came, PATIENCE)
    return found


def lines(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return sorted(process.stdout.readline() for _ in range(count))


TWO = "l:start({ log = { 'a' } }, 'rom/forever') l:start({ log = { 'b' } }, 'rom/forever')"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_everything_once_and_quietly(script: Callable[..., Path], number: signal.Signals) -> None:
    with running("run", script(TWO, forever=FOREVER)) as process:
        assert lines(process, 2) == ["a       | ready\n", "b       | ready\n"]
        pids = pids_of(process, 2)
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (128 + number, "", "")
    assert alive(pids) == []


def test_programs_may_end_in_their_own_way(script: Callable[..., Path]) -> None:
    polite = """
        import signal
        try:
            print("ready")
            signal.pause()
        except KeyboardInterrupt:
            print("saved")
        """
    with running("run", script("l:start({ log = { 'a' } }, 'rom/polite')", polite=polite)) as process:
        lines(process, 1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (130, "a       | saved\n", "")


def test_a_program_that_does_not_want_to_end_is_ended(script: Callable[..., Path]) -> None:
    stubborn = """
        import signal
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: print("no"))
        print("ready")
        while True:
            signal.pause()
        """
    with running("run", script("l:start({ log = { 'a' } }, 'rom/stubborn')", stubborn=stubborn)) as process:
        lines(process, 1)
        pids = pids_of(process, 1)
        process.send_signal(signal.SIGINT)
        assert lines(process, 1) == ["a       | no\n"]  # exactly once
        process.send_signal(signal.SIGINT)  # who asks twice does not wait
        out, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (130, "")
    assert alive(pids) == []


@pytest.mark.parametrize(
    "busy",
    [
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "while true do pcall(t.wait, t) end",
        "t:wait()",
        "while true do xpcall(function() t:wait() end, print) end",
    ],
)
def test_a_busy_script_ends_as_well(script: Callable[..., Path], busy: str) -> None:
    path = script(f"local t = l:start({{ log = {{ 'a' }} }}, 'rom/forever')\n{busy}", forever=FOREVER)
    with running("run", path) as process:
        lines(process, 1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (130, "")
    assert "Traceback" not in out


def test_kill_minus_nine_leaves_no_child(script: Callable[..., Path]) -> None:
    nested = """
        import l4re
        with l4re.spawn(["sleep", "1000"]) as task:
            print(task.pid)
            task.wait()
        """
    path = script(
        TWO + " l:start({ log = { 'n' } }, 'rom/nested', { PATH = '/usr/bin:/bin' })", forever=FOREVER, nested=nested
    )
    with running("run", path) as process:
        grandchild = int(lines(process, 3)[2].split("|")[1])
        pids = [*pids_of(process, 3), grandchild]
        assert alive(pids) == pids
        process.kill()
    wait_until(lambda: not alive(pids), PATIENCE)


def test_a_reader_that_is_gone_ends_the_run_quietly(script: Callable[..., Path]) -> None:
    path = script(
        "l:start({ log = { 'y' } }, 'rom/yes') l:start({ log = { 'a' } }, 'rom/forever')",
        yes="while True: print('y')",
        forever=FOREVER,
    )
    with running("run", path) as process:
        lines(process, 10)
        pids = pids_of(process, 2)
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(PATIENCE) == 128 + signal.SIGPIPE
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert alive(pids) == []


def test_an_output_that_cannot_be_written_is_told(script: Callable[..., Path]) -> None:
    path = script("l:start({}, 'rom/hello')", hello="print('hello')")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "l4re", "run", path], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert "cannot write the output" in done.stderr
    assert "No space left" in done.stderr


def test_a_script_with_a_mistake_leaves_nothing_running(script: Callable[..., Path]) -> None:
    path = script(f"{TWO}\nwhile true do local line = io.read() if line then error(line) end end", forever=FOREVER)
    with subprocess.Popen(
        [sys.executable, "-m", "l4re", "run", path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        lines(process, 2)
        pids = pids_of(process, 2)
        _, err = process.communicate("enough\n", timeout=PATIENCE)
    assert process.returncode == 2
    assert err == f"l4re: {path}:3: enough\n"
    assert alive(pids) == []
