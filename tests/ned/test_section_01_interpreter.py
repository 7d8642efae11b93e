"""The interpreter: libraries, how a file is read, what is told of an error that nobody caught."""

from __future__ import annotations

import pytest

from ned.conftest import Speaker
from support.programs import write

pytestmark = pytest.mark.processes


def test_section_01_it_is_lua_5_5_with_neds_libraries(both: Speaker) -> None:
    assert both.say("print(_VERSION, table ~= nil, io ~= nil, string ~= nil, debug ~= nil, package ~= nil)") == [
        "Lua 5.5\ttrue\ttrue\ttrue\ttrue\ttrue"
    ]
    assert both.say("print(math, os, coroutine, utf8, python, io.popen, package.loadlib)") == [
        "nil\tnil\tnil\tnil\tnil\tnil\tnil"
    ]


def test_section_01_every_way_to_the_module_is_the_same(both: Speaker) -> None:
    assert both.say('print(require("L4") == require "L4", L4 == package.loaded.L4)') == ["true\ttrue"]


def test_section_01_a_first_line_and_a_mark_are_skipped(both: Speaker) -> None:
    said = both.run("\ufeff#!/usr/bin/env l4re\nprint(1) error('here')\n")
    assert (said.lines, said.err) == (["1"], "l4re: script.lua:2: here\n")


def test_section_01_modules_are_found_along_the_path_and_in_the_rom(both: Speaker) -> None:
    write(both.folder, "mine.lua", "#!x\nreturn { name = ..., file = select(2, ...) }\n")
    lines = both.say(
        """
        print(require("rom/mine").name, package.path)
        package.path = "rom/?.lua"
        local m = require("mine")
        print(m.name, m.file:match("[^/]*$"))
        print(dofile("rom/mine.lua") ~= m, loadfile("rom/none.lua"))
        """
    )
    assert lines == [
        "rom/mine\t./?.lua;rom/?.lua",
        "mine\tmine.lua",
        "true\tnil\tcannot open rom/none.lua: No such file or directory",
    ]


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ("error('my words')", "script.lua:2: my words"),
        ("error({ msg = 'rom/x:1: runtime error x (-3)', code = -3 })", "rom/x:1: runtime error x (-3)"),
        ("error({})", "script.lua:2: error value: table"),
        ("local x = = 3", "script.lua:2: unexpected symbol near '='"),
        ("require('nope')", "script.lua:2: module 'nope' not found:"),
        ("L4.frob()", "script.lua:2: attempt to call a nil value (field 'frob')"),
    ],
)
def test_section_01_an_error_that_nobody_caught_is_told_with_its_line(
    both: Speaker, problem: str, message: str
) -> None:
    assert both.mistake(f"local x\n{problem}\n").startswith(message)


def test_section_01_the_scripts_words(both: Speaker) -> None:
    assert both.say("print(arg[0], arg[1], arg[2], #arg, ...)", "--", "a b", "c") == ["script.lua\ta b\tc\t2\ta b\tc"]


def test_section_01_nothing_compiled_is_run(both: Speaker) -> None:
    assert both.say("print((load(string.dump(function() end))))") == ["nil"]


def test_section_01_a_planned_script_writes_no_file(planned: Speaker) -> None:
    lines = planned.say(
        """
        print(io.open("x", "w"))
        io.write("one\\n") io.stdout:write("two\\n") io.output("x"):write("three\\n")
        print(io.open("script.lua"):read("l"), io.tmpfile)
        """
    )
    assert lines[0] == "nil\tx: no file is written here\t1"
    assert lines[-1] == 'print(io.open("x", "w"))\tnil'
    assert not (planned.folder / "x").exists()
