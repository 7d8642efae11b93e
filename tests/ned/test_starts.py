"""Starting programs from a script: many of them, exactly as the script says, and none that outlives the root."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from l4re.testing import wait_until
from support.programs import PATIENCE, Rom, l4re, marked, write

pytestmark = pytest.mark.processes

MANY = 500


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started and not reaped."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            found += [int(word) for word in (task / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def test_hundreds_of_programs_are_started_and_reaped(rom: Rom) -> None:
    write(rom.folder, "quick", "#!/bin/sh\necho $1\n", mode=0o755)
    run = rom.run(
        f"""
        local l, sum = L4.default_loader, 0
        for n = 1, {MANY} do
          l:start({{ log = {{ "q" }} }}, "rom/quick " .. n):exit_handler(function(code) sum = sum + 1 + code end)
        end
        local last = l:start({{}}, "rom/hello")
        last:exit_handler(function() print("ended") end)
        last:wait()
        """,
        "--timeout",
        "100",
    )
    assert (run.status, run.err) == (0, "")
    lines = run.out.splitlines()
    assert sorted(int(line.partition("| ")[2]) for line in lines if line.startswith("q ")) == [*range(1, MANY + 1)]


def test_each_of_hundreds_that_run_at_once_is_served(rom: Rom) -> None:
    write(rom.folder, "nap", "#!/bin/sh\nexec sleep 1000\n", mode=0o755)
    write(rom.folder, "data.txt", "text")
    rom.program(
        "use",
        """
        import l4re
        env = l4re.env()
        print(env.get_cap("rom/data.txt", l4re.Dataspace).size, env.mem_alloc.alloc(4096).size)
        print(env.scheduler.info().cpu_max > 0)
        """,
    )
    run = rom.run(
        """
        local l, naps = L4.default_loader, {}
        for n = 1, 300 do naps[n] = l:start({ scheduler = L4.Env.scheduler:m("r") }, "rom/nap") end
        l:start({ scheduler = L4.Env.scheduler:m("r") }, "rom/use"):wait()
        for n = 1, 300 do naps[n]:kill() end
        """
    )
    assert (run.status, run.out, run.err) == (0, "use     | 4 4096\nuse     | True\n", "")


def test_one_after_the_other_leaves_no_descriptor_behind(rom: Rom) -> None:
    write(
        rom.folder,
        "system.py",
        """
        import os
        import l4re
        with l4re.Loader() as ld:
            counts = []
            for _ in range(40):
                channel = l4re.new_channel()
                with channel:
                    ld.start("rom/hello", caps={"c": channel, "s": channel.svr}).wait()
                counts.append(len(os.listdir("/proc/self/fd")))
            print(counts[-1] - counts[9])
        """,
    )
    run = l4re("run", "system.py", cwd=rom.folder)
    assert (run.status, run.err) == (0, "")
    assert int(run.out.splitlines()[-1]) <= 0


SHOW = """
import os, signal
print(sorted(set(os.environ) - {"L4RE_ENV", "PYTHONUNBUFFERED", "LC_CTYPE"}))
print(sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))))
print([name for name in ("SIGUSR1", "SIGTERM", "SIGPIPE") if signal.getsignal(getattr(signal, name)) == signal.SIG_IGN])
print(sorted(int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")))
print(os.getpgid(0) == os.getpid(), os.getcwd(), sorted(l4re.env().caps))
"""


def test_a_program_inherits_nothing_that_the_script_did_not_give(rom: Rom) -> None:
    """Neither variables nor a mask of signals, nor ignored signals, nor descriptors of whoever runs the script."""
    rom.program("show", "import l4re" + SHOW)
    write(rom.folder, "script.lua", "L4.default_loader:start({ log = { 'show' } }, 'rom/show', { A = 'x' })")
    reader, writer = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-m", "l4re", "run", "script.lua"],
        cwd=rom.folder,
        env={**os.environ, "SECRET": "1"},
        pass_fds=(reader, writer),
        preexec_fn=_odd_signals,  # noqa: PLW1509 - this process has one thread
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        out, err = process.communicate(timeout=PATIENCE)
    os.close(reader)
    os.close(writer)
    assert (process.returncode, err) == (0, "")
    shown = [line.partition("| ")[2] for line in out.splitlines()]
    fds = shown.pop(3)
    # The rom's port, standard input and output, and the descriptor that lists the folder, or none of the former yet.
    assert len(fds.split(",")) <= 6, fds
    assert shown == ["['A']", "[]", "['SIGPIPE']", f"True {rom.folder} ['rom']"]


def _odd_signals() -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGTERM])


@contextmanager
def starting(rom: Rom, mark: str) -> Iterator[subprocess.Popen[str]]:
    """Run a script that starts programs without end; they sleep for ``mark`` seconds, or have that word."""
    write(rom.folder, "quick", "#!/bin/sh\nexec sleep $1\n", mode=0o755)
    rom.program("slow", "import signal; signal.pause()")
    write(
        rom.folder,
        "script.lua",
        f"""
        print("begin")
        local l = L4.default_loader
        while true do
          local a, b = l:start({{}}, "rom/quick {mark}"), l:start({{}}, "rom/slow {mark}")
          a:kill()
          if next_one then next_one:kill() end
          next_one = b
        end
        """,
    )
    with subprocess.Popen(
        [sys.executable, "-m", "l4re", "run", "script.lua"], cwd=rom.folder, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "begin\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", range(8))
def test_killing_the_root_in_the_middle_of_starts_leaves_no_child(rom: Rom, number: int) -> None:
    mark = f"1000.{os.getpid()}{number}"
    with starting(rom, mark) as process:
        seen: set[int] = set()
        while len(seen) < 3 + number:
            seen |= set(children_of(process.pid))
        time.sleep(random.Random(number).random() / 100)  # anywhere within a start
        process.kill()
        process.wait(PATIENCE)
        wait_until(lambda: not marked(mark), PATIENCE)
