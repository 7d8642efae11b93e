"""The counterparts of L4Re's example programs: each prints what upstream's prints."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.programs import PATIENCE, l4re

pytestmark = pytest.mark.processes

EXAMPLES = Path(__file__).parents[2] / "examples"
CALCULATOR = {
    "server": ["Welcome to the calculation server!", "I can do subtractions and negations."],
    "client": ["Asking for 8 - 5", "Result of subtract call: 3", "Asking for -3", "Result of negate call: -3"],
}
#: By folder: the words behind `--`, and what each program prints, by its tag.
EXPECTED: dict[str, tuple[tuple[str, ...], dict[str, list[str]]]] = {
    "clntsrv": ((), CALCULATOR),
    "clntsrv_ns": (
        (),
        {
            "server": ["Welcome to the calculation server!", "I can do substractions and negations."],
            "client": [
                "Asking for 8 - 5",
                "Result of substract call: 3",
                "Asking for -3",
                "Result of negate call: -3",
            ],
        },
    ),
    "mem_alloc": ((), {"mem": ["Allocated memory.", "Touched memory.", "Freed and done. Bye."]}),
    "streammap": (
        (),
        {
            "server": ["Welcome to the memory map example server!", "Sending to client"],
            "client": ["Asking for page from server", "String sent by server: Hello from the server!", "It worked!"],
        },
    ),
    "map_irq": (
        (),
        {
            "server": [
                "Hello from ex_map_irq_server.",
                "Received IRQ from client.",
                *["Triggering IRQ."] * 3,
                "ex_map_irq_server finished.",
            ],
            "client": [
                "Hello from ex_map_irq_client.",
                "Mapping IRQ cap to server.",
                *["Received IRQ."] * 3,
                "ex_map_irq_client finished.",
            ],
        },
    ),
    "uirq": ((), {"uirq": ["IRQ triggering example.", "Received irq!", "Example finished."]}),
    "periodic_task": (
        ("0.01",),
        {
            "periodic": [
                "Hello from ex_periodic_task",
                *["Timeout expired."] * 5,
                "Bye bye from ex_periodic_task!",
            ]
        },
    ),
    "log_server": (
        (),
        {"console": ["1: Hello World!", "2: I do not know who reads this.", "These were 2 lines."]},
    ),
}


def by_tag(out: str) -> dict[str, list[str]]:
    """Return the lines of each program, in their order."""
    lines: dict[str, list[str]] = {}
    for line in out.splitlines():
        tag, _, text = line.partition("| ")
        lines.setdefault(tag.strip(), []).append(text)
    return lines


@pytest.mark.parametrize("name", EXPECTED)
def test_it_prints_what_upstream_prints(name: str) -> None:
    words, expected = EXPECTED[name]
    run = l4re("run", EXAMPLES / name / f"{name}.lua", "--", *words)
    assert (run.status, run.err) == (0, ""), run
    assert by_tag(run.out) == expected


@pytest.mark.parametrize("name", EXPECTED)
def test_its_script_can_be_checked(name: str) -> None:
    run = l4re("check", EXAMPLES / name / f"{name}.lua")
    assert (run.status, run.err) == (0, ""), run
    remarks = run.out.partition("Remarks\n")[2].splitlines()
    assert [line for line in remarks if "is reserved: a program is to fill it" not in line] == []


def test_the_calculator_is_the_same_system_in_python() -> None:
    script = EXAMPLES / "clntsrv" / "clntsrv.py"
    assert by_tag(l4re("run", script).out) == CALCULATOR
    done = subprocess.run(
        [sys.executable, script],
        env={key: value for key, value in os.environ.items() if not key.startswith("L4RE_")},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, by_tag(done.stdout), done.stderr) == (0, CALCULATOR, "")


@pytest.mark.parametrize(
    ("program", "status", "message"),
    [
        ("clntsrv/ex_clntsrv_clnt", 1, "Could not get server capability!"),
        ("clntsrv/ex_clntsrv_srv", 1, "is there a 'calc_server' in the caps table?"),
        ("clntsrv_ns/ex_clntsrv_ns_clnt", 1, "Could not find namespace"),
        ("clntsrv_ns/ex_clntsrv_ns_srv", 1, "Could not find namespace"),
        ("streammap/ex_streammap_clnt", 1, "Could not get server capability!"),
        ("map_irq/ex_map_irq_server", 1, "Runtime error: "),
        ("map_irq/ex_map_irq_client", 1, "Runtime error: "),
        ("log_server/ex_log_server", 1, "is there a 'console' in the caps table?"),
    ],
)
def test_without_its_capabilities_a_program_says_what_is_missing(program: str, status: int, message: str) -> None:
    path = EXAMPLES / f"{program}.py"
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr
