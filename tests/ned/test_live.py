"""What a script creates is real: the programs it starts use it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from l4re.testing import wait_until
from support.programs import PATIENCE, Outcome, Rom, alive, on_a_terminal, running, write

pytestmark = pytest.mark.processes

START = "local L4 = require('L4'); local l, P, fab = L4.default_loader, L4.Proto, L4.Env.user_factory\n"

SERVER = """
import l4re


class Session(l4re.Interface):
    protocol = 0x99

    @l4re.rpc
    def words(self) -> str:
        raise NotImplementedError


class Words(Session, l4re.Epiface):
    def __init__(self, text):
        self.text = text

    def words(self):
        return self.text


class Sessions(l4re.FactoryServer):
    def create(self, protocol, *args):
        if "bad" in args:
            raise l4re.OutOfRange("no such option")
        return server.registry.register_obj(Words(f"{protocol} {args}"))


if __name__ == "__main__":
    server = l4re.RegistryServer()
    server.registry.register_obj(Sessions(), "svr")
    print(server.loop().name)
"""
USER = "import l4re, server; print(l4re.env().get_cap('session', server.Session).words())"
CONSOLE = """
import sys
import l4re

class Console(l4re.VconServer):
    rest = b""
    def write(self, data):
        *lines, self.rest = (self.rest + data).split(b"\\n")
        for line in lines:
            print("got", line.decode())
            if line == b"end":
                sys.exit(0)

