"""`Env`: what a program was given, and what it gets without a parent of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import l4re
from l4re.environment import Env, EnvPage
from l4re.linux import sealed
from support.programs import write


def test_without_a_parent_there_is_memory_and_a_log_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("L4RE_ENV", raising=False)
    env = Env.inherited()
    assert dict(env.caps) == {}
    with env.mem_alloc.alloc(4096) as ds, env.rm.attach(ds) as region:
        assert len(memoryview(region)) == 4096
    with pytest.raises(l4re.NotFound, match="given no named capabilities"):
        env.get_cap("shm")


def test_there_is_one_environment_in_a_process() -> None:
    assert l4re.env() is l4re.env()


def test_a_missing_name_is_told_with_the_names_there_are() -> None:
    with l4re.new_channel().gate as gate, Env({"shm": gate, "clock": gate}) as env:
        with pytest.raises(
            l4re.NotFound, match=r"no capability 'shn' \(did you mean 'shm'\?\).*'shm', 'clock'"
        ) as info:
            env.get_cap("shn")
        assert info.value.names == ("shm", "clock")
        assert isinstance(info.value, LookupError)


class Calc(l4re.Interface):
    protocol = 0x44

    @l4re.rpc
    def neg(self, value: int) -> int:
        raise NotImplementedError


def test_a_capability_comes_as_what_the_program_asks_for() -> None:
    channel = l4re.new_channel()
    with channel.svr, Env({"calc": channel.gate}) as env:
        assert env.get_cap("calc") is channel.gate
        assert env.get_cap("calc", l4re.Gate) is channel.gate
        assert isinstance(env.get_cap("calc", Calc), Calc)
        with pytest.raises(l4re.InvalidArgument, match="'calc' is a gate, not a dataspace"):
            env.get_cap("calc", l4re.Dataspace)


def test_closing_an_environment_drops_its_capabilities() -> None:
    channel = l4re.new_channel()
    with channel.svr:
        with Env({"calc": channel.gate}) as env:
            assert repr(env) == "<Env calc>"
        assert channel.gate.closed


def test_the_factory_makes_gates_and_irqs() -> None:
    gate, svr = l4re.env().factory.create_gate()
    gate.close()
    svr.close()
    with l4re.env().factory.create_irq() as irq:
        irq.trigger()
        irq.receive(timeout=10)


@pytest.mark.parametrize("value", ["", "x", "-1", "999", "3 ", "٣", "99999999999999999999"])
def test_a_variable_that_names_no_page_means_nothing(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("L4RE_ENV", value)
    assert dict(Env.inherited().caps) == {}


def test_a_page_for_somebody_else_means_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with sealed.make(EnvPage(pid=os.getpid() + 1).pack(), "page") as page:
        monkeypatch.setenv("L4RE_ENV", str(page.fileno()))
        assert sealed.read(page.fileno()) is None  # and one that can still be written is none at all
        assert dict(Env.inherited().caps) == {}


@pytest.mark.processes
def test_a_grandchild_that_inherits_everything_stands_alone(tmp_path: Path) -> None:
    program = write(
        tmp_path,
        "program.py",
        """
        import os, sys, l4re
        if len(sys.argv) == 1:
            pid = os.fork()
            if pid == 0:
                os.execv(sys.executable, [sys.executable, __file__, "grandchild"])
            os.waitpid(pid, 0)
        print(sys.argv[1:], sorted(l4re.env().caps), flush=True)
        """,
    )
    channel = l4re.new_channel()
    read, write_end = os.pipe()
    with channel.gate, channel.svr:
        code = (
            "import l4re, sys; c = l4re.new_channel();"
            f"t = l4re.spawn([{str(program)!r}], caps={{'shm': c.gate}}); sys.exit(t.wait())"
        )
        done = subprocess.run([sys.executable, "-c", code], stdout=write_end, check=True)
    os.close(write_end)
    with open(read) as output:
        assert output.read() == "['grandchild'] []\n[] ['shm']\n"
    assert done.returncode == 0


@pytest.mark.processes
def test_programs_that_a_program_runs_do_not_get_its_capabilities(tmp_path: Path) -> None:
    code = (
        "import l4re, subprocess, sys; l4re.env();"
        "print(subprocess.run(['ls', '/proc/self/fd'], close_fds=False, capture_output=True, text=True).stdout.split())"
    )
    starter = (
        f"import l4re, sys; c = l4re.new_channel(); ds = l4re.env().mem_alloc.alloc(4096);"
        f"t = l4re.spawn([sys.executable, '-c', {code!r}], caps={{'a': c.gate, 'b': c.svr, 'c': ds}}); t.wait()"
    )
    done = subprocess.run([sys.executable, "-c", starter], capture_output=True, text=True, check=True)
    assert done.stdout == "['0', '1', '2', '3']\n"


@pytest.mark.processes
def test_a_program_may_have_as_many_descriptors_as_the_machine_lets_it() -> None:
    code = "import resource, l4re; l4re.env(); s, h = resource.getrlimit(resource.RLIMIT_NOFILE); print(s == h)"
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 256)); {code}"
    done = subprocess.run([sys.executable, "-c", limited], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
