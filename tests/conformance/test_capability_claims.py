"""The checkable claims on slots, smart capabilities and what a message brings, by number.

A capability here is an object with descriptors, not a slot with an index. What the claims promise of slots holds
for descriptors, and where it cannot, the test shows what happens instead.
"""

from __future__ import annotations

import inspect
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import l4re
from l4re import (
    Dataspace,
    IrqHandler,
    MessageTooLong,
    OutOfMemory,
    PeerGone,
    RegistryServer,
    Rights,
    SharedCap,
    UniqueCap,
)
from l4re.factory import MemAlloc
from support.processes import PATIENCE, Background, Child, Echo, Link, Running, descriptors, processes
from support.programs import write

pytestmark = pytest.mark.processes

alloc = MemAlloc().alloc


@pytest.fixture
def start() -> Iterator[Callable[..., Child]]:
    with processes() as fork:
        yield fork


def serve(link: Link) -> None:
    with RegistryServer() as server:
        link.give(server.registry.register_obj(Echo()))
        link.say(server.loop().name)


def test_claim_67_an_irq_brings_nothing_with_it_and_is_no_message_here(start: Callable[..., Child]) -> None:
    def client(link: Link) -> None:
        irq, gate = link.take()
        os.write(irq.fileno(), b"what a holder writes is not looked at")
        irq.trigger()
        gate.call(b"only this is a message")
        link.say("done")

    class Silent(IrqHandler):
        count = 0

        def dispatch(self) -> None:
            self.count += 1

    assert list(inspect.signature(IrqHandler.dispatch).parameters) == ["self"]
    child = start(client)
    echo, handler = Echo(), Silent()
    with RegistryServer() as server:
        registry = server.registry
        child.give(registry.register_irq_obj(handler), registry.register_obj(echo))
        with Running(server):
            assert child.hear() == "done"
    assert handler.count in (1, 2)
    assert echo.heard == [b"only this is a message"]
    child.end()


def test_claim_76_a_receiver_here_has_room_for_16_capabilities_and_more_are_refused_before_sending(
    start: Callable[..., Child],
) -> None:
    child = start(serve)
    (gate,) = child.take()
    with gate, alloc(1) as ds:
        gate.call(b"as many as fit", caps=[ds] * 16)
        with pytest.raises(MessageTooLong, match="17 capabilities in one message; at most 16 fit"):
            gate.call(b"one more", caps=[ds] * 17)
        assert gate.call(b"still there").data == b"still there"
        assert not ds.closed
    assert child.hear() == "ORPHANED"
    child.end()