server = l4re.RegistryServer()
server.registry.register_obj(Console(), "console")
print(server.loop().name)
"""


def said(run: Outcome, tag: str) -> list[str]:
    """Return what one program printed."""
    return [line.partition("| ")[2] for line in run.out.splitlines() if line.partition("| ")[0].strip() == tag]


# ---- factories ----


@pytest.mark.parametrize(
    ("call", "text", "code"),
    [
        ("P.Dataspace, 0", "Argument out of range", -34),
        ("P.Dataspace, 'much'", "Invalid argument", -22),
        ("P.Dataspace, 4096, 0, 12, 4096", "Invalid argument", -22),
        ("P.Dataspace, 1 << 50", "Insufficient memory", -12),
        ("P.Factory, 0", "Invalid argument", -22),
        ("P.Log", "Invalid argument", -22),
        ("P.Scheduler, 5", "Invalid argument", -22),
        ("P.Scheduler, 300, 0", "Argument out of range", -34),
        ("P.Scheduler, 5, 10", "Invalid argument", -22),
        ("P.Goos", "No such device", -19),
    ],
)
def test_what_a_factory_refuses_is_a_table_with_upstreams_code(rom: Rom, call: str, text: str, code: int) -> None:
    run = rom.run(START + f"local ok, e = pcall(fab.create, fab, {call}); print(ok, e.code, e.msg)")
    assert (run.status, run.err) == (0, "")
    assert run.out == f"false\t{code}\tscript.lua:2: runtime error {text} ({code})\n"


def test_memory_of_a_script_is_what_its_programs_attach(rom: Rom) -> None:
    rom.program("put", "import l4re; l4re.env().get_cap('ds', l4re.Dataspace).write(0, b'written')")
    rom.program(
        "get",
        """
        import l4re
        ds = l4re.env().get_cap("ds", l4re.Dataspace)
        print(ds.size, ds.read(0, 7).decode())
        try:
            ds.write(0, b"x")
        except l4re.AccessDenied:
            print("read-only")
        """,
    )
    run = rom.run(
        START
        + """
        local F = L4.Mem_alloc_flags
        local ds = fab:create(P.Dataspace, 8192, F.Continuous | F.Pinned, 14)
        l:start({ caps = { ds = ds:m("rw") } }, "rom/put"):wait()
        l:start({ caps = { ds = ds } }, "rom/get"):wait()
        """
    )
    assert (run.status, said(run, "get"), run.err) == (0, ["8192 written", "read-only"], "")


def test_a_factory_with_a_quota_is_all_that_its_programs_have(rom: Rom) -> None:
    rom.program(
        "eat",
        """
        import l4re
        env, eaten = l4re.env(), []
        try:
            while True:
                eaten.append(env.mem_alloc.alloc(16384))
        except l4re.OutOfMemory:
            print(len(eaten), env.mem_alloc.info().quota)
        """,
    )
    run = rom.run(
        START
        + """
        local small = fab:create(P.Factory, 65536):m("rs")
        local inner = L4.Loader.new({ mem = small })
        inner:start({ log = L4.Env.log }, "rom/eat"):wait()
        l:start({ mem = small }, "rom/eat"):wait()
        print(pcall(small.create, small, P.Scheduler, 10, 0))
        """
    )
    assert run.err == ""
    assert run.out.splitlines()[:2] == ["4 65536", "eat     | 4 65536"]
    assert "No such device (-19)" in run.out


def test_a_program_that_floods_its_factory_leaves_the_others_what_they_have(rom: Rom) -> None:
    rom.program(
        "flood",
        """
        import l4re
        fab, made, refused = l4re.env().user_factory, [], 0
        kinds = [(l4re.Proto.DATASPACE, 4096), (l4re.Proto.NAMESPACE,), (l4re.Proto.LOG, "x"),
                 (l4re.Proto.SCHEDULER, 10, 0), (l4re.Proto.FACTORY, 4096)]
        for round in range(400):
            for kind in kinds:
                try:
                    made.append(fab.create(*kind))
                except l4re.L4Error:
                    refused += 1
        print("refused" if refused else "all", len(made) < 2000)
        """,
    )
    rom.program("modest", "import l4re; print(l4re.env().mem_alloc.alloc(1 << 16).size)")
    run = rom.run(
        START
        + """
        local flood = l:start({ mem = fab:create(P.Factory, 1 << 20):m("rs") }, "rom/flood")
        for n = 1, 5 do l:start({}, "rom/modest"):wait() end
        flood:wait()
        """
    )
    assert (run.status, run.err) == (0, "")
    assert said(run, "modest") == ["65536"] * 5
    assert said(run, "flood") == ["refused True"]


def test_sigma0_makes_what_scripts_want_of_it_and_has_no_memory(rom: Rom) -> None:
    rom.program(
        "physical",
        """
        import l4re
        try:
            l4re.env().get_cap("sigma0", l4re.Factory).create(l4re.Proto.DATASPACE, 4096)
        except l4re.L4Error as error:
            print(type(error).__name__)
        """,
    )
    run = rom.run(
        START
        + """
        local sigma0 = L4.cast(P.Factory, L4.Env.sigma0):create(P.Sigma0)
        l:start({ caps = { sigma0 = sigma0:m("rs"), icu = L4.Env.icu, vesa = L4.Env.vesa } }, "rom/physical"):wait()
        l:start({ caps = { sigma0 = L4.Env.sigma0 } }, "rom/physical"):wait()
        """
    )
    assert (run.status, said(run, "physical"), run.err) == (0, ["NotSupported"] * 2, "")


def test_what_linux_has_no_use_for_is_handed_on_by_its_name(rom: Rom) -> None:
    run = rom.run(
        START
        + """
        local events, fab = l:new_channel(), L4.Env.user_factory:create(P.Factory, 65536)
        l:start({ dbg_events = events, rm_fab = fab, l4re_dbg = L4.Dbg.All, ldr_flags = 1 }, "rom/caps"):wait()
        l:start({ factory = L4.Env.factory, rm_fab = L4.Env.mem_alloc }, "rom/caps"):wait()
        """
    )
    assert (run.status, run.err) == (0, "")
    assert sorted(said(run, "caps")) == ["dbg_events gate r", "rm_fab gate r", "rom gate r", "rom gate r"]


# ---- channels ----


def test_sessions_are_made_by_the_program_behind_a_channel(rom: Rom) -> None:
    rom.program("server", SERVER)
    rom.program("user", USER)
    run = rom.run(
        START
        + """
        local channel = l:new_channel()
        l:start({ caps = { svr = channel:svr() } }, "rom/server")
        local session = channel:create(0, "opt=1", 5, nil, "x")
        l:start({ caps = { session = session } }, "rom/user"):wait()
        local ok, e = pcall(channel.create, channel, 42, "bad")
        print(ok, e.code)
        """
    )
    assert (run.status, run.err) == (0, "")
    assert said(run, "user") == ["0 ('opt=1', 5, None, 'x')"]
    assert said(run, "server") == ["ORPHANED"]
    assert "false\t-34\n" in run.out


def test_a_script_that_waits_for_a_server_hears_of_its_death(rom: Rom) -> None:
    run = rom.run(
        START
        + """
        local channel = l:new_channel()
        l:start({ caps = { svr = channel:svr() } }, "rom/exit 0")
        print(pcall(function() return channel:create(0) end))
        """
    )
    assert run.status == 0, run
    assert run.out.startswith("false\t")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_script_that_waits_for_a_server_can_be_stopped(rom: Rom, number: signal.Signals) -> None:
    rom.program("forever", "import signal; print('ready'); signal.pause()")
    write(
        rom.folder,
        "script.lua",
        START
        + """
        local channel = l:new_channel()
        l:start({ caps = { svr = channel:svr() }, log = { "f" } }, "rom/forever")
        while true do pcall(function() channel:create(0) end) end
        """,
    )
    with running("run", "script.lua", cwd=rom.folder) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "f       | ready\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (128 + number, "", "")


def test_a_channel_that_nobody_was_given_is_not_waited_for(rom: Rom) -> None:
    run = rom.run(START + "local c = l:new_channel(); print(select(2, pcall(c.create, c, 0)).code)")
    assert (run.status, run.out, run.err) == (2, "", run.err)
    assert "nobody was given the server's side of this channel" in run.err


LIAR = """
import struct
import l4re

