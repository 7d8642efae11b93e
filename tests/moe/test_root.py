"""What the root of a run has itself, and hands to its programs."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from l4re import Dataspace, Gate, MemAlloc, Namespace, NotSupported, NsFlags, OutOfMemory, PeerGone, Proto, Rights
from l4re.boot import Grant
from l4re.boot.program import find_command
from l4re.interface import Served
from l4re.linux.cgroup import MemoryGroup, delegation
from l4re.log import Console, Tag
from l4re.moe import Root
from l4re.moe.user_factory import MAX_OBJECTS
from support.processes import PATIENCE

pytestmark = pytest.mark.processes

QUOTA = 1 << 20


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def root(output: io.StringIO) -> Iterator[Root]:
    with Root(Console(output, colours=False), quota=QUOTA) as root:
        yield root


def run(root: Root, code: str, **services: Gate) -> int:
    """Run a Python program to its end."""
    task = root.start(
        find_command((sys.executable, "-c", f"import l4re\n{code}"), dict(os.environ)),
        grants={},
        services={name: Grant(cap) for name, cap in services.items()},
        env=dict(os.environ),
        log=Tag("p"),
    )
    return root.wait(task)


def test_it_makes_objects_on_the_account_of_its_programs(root: Root, output: io.StringIO) -> None:
    ds = root.create(Proto.DATASPACE, QUOTA // 2)
    assert isinstance(ds, Dataspace)
    with ds:
        assert run(root, "print(l4re.env().mem_alloc.info().quota_used)") == 0
    assert output.getvalue() == f"p       | {QUOTA // 2}\n"
    with pytest.raises(OutOfMemory):
        root.create(Proto.DATASPACE, QUOTA + 1)


def test_it_shares_the_account_out(root: Root, output: io.StringIO) -> None:
    share = root.create(Proto.FACTORY, QUOTA // 4)
    assert isinstance(share, Gate)
    with share:
        code = "mem = l4re.env().mem_alloc\nheld = mem.alloc(mem.info().quota)\nprint(held.size)\nmem.alloc(1)"
        assert run(root, code, mem_alloc=share) == 1
        assert run(root, "print(l4re.env().mem_alloc.alloc(700 << 10).size)") == 0
    printed = output.getvalue()
    assert printed.startswith(f"p       | {QUOTA // 4}\n")
    assert f"0 are left of a quota of {QUOTA // 4}" in printed
    assert printed.endswith(f"p       | {700 << 10}\n")


def test_its_namespace_is_every_programs_that_it_is_given_to(root: Root, output: io.StringIO) -> None:
    names = root.create(Proto.NAMESPACE)
    assert isinstance(names, Gate)
    with names, root.user_factory.create(Proto.DATASPACE, 4096) as ds:
        assert isinstance(ds, Dataspace)
        ds.write(0, b"hello")
        Namespace(names).register_obj("memory", ds, NsFlags.RO)
        assert run(root, "print(l4re.env().ns.query('memory').read(0, 5))", ns=names) == 0
    assert output.getvalue() == "p       | b'hello'\n"


def test_it_has_no_limit_beside_the_account(root: Root) -> None:
    held = [root.create(Proto.FACTORY, 1) for _ in range(MAX_OBJECTS + 1)]
    for each in held:
        each.close()


class Count(Served):
    def serve_request(self, rights: int, *request: Any) -> Any:
        return int(rights), b"", b"", ()


@pytest.mark.parametrize("rights", [Rights.R, Rights.RW, Rights.RWS])
def test_an_object_is_reached_with_the_rights_that_were_given(root: Root, rights: Rights) -> None:
    with root.gate_to(Count(), rights) as gate:
        assert gate.call(timeout=PATIENCE).tag.label == int(rights) & 3


def test_at_its_end_all_that_it_served_is_dead(output: io.StringIO) -> None:
    with Root(Console(output), quota=QUOTA) as root:
        gate = root.gate_to(Count())
        kept = root.create(Proto.NAMESPACE)
        memory = root.create(Proto.DATASPACE, 4096)
    with gate, pytest.raises(PeerGone):
        gate.call(timeout=PATIENCE)
    with kept, memory:
        assert isinstance(memory, Dataspace)
        memory.write(0, b"mine")


def test_without_a_quota_there_is_what_the_machine_has(output: io.StringIO) -> None:
    with Root(Console(output)) as root:
        assert root.services.account.limit == MemAlloc().info().mem_limit


# ---- held by the kernel ----


def test_without_a_group_of_ours_a_limit_of_the_kernel_is_refused() -> None:
    if not (problem := delegation().problem):
        pytest.skip("there is one here")
    with pytest.raises(NotSupported, match=re.escape(problem)):
        Root(memory_max=QUOTA)
    with Root() as root, pytest.raises(NotSupported):
        root.start(find_command(("true",), dict(os.environ)), grants={}, env={}, log=Tag("p"), memory_max=QUOTA)


def test_each_program_is_in_a_group_inside_that_of_the_run(output: io.StringIO, tmp_path: Path) -> None:
    """In a folder of plain files, which does what the kernel's do but for holding anybody."""

    def start(root: Root, memory_max: int | None = None) -> None:
        command = find_command(("true",), dict(os.environ))
        assert root.wait(root.start(command, grants={}, env={}, log=Tag("p"), memory_max=memory_max)) == 0

    def entered() -> dict[str, str]:
        groups = [path.parent for path in tmp_path.rglob("cgroup.procs")]
        return {group.name: (group / "cgroup.procs").read_text() for group in groups}

    with Root(Console(output), memory_max=QUOTA, group=MemoryGroup(str(tmp_path))) as root:
        start(root)
        start(root, memory_max=QUOTA // 2)
        (run,) = tmp_path.glob("l4re.*")
        assert (run / "memory.max").read_text() == str(QUOTA)
        assert entered() == {f"l4re.{os.getpid()}.0": "0", f"l4re.{os.getpid()}.1": "0"}
        assert (run / f"l4re.{os.getpid()}.1" / "memory.max").read_text() == str(QUOTA // 2)
        assert not (run / f"l4re.{os.getpid()}.0" / "memory.max").exists()
