"""Boot scripts: what they can say, what they are told when they are wrong, how the run ends."""

from __future__ import annotations

import pytest

from support.programs import Rom, write

pytestmark = pytest.mark.processes

LOADER = "local L4 = require('L4'); local l = L4.default_loader\n"


# ---- starting programs ----


def test_a_program_speaks_under_its_tag(rom: Rom) -> None:
    run = rom.run(LOADER + "l:start({ log = { 'greeter', 'green' } }, 'rom/hello a  b')")
    assert (run.status, run.out, run.err) == (0, "greeter | hello a b\n", "")


@pytest.mark.parametrize("log", ["nil", "{}", "{ nil, 'red' }", "function() return nil end"])
def test_without_a_tag_a_program_speaks_under_its_name(rom: Rom, log: str) -> None:
    assert rom.run(LOADER + f"l:start({{ log = {log} }}, '/rom/hello')").out == "hello   | hello\n"


def test_arguments_come_word_by_word(rom: Rom) -> None:
    run = rom.run(LOADER + "l:startv({ log = { 'x' } }, 'rom/hello', 'a b', nil, 3, nil)")
    assert run.out == "x       | hello a b 3\n"
    assert rom.run(LOADER + "l:start({ log = { 'x' } }, 'rom/hello a', 'b  c')").out == "x       | hello a b  c\n"


def test_a_program_has_the_environment_the_script_gives_and_no_other(rom: Rom) -> None:
    rom.program("env", "import os; print(sorted(set(os.environ) - {'L4RE_ENV', 'PYTHONUNBUFFERED', 'LC_CTYPE'}))")
    run = rom.run(LOADER + "l:start({ log = {'x'} }, 'rom/env', { A = 1, B = 'x y' }):wait() l:start({}, 'rom/env')")
    assert run.out == "x       | ['A', 'B']\nenv     | []\n"


def test_executables_of_any_kind_run(rom: Rom) -> None:
    write(rom.folder, "shell", '#!/bin/sh\necho "$0" "$@"\n', mode=0o755)
    assert rom.run(LOADER + "l:start({}, 'rom/shell x')").out == f"shell   | {rom.folder}/shell x\n"


def test_programs_are_looked_for_in_the_rom_folders_in_order(rom: Rom) -> None:
    for name in ("one", "two"):
        (rom.folder / name).mkdir()
        write(rom.folder / name, "which.py", f"print('{name}')")
    write(rom.folder / "two", "only.py", "print('only in two')")
    run = rom.run(LOADER + "l:start({}, 'rom/which'):wait() l:start({}, 'rom/only')", "--rom", "one", "two")
    assert run.out == "which   | one\nonly    | only in two\n"


def test_a_program_that_is_nowhere_is_told_with_the_folders(rom: Rom) -> None:
    (rom.folder / "other").mkdir()
    run = rom.run(LOADER + "l:start({}, 'rom/nope')", "--rom", "other", "--rom", ".")
    assert run.status == 2
    assert run.err == (
        "l4re: script.lua:2: there is no program 'nope' (nor 'nope.py') in the rom: "
        f"looked in {rom.folder}/other, {rom.folder}\n"
    )


# ---- capabilities ----


def test_both_sides_of_a_channel_are_handed_out_with_the_rights_given(rom: Rom) -> None:
    run = rom.run(
        LOADER
        + """
        local c = l:new_channel()
        l:start({ caps = { s = c:svr(), client = c, more = c:m("rws"), w = c:mode("w"), number = c:rights(5),
                           absent = nil, no = false, word = "x", made = function() return c:m("rs") end } }, "rom/caps")
        """
    )
    assert run.status == 0, run.err
    assert sorted(run.out.splitlines()) == [
        "caps    | client gate r",
        "caps    | made gate rs",
        "caps    | more gate rws",
        "caps    | number gate rw",
        "caps    | rom gate r",
        "caps    | s receive right rwsd",
        "caps    | w gate rw",
    ]


