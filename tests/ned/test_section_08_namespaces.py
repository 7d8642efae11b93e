"""Namespaces: making, filling, looking up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from l4re.errors import OutOfRange
from l4re.ned.plan import Plan
from l4re.ned.planner import plan_of
from ned.conftest import Speaker
from support.programs import Rom, write

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
    ],
)
def test_section_08_mistakes(both: Speaker, line: str, message: str) -> None:
    assert both.mistake(SETUP + line).startswith(f"script.lua:2: {message}")


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
    assert made.servers()[held["names/a"].source] == ("one", "two")
    assert any("here the server's side can move once" in remark.text for remark in made.remarks)


def test_section_08_a_program_finds_what_the_script_registered(rom: Rom) -> None:
    write(rom.folder, "data.bin", "some bytes")
    rom.program(
        "names",
        """
        import l4re

        ns = l4re.env().get_cap("ns", l4re.Namespace)
        for name in ("c", "sub/c", "data", "late"):
            found = ns.query(name)
            print(name, found.kind, found.rights.letters())
        """,
    )
    script = (
        SETUP
        + """
        local n = l:create_namespace({ c = c:m("rw"), sub = { c = c }, data = "rom/data.bin", gone = c })
        n:register("late", c:m("rws")) n:__register("gone", nil)
        print(n:q("gone")(), n:q("sub/none")(), n:q("data")():m(), n:q("c", "rw")():m(), n:q("c")():is_valid())
        l:start({ caps = { ns = n, svr = c:svr() }, log = { "names" } }, "rom/names")  -- S needs S on the namespace
        """
    )
    run = rom.run(script)
    assert (run.status, run.err) == (0, "")
    first, *found = run.out.splitlines()
    assert first == "nil\tnil\t4\t5\ttrue"
    assert found == [
        "names   | c gate rw",
        "names   | sub/c gate r",
        "names   | data dataspace r",
        "names   | late gate rw",
    ]
    held = dict(plan_of(rom.folder / "script.lua").held(plan_of(rom.folder / "script.lua").tasks[0]))
    assert {name: held[f"ns/{name}"].rights for name in ("c", "sub/c", "data", "late")} == {
        "c": "rw",
        "sub/c": "r",
        "data": "r",
        "late": "rw",
    }


def test_section_08_a_namespace_may_hold_itself(plan: Callable[..., Plan]) -> None:
    made = plan(
        SETUP + "local n = l:create_namespace({}) n:r('n', n:m('rw')) l:start({ caps = { ns = n } }, 'rom/hello')"
    )
    assert [(name, cap.rights) for name, cap in made.held(made.tasks[0]) if "ns" in name] == [
        ("ns", "r"),
        ("ns/n", "rw"),
    ]


def test_section_08_a_maze_of_namespaces_is_refused(planned: Speaker) -> None:
    script = """
        local n = l:create_namespace({})
        for _ = 1, 40 do n = l:create_namespace({ a = n, b = n }) end
        l:start({ caps = { ns = n } }, "rom/hello")
        """
    with pytest.raises(OutOfRange, match="hello can find more than 100000 names in its namespaces"):
        planned.run(SETUP + script)
