"""Capability objects: rights, sides, types, methods."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from l4re.ned.plan import Plan
from l4re.rights import Rights
from ned.conftest import Speaker
from support.programs import Rom, l4re, write

pytestmark = pytest.mark.processes

CHANNEL = "local c = L4.default_loader:new_channel()\n"


def test_section_06_m_tells_the_rights(both: Speaker) -> None:
    assert both.say(CHANNEL + "print(c:m(), c:mode(), c:rights(nil), c:m('rws'):m(), c:svr():m(), type(c))") == [
        "4\t4\t4\t7\t15\tuserdata"
    ]


@pytest.mark.parametrize(
    ("rights", "mask"),
    [
        ("'w'", 5),
        ("'WS'", 7),
        ("'rwsdnc'", 15),
        ("'xyz'", 4),
        ("''", 4),
        ("1", 5),
        ("'2'", 6),
        ("0x103", 7),
        ("3.0", 7),
    ],
)
def test_section_06_m_takes_letters_and_numbers(both: Speaker, rights: str, mask: int) -> None:
    assert both.say(CHANNEL + f"print(c:m({rights}):m())") == [str(mask)]


def test_section_06_a_copy_is_made_only_if_something_changes(both: Speaker) -> None:
    lines = both.say(CHANNEL + "print(rawequal(c:m('r'), c), rawequal(c:m('w'), c), c:m('w') == c)")
    assert lines == ["true\tfalse\ttrue"]


def test_section_06_svr_has_the_server_bit(both: Speaker) -> None:
    assert both.say(
        CHANNEL + "print(tostring(c:svr()):match('r=%x f=%x$'), tostring(c:svr():m('rw')):match('r=.*$'))"
    ) == ["r=f f=e\tr=5 f=0"]


def test_section_06_tostring_and_is_valid(both: Speaker) -> None:
    assert both.say(CHANNEL + "print(tostring(c):gsub('0x%x+', 'A'))") == ["L4::Cap<void>[A] r=4 f=0\t1"]
    assert both.say(CHANNEL + "print(c:is_valid(), tostring(L4.cast('L4::Factory', c)):match('<(.*)>'))") == [
        "true\tL4::Factory"
    ]


def test_section_06_cast_knows_numbers_and_names(both: Speaker) -> None:
    lines = both.say(
        CHANNEL
        + """
        local f = L4.cast(L4.Proto.Factory, c:m("rw"))
        print(f == c, f:m(), f.create ~= nil, L4.cast("L4::Factory", function() return c end) == c)
        print(L4.cast("No::Such", c), L4.cast(12345, c), L4.cast(L4.Proto.Factory, 3), L4.cast(L4.Proto.Factory, nil))
        print(L4.mangle_class("L4Re::Namespace"), L4.mangle_class("L4::Factory"), L4.mangle_class("One"))
        print(L4.get_cap_class(L4.Proto.Factory).create ~= nil, L4.get_cap_class("N4L4Re9NamespaceE").query ~= nil,
              L4.get_cap_class("x"), L4._CAP_TYPES.N2L47FactoryE == L4.get_cap_class("L4::Factory"))
        """
    )
    assert lines == [
        "true\t5\ttrue\ttrue",
        "nil\tnil\tnil\tnil",
        "N4L4Re9NamespaceE\tN2L47FactoryE\t3One",
        "true\ttrue\tnil\ttrue",
    ]


def test_section_06_a_script_may_add_methods_to_a_type(both: Speaker) -> None:
    lines = both.say(
        CHANNEL
        + "function L4.Class.Factory.twice(self) return self:m() * 2 end print(L4.cast('L4::Factory', c):twice())"
    )
    assert lines == ["8"]


def test_section_06_what_has_no_type_is_asked(planned: Speaker) -> None:
    lines = planned.say(CHANNEL + "print(type(c.create), c.query, type(L4.Env.sigma0.create), type(L4.Env.rom.q))")
    assert lines == ["function\tnil\tfunction\tfunction"]


def test_section_06_what_answers_no_questions_has_no_methods(plan: Callable[..., Plan], both: Speaker) -> None:
    made = plan("print(L4.Env.icu.create)")
    assert "does not support the meta protocol" in made.remarks[0].text
    assert made.remarks[0].line == "script.lua:1"
    assert "attempt to call a nil value (method 'create')" in both.mistake("L4.Env.icu:create(0)")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("c.m()", "bad argument #1 to 'm' (L4::Cap expected, got nil)"),
        ("c.svr({})", "bad argument #1 to 'svr' (L4::Cap expected, got table)"),
        ("c:m({})", "bad argument #2 to 'm' (rights are letters"),
        ("c.x = 1", "cannot set 'x' of a cap"),
        ("L4.mangle_class(c)", "bad argument #1 to 'mangle_class' (string expected, got L4::Cap)"),
    ],
)
def test_section_06_wrong_arguments(both: Speaker, line: str, message: str) -> None:
    assert both.mistake(f"{CHANNEL}{line}").startswith(f"script.lua:2: {message}")


def test_section_06_other_types(planned: Speaker) -> None:
    lines = planned.say(
        """
        print(L4.cast("L4Re::Debug_obj", L4.Env.jdb):debug(3))
        print(L4.cast("L4::Platform_control", L4.Env.icu):system_shutdown(1))
        """
    )
    assert lines == ["0", ""]


# ---- rights only shrink ----

MASKS = st.one_of(st.text("rwsdnc", max_size=6), st.integers(0, 255))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(MASKS, min_size=1, max_size=4), what=st.sampled_from(["c", "L4.Env.icu", "ds", "c:svr()"]))
def test_section_06_a_program_gets_no_right_that_the_script_did_not_give(
    plan: Callable[..., Plan], steps: list[str | int], what: str
) -> None:
    made = plan(
        CHANNEL
        + f"""
        local ds = L4.Env.user_factory:create(L4.Proto.Dataspace, 4096)
        local given = {what}
        for _, step in ipairs({{ {", ".join(repr(step) for step in steps)} }}) do given = given:m(step) end
        L4.default_loader:start({{ caps = {{ given = given, within = {{ a = given }} }} }}, "rom/hello " .. given:m())
        """
    )
    task = made.tasks[0]
    last = steps[-1]
    letters = {"r", *(last if isinstance(last, str) else Rights(last & 15).letters())} & set("rwsd")
    for _, cap in made.held(task):
        if cap.source == task.caps["given"].source:
            assert set(cap.rights) <= letters
    assert int(Rights.parse(task.caps["given"].rights)) == int(task.args[0])


def test_section_06_a_running_program_has_the_rights_of_the_plan(rom: Rom) -> None:
    masks = ["r", "w", "s", "rws", "d", "wd", "sd", "rwsdn", "", "n"]
    caps = ", ".join(f"c{at} = c:m('{mask}')" for at, mask in enumerate(masks))
    write(
        rom.folder,
        "script.lua",
        CHANNEL + f"L4.default_loader:start({{ caps = {{ svr = c:svr(), {caps} }} }}, 'rom/caps')",
    )
    from l4re.ned.planner import plan_of

    planned = plan_of(rom.folder / "script.lua").tasks[0].caps
    live = l4re("run", "script.lua", cwd=rom.folder)
    assert live.status == 0, live.err
    found = [line.removeprefix("caps    | ").rsplit(" ", 1) for line in live.out.splitlines()]
    rights = {words.split()[0]: letters for words, letters in found}
    for name, cap in planned.items():
        if name != "rom":
            assert set(rights[name]) <= set(cap.rights), name
