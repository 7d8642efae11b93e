"""Boot scripts in Python: the same systems as in Lua come out the same; how a run in Python ends."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from l4re.testing import wait_until
from support.programs import PATIENCE, Outcome, Rom, alive, l4re, marked, running, write

pytestmark = pytest.mark.processes

LUA = "local L4 = require('L4'); local l = L4.default_loader; local fab, P = L4.Env.user_factory, L4.Proto\n"
PYTHON = "import l4re\nfrom l4re import Proto as P\nl = l4re.Loader(); fab = l.user_factory\n"


@pytest.fixture(autouse=True)
def _programs(rom: Rom) -> None:
    write(rom.folder, "data.txt", "from a file")
    rom.program(
        "names",
        """
        import l4re
        space = l4re.env().get_cap("ns", l4re.Namespace)
        for entry in space.list():
            print(entry.name, entry.kind, entry.rights.letters())
        print(space.query("inner/memory").size)
        """,
    )
    rom.program(
        "memory",
        """
        import l4re
        env = l4re.env()
        print(env.mem_alloc.info().quota)
        try:
            env.mem_alloc.alloc(1 << 20)
        except l4re.OutOfMemory:
            print("too much")
        """,
    )
    rom.program("file", "import l4re; print(bytes(l4re.env().get_cap('rom/data.txt').read(0, 4)).decode())")
    rom.program("placed", "import l4re; print(sorted(l4re.env().scheduler.info().cpus))")


#: By what they show: the same in both languages.
PAIRS = {
    "rights": (
        """
        local c, ds = l:new_channel(), fab:create(P.Dataspace, 4096)
        l:start({ caps = { s = c:svr(), c = c, more = c:m("rws"), d = ds, w = ds:m("rw"), no = nil,
                           made = function() return c:m("w") end } }, "rom/caps")
        """,
        """
        c, ds = l.new_channel(), fab.create(P.DATASPACE, 4096)
        l.start({"caps": {"s": c.svr, "c": c, "more": c.m("rws"), "d": ds, "w": ds.m("rw"), "no": None,
                          "made": lambda caps: c.m("rw")}}, "rom/caps")
        """,
    ),
    "words": (
        """
        l:start({ log = { "x", "green" } }, "rom/hello a  b"):wait()
        l:startv({ log = { "y" } }, "rom/hello", "a b", 3):wait()
        l:start({}, "rom/exit 3"):wait()
        """,
        """
        l.start({"log": ("x", "green")}, "rom/hello a  b").wait()
        l.startv("rom/hello", "a b", "3", log="y").wait()
        l.start("rom/exit 3").wait()
        """,
    ),
    "namespaces": (
        """
        local ds = fab:create(P.Dataspace, 100)
        local ns = l:create_namespace({ a = ds:m("rw"), inner = { memory = ds } })
        l:start({ caps = { ns = ns } }, "rom/names"):wait()
        l:start({ caps = { ns = { inner = { memory = ds } } } }, "rom/names")
        """,
        """
        ds = fab.create(P.DATASPACE, 100)
        ns = l.create_namespace({"a": ds.m("rw"), "inner": {"memory": ds}})
        l.start(caps={"ns": ns}, *["rom/names"]).wait()
        l.start("rom/names", caps={"ns": {"inner": {"memory": ds}}})
        """,
    ),
    "services": (
        """
        l:start({ mem = fab:create(P.Factory, 65536):m("rs") }, "rom/memory"):wait()
        l:start({ scheduler = l:create_sched_proxy({ cpus = L4.Cpu_set:new(0) }) }, "rom/placed"):wait()
        l:start({ log = L4.Env.log }, "rom/file"):wait()
        """,
        """
        l.start("rom/memory", mem=fab.create(P.FACTORY, 65536).m("rs")).wait()
        l.start("rom/placed", scheduler=l.create_sched_proxy(cpus=[0])).wait()
        l.start("rom/file", log=l.log).wait()
        """,
    ),
    "tasks": (
        """
        local t = l:start({}, "rom/forever")
        print(t:state(), t:exit_code())
        t:exit_handler(function(code) print("killed", code) end)
        print(t:kill(), t:state(), t:wait())
        local u = l:start({}, "rom/exit 4")
        u:exit_handler(function(code) print("ended", code) end)
        """,
        """
        def say(*words):
            print(*("nil" if word is None else word for word in words), sep="\\t", flush=True)
        t = l.start("rom/forever")
        say(t.state, t.exit_code)
        t.exit_handler(lambda code: say("killed", code))
        killed = t.kill()
        say("killed" if killed is None else killed, t.state, None)
        u = l.start("rom/exit 4")
        u.exit_handler(lambda code: say("ended", code))
        """,
    ),
}


def python(rom: Rom, text: str, *words: str) -> Outcome:
    """Run a system in Python by itself."""
    write(rom.folder, "system.py", text)
    done = subprocess.run(
        [sys.executable, "system.py", *words],
        cwd=rom.folder,
        env={key: value for key, value in os.environ.items() if not key.startswith("L4RE_")},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def dedented(text: str) -> str:
    return "".join(line.removeprefix("        ") + "\n" for line in text.splitlines())


@pytest.mark.parametrize("name", PAIRS)
def test_the_same_system_comes_out_the_same(rom: Rom, name: str) -> None:
    lua, text = PAIRS[name]
    expected = rom.run(LUA + lua)
    assert expected.err == ""
    assert expected.out
    write(rom.folder, "system.py", PYTHON + dedented(text))
    assert l4re("run", "system.py", cwd=rom.folder) == expected
    alone = python(rom, PYTHON + dedented(text) + "\nimport sys; sys.exit(l.wait())\n")
    assert alone == expected


def test_leaving_the_block_waits_for_all_and_drops_the_channels(rom: Rom) -> None:
    rom.program(
        "server",
        """
        import l4re
        class Nothing(l4re.ServerObject):
            def dispatch(self, rights, ios):
                return 5
        server = l4re.RegistryServer()
        server.registry.register_obj(Nothing(), "s")
        print(server.loop().name)
        """,
    )
    text = """
