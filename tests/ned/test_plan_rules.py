"""Rules on plans: who can call whom, who can write what, directly and through what could be handed on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from l4re.errors import InvalidArgument, NotFound
from l4re.ned.plan import Plan
from l4re.ned.plan_rules import Rule, breaches

SYSTEM = """
local l = L4.default_loader
local a, b, lone = l:new_channel(), l:new_channel(), l:new_channel()
local ds = L4.Env.user_factory:create(L4.Proto.Dataspace, 4096)
l:start({ caps = { svr = b:svr(), ram = ds:m("rw") }, log = { "back" } }, "rom/backend")
l:start({ caps = { svr = a:svr(), next = b, ram = ds } }, "rom/front")
l:start({ caps = { front = a, view = ds:m("r") } }, "rom/client")
l:start({ caps = { svr = lone:svr(), ram = ds } }, "rom/island")
l:start({ caps = { shore = lone } }, "rom/boat")
"""


@pytest.fixture
def system(plan: Callable[..., Plan]) -> Plan:
    return plan(SYSTEM)


@pytest.mark.parametrize(
    ("rule", "direct", "handed_on"),
    [
        ("client calls front", True, True),
        ("front calls back", True, True),
        ("rom/front calls backend", True, True),
        ("client calls back", False, True),
        ("back calls client", False, True),
        ("client calls island", False, False),
        ("boat calls island", True, True),
        ("boat calls front", False, False),
        ("back writes ram", True, True),
        ("front writes ram", False, True),
        ("client writes view", False, True),
        ("island writes ram", False, False),
        ("boat writes view", False, False),
    ],
)
def test_what_is_possible_is_found(system: Plan, rule: str, direct: bool, handed_on: bool) -> None:
    assert bool(breaches(system, Rule.parse(rule))) is direct
    assert bool(breaches(system, Rule.parse(rule), delegation=True)) is handed_on


def test_it_is_told_through_what(system: Plan) -> None:
    assert breaches(system, Rule.parse("client calls front")) == (
        "client holds 'front' (r): channel front.svr, which front serves",
    )
    assert breaches(system, Rule.parse("client writes ram"), delegation=True) == (
        "client - [channel front.svr] front - [channel back.svr] back: back holds 'ram' (rw), dataspace back.ram, "
        "and can hand it on",
    )
    assert breaches(system, Rule.parse("client calls back"), delegation=True) == (
        "client - [channel front.svr] front - [channel back.svr] back: what back serves can be handed on to client",
    )


def test_namespaces_and_sessions_are_looked_into(plan: Callable[..., Plan]) -> None:
    made = plan(
        """
        local l = L4.default_loader
        local c = l:new_channel()
        local ds = L4.Env.user_factory:create(L4.Proto.Dataspace, 4096)
        l:start({ caps = { svr = c:svr() } }, "rom/server")
        l:start({ caps = { net = { port = c:create(0) }, mem = { deep = { buffer = ds:m("rw") } } } }, "rom/user")
        """
    )
    assert breaches(made, Rule.parse("user calls server")) == (
        "user holds 'net/port' (r): channel server.svr, which server serves",
    )
    assert breaches(made, Rule.parse("user writes buffer"))
    assert breaches(made, Rule.parse("user writes mem/deep/buffer"))


def test_dataspaces_of_one_name_are_told_apart(plan: Callable[..., Plan]) -> None:
    made = plan(
        """
        for _, name in ipairs({ "one", "two" }) do
          local ram = L4.Env.user_factory:create(L4.Proto.Dataspace, 4096):m("rw")
          L4.default_loader:start({ caps = { ram = ram }, log = { name } }, "rom/vm")
        end
        """
    )
    assert breaches(made, Rule.parse("one writes ram"))
    assert breaches(made, Rule.parse("one writes one.ram"))
    assert not breaches(made, Rule.parse("one writes two.ram"))


def test_whoever_fills_a_namespace_hands_on(plan: Callable[..., Plan]) -> None:
    script = """
        local l = L4.default_loader
        local n, ds = l:create_namespace({}), L4.Env.user_factory:create(L4.Proto.Dataspace, 4096)
        l:start({ caps = { names = n:m("%s"), ds = ds:m("rw") } }, "rom/filler")
        l:start({ caps = { names = n } }, "rom/reader")
        """
    rule = Rule.parse("reader writes ds")
    assert breaches(plan(script % "rw"), rule, delegation=True)
    assert not breaches(plan(script % "rw"), rule)
    assert not breaches(plan(script % "r"), rule, delegation=True)


@pytest.mark.parametrize("text", ["", "a", "a calls", "calls b", "a  sees b", "a writes "])
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="a rule is 'A calls B' or 'A writes NAME'"):
        Rule.parse(text)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("nobody calls front", "there is no task 'nobody'; there is 'back', 'boat', 'client', 'front', 'island'"),
        ("client calls nobody", "there is no task 'nobody'"),
        ("client writes nothing", "no task knows a dataspace as 'nothing'; there is 'ram', 'view'"),
        ("client writes front", "no task knows a dataspace as 'front'"),
    ],
)
def test_a_rule_about_what_nobody_knows_is_a_mistake(system: Plan, rule: str, message: str) -> None:
    with pytest.raises(NotFound, match=message):
        breaches(system, Rule.parse(rule))
