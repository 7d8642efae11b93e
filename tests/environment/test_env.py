"""`Env`: what a program was given, and what it gets without a parent of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import l4re
from l4re.environment import Env, EnvPage
from l4re.linux import sealed
from support.processes import Running
from support.programs import l4re as l4re_command
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


# ---- paths and services ----


@pytest.fixture
def names() -> Iterator[l4re.Gate]:
    """A namespace that is served: ``calc``, ``frames`` in ``dir``, and ``later``, which nobody has filled."""
    channel = l4re.new_channel()
    server = l4re.RegistryServer()
    root, inner = l4re.NamespaceServer(), l4re.NamespaceServer()
    with server, l4re.MemAlloc().alloc(4096) as frames, channel.gate as calc, channel.svr:
        inner.register("frames", frames)
        root.register("dir", inner)
        root.register("calc", calc)
        with server.registry.register_obj(root).mint() as gate, Running(server):
            yield gate


def test_a_path_leads_through_namespaces(names: l4re.Gate) -> None:
    with Env({"names": names}) as env:
        assert env.get_cap("names") is names
        assert env.get_cap("/names") is names
        with env.get_cap("names/dir/frames", l4re.Dataspace) as frames:
            assert frames.size == 4096
        with env.get_cap("/names/dir/frames") as again:
            assert again == frames or again.kind == "dataspace"
        assert isinstance(env.get_cap("names/calc", Calc), Calc)


@pytest.mark.parametrize("path", ["nothing/calc", "names/", "names/none", "//names", "/"])
def test_a_path_that_leads_nowhere_is_not_found_or_refused(names: l4re.Gate, path: str) -> None:
    with Env({"names": names}) as env, pytest.raises((l4re.NotFound, l4re.InvalidArgument)):
        env.get_cap(path)


def test_a_path_through_what_is_no_namespace_says_so() -> None:
    with l4re.MemAlloc().alloc(1) as ds, Env({"ds": ds}) as env:
        with pytest.raises(l4re.L4Error) as info:
            env.get_cap("ds/x")
        assert info.value.code == l4re.Err.ENOTDIR


def test_a_name_with_a_slash_in_it_is_found_first() -> None:
    with l4re.new_channel().gate as gate, Env({"a/b": gate}) as env:
        assert env.get_cap("a/b") is gate


def test_what_the_parent_gave_is_what_the_properties_use(names: l4re.Gate) -> None:
    with Env(services={"ns": names}) as env:
        assert {entry.name for entry in env.ns.list()} == {"calc", "dir"}
        assert dict(env.services) == {"ns": names}
        assert not env.standalone


def test_alone_there_are_defaults_and_no_namespace() -> None:
    with Env() as env:
        assert env.standalone
        assert env.user_factory is env.mem_alloc
        assert env.scheduler.info().cpus
        assert env.main_task.pid == os.getpid()
        with pytest.raises(l4re.NotFound, match="no namespace"):
            _ = env.ns


def test_a_service_that_is_no_gate_is_refused() -> None:
    ds = l4re.MemAlloc().alloc(1)
    with Env(services={"mem_alloc": ds}) as env, pytest.raises(l4re.InvalidArgument, match="a dataspace as mem_alloc"):
        _ = env.mem_alloc


@pytest.mark.processes
def test_a_program_of_a_run_allocates_from_the_root(tmp_path: Path) -> None:
    program = """
    import l4re
    env = l4re.env()
    before = env.mem_alloc.info()
    with env.mem_alloc.alloc(100_000, name="mine") as ds:
        print(ds.name, ds.size, env.mem_alloc.info().quota_used - before.quota_used)
        ds.freeze()
    with env.user_factory.create(l4re.Proto.FACTORY, 8192) as inner:
        try:
            l4re.Factory(inner).create(l4re.Proto.DATASPACE, 8193)
        except l4re.OutOfMemory as error:
            print(error)
    """
    write(tmp_path, "program.py", program)
    script = write(tmp_path, "script.lua", 'L4.default_loader:start({ log = { "it" } }, "rom/program")')
    run = l4re_command("run", script)
    assert (run.status, run.err) == (0, "")
    assert run.out.splitlines() == [
        "it      | mine 100000 102400",
        "it      | wanted 12288 bytes, 8192 are left of a quota of 8192",
    ]


class Screen(l4re.VconServer):
    def __init__(self) -> None:
        super().__init__()
        self.text = b""

    def write(self, data: bytes) -> None:
        self.text += data


class Diary(l4re.ParentServer):
    def __init__(self) -> None:
        self.said: list[int] = []

    def exited(self, status: int) -> None:
        self.said.append(status)


@pytest.mark.processes
def test_log_and_parent_are_whoever_the_parent_says(capfd: pytest.CaptureFixture[str]) -> None:
    code = "import l4re; e = l4re.env(); e.log.print('to the screen'); e.parent.signal(0, 7); print('to the terminal')"
    with l4re.RegistryServer() as server:
        screen, diary = Screen(), Diary()
        services = {"log": server.registry.register_obj(screen), "parent": server.registry.register_obj(diary)}
        with Running(server), l4re.spawn([sys.executable, "-c", code], services=services) as task:
            assert task.wait(60) == 0
    assert screen.text == b"to the screen\n"
    assert diary.said == [7]
    assert capfd.readouterr().out == "to the terminal\n"
    Env().parent.signal(0, 7)
