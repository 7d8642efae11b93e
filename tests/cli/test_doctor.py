"""``l4re doctor``: one line for each thing, and the same for programs."""

from __future__ import annotations

import json

import pytest

from l4re.linux.machine import examine
from support.programs import l4re, on_a_terminal

pytestmark = pytest.mark.processes


def test_it_tells_a_line_for_each_thing_and_an_arrow_for_what_to_do() -> None:
    run = l4re("doctor")
    assert (run.status, run.err) == (0, "")
    lines = [line for line in run.out.splitlines() if not line.startswith(" ")]
    assert [line[:21].strip() for line in lines] == [*(each.what for each in examine()), "lupa", "numpy"]
    assert all(line[22:30].strip() in ("ok", "limited") for line in lines)
    assert all(line.strip().startswith("-> ") for line in run.out.splitlines() if line.startswith(" "))


def test_programs_get_json() -> None:
    run = l4re("doctor", "--json")
    found = json.loads(run.out)
    assert {each["verdict"] for each in found} <= {"ok", "limited"}
    assert [list(each) for each in found] == [["what", "verdict", "seen", "advice"]] * len(found)


def test_verdicts_are_coloured_on_a_terminal_only() -> None:
    assert "\x1b[32mok      \x1b[0m" in on_a_terminal("doctor")
    assert "\x1b" not in l4re("doctor").out
    assert "\x1b" not in on_a_terminal("doctor", "--no-color")
    assert "\x1b" not in on_a_terminal("doctor", env={"NO_COLOR": "1"})
    assert "\x1b" not in on_a_terminal("doctor", "--json")
