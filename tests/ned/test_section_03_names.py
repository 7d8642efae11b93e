"""The names in the module L4, and the numbers that some of them are (sections 3 and 4)."""

from __future__ import annotations

import pytest

from ned.conftest import Speaker

pytestmark = pytest.mark.processes

NAMES = (
    "App_env Class Cpu_set Dbg Env Info Ldr_flags Loader Mem_alloc_flags Proto Rights _CAP_TYPES __cast cast "
    "default_loader exec get_cap_class mangle_class msleep server_loop sleep"
)
PROTO = (
    "Dataspace=16384 Dma_space=-17 Event=16390 Factory=-15 Goos=16387 Inhibitor=16391 Iommu=-22 Ipc_gate=0 "
    "Irq_sender=-18 Log=-13 Mem_alloc=16388 Namespace=16385 Rm=16389 Scheduler=-14 Semaphore=-20 Sigma0=-6 Vm=-16"
)
LIST = "local t = {} for k, v in pairs(%s) do t[#t + 1] = k .. '=' .. v end table.sort(t) print(table.concat(t, ' '))"


def test_section_03_the_module_has_these_names_and_no_others(both: Speaker) -> None:
    script = "local t = {} for k in pairs(L4) do t[#t + 1] = k end table.sort(t) print(table.concat(t, ' '))"
    assert both.say(script) == [NAMES]
    assert both.say("print(L4.Unix, L4.wait, L4.Scheduler, L4.Factory)") == ["nil\tnil\tnil\tnil"]


@pytest.mark.parametrize(
    ("table", "numbers"),
    [
        ("Proto", PROTO),
        ("Rights", "c=32 d=8 n=16 r=4 ro=4 rw=5 rws=7 s=2 w=1"),
        ("Ldr_flags", "all_segs_cow=2 eager_map=1 pinned_segs=4"),
        ("Mem_alloc_flags", "Continuous=1 Pinned=2 Super_pages=4"),
        (
            "Dbg",
            "All=4294967295 Boot=4 Cmd_line=64 Exceptions=32 Info=1 Loader=128 Name_space=1024 Server=16 Warn=2",
        ),
    ],
)
def test_section_04_the_numbers_are_neds(both: Speaker, table: str, numbers: str) -> None:
    assert both.say(LIST % f"L4.{table}") == [numbers]
