"""Namespaces: making, filling, looking up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from l4re.ned.plan import Plan
from ned.conftest import Speaker
from support.programs import write

pytestmark = pytest.mark.processes

SETUP = "local l = L4.default_loader local c = l:new_channel()\n"


def test_section_08_create_namespace(planned: Speaker) -> None:
    lines = planned.say(
        SETUP
        + """
        local n = l:create_namespace({ a = c:m("rw"), sub = { b = c }, made = function() return c end })
        print(tostring(n):match("<(.*)>"), n:q("a")() == c, n:query("sub/b")() == c, n:q("made")() == c)
        print(n:q("absent")(), n:q("sub/absent")(), n:q("a")():m(), n:q("a", "rw")():m())
        print(l:create_namespace(3), l:create_namespace(nil), l:create_namespace(c) == c)
        """
    )
    assert lines == ["L4Re::Namespace\ttrue\ttrue\ttrue", "nil\tnil\t4\t5", "3\tnil\ttrue"]


def test_section_08_register_and_unlink(planned: Speaker) -> None:
    lines = planned.say(
        SETUP
        + """
        local n, d = l:create_namespace({}), l:new_channel()
        n:register("x", c) print(n:q("x")() == c)
        n:r("x", d) print(n:q("x")() == d)
        n:register("x", nil) print(n:q("x")() == d)
        n:__register("x", nil) print(n:q("x")())
        n:__register("x", nil)
        n:__register("hole", "ph")
        print(select(2, pcall(n:q("hole"))).code)
        n:r("t", { u = c }, L4.Env.user_factory) print(n:q("t/u")() == c)
        n:r("f", function(ns, key) return ns == n and key == "f" and c end) print(n:q("f")() == c)
        l:fill_namespace(n, { more = c }) print(n:q("more")() == c)
        """
    )
    assert lines == ["true", "true", "true", "nil", "-11", "true", "true", "true"]


def test_section_08_strings_are_paths(planned: Speaker) -> None:
    write(planned.folder, "data.bin", "x")
    lines = planned.say(
        SETUP
        + """
        L4.Env.mine = { deep = l:create_namespace({ c = c }) }
        local n = l:create_namespace({ a = "rom/data.bin", b = "mine/deep/c", icu = "icu" })
        print(n:q("a")() ~= nil, n:q("b")() == c, n:q("icu")() == L4.Env.icu)
        """
    )
    assert lines == ["true\ttrue\ttrue"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("l:create_namespace({ a = 'mine/x' })", "Could not resolve: 'mine/x'"),
        ("l:create_namespace({ a = 3 })", "unexpected value to register in namespace (number)"),
        ("l:create_namespace({}):r('x', {})", "unexpected value to register in namespace (table, and no factory"),
        ("l:create_namespace({}):q()", "expected at least two arguments in name-space query"),
        ("l:create_namespace({}):q({})", "bad argument #1 to 'query' (string expected, got table)"),
        ("l:create_namespace({ ['a/b'] = c })", "runtime error Invalid argument (-22)"),
        ("l.create_namespace({}, {})", "method called with incompatible object"),
        ("L4.cast(L4.Proto.Namespace, c):q('x')()", "runtime error Invalid protocol (-39)"),
    ],
)
def test_section_08_mistakes(planned: Speaker, line: str, message: str) -> None:
    assert planned.mistake(SETUP + line).startswith(f"script.lua:2: {message}")


def test_section_08_tables_in_caps_become_namespaces_in_place(plan: Callable[..., Plan]) -> None:
    made = plan(
        SETUP
        + """
        local caps = { names = { a = c:m("rw"), b = { d = c:svr() } } }
        l:start({ caps = caps }, "rom/one") l:start({ caps = caps, log = { "two" } }, "rom/two")
        assert(type(caps.names) == "userdata")
        """
    )
    one, two = made.tasks
    assert one.caps["names"] == two.caps["names"]
    held = dict(made.held(one))
    assert (held["names/a"].rights, held["names/b/d"].kind) == ("rw", "receive right")
    assert made.servers(held["names/a"].source) == ("one", "two")
    assert any("here the server's side can move once" in remark.text for remark in made.remarks)
