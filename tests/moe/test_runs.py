"""A whole run: programs under a root, with what it serves them."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from l4re.testing import wait_until
from support.programs import PATIENCE, alive, l4re, running, write

pytestmark = pytest.mark.processes

FIRST = min(os.sched_getaffinity(0))


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., Path]:
    def make(text: str, **programs: str) -> Path:
        for name, program in programs.items():
            write(tmp_path, f"{name}.py", program)
        return write(tmp_path, "script.lua", "local l = L4.default_loader\n" + text)

    return make


def test_the_quota_of_a_run_is_what_its_programs_have_together(script: Callable[..., Path]) -> None:
    big = """
        import l4re
        mem = l4re.env().mem_alloc
        held = mem.alloc(800 << 10)
        print(mem.info().quota, mem.info().quota_used)
        try:
            mem.alloc(300 << 10)
        except MemoryError as error:
            print(error)
        """
    run = l4re("run", "--quota", "1M", script("l:start({ log = { 'big' } }, 'rom/big')", big=big))
    assert run.status == 0, run.err
    assert run.out.splitlines() == [
        f"big     | {1 << 20} {800 << 10}",
        f"big     | wanted {300 << 10} bytes, {224 << 10} are left of a quota of {1 << 20}",
    ]


def test_memory_of_a_program_that_was_killed_is_there_for_the_next(script: Callable[..., Path]) -> None:
    take = """
        import os, signal
        import l4re
        held = l4re.env().mem_alloc.alloc(900 << 10)
        region = l4re.env().rm.attach(held)
        print("has it", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    text = "for i = 1, 3 do l:start({ log = { 'p' .. i } }, 'rom/take'):wait() end"
    run = l4re("run", "--quota", "1M", script(text, take=take))
    assert run.out.splitlines() == [f"p{number}      | has it" for number in (1, 2, 3)]
    assert run.status == 128 + signal.SIGKILL


def test_logs_come_out_to_the_last_line_of_a_program_that_ends_at_once(script: Callable[..., Path]) -> None:
    speaker = """
        import l4re
        from l4re.services.vcon import Vcon
        log = Vcon(l4re.env().user_factory.create(l4re.Proto.LOG, "mine", "red"))
        for number in range(200):
            log.write(f"line {number}\\n")
        log.write("no newline")
        import os
        os._exit(0)
        """
    run = l4re("run", script("l:start({}, 'rom/speaker')", speaker=speaker))
    assert run.status == 0, run.err
    assert run.out.splitlines() == [*(f"mine    | line {number}" for number in range(200)), "mine    | no newline"]


def test_a_program_starts_another_under_a_scheduler_of_its_factory(script: Callable[..., Path]) -> None:
    boss = f"""
        import sys
        import l4re
        scheduler = l4re.env().user_factory.create(l4re.Proto.SCHEDULER, 40, 20, {1 << FIRST})
        look = "import os; print('at', *os.sched_getaffinity(0))"
        l4re.spawn([sys.executable, "-c", look], services={{"scheduler": scheduler}}).wait()
        """
    run = l4re("run", script("l:start({ log = { 'boss' } }, 'rom/boss')", boss=boss))
    assert (run.status, run.out) == (0, f"boss    | at {FIRST}\n"), run.err


def test_kill_minus_nine_of_the_root_leaves_nothing(script: Callable[..., Path]) -> None:
    holder = """
        import os, signal
        import l4re
        held = l4re.env().mem_alloc.alloc(1 << 20, name="left-by-the-root")
        region = l4re.env().rm.attach(held)
        names = l4re.env().user_factory.create(l4re.Proto.NAMESPACE)
        print(os.getpid(), flush=True)
        signal.pause()
        """
    with running("run", script("l:start({ log = { 'h' } }, 'rom/holder')", holder=holder)) as process:
        assert process.stdout is not None
        pid = int(re.sub(r".*\| ", "", process.stdout.readline()))
        assert "left-by-the-root" in Path(f"/proc/{pid}/maps").read_text()
        process.kill()
        wait_until(lambda: not alive([pid]), PATIENCE)