import l4re
with l4re.Loader() as ld:
    channel = ld.new_channel()
    ld.start("rom/server", caps={"s": channel.svr})
print("status", ld.status, channel.gate.closed)
"""
    run = python(rom, text)
    assert (run.status, run.out, run.err) == (0, "server  | ORPHANED\nstatus 0 True\n", "")


def test_an_exception_in_the_block_ends_the_programs(rom: Rom) -> None:
    text = "import l4re\nwith l4re.Loader() as ld:\n    ld.start('rom/forever')\n    raise ZeroDivisionError\n"
    run = python(rom, text)
    assert (run.status, run.out) == (1, "")
    assert "ZeroDivisionError" in run.err


def test_a_mistake_in_the_script_ends_the_run_with_its_line(rom: Rom) -> None:
    write(rom.folder, "system.py", "import l4re\nld = l4re.Loader()\nld.start('rom/forever')\nld.start('rom/nope')\n")
    run = l4re("run", "system.py", cwd=rom.folder)
    assert run.status == 2
    assert 'system.py", line 4' in run.err
    assert "there is no program 'nope'" in run.err
    assert "runpy" not in run.err


@pytest.mark.parametrize(("call", "code"), [("sys.exit(5)", 5), ("sys.exit('no')", 1), ("sys.exit()", 0)])
def test_a_script_may_say_its_own_status(rom: Rom, call: str, code: int) -> None:
    write(rom.folder, "system.py", f"import l4re, sys\nl4re.Loader().start('rom/hello')\n{call}\n")
    run = l4re("run", "system.py", cwd=rom.folder)
    assert (run.status, run.out) == (code, "hello   | hello\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("ending", ["ld.wait()", "while True: pass", "import time; time.sleep(600)"])
def test_a_signal_ends_a_run_wherever_its_script_is(rom: Rom, number: signal.Signals, ending: str) -> None:
    rom.program("forever", "import signal; print('ready'); signal.pause()")
    write(rom.folder, "system.py", f"import l4re\nld = l4re.Loader()\nld.start('rom/forever', log='a')\n{ending}\n")
    with running("run", "system.py", cwd=rom.folder) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "a       | ready\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (128 + number, "", "")


@pytest.mark.parametrize("seed", range(6))
def test_a_signal_in_the_middle_of_starts_ends_the_run(rom: Rom, seed: int) -> None:
    """Wherever it comes: while objects are made, programs are started, waited for or killed."""
    mark = f"1000.{os.getpid()}{seed}"
    write(rom.folder, "nap", "#!/bin/sh\nexec sleep $1\n", mode=0o755)
    write(
        rom.folder,
        "system.py",
        f"""
        import l4re
        ld = l4re.Loader()
        print("begin", flush=True)
        while True:
            channel = ld.new_channel()
            task = ld.start("rom/nap {mark}", caps={{"s": channel.svr, "c": channel, "n": {{"x": channel}}}})
            channel.close()
            task.kill()
        """,
    )
    with running("run", "system.py", cwd=rom.folder) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begin\n"
        time.sleep(random.Random(seed).random() / 5)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (128 + signal.SIGTERM, "")
    wait_until(lambda: not marked(mark), PATIENCE)


def test_ctrl_c_ends_a_system_that_runs_by_itself(rom: Rom) -> None:
    rom.program("forever", "import os, signal; print(os.getpid()); signal.pause()")
    write(rom.folder, "system.py", "import l4re\nwith l4re.Loader() as ld:\n    ld.start('rom/forever', log='a')\n")
    with subprocess.Popen(
        [sys.executable, "system.py"], cwd=rom.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline().partition("| ")[2])
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert "KeyboardInterrupt" in err
    assert alive([pid]) == []


def test_killing_the_script_leaves_no_program(rom: Rom) -> None:
    rom.program("forever", "import os, signal; print(os.getpid()); signal.pause()")
    write(rom.folder, "system.py", "import l4re\nwith l4re.Loader() as ld:\n    ld.start('rom/forever', log='a')\n")
    with subprocess.Popen([sys.executable, "system.py"], cwd=rom.folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline().partition("| ")[2])
        process.kill()
    wait_until(lambda: not alive([pid]), PATIENCE)


def test_the_options_of_the_command_hold(rom: Rom) -> None:
    rom.program("show", "import os, l4re; print(os.environ['A'], l4re.env().mem_alloc.info().quota)")
    write(rom.folder, "system.py", "import l4re, sys\nl4re.Loader().start('rom/show')\nprint(sys.argv)\n")
    run = l4re("run", "--env", "A=x", "--quota", "1M", "system.py", "--", "one", cwd=rom.folder)
    assert (run.status, run.err) == (0, "")
    assert sorted(run.out.splitlines()) == ["['system.py', 'one']", "show    | x 1048576"]
    write(rom.folder, "system.py", "while True: pass\n")
    run = l4re("run", "--timeout", "0.5", "system.py", cwd=rom.folder)
    assert (run.status, run.out, run.err) == (124, "", "")


def test_the_language_of_lua_is_not_needed(rom: Rom) -> None:
    write(rom.folder, "system.py", "import l4re\nl4re.Loader().start('rom/hello')\n")
    run = l4re("run", "system.py", cwd=rom.folder, without="lupa")
    assert (run.status, run.out, run.err) == (0, "hello   | hello\n", "")


def test_loaders_of_one_process_are_one_run(rom: Rom) -> None:
    rom.program("quota", "import l4re; print(l4re.env().mem_alloc.info().quota)")
    text = """
