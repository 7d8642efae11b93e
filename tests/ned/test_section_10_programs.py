"""The description of a program, App_env, logs, exec (sections 10 to 12)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from l4re.ned.plan import Plan
from ned.conftest import Speaker
from support.programs import Rom

pytestmark = pytest.mark.processes

SETUP = "local l, c = L4.default_loader, L4.default_loader:new_channel()\n"


def test_section_10_what_is_no_capability_is_left_out(plan: Callable[..., Plan]) -> None:
    made = plan(
        SETUP
        + """
        l:start({ caps = { a = c, none = nil, no = false, yes = true, n = 3, s = "x",
                           f = function(caps) return caps.a:m("rw") end } }, "rom/a")
        """
    )
    assert {name: cap.rights for name, cap in made.tasks[0].caps.items()} == {"a": "r", "f": "rw", "rom": "r"}
    assert [remark.text for remark in made.remarks if "the program does not get it" in remark.text] == [
        "caps.n is a number, no capability: the program does not get it",
        "caps.s is a string, no capability: the program does not get it",
    ]


def test_section_10_unknown_fields_are_ignored(plan: Callable[..., Plan], rom: Rom) -> None:
    script = "L4.default_loader:start({ cap = {}, ns = {}, ldr_base = 3, ext_caps = {}, [1] = 2 }, 'rom/hello')"
    unknown = [remark.text for remark in plan(script).remarks]
    assert unknown == [
        "unknown field '1' in the description of a program is ignored",
        "unknown field 'cap' in the description of a program is ignored; is it 'caps'?",
        "unknown field 'ext_caps' in the description of a program is ignored",
    ]
    run = rom.run(script)
    assert (run.status, run.out) == (0, "hello   | hello\n")
    assert run.err == (
        "l4re: script.lua:1: unknown field 'cap' in the description of a program is ignored; is it 'caps'?\n"
    )


def test_section_10_the_tables_are_changed(both: Speaker) -> None:
    lines = both.say(
        SETUP
        + """
        local env = { log = { "x" } }
        l:start(env, "rom/exit 0"):wait()
        print(getmetatable(env) == L4.App_env, env.loader == l, env.l4re_dbg == L4.Dbg.Warn, type(env.caps))
        """
    )
    assert lines == ["true\ttrue\ttrue\ttable"]


def test_section_10_a_description_serves_once_unless_its_log_is_a_capability(both: Speaker) -> None:
    assert both.mistake(SETUP + "local e = {} l:start(e, 'rom/exit 0')\nl:start(e, 'rom/exit 0')").startswith(
        "script.lua:3: method called with incompatible object"
    )
    both.say(SETUP + "local e = { log = L4.Env.log } l:start(e, 'rom/exit 0') l:start(e, 'rom/exit 0')")


def test_section_10_app_env_adds_nothing(plan: Callable[..., Plan]) -> None:
    made = plan(SETUP + "local e = L4.App_env.new{ caps = { c = c } } e:start('rom/a', 'x', { V = 1 })")
    assert (set(made.tasks[0].caps), made.tasks[0].args, made.tasks[0].environment) == ({"c"}, ("x",), {"V": "1"})
    assert any("no capability 'rom'" in remark.text for remark in made.remarks)


def test_section_10_app_env_methods(both: Speaker) -> None:
    lines = both.say(
        SETUP
        + """
        local e = L4.App_env.new()
        print(e.loader == l, e.mem == l.mem, e.factory == L4.Env.factory, e.rm_fab == l.rm_fab)
        print(e:log() == e:log(), type(e:log()))
        e:set_mem_alloc(c) e:set_ns({}) print(e.mem == c)
        print(pcall(e.log, {}))
        """
    )
    assert lines[:3] == ["true\ttrue\ttrue\ttrue", "true\tuserdata", "true"]
    assert "method called with incompatible object" in lines[3]


def test_section_10_a_log_can_be_set_afterwards(plan: Callable[..., Plan]) -> None:
    made = plan(SETUP + "local e = L4.App_env.new() e.log = c l:startv(e, 'rom/a')")
    assert made.tasks[0].log.cap.source == "channel a.log"


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("mem = 3", "error: capability expected 'mem'"),
        ("scheduler = 'x'", "error: capability expected 'scheduler'"),
        ("dbg_events = function() return 3 end", "error: capability expected 'dbg_events'"),
        ("l4re_dbg = 'x'", "l4re_dbg is a number such as L4.Dbg.Warn, not a string"),
        ("ldr_flags = {}", "ldr_flags is a number, not a table"),
        ("caps = 3", "caps is a table of names and capabilities, not a number"),
        ("caps = { c }", "caps is a table of names and capabilities, as in { name = capability }; there is an entry 1"),
        ("caps = { abcdefghijklmnopq = c }", "Capability name 'abcdefghijklmnopq' too long"),
        ("log = 3", "log is a table { tag, colour } or a capability, not a number"),
        ("log = { {} }", "the tag of a log is a string, not a table"),
        ("log = { 'x', {} }", "the colour of a log is a string or a number, not a table"),
    ],
)
def test_section_10_mistakes(both: Speaker, env: str, message: str) -> None:
    assert both.mistake(SETUP + f"l:start({{ {env} }}, 'rom/hello')").startswith(f"script.lua:2: {message}")


# ---- logs ----


@pytest.mark.parametrize(
    ("log", "tag", "colour"),
    [
        ("nil", "hello", 7),
        ("{}", "hello", 7),
        ("{ nil, 'red' }", "hello", 1),
        ("{ 'tag', 'Green' }", "tag", 10),
        ("{ 'tag', 12 }", "tag", 12),
        ("{ 'tag', 'x' }", "tag", 0),
        ("{ 42, 'c' }", "42", 6),
        ("function() return { 'made', 'b' } end", "made", 4),
        ("L4.Env.user_factory:create(L4.Proto.Log, 'own', 'm')", "own", 5),
    ],
)
def test_section_11_tags_and_colours(plan: Callable[..., Plan], rom: Rom, log: str, tag: str, colour: int) -> None:
    script = f"L4.default_loader:start({{ log = {log} }}, 'rom/hello')"
    task = plan(script).tasks[0]
    assert (task.log.tag, task.log.colour, task.name) == (tag, colour, tag)
    assert rom.run(script).out == f"{tag:<8}| hello\n"


def test_section_11_a_capability_is_used_as_it_is(plan: Callable[..., Plan]) -> None:
    made = plan(
        SETUP
        + """
        l:start({ caps = { term = c:svr() } }, "rom/terminal")
        l:start({ log = c, caps = { log = L4.Env.log } }, "rom/hello")
        """
    )
    hello = made.tasks[1]
    assert (hello.log.tag, hello.log.cap.source, hello.caps["log"].source) == (None, "channel terminal.term", "Env.log")
    assert [(reach.client, reach.server, reach.cap) for reach in made.reaches()] == [("hello", "terminal", "log")]


def test_section_11_tasks_of_one_tag_are_told_apart(plan: Callable[..., Plan]) -> None:
    made = plan("for _ = 1, 3 do L4.default_loader:start({}, 'rom/hello') end")
    assert [task.name for task in made.tasks] == ["hello", "hello#2", "hello#3"]


# ---- exec ----


def test_section_12_exec_is_the_primitive(plan: Callable[..., Plan], rom: Rom) -> None:
    script = "L4.exec({ caps = {} }, 'rom/hello', 'a b', { V = 1 })"
    task = plan(script).tasks[0]
    assert (task.program, task.args, set(task.caps), task.environment) == ("rom/hello", ("a b",), set(), {"V": "1"})
    assert rom.run(script).out == "hello   | hello a b\n"


def test_section_12_the_program_lies_in_the_rom_of_the_program(plan: Callable[..., Plan]) -> None:
    made = plan(
        """
        local l = L4.default_loader
        l:start({ caps = { rom = { hello = "rom/hello.py" } } }, "rom/hello")
        l:start({ caps = { rom = { hello = "rom/hello.py" } } }, "rom/other")
        """
    )
    assert [remark.text for remark in made.remarks] == [
        "rom/other: there is no 'other' in the namespace 'rom' of the program"
    ]


def test_section_12_a_program_need_not_be_there(plan: Callable[..., Plan]) -> None:
    made = plan("L4.default_loader:start({}, 'rom/b') L4.default_loader:start({}, 'rom/a') l = L4.Env.rom:q('x')()")
    assert [str(remark) for remark in made.remarks] == ["not in the rom folders: rom/a, rom/b, rom/x"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("L4.exec(3, 'rom/x')", "a program is described by a table { caps = ..., log = ... }, not a number"),
        ("L4.exec({})", "a program is named by a string such as 'rom/hello', not a nil"),
        ("L4.exec({}, 'rom/x', {}, 3)", "bad argument #3 to 'exec' (string expected, got table)"),
        ("L4.exec({}, 'rom/x', { A = {} })", "the environment of a program is a table of strings; A is a table"),
    ],
)
def test_section_12_mistakes(both: Speaker, line: str, message: str) -> None:
    assert both.mistake(line) == f"script.lua:1: {message}"
