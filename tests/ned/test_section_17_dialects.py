"""Older dialects: what scripts of the last fifteen years expect beside today's language (sections 17 and 19)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from l4re.ned.plan import Plan
from ned.conftest import Speaker
from support.programs import write

pytestmark = pytest.mark.processes


def test_section_17_level_1_the_module_is_a_global(both: Speaker) -> None:
    assert both.say('print(type(L4.default_loader)) require("L4"); print(L4 ~= nil)') == ["table", "true"]


def test_section_17_level_2_unpack(both: Speaker) -> None:
    assert both.say("print(unpack({ 1, 2, 3 }))") == ["1\t2\t3"]


def test_section_17_level_2_module_with_seeall(both: Speaker) -> None:
    write(
        both.folder,
        "old.lua",
        """
        module("old", package.seeall);
        require("L4");
        local secret = 2
        counter = 1
        function twice(x) counter = counter + 1 return x * secret end
        function name() return _NAME, L4 ~= nil, _M == old end
        """,
    )
    lines = both.say(
        "require('old') print(old.twice(4), old.counter, old.name()) print(counter, twice, require 'old' == old)"
    )
    assert lines == ["8\t2\told\ttrue\ttrue", "nil\tnil\ttrue"]


def test_section_17_level_2_module_of_a_dotted_name(both: Speaker) -> None:
    write(both.folder, "m.lua", "module('a.b.m', package.seeall)\nx = 3\n")
    assert both.say("require('m') print(a.b.m.x, a.b.m._PACKAGE)") == ["3\ta.b."]


def test_section_17_level_3_a_module_is_a_global_of_its_name(both: Speaker) -> None:
    write(both.folder, "Aw2.lua", "return { io = 3 }")
    write(both.folder, "taken.lua", "return {}")
    assert both.say("taken = 5 require('Aw2') require('taken') print(Aw2.io, taken)") == ["3\t5"]


def test_section_17_level_4_placeholders(plan: Callable[..., Plan]) -> None:
    made = plan(
        """
        local n = L4.default_loader:create_namespace({ shm = "serial" })
        L4.default_loader:start({ caps = { ns = n:m("rws") } }, "rom/x")
        """
    )
    assert "script.lua:1: 'shm' in a namespace is reserved: a program is to fill it" in map(str, made.remarks)


def test_section_17_modules_that_are_environments(both: Speaker) -> None:
    write(both.folder, "env.lua", "local require = require\nlocal _ENV = {}\nx = require('L4')\nreturn _ENV\n")
    write(both.folder, "all.lua", "loader = L4.default_loader\nreturn _ENV\n")
    assert both.say("print(require('env').x == L4, require('all').loader == L4.default_loader, loader ~= nil)") == [
        "true\ttrue\ttrue"
    ]


def test_section_19_functions_are_functions(both: Speaker) -> None:
    names = "L4.cast, L4.exec, L4.sleep, L4.default_loader.start, L4.default_loader:new_channel().m, print, pcall"
    assert both.say(f"for _, f in ipairs({{ {names} }}) do io.stderr:write('') print(type(f)) end") == ["function"] * 7


def test_section_19_catching_keeps_the_table_and_the_line(both: Speaker) -> None:
    lines = both.say(
        "local ok, e = pcall(function()\n  L4.Env.user_factory:create(1)\nend)\nprint(e.msg, e.code)\n"
        "print(xpcall(error, function(p) return p.code end, { code = 7 }))"
    )
    assert lines == ["script.lua:2: runtime error No such device (-19)\t-19", "false\t7"]