class Liar(l4re.Served):
    def serve_request(self, rights, label, words, data, caps):
        if label == l4re.Meta.PROTOCOL:
            return 1, b"\\xff" * 40, b"x", ()
        if label == l4re.Proto.FACTORY:
            number = struct.unpack_from("=q", words)[0]
            ds, channel = l4re.env().mem_alloc.alloc(10), l4re.new_channel()
            if number < 0:
                return 0, b"", b"", (ds,)
            return ((0, b"", b"", (ds, ds)), (0, b"", b"", (None,)), (0, b"abc" * 8, b"zz", ()),
                    (-77, b"", b"\\xff", ()), None)[number]
        return 0, b"\\xff" * 16, b"\\xff" * 100, (None,) * 3

server = l4re.RegistryServer()
server.registry.register_obj(Liar(), "svr")
server.loop()
"""


def test_a_server_that_lies_makes_errors_and_no_more(rom: Rom) -> None:
    rom.program("liar", LIAR)
    run = rom.run(
        START
        + """
        local c = l:new_channel()
        local liar = l:start({ caps = { svr = c:svr() } }, "rom/liar")
        local refused = 0
        local function try(f) if not pcall(f) then refused = refused + 1 end end
        for number = 0, 3 do try(function() c:create(number) end) end
        try(function() L4.cast("L4Re::Namespace", c):query("x")() end)
        try(function() L4.Loader.new({ log_fab = c }):start({}, "rom/hello") end)
        print(refused)
        l:start({}, "rom/hello"):wait()
        """,
        "--timeout",
        "60",
    )
    assert (run.status, run.out, run.err) == (0, "6\nhello   | hello\n", "")


# ---- namespaces ----


def test_programs_meet_in_a_namespace(rom: Rom) -> None:
    rom.program(
        "fill",
        """
        import l4re
        env = l4re.env()
        env.get_cap("ns", l4re.Namespace).register_obj("found", env.mem_alloc.alloc(77))
        """,
    )
    rom.program(
        "find",
        """
        import l4re
        space = l4re.env().get_cap("ns", l4re.Namespace)
        print(space.query("found", timeout=60).size)
        try:
            space.unlink("found")
        except l4re.PermissionDenied:
            print("may not")
        """,
    )
    run = rom.run(
        START
        + """
        local ns = l:create_namespace({ found = "later" })
        print(pcall(function() return ns:query("found")() end))
        print(ns:query("nothing")())
        l:start({ caps = { ns = ns } }, "rom/find")
        l:start({ caps = { ns = ns:m("rw") } }, "rom/fill")
        """
    )
    assert (run.status, said(run, "find"), run.err) == (0, ["77", "may not"], "")
    assert run.out.splitlines()[:2] == ["false\tscript.lua:4: runtime error Try again (-11)", "nil"]


def test_a_script_registers_and_unlinks(rom: Rom) -> None:
    run = rom.run(
        START
        + """
        local ns = l:create_namespace({})
        local one, two = fab:create(P.Dataspace, 1), fab:create(P.Dataspace, 2)
        ns:register("x", one) ns:register("x", two)
        print(ns:q("x")():is_valid(), ns:q("x")() == two)
        ns:__register("x", nil) ns:__register("x", nil)
        print(ns:q("x")())
        print(pcall(ns.register, ns, "a/b", one))
        """
    )
    assert run.err == ""
    lines = run.out.splitlines()
    assert lines[:2] == ["true\tfalse", "nil"]  # a query gives a capability of its own
    assert "Invalid argument (-22)" in lines[2]


# ---- the rom ----


def test_the_rom_is_a_namespace_of_files(rom: Rom) -> None:
    write(rom.folder, "data.txt", "some text\n")
    (rom.folder / "sub").mkdir()
    write(rom.folder / "sub", "inner.txt", "deep\n")
    rom.program(
        "read",
        """
        import l4re
        env = l4re.env()
        for path in ("rom/data.txt", "rom/sub/inner.txt"):
            ds = env.get_cap(path, l4re.Dataspace)
            print(ds.read(0, ds.size).decode().strip(), ds.rights.letters())
        for path in ("rom/nothing", "rom/../secret", "rom/sub"):
            try:
                print(env.get_cap(path))
            except l4re.L4Error as error:
                print(type(error).__name__)
        space = env.get_cap("rom", l4re.Namespace)
        print([entry.name for entry in space.list() if entry.name.endswith(".txt")])
        try:
            space.register_obj("x", env.mem_alloc.alloc(1))
        except l4re.PermissionDenied:
            print("may not")
        """,
    )
    run = rom.run(START + "l:start({}, 'rom/read'):wait() print(L4.Env.rom:query('data.txt')():is_valid())")
    assert (run.status, run.err) == (0, "")
    assert said(run, "read") == [
        "some text r",
        "deep r",
        "NotFound",
        "InvalidArgument",
        "NotFound",
        "['data.txt']",
        "may not",
    ]
    assert run.out.endswith("true\n")


def test_without_default_capabilities_a_program_has_what_it_is_given(rom: Rom) -> None:
    run = rom.run(START + "l.default_caps = {} l:start({}, 'rom/caps'):wait() L4.App_env.new({}):start('rom/caps')")
    assert (run.status, run.out, run.err) == (0, "", "")


# ---- logs ----


def test_a_program_can_be_the_log_of_another(rom: Rom) -> None:
    rom.program("console", CONSOLE)
    rom.program("talk", "print('x' * 3000); print('ä', 'and more'); import sys; sys.stderr.write('error\\n')")
    run = rom.run(
        START
        + """
        local channel = l:new_channel()
        l:start({ caps = { console = channel:svr() } }, "rom/console")
        l:start({ log = channel }, "rom/talk"):wait()
        """
    )
    assert (run.status, run.err) == (0, "")
    assert said(run, "console") == ["got " + "x" * 3000, "got ä and more", "got error", "ORPHANED"]


def test_a_log_that_dies_is_told_and_nothing_that_follows_is_lost(rom: Rom) -> None:
    rom.program("console", CONSOLE)
    rom.program(
        "talk",
        """
        import l4re
        print("end")
        watch = l4re.env().get_cap("watch")
        try:
            watch.call(timeout=60)
        except l4re.PeerGone:
            pass
        print("after")
        print("that")
        """,
    )
    run = rom.run(
        START
        + """
        local channel, watch = l:new_channel(), l:new_channel()
        local console = l:start({ caps = { console = channel:svr() } }, "rom/console")
        local watcher = l:start({ caps = { svr = watch:svr() } }, "rom/forever")
        local talk = l:start({ log = channel, caps = { watch = watch } }, "rom/talk")
        console:wait()
        watcher:kill()
        talk:wait()
        """
    )
    assert (run.status, run.err) == (0, "")
    assert said(run, "console") == ["got end"]
    assert said(run, "talk") == ["[nobody serves the console of this program any more]", "after", "that"]


def test_a_log_that_is_dead_already_keeps_nobody_from_being_started(rom: Rom) -> None:
    run = rom.run(
        START
        + """
        local channel = l:new_channel()
        l:start({ caps = { console = channel:svr() } }, "rom/exit 0"):wait()
        l:start({ log = channel }, "rom/hello")
        """
    )
    assert (run.status, run.err) == (0, "")
    assert said(run, "hello") == ["[nobody serves the console of this program any more]", "hello"]


def test_a_program_that_its_log_holds_up_can_still_be_killed(rom: Rom) -> None:
    """The console never takes anything; the program is stuck, the script is not."""
    rom.program("talk", "while True: print('x' * 4000)")
    run = rom.run(
        START
        + """
        local channel = l:new_channel()
        local console = l:start({ caps = { console = channel:svr() } }, "rom/forever")
        local talk = l:start({ log = channel }, "rom/talk")
        L4.msleep(300)
        print(talk:kill(), console:kill())
        """
    )
    assert (run.status, run.err) == (0, "")
    assert "killed\tkilled" in run.out.splitlines()


def test_a_log_handed_on_as_a_capability_is_a_console(rom: Rom) -> None:
    rom.program("write", "import l4re; l4re.env().get_cap('more', l4re.Vcon).write('by message\\n')")
    run = rom.run(
        START
        + """
        l:start({ caps = { more = fab:create(P.Log, "other", "red") } }, "rom/write"):wait()
        l:start({ caps = { more = L4.Env.log } }, "rom/write"):wait()
        l:start({ log = L4.Env.log }, "rom/hello"):wait()
        """
    )
    assert (run.status, run.err) == (0, "")
    assert sorted(run.out.splitlines()) == ["by message", "hello", "other   | by message"]


# ---- schedulers ----


def test_a_program_starts_where_its_scheduler_says(rom: Rom) -> None:
    rom.program("where", "import os, l4re; print(os.sched_getaffinity(0), l4re.env().scheduler.info().cpus)")
    cpu = min(os.sched_getaffinity(0))
    run = rom.run(
        START
        + f"""
        local one = l:create_sched_proxy({{ cpus = L4.Cpu_set:new({cpu}), prio_offset = 0 }})
        l:start({{ scheduler = one, caps = {{ sched = one }} }}, "rom/where"):wait()
        """
    )
    assert (run.status, said(run, "where"), run.err) == (0, [f"{{{cpu}}} frozenset({{{cpu}}})"], "")


# ---- commands ----

COMMANDS = (
    START
    + """
    value = 41
    local channel = l:new_channel()
    l:start({ caps = { svr = channel }, log = L4.Env.log }, "rom/ned-prompt")
    L4.server_loop(channel)
    """
)


def prompt(rom: Rom, typed: str, *words: str) -> Outcome:
    write(rom.folder, "script.lua", COMMANDS)
    done = subprocess.run(
        [sys.executable, "-m", "l4re", "run", *words, "script.lua"],
        cwd=rom.folder,
        input=typed,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def test_commands_run_in_the_state_of_the_script(rom: Rom) -> None:
    run = prompt(rom, "value = value + 1\nreturn value\nreturn nil\nreturn 1 +\nerror('oh')\nreturn 'still here'\n")
    assert run.status == 0
    assert run.out.replace("Cmd> ", "").splitlines() == [
        "Welcome to ned prompt.",
        "42",
        'Error calling ned: [string "return 1 +"]:1: unexpected symbol near <eof>',
        "Error calling ned: [string \"error('oh')\"]:1: oh",
        "still here",
        "",
    ]
    assert run.err.splitlines() == [
        "lua couldn't parse 'return 1 +': [string \"return 1 +\"]:1: unexpected symbol near <eof>.",
        "lua couldn't execute 'error('oh')': [string \"error('oh')\"]:1: oh.",
    ]


def test_a_command_starts_programs_and_their_handlers_run(rom: Rom) -> None:
    run = prompt(
        rom,
        "t = L4.default_loader:start({}, 'rom/hello')\nt:exit_handler(function(c) print('ended', c) end)\n"
        "return L4.default_loader:start({}, 'rom/exit 7'):wait()\n",
    )
    assert run.status == 7
    lines = run.out.replace("Cmd> ", "").splitlines()
    assert "7" in lines
    assert "hello   | hello" in lines
    assert "ended\t0" in lines


def test_a_run_that_serves_commands_can_be_stopped(rom: Rom) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "l4re", "run", write(rom.folder, "script.lua", COMMANDS)],
        cwd=rom.folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "Welcome to ned prompt.\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 128 + signal.SIGTERM


# ---- deaths ----


@pytest.mark.parametrize("victim", ["server", "console", "user"])
def test_a_program_that_is_killed_takes_nobody_along(rom: Rom, victim: str) -> None:
    rom.program("server", SERVER + "\n")
    rom.program("console", CONSOLE)
    rom.program(
        "user",
        """
        import os, signal, l4re, server
        print(os.getpid())
        session = l4re.env().get_cap("session", server.Session)
        try:
            while True:
                session.words()
        except l4re.PeerGone:
            print("gone")
        """,
    )
    run = rom.run(
        START
        + f"""
        local channel, console = l:new_channel(), l:new_channel()
        local tasks = {{}}
        tasks.server = l:start({{ caps = {{ svr = channel:svr() }} }}, "rom/server")
        tasks.console = l:start({{ caps = {{ console = console:svr() }} }}, "rom/console")
        local session = channel:create(0)
        tasks.user = l:start({{ caps = {{ session = session }}, log = console }}, "rom/user")
        L4.msleep(100)
        print(tasks.{victim}:kill())
        if "{victim}" ~= "server" then L4.msleep(50) tasks.server:kill() end
        """
    )
    assert (run.status, run.err) == (0, ""), run
    assert "killed" in run.out


def test_killing_the_root_ends_servers_consoles_and_users(rom: Rom) -> None:
    rom.program("console", CONSOLE)
    rom.program("talk", "import os, signal; print(os.getpid()); signal.pause()")
    write(
        rom.folder,
        "script.lua",
        START
        + """
        local console = l:new_channel()
        local ns = l:create_namespace({ d = fab:create(P.Dataspace, 4096) })
        l:start({ caps = { console = console:svr() }, log = { "c" } }, "rom/console")
        l:start({ log = console, caps = { ns = ns } }, "rom/talk")
        l:start({ log = { "c" }, caps = { ns = ns } }, "rom/talk")
        """,
    )
    with running("run", "script.lua", cwd=rom.folder) as process:
        assert process.stdout is not None
        pids = [int(process.stdout.readline().split()[-1]) for _ in range(2)]
        process.kill()
    wait_until(lambda: not alive(pids), PATIENCE)


def test_a_question_shows_on_a_terminal_at_once(rom: Rom) -> None:
    rom.program("ask", "import sys; print('name? ', end=''); print('said', repr(sys.stdin.readline()))")
    path = write(rom.folder, "script.lua", START + "l:start({ log = L4.Env.log }, 'rom/ask')")
    assert on_a_terminal("run", path, "--timeout", "30", typed="me\n").endswith("said 'me\\n'\n")
