"""The shared dataspace example, in both forms."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from l4re.testing import wait_until
from support.programs import PATIENCE, alive, l4re, running, write

pytestmark = pytest.mark.processes

EXAMPLES = Path(__file__).parents[2] / "examples"
LINES = """\
server  | Attached DS
client  | Content: [DS] Hello from server!
client  | Setting new content in shared memory
server  | Client sent us: Hello from client, too!
"""


def test_the_raw_one_prints_its_four_lines_in_order() -> None:
    run = l4re("run", EXAMPLES / "shared_ds" / "shared_ds.lua", "--", "0")
    assert (run.status, run.out, run.err) == (0, LINES, "")


def test_the_pause_is_at_most_a_second_and_changes_nothing() -> None:
    run = l4re("run", EXAMPLES / "shared_ds" / "shared_ds.lua")
    assert (run.status, run.out, run.err) == (0, LINES, "")


def test_the_typed_one_prints_the_same() -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "shared_ds_typed" / "shared_ds.py"],
        env={**os.environ, "DEMO_PAUSE": "0"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, LINES, "")


@pytest.mark.parametrize("name", ["ex_l4re_ds_srv", "ex_l4re_ds_clnt"])
def test_a_program_without_its_capability_says_what_is_missing(name: str) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "shared_ds" / f"{name}.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert re.search(r"Could not (get|register).*no capability 'shm'", done.stderr)
    assert "Traceback" not in done.stderr


def test_the_server_refuses_other_protocols_and_goes_on(tmp_path: Path) -> None:
    write(
        tmp_path,
        "odd.py",
        """
        import l4re
        shm = l4re.env().get_cap("shm")
        try:
            shm.call(b"", label=77)
        except l4re.BadProtocol as error:
            print(error)
        print(l4re.Meta(shm).num_interfaces())
        """,
    )
    script = write(
        tmp_path,
        "odd.lua",
        """
        local channel = L4.default_loader:new_channel()
        L4.default_loader:start({ caps = { shm = channel:svr() }, log = { "server" } }, "rom/ex_l4re_ds_srv")
        L4.default_loader:start({ caps = { shm = channel }, log = { "odd" } }, "rom/odd"):wait()
        L4.default_loader:start({ caps = { shm = channel }, log = { "client" } }, "rom/ex_l4re_ds_clnt 0")
        """,
    )
    run = l4re("run", script, "--rom", tmp_path, EXAMPLES / "shared_ds")
    assert run.status == 0, run
    spoken = run.out.splitlines()
    assert [line for line in spoken if not line.startswith("odd")] == LINES.splitlines()
    assert len([line for line in spoken if line.startswith("odd")]) == 2


def test_killing_the_root_in_the_middle_leaves_nothing() -> None:
    with running("run", EXAMPLES / "shared_ds" / "shared_ds.lua") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "server  | Attached DS\n"
        children = [
            int(word)
            for task in Path(f"/proc/{process.pid}/task").iterdir()
            for word in (task / "children").read_text().split()
        ]
        process.kill()
    wait_until(lambda: not alive(children), PATIENCE)