def test_rights_of_what_this_process_was_given_only_shrink(rom: Rom) -> None:
    """A root inside a root: the inner script asks for more than it has."""
    write(rom.folder, "inner.lua", 'L4.default_loader:start({ caps = { c = L4.Env.c:m("rwsd") } }, "rom/caps")')
    rom.program("inner", "import sys; from l4re.cli import main; sys.exit(main(['run', 'inner.lua']))")
    run = rom.run(
        LOADER
        + """
        assert(L4.Env.c == nil)
        local c = l:new_channel()
        l:start({ caps = { s = c:svr(), c = c:m("w") } }, "rom/inner")
        """
    )
    assert (run.status, run.out, run.err) == (0, "inner   | caps    | c gate rw\ninner   | caps    | rom gate r\n", "")


def test_a_handle_tells_its_rights(rom: Rom) -> None:
    run = rom.run(
        LOADER
        + """
        local c, d = l:new_channel(), l:new_channel()
        print(c:m(), c:m("w"):m(), c:m("xyz") == c, c:svr():m(), c:m(1):m(), c:m("0x3"):m(), type(c))
        print(c == c:m("w"), c == d, c ~= d, c:is_valid(), tostring(c):match("^L4::Cap<void>%[0x%x+%] r=4 f=0$") ~= nil)
        """
    )
    assert (run.out, run.err) == ("4\t5\ttrue\t15\t5\t7\tuserdata\ntrue\tfalse\ttrue\ttrue\ttrue\n", "")


def test_a_server_side_moves(rom: Rom) -> None:
    run = rom.run(
        LOADER
        + """
        local c = l:new_channel()
        l:start({ caps = { s = c:svr() } }, "rom/hello")
        print(c:is_valid(), c:svr():is_valid())
        l:start({ caps = { s = c:svr() } }, "rom/hello")
        """
    )
    assert "true\tfalse\n" in run.out
    assert run.err == "l4re: script.lua:6: caps.s: the server's side of this channel was given away already; it moves\n"
    assert run.status == 2


def test_a_server_ends_when_the_script_and_all_clients_have_ended(rom: Rom) -> None:
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
    rom.program("client", "import l4re; print(l4re.env().get_cap('s').transact(0, b'', timeout=60)[0])")
    run = rom.run(
        LOADER
        + """
        c = l:new_channel()  -- a global: no collection would free it
        l:start({ caps = { s = c:svr() } }, "rom/server")
        l:start({ caps = { s = c } }, "rom/client")
        """
    )
    assert (run.status, run.out, run.err) == (0, "client  | 5\nserver  | ORPHANED\n", "")


# ---- tasks ----


def test_a_task_tells_how_it_is(rom: Rom) -> None:
    run = rom.run(
        LOADER
        + """
        local t = l:start({}, "rom/forever")
        print(t:state(), t:exit_code())
        print(t:kill(), t:kill(), t:state(), t:exit_code(), t:wait())
        local t = l:start({}, "rom/exit 3")
        print(t:wait(), t:wait(), t:state(), t:kill())
        local a, b = l:start({}, "rom/exit 0"), l:start({}, "rom/exit 0")
        print(a < b, a <= b, a == b, a == a, type(a))
        """
    )
    assert run.out == "running\tnil\nkilled\tnil\tnil\tnil\tnil\n3\tnil\tnil\tnil\ntrue\ttrue\tfalse\ttrue\tuserdata\n"
    assert run.status == 3


def test_exit_handlers_run_when_the_script_has_ended(rom: Rom) -> None:
    run = rom.run(
        LOADER
        + """
        local t = l:start({}, "rom/patient 0")
        print(t:exit_handler(function(code) print("ended with", code) l:start({}, "rom/hello again") end))
        print(pcall(t.exit_handler, t, print))
        io.open("go", "w"):close()
        print("end of script")
        """
    )
    assert run.out == (
        "true\nfalse\tscript.lua:5: exit_handler callback already registered\nend of script\nended with\t0\n"
        "hello   | hello again\n"
    )


