"""Task handles, CPU sets, Info and sleep, server mode (sections 13 to 16)."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from l4re.ned.machine import Machine
from l4re.ned.plan import Plan
from ned.conftest import Speaker

pytestmark = pytest.mark.processes

SETUP = "local l = L4.default_loader\n"


def test_section_13_a_handle_is_released_by_wait_and_kill(both: Speaker) -> None:
    lines = both.say(
        SETUP
        + """
        local t, u = l:start({}, "rom/exit 0"), l:start({}, "rom/forever")
        print(type(t), u:state(), u:exit_code())
        print(t:wait(), t:wait(), t:state(), t:exit_code(), t:kill())
        print(u:kill(), u:kill(), u:state(), u:exit_code(), u:wait())
        print(t < u, t <= u, t == u, t == t)
        """
    )
    assert lines == [
        "userdata\trunning\tnil",
        "0\tnil\tnil\tnil\tnil",
        "killed\tnil\tnil\tnil\tnil",
        "true\ttrue\tfalse\ttrue",
    ]


def test_section_13_exit_handlers(both: Speaker) -> None:
    lines = both.say(
        SETUP
        + """
        local t, u, v = l:start({}, "rom/patient 0"), l:start({}, "rom/forever"), l:start({}, "rom/patient 0")
        print(t:exit_handler(function(code) print("t", code) end))
        print(select(2, pcall(t.exit_handler, t, print)))
        u:exit_handler(function(code) print("u", code) end)
        v:exit_handler(function(code) print("v", code) end)
        local go = io.open("go", "w") if go then go:close() end
        print(t:wait(), u:kill())
        print(t:exit_handler(function(code) print("late", code) end))
        print("end")
        """
    )
    assert lines == [
        "true",
        "script.lua:5: exit_handler callback already registered",
        "t\t0",
        "u\tnil",
        "0\tkilled",
        "late\t0",
        "false",
        "end",
        "v\t0",
    ]


def test_section_13_what_handlers_start_is_in_the_plan(plan: Callable[..., Plan]) -> None:
    made = plan(
        SETUP
        + """
        local function again() l:start({}, "rom/hello"):exit_handler(again) end
        again()
        """
    )
    assert [task.name for task in made.tasks] == ["hello", "hello#2"]


def test_section_13_a_planned_script_that_never_stops_starting_is_stopped(planned: Speaker) -> None:
    assert planned.mistake(SETUP + "while true do l:start({}, 'rom/hello'):wait() end") == (
        "script.lua:2: this script starts more than 1000 programs"
    )


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("new()", "{ all }"),
        ("new{}", "{}"),
        ("new(3)", "{3}"),
        ("new('0-3')", "{0, 1, 2, 3}"),
        ("new{'0-1', 42}", "{0, 1, 42}"),
        ("new{1} | L4.Cpu_set:new{2}", "{1, 2}"),
        ("new{1} | L4.Cpu_set:new()", "{ all }"),
        ("new('0-5') & L4.Cpu_set:new('3-9')", "{3, 4, 5}"),
        ("new{1} & L4.Cpu_set:new()", "{1}"),
        ("new() & L4.Cpu_set:new()", "{ all }"),
        ("new{1}:add(3):add('5-6')", "{1, 3, 5, 6}"),
    ],
)
def test_section_14_cpu_sets(both: Speaker, expression: str, text: str) -> None:
    assert both.say(f"print(L4.Cpu_set:{expression})") == [text]


@pytest.mark.parametrize(
    ("expression", "words"),
    [("new()", ""), ("new{}", "0"), ("new('0-3')", "15"), ("new{1, 64}", "2\t1"), ("new{63}", "-9223372036854775808")],
)
def test_section_14_masks(both: Speaker, expression: str, words: str) -> None:
    assert both.say(f"print(L4.Cpu_set:{expression}:factory_args())") == [words]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("new('3')", 'Invalid CPU range "3"'),
        ("new('5-2')", 'Invalid CPU range "5-2"'),
        ("new(true)", "Invalid argument type: boolean"),
        ("new{}.add(3)", "method called with incompatible object"),
    ],
)
def test_section_14_mistakes(both: Speaker, expression: str, message: str) -> None:
    assert both.mistake(f"L4.Cpu_set:{expression}") == f"script.lua:1: {message}"


def test_section_15_info(both: Speaker) -> None:
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine)
    if arch is None:
        pytest.skip("a machine of another kind")
    (line,) = both.say("print(L4.Info.arch(), L4.Info.mword_bits(), L4.Info.platform(), type(L4.Info.Kip.str()))")
    assert line == f"{arch}\t64\t{'pc' if arch == 'amd64' else 'virt'}\tstring"


def test_section_15_a_plan_for_another_machine(plan: Callable[..., Plan]) -> None:
    script = "L4.default_loader:start({}, 'rom/' .. L4.Info.arch() .. '-' .. L4.Info.mword_bits())"
    assert plan(script, machine=Machine.of("arm")).tasks[0].program == "rom/arm-32"


def test_section_15_sleep(both: Speaker) -> None:
    assert both.say("L4.sleep(3) L4.msleep(20) L4.sleep('x') L4.msleep(nil) L4.sleep(1.5)") == [
        "Ned: Sleeping 3s",
        "Ned: Sleeping 20ms",
        "Ned: Sleeping 1.5s",
    ]


def test_section_16_server_loop_does_not_return(plan: Callable[..., Plan]) -> None:
    made = plan(
        SETUP
        + """
        local c = l:new_channel()
        l:start({ caps = { svr = c } }, "rom/ned-prompt")
        pcall(L4.server_loop, c)
        l:start({}, "rom/never")
        """
    )
    assert [task.name for task in made.tasks] == ["ned-prompt", "ned"]
    assert [(reach.client, reach.server) for reach in made.reaches()] == [("ned-prompt", "ned")]


def test_section_16_wrong_argument(both: Speaker) -> None:
    assert both.mistake("L4.server_loop(3)") == (
        "script.lua:1: bad argument #1 to 'server_loop' (L4::Cap expected, got number)"
    )
