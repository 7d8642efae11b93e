"""No descriptors and no address space left: an `OutOfMemory` that names the limit, nothing lost, and recovery."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

import l4re
from l4re import Irq, MemAlloc, OutOfMemory, RegistryServer, Semaphore, new_channel
from l4re.testing import wait_until
from support.descriptors import few_descriptors
from support.processes import Echo, Running, descriptors


class World:
    """One of everything that can be had, used or handed on."""

    def __init__(self, stack: ExitStack) -> None:
        self.memory = stack.enter_context(MemAlloc().alloc(8192))
        self.irq = stack.enter_context(Irq.create())
        self.holder = stack.enter_context(self.irq.dup())
        self.gate, self.svr = new_channel()
        stack.enter_context(self.gate)
        stack.enter_context(self.svr)
        self.semaphore = stack.enter_context(Semaphore.create(1))

    def new_reader(self) -> None:
        with MemAlloc().alloc(4096) as ds, ds.ro:
            pass

    def spawn(self, log: str | None) -> None:
        caps = {"memory": self.memory, "gate": self.gate, "irq": self.holder, "semaphore": self.semaphore}
        with l4re.spawn(["true"], caps=caps, log=log) as task:
            assert task.wait(60) == 0

    def direct_call(self) -> None:
        with RegistryServer() as server:
            gate = server.registry.register_obj(Echo(self.memory))
            with gate.call(label=4, caps=(self.memory, self.holder)).caps[0] as gift:  # type: ignore[union-attr]
                assert gift == self.memory


@pytest.fixture(scope="module", autouse=True)
def helpers() -> None:
    """Start the threads that a process keeps once it has started a program."""
    l4re.spawn(["true"], log="warm").wait(60)


@pytest.fixture
def world() -> Iterator[World]:
    with ExitStack() as stack:
        yield World(stack)


OPERATIONS: dict[str, Callable[[World], object]] = {
    "alloc": lambda world: MemAlloc().alloc(4096).close(),
    "alloc pinned": lambda world: MemAlloc().alloc(4096, flags=MemAlloc.F.PINNED).close(),
    "channel": lambda world: [end.close() for end in new_channel()],
    "irq": lambda world: Irq.create().close(),
    "semaphore": lambda world: Semaphore.create(1).close(),
    "server": lambda world: RegistryServer().close(),
    "dataspace dup": lambda world: world.memory.dup().close(),
    "dataspace ro": World.new_reader,
    "irq dup": lambda world: world.irq.dup().close(),
    "holder dup": lambda world: world.holder.dup().close(),
    "gate dup": lambda world: world.gate.dup().close(),
    "svr dup": lambda world: world.svr.dup().close(),
    "mint": lambda world: new_channel().svr.mint().close(),
    "semaphore dup": lambda world: world.semaphore.dup().close(),
    "spawn": lambda world: world.spawn(None),
    "spawn with a log": lambda world: world.spawn("tag"),
    "call here": World.direct_call,
}


@pytest.mark.processes
@pytest.mark.parametrize("name", OPERATIONS)
def test_without_descriptors_everything_fails_whole_and_works_again(world: World, name: str) -> None:
    operation = OPERATIONS[name]
    operation(world)
    limits: list[str] = []
    for spare in range(40):
        before = descriptors()
        with few_descriptors(spare):
            try:
                operation(world)
            except OutOfMemory as error:
                limits.append(str(error))
            else:
                break
        wait_until(lambda: descriptors() <= before + 2 * (name == "irq dup"), 20, "everything to be let go of")  # noqa: B023
    else:
        if any("in messages" in text for text in limits):
            pytest.skip("other processes of this user have too many descriptors on their way")
        pytest.fail(f"it never worked again: {limits[-1]}")
    assert limits
    assert all("descriptors" in text for text in limits)
    operation(world)


@pytest.mark.processes
def test_a_server_without_descriptors_refuses_new_sessions_and_serves_the_old_ones() -> None:
    with RegistryServer() as server, Running(server):
        gate = server.registry.register_obj(Echo()).mint()
        with gate:
            assert gate.call(b"first").data == b"first"
            with few_descriptors(1):
                assert gate.call(b"again").data == b"again"
                with pytest.raises(OutOfMemory, match="descriptors"):
                    gate.dup()
            with gate.dup() as other:
                assert other.call(b"other").data == b"other"


LITTLE_ROOM = """
import resource, l4re
env = l4re.env()
ds = env.mem_alloc.alloc(1 << 30)
small = env.mem_alloc.alloc(4096)
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), -1))
try:
    env.rm.attach(ds)
except l4re.OutOfMemory as error:
    print(error)
else:
    raise SystemExit("there was room")
with env.rm.attach(small) as region:
    memoryview(region)[0] = 1
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
env.rm.attach(ds).detach()
print("recovered")
"""


@pytest.mark.processes
def test_without_address_space_attaching_fails_and_works_again() -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("L4RE_")}
    done = subprocess.run(
        [sys.executable, "-c", LITTLE_ROOM], capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert "no room to map 1073741824 bytes" in said[0]
    assert said[1] == "recovered"