def test_claim_76_here_a_receiver_without_a_free_descriptor_makes_the_sender_fail_and_both_go_on(
    start: Callable[..., Child],
) -> None:
    child = start(serve)
    (gate,) = child.take()
    with gate, alloc(1) as ds:
        gate.call(b"warm")
        limits = resource.prlimit(child.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(child.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        with pytest.raises(PeerGone):  # upstream SEMSGCUT; here the session is given up
            gate.call(b"no room", caps=[ds], timeout=PATIENCE)
        resource.prlimit(child.pid, resource.RLIMIT_NOFILE, limits)
        assert not ds.closed
        gate.call(b"room again", caps=[ds], timeout=PATIENCE)
    assert child.hear() == "ORPHANED"
    child.end()


def test_claim_99_when_there_is_no_room_an_allocation_raises_here_and_one_closed_makes_one_succeed(
    start: Callable[..., Child],
) -> None:
    def full(link: Link) -> None:
        limit = descriptors() + 20
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        held: list[Dataspace] = []

        def fill() -> None:
            while True:
                held.append(alloc(1))

        with pytest.raises(OutOfMemory, match="RLIMIT_NOFILE"):
            fill()
        assert len(held) >= 5
        for _ in range(3):
            held.pop(0).close()
            held.append(alloc(1))
            with pytest.raises(OutOfMemory):
                alloc(1)

    start(full).end()


def test_claim_100_an_object_stays_until_the_last_of_its_capabilities_is_closed(start: Callable[..., Child]) -> None:
    child = start(serve)
    (gate,) = child.take()
    twin = gate.dup()
    gate.close()
    assert twin.call(b"one is left").data == b"one is left"
    twin.close()
    assert child.hear() == "ORPHANED"
    child.end()


def test_claim_100_take_release_release_only_the_second_release_frees() -> None:
    ds = alloc(1)
    shared = SharedCap(ds).take()
    assert shared.owners == 2
    assert shared.release() is False
    assert shared.get().read(0, 1) == b"\0"
    assert shared.release() is True
    assert ds.closed
    with pytest.raises(l4re.Closed):
        shared.get()
    with pytest.raises(l4re.Closed):
        shared.take()


def test_claim_101_a_release_too_many_does_nothing() -> None:
    shared = SharedCap(alloc(1))
    assert shared.release()
    with alloc(1) as other:
        assert not shared.release()
        assert not other.closed


def test_claim_102_a_unique_owner_frees_at_the_end_of_its_block_and_release_keeps() -> None:
    with UniqueCap(alloc(1)) as owner:
        dropped = owner.get()
    assert dropped.closed
    with UniqueCap(alloc(1)) as owner:
        kept = owner.release()
        assert not owner
        with pytest.raises(l4re.Closed):
            owner.get()
    with UniqueCap(kept) as owner:
        owner.reset(owner.get())
        assert kept.read(0, 1) == b"\0"
        owner.reset(alloc(1))
        assert kept.closed


def test_claim_100_owners_in_many_threads_free_once() -> None:
    shared = SharedCap(alloc(1))
    freed: list[bool] = []

    def use() -> None:
        with shared as ds:
            assert ds.size == 1

    for _ in range(8):
        shared.take()
    for each in [Background(use) for _ in range(8)]:
        each.join()
    assert shared.owners == 1
    freed.append(shared.release())
    assert freed == [True]


def test_claim_101_closing_what_is_closed_does_nothing_to_whoever_has_the_number_now() -> None:
    first = alloc(1)
    number = first.fileno()
    first.close()
    with alloc(1) as second:
        assert second.fileno() == number
        first.close()
        second.write(0, b"x")
        assert second.read(0, 1) == b"x"


def test_claim_102_a_capability_is_dropped_at_the_end_of_its_block_unless_it_is_taken_out() -> None:
    with alloc(1) as dropped:
        pass
    assert dropped.closed
    with ExitStack() as stack:
        kept = stack.enter_context(alloc(1))
        stack.pop_all()
    assert not kept.closed
    kept.close()
    before = descriptors()
    alloc(1)  # not even named
    assert descriptors() == before


def test_claim_103_only_the_server_can_destroy_its_object_for_everybody_here(start: Callable[..., Child]) -> None:
    def client(link: Link) -> None:
        (gate,) = link.take()
        assert Rights.D in gate.rights
        other = gate.dup()
        other.close()  # D does not make this more than dropping it
        assert gate.call(b"x").data == b"x"
        link.say("called")
        assert link.hear() == "unregistered"
        with pytest.raises(PeerGone):
            gate.call()
        gate.close()

    children = [start(client) for _ in range(2)]
    echo = Echo()
    with RegistryServer() as server:
        local = server.registry.register_obj(echo)
        for child in children:
            child.give(local)
        with Running(server):
            for child in children:
                assert child.hear() == "called"
        server.registry.unregister_obj(echo)
        for child in children:
            child.say("unregistered")
            child.end()


def test_claim_106_what_is_allocated_takes_no_number_of_what_was_given_at_the_start(tmp_path: Path) -> None:
    program = write(
        tmp_path,
        "program.py",
        """
        import l4re

        env = l4re.env()
        given = {env.get_cap(name, l4re.Dataspace).fileno() for name in env.caps}
        kept = [env.mem_alloc.alloc(1) for _ in range(20)]
        made = {ds.fileno() for ds in kept}
        assert len(given) == 5 and len(made) == 20
        assert not given & made
        assert all(env.get_cap(name, l4re.Dataspace).size == 7 for name in env.caps)
        """,
    )
    given: dict[str, Any] = {f"ds{n}": alloc(7) for n in range(5)}
    with l4re.spawn([str(program)], caps=given) as task:
        assert task.wait(PATIENCE) == 0
    for cap in given.values():
        cap.close()


def test_claim_104_a_name_that_is_unknown_raises_here_and_names_of_16_characters_work() -> None:
    name = "sixteen_letters_"
    assert len(name) == 16
    with l4re.new_channel().gate as gate, l4re.Env({name: gate}) as env:
        assert env.get_cap(name) is gate
        with pytest.raises(l4re.NotFound) as info:
            env.get_cap(name[:-1])
        assert info.value.code == l4re.Err.ENOENT
