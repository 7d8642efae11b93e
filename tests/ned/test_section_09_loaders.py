"""Loaders: options, starting, default capabilities, schedulers, the backtracer."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from l4re.ned.plan import Plan
from ned.conftest import Speaker
from support.programs import Rom

pytestmark = pytest.mark.processes

SETUP = "local l = L4.default_loader\n"


def test_section_09_new_turns_a_table_into_a_loader(both: Speaker) -> None:
    lines = both.say(
        """
        local t = { mem = L4.Env.user_factory }
        local l = L4.Loader.new(t)
        print(l == t, l.factory == L4.Env.factory)
        for _, f in ipairs({ "log_fab", "ns_fab", "rm_fab", "sched_fab" }) do print(f, l[f] == l.mem) end
        local base = l:new_channel()
        print(L4.Loader.new({ mem = l.mem, loader = base }).log_fab == base, L4.Loader.new({}).log_fab)
        print(L4.default_loader.mem == L4.Env.mem_alloc)
        """
    )
    assert lines == [
        "true\ttrue",
        "log_fab\ttrue",
        "ns_fab\ttrue",
        "rm_fab\ttrue",
        "sched_fab\ttrue",
        "true\tnil",
        "true",
    ]


def test_section_09_split_args(both: Speaker) -> None:
    lines = both.say(SETUP + "print(L4.Loader.split_args(' rom/a  b\\tc ', 'd e')) print(#{ l.split_args('a b', {}) })")
    assert lines == ["rom/a\tb\tc\td e", "3"]


def test_section_09_start_splits_and_startv_does_not(plan: Callable[..., Plan]) -> None:
    made = plan(
        SETUP
        + """
        l:start({}, "rom/one a  b", "c d")
        l:start({}, "rom/two", { A = 1, B = "x y" })
        l:startv({}, "rom/three", "a b", nil, 3, 1.5, nil)
        l:startv({}, "rom/four", "a", { C = "d" })
        l:start({}, "rom/five", "x", "dropped")
        """
    )
    assert [(task.program, task.args, dict(task.environment)) for task in made.tasks] == [
        ("rom/one", ("a", "b", "c d"), {}),
        ("rom/two", (), {"A": "1", "B": "x y"}),
        ("rom/three", ("a b", "3", "1.5"), {}),
        ("rom/four", ("a",), {"C": "d"}),
        ("rom/five", ("x",), {}),
    ]


def test_section_09_default_caps(plan: Callable[..., Plan]) -> None:
    made = plan(
        """
        local l = L4.Loader.new({ mem = L4.Env.mem_alloc })
        local c = l:new_channel()
        l:start({}, "rom/a")
        l:start({ caps = { rom = L4.Env.rom } }, "rom/b")
        l.default_caps = { rom = L4.Env.rom:m("r"), also = c }
        l:start({ caps = { also = L4.Env.icu } }, "rom/c")
        l:start({}, "rom/d")
        """
    )
    caps = [{name: (cap.source, cap.rights) for name, cap in task.caps.items()} for task in made.tasks]
    assert caps == [
        {"rom": ("Env.rom", "r")},
        {"rom": ("Env.rom", "rws")},
        {"rom": ("Env.rom", "r"), "also": ("Env.icu", "rws")},
        {"rom": ("Env.rom", "r"), "also": ("channel d.also", "r")},
    ]


def test_section_09_fields_can_be_assigned_at_any_time(plan: Callable[..., Plan]) -> None:
    made = plan(
        SETUP
        + """
        l.log_fab = l:new_channel()
        l:start({ caps = { cons = l.log_fab:svr() }, log = L4.Env.log }, "rom/cons")
        l:start({ log = { "x", "red", "key=1" } }, "rom/x")
        """
    )
    assert made.tasks[1].log.options == ("key=1",)
    assert [(reach.client, reach.server, reach.cap) for reach in made.reaches()] == [("x", "cons", "log")]


def test_section_09_the_services_of_a_loader_are_its_programs(plan: Callable[..., Plan]) -> None:
    made = plan(
        """
        local small = L4.Env.user_factory:create(L4.Proto.Factory, 1 << 20):m("rs")
        local l = L4.Loader.new({ mem = small })
        l:start({ factory = L4.Env.factory:m("r") }, "rom/a")
        """
    )
    services = {name: (cap.kind, cap.rights) for name, cap in made.tasks[0].services.items()}
    assert services == {"mem": ("factory", "rs"), "rm_fab": ("factory", "rs"), "factory": ("factory", "r")}


def test_section_09_create_sched_proxy(plan: Callable[..., Plan]) -> None:
    made = plan(
        SETUP
        + """
        l:start({ scheduler = l:create_sched_proxy{} }, "rom/a")
        l:start({ scheduler = l:create_sched_proxy{ prio_offset = 5, cpus = L4.Cpu_set:new("0-2") } }, "rom/b")
        l:start({ scheduler = l:create_sched_proxy{ prio_offset = 5, prio_limit = 9 } }, "rom/c")
        """
    )
    words = [made.objects[task.services["scheduler"].source].words for task in made.tasks]
    assert words == [(10, 0), (15, 5, 7), (9, 5)]


def test_section_09_start_backtracer(plan: Callable[..., Plan]) -> None:
    made = plan(SETUP + "l:start_backtracer{ args = { '-v' } } l:start({}, 'rom/a')")
    assert (made.tasks[0].program, made.tasks[0].args) == ("rom/backtracer", ("-v",))
    assert [(reach.client, reach.server) for reach in made.reaches()] == [("a", "backtracer")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("L4.Loader.new(3)", "Loader.new takes a table"),
        ("l.start({}, {}, 'rom/hello')", "method called with incompatible object"),
        ("l.new_channel({})", "method called with incompatible object"),
        ("L4.Loader.new({}):start({}, 'rom/hello')", "Starting an application without valid log factory"),
        ("l:startv({}, 'rom/hello', {}, 'x')", "bad argument #3 to 'startv' (string expected, got table)"),
        ("l:create_sched_proxy()", "create_sched_proxy takes a table, not a nil"),
        ("l:create_sched_proxy{ cpus = 3 }", "cpus is an L4.Cpu_set, not a number"),
    ],
)
def test_section_09_mistakes(both: Speaker, line: str, message: str) -> None:
    assert both.mistake(SETUP + line) == f"script.lua:2: {message}"


def test_section_09_a_loader_of_its_own_starts_programs(rom: Rom) -> None:
    run = rom.run("local l = L4.Loader.new({ mem = L4.Env.user_factory }) l:start({}, 'rom/hello x')")
    assert (run.status, run.out) == (0, "hello   | hello x\n")
