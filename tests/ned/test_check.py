"""The command `l4re check`: the plan as text, as JSON, as a picture; what is different; what must never be."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from l4re.errors import InvalidArgument
from l4re.ned.plan import Plan
from l4re.ned.plan_picture import dot, svg
from l4re.ned.plan_rules import Rule, breaches
from l4re.ned.plan_text import Paint, differences, plan_text
from l4re.ned.planner import plan_of
from support.programs import Outcome, Rom, l4re, on_a_terminal, write

pytestmark = pytest.mark.processes

SCRIPT = """
local L4 = require("L4")
local l = L4.default_loader
local c = l:new_channel()
local ds = L4.Env.user_factory:create(L4.Proto.Dataspace, 4096):m("rw")
print("made")
l:start({ caps = { shm = c:svr(), ram = ds }, log = { "server", "Blue" } }, "rom/hello -v", { A = "b c" })
l:startv({ caps = { shm = c:m("rw"), names = { ram = ds:m("r") } }, log = { "client", "green" } }, "rom/hello", "x y")
"""

PLAN = """\
script.lua: 2 tasks

server  rom/hello -v  script.lua:6
  ram  rw    dataspace server.ram(4096)
  rom  r     Env.rom
  shm  rwsd  serves channel server.shm
  log: server, bright blue
  A='b c'

client  rom/hello 'x y'  script.lua:7
  names  r     namespace client.names
               ram: r  dataspace server.ram(4096)
  rom    r     Env.rom
  shm    rw    channel server.shm
  log: client, green

Who can call whom
  client -> server  channel server.shm, held as shm (rw)