def test_wait_and_kill_run_the_exit_handler_too(rom: Rom) -> None:
    run = rom.run(
        LOADER
        + """
        local t, u = l:start({}, "rom/patient 0"), l:start({}, "rom/forever")
        t:exit_handler(function(code) print("t", code) end)
        u:exit_handler(function(code) print("u", code) end)
        io.open("go", "w"):close()
        print(t:wait(), u:kill())
        print(t:exit_handler(function(code) print("late", code) end))
        """
    )
    assert run.out == "t\t0\nu\tnil\n0\tkilled\nlate\t0\nfalse\n"
    assert run.status == 0  # what the script itself killed has not failed


def test_an_error_in_an_exit_handler_is_told_and_the_run_goes_on(rom: Rom) -> None:
    run = rom.run(
        LOADER + "l:start({}, 'rom/exit 0'):exit_handler(function() error('oops') end) l:start({}, 'rom/hello')"
    )
    assert "hello   | hello\n" in run.out
    assert run.err == "lua error: script.lua:2: oops.\n"
    assert run.status == 2


def test_the_status_is_that_of_the_first_program_that_failed(rom: Rom) -> None:
    run = rom.run(
        LOADER + "l:start({}, 'rom/exit 0'):wait() l:start({}, 'rom/exit 4'):wait() l:start({}, 'rom/exit 5')"
    )
    assert run.status == 4
    rom.program("signalled", "import os; os.kill(os.getpid(), 15)")
    assert rom.run(LOADER + "l:start({}, 'rom/signalled')").status == 143


# ---- the language ----


def test_the_module_is_there_in_every_way_scripts_expect(rom: Rom) -> None:
    run = rom.run('print(L4 == require "L4", L4 == require("L4"), L4 == package.loaded.L4)')
    assert run.out == "true\ttrue\ttrue\n"


def test_a_first_line_for_the_kernel_and_a_byte_order_mark_are_skipped(rom: Rom) -> None:
    write(rom.folder, "script.lua", "")
    (rom.folder / "marked.lua").write_bytes(b"\xef\xbb\xbf#!/usr/bin/env l4re\nprint(1) error('here')\n")
    from support.programs import l4re

    run = l4re("run", "marked.lua", cwd=rom.folder)
    assert (run.out, run.err) == ("1\n", "l4re: marked.lua:2: here\n")


def test_constants_are_l4res(rom: Rom) -> None:
    run = rom.run(
        "print(L4.Dbg.Warn, L4.Dbg.Boot, L4.Proto.Dataspace, L4.Proto.Factory)"
        "print(L4.Rights.rws, L4.Mem_alloc_flags.Pinned)"
    )
    assert run.out == "2\t4\t16384\t-15\n7\t2\n"


def test_own_modules_come_from_the_rom(rom: Rom) -> None:
    write(rom.folder, "mine.lua", "#!x\nlocal M = {}\nfunction M.f() end\nreturn M")
    write(rom.folder, "wrong.lua", "local x = = 3")
    assert rom.run("print(require('mine').f == require 'mine'.f, require('rom/mine') ~= nil)").out == "true\ttrue\n"
    assert rom.run("package.path = 'rom/?.lua' print(type(require('mine')))").out == "table\n"
    run = rom.run("local x\nrequire('nope')")
    assert run.status == 2
    assert run.err.startswith("l4re: script.lua:2: module 'nope' not found:")
    assert "no file 'rom/nope.lua'" in run.err
    assert "wrong.lua:1: unexpected symbol" in rom.run("require('wrong')").err


def test_words_behind_two_dashes_are_the_scripts(rom: Rom) -> None:
    run = rom.run("print(arg[0], arg[1], arg[2], #arg, ...)", "--", "a b", "--rom")
    assert run.out == "script.lua\ta b\t--rom\t2\ta b\t--rom\n"


def test_print_and_io_keep_their_order(rom: Rom) -> None:
    assert rom.run("print(1, nil, {} ~= nil) io.write('x\\n') print(2)").out == "1\tnil\ttrue\nx\n2\n"


def test_libraries_that_ned_does_not_have_are_not_there(rom: Rom) -> None:
    assert rom.run("print(math, os, coroutine, utf8, python, table ~= nil, debug ~= nil)").out == (
        "nil\tnil\tnil\tnil\tnil\ttrue\ttrue\n"
    )


