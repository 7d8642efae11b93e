"""L4.Env: what is there, what is not, and with which rights."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from l4re.ned.plan import Plan
from ned.conftest import Speaker
from support.programs import Rom

pytestmark = pytest.mark.processes

ALWAYS = ("parent", "mem_alloc", "user_factory", "rm", "log", "factory", "scheduler")


def test_section_05_what_is_always_there(both: Speaker) -> None:
    for name in (*ALWAYS, "rom", "icu", "sigma0", "iommu", "jdb", "kip", "dma_mgr", "mem"):
        assert both.say(f"print(L4.Env.{name}:m(), type(L4.Env.{name}))") == ["7\tuserdata"]
    assert both.say("print(L4.Env.user_factory == L4.Env.mem_alloc)") == ["true"]


def test_section_05_the_factories_are_there_in_a_run(both: Speaker) -> None:
    lines = both.say(
        """
        print(L4.Env.user_factory == L4.Env.mem_alloc, L4.Env.mem_alloc:m(), L4.Env.factory:m())
        print(tostring(L4.Env.factory):match("^L4::Cap<([^>]*)>%[0x%x+%] r=7 f=0$"))
        """
    )
    assert lines == ["true\t7\t7", "L4::Factory"]


def test_section_05_a_name_that_is_not_there_is_nil(both: Speaker) -> None:
    assert both.say("print(L4.Env.vesa, L4.Env.nothing, not L4.Env.vesa)") == ["nil\tnil\ttrue"]


def test_section_05_it_is_a_table_that_scripts_may_change(both: Speaker) -> None:
    lines = both.say(
        """
        L4.Env.mine = L4.default_loader:new_channel()
        local found
        for name, cap in pairs(L4.Env) do if name == "mine" then found = cap end end
        print(found == L4.Env.mine)
        """
    )
    assert lines == ["true"]


def test_section_05_a_name_can_be_asked_for(plan: Callable[..., Plan]) -> None:
    script = "L4.default_loader:start({ caps = { fb = L4.Env.vesa } }, 'rom/hello')"
    assert "fb" not in plan(script).tasks[0].caps
    cap = plan(script, given=["vesa"]).tasks[0].caps["fb"]
    assert (cap.kind, cap.rights, cap.source) == ("capability", "rws", "Env.vesa")


def test_section_05_hardware_is_passed_on_as_it_is(plan: Callable[..., Plan]) -> None:
    task = plan("L4.default_loader:start({ caps = { icu = L4.Env.icu:m('r'), x = L4.Env.iommu } }, 'rom/hello')").tasks[
        0
    ]
    assert [(name, cap.source, cap.rights) for name, cap in task.caps.items()] == [
        ("icu", "Env.icu", "r"),
        ("rom", "Env.rom", "r"),
        ("x", "Env.iommu", "rws"),
    ]


def test_section_05_whoever_uses_hardware_is_told(rom: Rom) -> None:
    rom.program(
        "user",
        """
        import l4re

        for name in ("icu", "sigma0"):
            try:
                l4re.env().get_cap(name).call(b"")
            except l4re.NotSupported as error:
                print(error)
        """,
    )
    run = rom.run(
        """
        local sigma0 = L4.cast(L4.Proto.Factory, L4.Env.sigma0):create(L4.Proto.Sigma0)
        L4.default_loader:start({ caps = { icu = L4.Env.icu, sigma0 = sigma0 } }, "rom/user")
        """
    )
    assert (run.status, run.err) == (0, "")
    assert run.out == (
        "user    | icu is the interrupt controller of an L4 system; a process of Linux has none\n"
        "user    | sigma0 is the root of all memory of an L4 system; a process of Linux has none\n"
    )