import l4re
with l4re.Loader() as ld:
    small = l4re.Loader(mem=ld.user_factory.create(l4re.Proto.FACTORY, 8192).m("rs"), default_caps={})
    small.start("rom/quota", log="a").wait()
    small.start("rom/exit 3", log="b")
    small.start("rom/caps")
print("status", ld.status, small.status)
with l4re.Loader() as ld:
    ld.start("rom/hello")
print("status", ld.status)
"""
    run = python(rom, text)
    assert run.err == ""
    assert run.out.splitlines() == ["a       | 8192", "status 3 3", "hello   | hello", "status 0"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("ld.start('')", "a program is named by a string"),
        ("ld.start('rom/hello', 1)", "InvalidArgument: start takes a description"),
        ("ld.start({'log': 'x', 'mum': 1}, 'rom/hello')", "described by caps, log, mem, scheduler, not by 'mum'"),
        ("ld.start({}, 'rom/hello', log='x')", "belong into the mapping"),
        ("ld.start('rom/hello', caps={'x': 5})", "caps['x'] is no capability: 5"),
        ("ld.start('rom/hello', caps={'x' * 17: ch})", "too long (at most 16 bytes)"),
        ("ch.m('rx')", "rights are letters out of 'rwsd', not 'x'"),
        ("ld.start('rom/hello', mem=ld.user_factory)", "needs S"),
        ("[ld.start('rom/hello', caps={'s': ch.svr}) for _ in '12']", "was given away already; it moves"),
        ("l4re.Loader(rom='/no/such')", "the rom folder /no/such does not exist"),
    ],
)
def test_a_mistake_says_what_was_wanted(rom: Rom, call: str, message: str) -> None:
    run = python(rom, f"import l4re\nld = l4re.Loader()\nch = ld.new_channel()\n{call}\n")
    assert run.status == 1
    assert message in run.err.splitlines()[-1]