# ---- mistakes ----


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("local x = = 3", "unexpected symbol near '='"),
        ("error('my words')", "my words"),
        ("local x = nil; x.y = 1", "attempt to index a nil value (local 'x')"),
        ("L4.frob(1)", "attempt to call a nil value (field 'frob')"),
        ("l:frob()", "attempt to call a nil value (method 'frob')"),
        ("l.start({}, {}, 'rom/hello')", "method called with incompatible object"),
        ("l:start('rom/hello')", "a program is named by a string such as 'rom/hello', not a nil"),
        ("l:start({}, '  ')", "a program is named by a string such as 'rom/hello', not an empty one"),
        ("l:start(nil, 'rom/hello')", "a program is described by a table { caps = ..., log = ... }, not a nil"),
        ("l:start({}, '/sbin/init')", "there is no program '/sbin/init': programs are in the rom"),
        ("l:start({}, 'rom/../x')", "'rom/../x' names nothing inside the rom"),
        ("l:start({}, 'rom/script.lua')", "script.lua: it is not executable"),
        ("l:start({ mem = 1 }, 'rom/hello')", "error: capability expected 'mem'"),
        ("l:start({ caps = 3 }, 'rom/hello')", "caps is a table of names and capabilities, not a number"),
        ("l:start({ caps = { l:new_channel() } }, 'rom/hello')", "there is an entry 1 without a name"),
        ("l:start({ caps = { abcdefghijklmnopq = l:new_channel() } }, 'rom/hello')", "'abcdefghijklmnopq' too long"),
        ("l:start({ caps = { ['a\\n'] = l:new_channel() } }, 'rom/hello')", "a capability's name is a printable"),
        ("l:start({ log = 3 }, 'rom/hello')", "log is a table { tag, colour } or a capability, not a number"),
        ("l:start({ log = { {} } }, 'rom/hello')", "the tag of a log is a string, not a table"),
        ("l:start({ l4re_dbg = 'x' }, 'rom/hello')", "l4re_dbg is a number such as L4.Dbg.Warn, not a string"),
        ("l:start({}, 'rom/hello', { A = {} })", "the environment of a program is a table of strings; A is a table"),
        ("l:start({}, 'rom/hello', { ['A=B'] = 1 })", "no environment variable can be 'A=B'='1'"),
        ("l:startv({}, 'rom/hello', {}, 'x')", "bad argument #3 to 'startv' (string expected, got table)"),
        ("local c = l:new_channel(); c.m()", "bad argument #1 to 'm' (L4::Cap expected, got nil)"),
        ("l:new_channel():m({})", "bad argument #2 to 'm'"),
        ("l:new_channel().x = 1", "cannot set 'x' of a cap"),
        ("l:new_channel():create(0)", "Try again (-11): nobody was given the server's side of this channel"),
        ("L4.Loader.new(1)", "Loader.new takes a table"),
        ("error({ code = -3 })", "error value: table"),
    ],
)
def test_a_mistake_is_told_with_its_line(rom: Rom, line: str, message: str) -> None:
    run = rom.run(f"local l = L4.default_loader\nl:start({{}}, 'rom/forever')\n{line}\n")
    assert "Traceback" not in run.err
    assert run.err.startswith("l4re: script.lua:3: "), run.err
    assert message in run.err
    assert run.status == 2


def test_an_error_table_shows_its_text(rom: Rom) -> None:
    run = rom.run("error({ msg = 'script.lua:1: runtime error x (-3)', code = -3 })")
    assert (run.status, run.err) == (2, "l4re: script.lua:1: runtime error x (-3)\n")


def test_a_script_may_catch_its_errors(rom: Rom) -> None:
    run = rom.run(LOADER + "print(select(2, pcall(l.start, l, {}, 'rom/nope'))) l:start({}, 'rom/hello')")
    assert run.out.startswith("script.lua:2: there is no program 'nope'")
    assert run.out.endswith("hello   | hello\n")
    assert run.status == 0