"""


def check(rom: Rom, script: str, *words: str | Path) -> Outcome:
    """Check a script."""
    write(rom.folder, "script.lua", script)
    return l4re("check", "script.lua", *words, cwd=rom.folder)


def test_the_plan_comes_out_and_what_the_script_prints_goes_elsewhere(rom: Rom) -> None:
    done = check(rom, SCRIPT)
    assert (done.status, done.out, done.err) == (0, PLAN, "made\n")


def test_nothing_is_started_and_nothing_written(rom: Rom) -> None:
    rom.program("touch", "open('touched', 'w')")
    before = sorted(rom.folder.iterdir())
    done = check(rom, "L4.default_loader:start({}, 'rom/touch'):wait() io.open('x', 'w')")
    assert done.status == 0
    assert sorted(rom.folder.iterdir()) == sorted([*before, rom.folder / "script.lua"])


def test_json(rom: Rom) -> None:
    done = check(rom, SCRIPT, "--json")
    saved = json.loads(done.out)
    server, client = saved["tasks"]
    assert (server["name"], server["program"], server["args"]) == ("server", "rom/hello", ["-v"])
    assert server["caps"]["shm"] == {"kind": "receive right", "rights": "rwsd", "from": "channel server.shm"}
    assert client["caps"]["shm"] == {"kind": "gate", "rights": "rw", "from": "channel server.shm"}
    assert (client["log"]["tag"], client["log"]["colour"]) == ("client", 2)
    assert server["environment"] == {"A": "b c"}
    assert saved["objects"]["namespace client.names"]["entries"]["ram"]["rights"] == "r"
    assert saved["reaches"] == [
        {"from": "client", "to": "server", "over": "channel server.shm", "cap": "shm", "rights": "rw"}
    ]
    assert Plan.read(saved).as_dict() == saved


def test_a_saved_plan_can_be_asked_as_well(rom: Rom) -> None:
    write(rom.folder, "plan.json", check(rom, SCRIPT, "--json").out)
    assert l4re("check", "plan.json", cwd=rom.folder).out == PLAN
    done = l4re("check", "plan.json", "--never", "client calls server", cwd=rom.folder)
    assert (done.status, done.out) == (1, PLAN)


@pytest.mark.parametrize(
    "saved",
    [
        "{}",
        "{",
        '{"version": 9}',
        '{"version": 1, "script": "x", "tasks": [{}], "objects": {}, "remarks": []}',
        '{"version": 1, "script": "x", "tasks": 3, "objects": {}, "remarks": []}',
    ],
)
def test_what_is_no_plan_is_refused(rom: Rom, saved: str) -> None:
    write(rom.folder, "plan.json", saved)
    done = l4re("check", "plan.json", cwd=rom.folder)
    assert done.status == 2
    assert "Traceback" not in done.err
    if saved != "{":
        with pytest.raises(InvalidArgument):
            Plan.read(json.loads(saved))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_read_can_be_shown(rom: Rom, data: st.DataObject) -> None:
    """One place of a good plan is replaced by anything at all: it is refused, or all can be asked of it."""
    write(rom.folder, "script.lua", SCRIPT)
    saved = json.loads(json.dumps(plan_of(rom.folder / "script.lua").as_dict()))
    at = saved
    while isinstance(at, dict | list) and at:
        key = data.draw(st.sampled_from(list(at) if isinstance(at, dict) else list(range(len(at)))))
        if not isinstance(at[key], dict | list) or not at[key] or data.draw(st.booleans()):
            at[key] = data.draw(JSON)
            break
        at = at[key]
    try:
        made = Plan.read(saved)
    except InvalidArgument:
        return
    assert Plan.read(json.loads(json.dumps(made.as_dict()))) == made
    plan_text(made, Paint(coloured=True))
    differences(made, plan_of(rom.folder / "script.lua"), Paint(coloured=False))
    svg(made)
    dot(made)
    for task in made.tasks:
        breaches(made, Rule(task.name, "calls", task.name), delegation=True)


def test_rules(rom: Rom) -> None:
    rules = ("--never", "server calls client", "--never", "client writes ram")
    assert check(rom, SCRIPT, *rules).status == 0
    done = check(rom, SCRIPT, *rules, "--delegation")
    assert (done.status, done.out) == (1, PLAN)
    assert "l4re: never client writes ram: but it can\n    client - [channel server.shm] server: " in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--never", "x calls server"), "l4re: there is no task 'x'; there is 'client', 'server'"),
        (("--never", "x likes server"), "l4re: a rule is 'A calls B' or 'A writes NAME', not 'x likes server'"),
        (("--delegation",), "error: --delegation says how --never counts, and there is no --never"),
        (("--json", "--dot"), "error: --json, --dot and --diff each have standard output for themselves"),
        (("--arch", "z80"), "l4re: there is no architecture 'z80'; there are amd64, arm"),
        (("--rom", "nowhere"), "nowhere does not exist"),
        (("--diff", "nowhere"), "l4re: cannot open nowhere: No such file or directory"),
        (("--svg", "no/where"), "l4re: no/where: No such file or directory"),
        (("--diff", "old", "--json"), "error: --json, --dot and --diff each have standard output for themselves"),
        (("more",), "error: what is 'more'? Arguments for the script come behind --"),
    ],
)
def test_what_makes_no_sense_is_told(rom: Rom, words: tuple[str, ...], message: str) -> None:
    done = check(rom, SCRIPT, *words)
    assert done.status == 2
    assert message in done.err
    assert "Traceback" not in done.err


def test_a_mistake_is_told_with_the_calls_that_led_there(rom: Rom) -> None:
    done = check(rom, "local function inner()\n  error('oops')\nend\nlocal function outer()\n  inner()\nend\nouter()\n")
    assert done.status == 2
    first, *stack = done.err.splitlines()
    assert first == "l4re: script.lua:2: oops"
    assert [re.sub(r".*(script\.lua:\d+).*", r"\1", line) for line in stack if "script.lua" in line] == [
        "script.lua:2",
        "script.lua:5",
        "script.lua:7",
    ]
    assert "l4:" not in done.err


def test_a_script_has_the_same_plan_every_time(rom: Rom) -> None:
    script = """
        local t, words = { [true] = 0, [7] = 0, [1] = 0 }, {}
        for at = 1, 20 do t["key" .. at] = at end
        for key, value in pairs(t) do
          if value == 5 then t.key6 = nil end
          words[#words + 1] = tostring(key)
        end
        L4.default_loader:startv({}, "rom/hello", table.unpack(words))
        """
    first, second = (check(rom, script, "--json").out for _ in range(2))
    assert first == second
    args = json.loads(first)["tasks"][0]["args"]
    assert args[:3] == ["1", "7", "key1"]
    assert "key6" not in args
    assert len(args) == 22


def test_more_names_and_other_machines(rom: Rom) -> None:
    script = "print(L4.Env.vesa ~= nil, L4.Info.arch())"
    assert check(rom, script, "--with", "vesa", "--arch", "arm64").err == "true\tarm64\n"


def test_a_script_in_python_is_refused(rom: Rom) -> None:
    done = l4re("check", "hello.py", cwd=rom.folder)
    assert done.status == 2
    assert "hello.py is Python; only scripts in Lua can be evaluated" in done.err


def test_words_and_modules(rom: Rom) -> None:
    (rom.folder / "lib").mkdir()
    write(rom.folder / "lib", "mine.lua", "return { word = arg[1] }")
    done = check(rom, "print(require('mine').word)", "--rom", "lib", "--", "a b")
    assert (done.status, done.err) == (0, "a b\n")
    assert l4re("check", "--rom", "lib", "script.lua", cwd=rom.folder).status == 0


def test_what_is_different(rom: Rom) -> None:
    old = write(rom.folder, "old.lua", SCRIPT)
    assert check(rom, SCRIPT, "--diff", old.name).out == ""
    changed = (
        SCRIPT.replace('c:m("rw")', "c").replace('"Blue"', '"red"') + "l:start({ caps = { c = c } }, 'rom/more')\n"
    )
    lines = check(rom, changed, "--diff", old.name).out.splitlines()
    assert lines == [
        "+ task more: rom/more",
        "~ server, its log: server, bright blue  ->  server, red",
        "~ client, shm: rw  gate  channel server.shm  ->  r  gate  channel server.shm",
        "~ client can call server over channel server.shm as shm (rw  ->  r)",
        "+ more can call server over channel server.shm as c (r)",
    ]
    write(rom.folder, "new.json", check(rom, changed, "--json").out)
    assert l4re("check", "new.json", "--diff", "old.lua", cwd=rom.folder).out.splitlines() == lines
    back = l4re("check", "old.lua", "--diff", "new.json", cwd=rom.folder).out.splitlines()
    assert back[-1] == "- more can call server over channel server.shm as c (r)"


def test_dot(rom: Rom) -> None:
    out = check(rom, SCRIPT, "--dot").out
    assert out.startswith("digraph plan {")
    assert '  "client" -> "server" [label="shm (rw)"];' in out
    assert '  "server" -> "=dataspace server.ram" [label="ram (rw)", style=dashed, arrowhead=none];' in out


def test_svg(rom: Rom) -> None:
    assert check(rom, SCRIPT, "--svg", "picture.svg").out == PLAN
    root = ET.parse(rom.folder / "picture.svg").getroot()
    words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"client", "server", "rom/hello", "shm (rw)", "dataspace server.ram", "4096 bytes"} <= set(words)
    boxes = root.findall(".//{http://www.w3.org/2000/svg}g/{http://www.w3.org/2000/svg}rect")
    places = [tuple(float(box.attrib[name]) for name in ("x", "y", "width", "height")) for box in boxes]
    for at, (x, y, w, h) in enumerate(places):
        for u, v, p, q in places[at + 1 :]:
            assert x + w <= u or u + p <= x or y + h <= v or v + q <= y, "boxes lie over each other"
    right, bottom = float(root.attrib["width"]), float(root.attrib["height"])
    assert all(x >= 0 and x + w <= right and y >= 0 and y + h <= bottom for x, y, w, h in places)


def test_callers_stand_left_of_those_they_call(rom: Rom) -> None:
    script = """
        local l, chain = L4.default_loader, {}
        for at = 1, 6 do chain[at] = l:new_channel() end
        for at = 1, 6 do
          l:start({ caps = { svr = chain[at]:svr(), next = chain[at % 6 + 1] }, log = { "t" .. at } }, "rom/t")
        end
    """
    write(rom.folder, "script.lua", script)
    picture = svg(plan_of(rom.folder / "script.lua"))  # a circle: five of the six calls go to the right
    left = {
        name: float(x)
        for x, name in re.findall(r'<g><rect x="([\d.]+)"[^>]*/><text[^>]*font-weight="bold">(t\d)</text>', picture)
    }
    assert sum(left[f"t{at}"] < left[f"t{at % 6 + 1}"] for at in range(1, 7)) == 5


def test_odd_names_make_no_broken_picture(rom: Rom) -> None:
    write(rom.folder, "script.lua", "L4.default_loader:start({ log = { '<&\"\\\\' } }, 'rom/x')")
    made = plan_of(rom.folder / "script.lua")
    ET.fromstring(svg(made))
    assert r'"<&\"\\" [shape=box' in dot(made)


def test_an_empty_plan(rom: Rom) -> None:
    done = check(rom, "", "--svg", "x.svg")
    assert (done.status, done.out) == (0, "script.lua: 0 tasks\n")
    ET.parse(rom.folder / "x.svg")


def test_colours_on_a_terminal_only(rom: Rom) -> None:
    write(rom.folder, "script.lua", SCRIPT)
    path = rom.folder / "script.lua"
    assert "\x1b[36mserver\x1b[0m" in on_a_terminal("check", path)
    assert "\x1b" not in on_a_terminal("check", path, "--no-color")
    assert "\x1b" not in on_a_terminal("check", path, env={"NO_COLOR": "1"})
    assert "\x1b" not in l4re("check", path).out


def test_a_receive_right_for_two_and_a_channel_for_nobody_are_remarked(rom: Rom) -> None:
    done = check(
        rom,
        """
        local l = L4.default_loader
        local c, d = l:new_channel(), l:new_channel()
        l:start({ caps = { s = c:svr(), d = d }, log = { "one" } }, "rom/hello")
        l:start({ caps = { s = c:svr() }, log = { "two" } }, "rom/hello")
        """,
    )
    assert done.out.endswith(
        "Remarks\n"
        "  script.lua:2: channel one.s: given to one and two to serve; here the server's side can move once\n"
        "  script.lua:2: channel one.d: nobody serves it\n"
    )
