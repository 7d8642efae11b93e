"""``l4re env``: what a program finds, by itself and as somebody's child."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import l4re as package
from support.programs import PATIENCE, l4re, on_a_terminal, write

pytestmark = pytest.mark.processes


def test_alone_it_says_so_and_where_memory_comes_from() -> None:
    run = l4re("env")
    assert (run.status, run.err) == (0, "")
    assert "stands alone" in run.out
    assert "Memory comes from this process: no quota" in run.out
    assert "Capabilities: none" in run.out


def test_for_programs() -> None:
    said = json.loads(l4re("env", "--json").out)
    assert (said["standalone"], said["services"], said["caps"]) == (True, {}, {})
    assert said["memory"]["quota"] is None
    assert said["memory"]["mem_free"] > 0


def test_a_child_of_a_script_shows_its_services_and_capabilities(tmp_path: Path) -> None:
    write(tmp_path, "show", f"#!/bin/sh\nexec {sys.executable} -m l4re env --json\n").chmod(0o755)
    script = """
    local loader = L4.default_loader
    local channel = loader:new_channel()
    loader:start({ caps = { calc = channel, svr = channel:svr() }, log = { "shown" } }, "rom/show")
    """
    run = l4re("run", write(tmp_path, "script.lua", script))
    assert run.status == 0, run.err
    said = json.loads("".join(line.partition("| ")[2] for line in run.out.splitlines()))
    assert (said["standalone"], said["log"]) == (False, "shown")
    assert said["services"]["mem_alloc"]["rights"] == "rws"
    assert said["memory"]["from"] == "the parent"
    assert {name: (cap["kind"], cap["rights"]) for name, cap in said["caps"].items()} == {
        "calc": ("gate", "r"),
        "rom": ("gate", "r"),
        "svr": ("receive right", "rwsd"),
    }


def test_memory_is_shown_with_its_size_and_what_protects_it(tmp_path: Path) -> None:
    program = write(tmp_path, "show", f"#!/bin/sh\nexec {sys.executable} -m l4re env >{tmp_path}/out\n")
    program.chmod(0o755)
    ds = package.MemAlloc().alloc(10000, name="frames")
    with ds, ds.ro as frames, package.spawn([program], caps={"camera frames": frames}) as task:
        assert task.wait(PATIENCE) == 0
    text = (tmp_path / "out").read_text()
    assert "camera frames  dataspace  r     fd " in text
    assert "10,000 bytes, advisory, made as 'frames'" in text


def test_it_is_bold_on_a_terminal_and_nowhere_else() -> None:
    assert "\x1b[1mstands alone\x1b[0m" in on_a_terminal("env")
    assert "\x1b[" not in on_a_terminal("env", "--no-color")
    assert "\x1b[" not in l4re("env").out


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m l4re env --json | true"], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr


def test_it_takes_no_arguments() -> None:
    run = l4re("env", "--", "x")
    assert run.status == 2
    assert "It takes no arguments" in run.err
