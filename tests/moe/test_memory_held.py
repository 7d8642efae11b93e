"""Memory is paid for as long as anybody anywhere holds it, in whatever way, and no longer."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from l4re import Gate, OutOfMemory, PeerGone, Proto, new_channel
from l4re.linux.memfd import PAGE_SIZE as PAGE
from l4re.moe import Services
from l4re.rm import RegionMap
from l4re.services.mem_alloc import RemoteMemAlloc
from moe.conftest import QUOTA, Moe
from support.processes import Child, Link

Start = Callable[..., Child]
SIZE = 4 * PAGE


def test_a_mapping_holds_memory(moe: Moe) -> None:
    with moe.alloc().alloc(SIZE) as ds, RegionMap().attach(ds) as region:
        ds.close()
        view = memoryview(region)
        assert moe.used == SIZE
        view[0] = 1
        view.release()
    moe.wait_until_used(0)


def test_so_does_a_read_only_capability(moe: Moe) -> None:
    with moe.alloc().alloc(SIZE) as ds:
        reader = ds.ro
    assert moe.used == SIZE
    reader.close()
    moe.wait_until_used(0)


def test_so_does_a_second_process_that_was_handed_it(moe: Moe, start: Start) -> None:
    def holder(link: Link) -> None:
        (ds,) = link.take()
        region = RegionMap().attach(ds)
        ds.close()
        link.say("held")
        link.hear()
        del region

    child = start(holder)
    with moe.alloc().alloc(SIZE) as ds:
        child.give(ds.rw)
    assert child.hear() == "held"
    assert moe.used == SIZE
    child.kill()
    child.join()
    moe.wait_until_used(0)


def test_so_does_a_message_that_nobody_has_read(moe: Moe) -> None:
    """Descriptors in a socket hold, until the socket goes."""
    channel = new_channel()
    with moe.alloc().alloc(SIZE) as ds, channel.gate as gate:
        gate.transact(0, b"", b"", (ds,), oneway=True)  # waits there for whoever will serve the gate
        ds.close()
        assert moe.used == SIZE
        channel.svr.close()
    moe.wait_until_used(0)


def test_so_does_an_answer_that_a_program_which_is_gone_never_read(moe: Moe, start: Start) -> None:
    def asks(link: Link) -> None:
        (gate,) = link.take()
        alloc = RemoteMemAlloc(gate)
        link.say("asking")
        while True:
            alloc.alloc(PAGE)  # dropped at once: many answers are under way when it dies

    for _ in range(5):
        child = start(asks)
        with moe.services.factory() as gate:
            child.give(gate)
        assert child.hear() == "asking"
        child.kill()
        child.join()
    moe.wait_until_used(0)


def test_a_program_cannot_have_its_quota_back_while_it_holds_memory(moe: Moe) -> None:
    alloc = moe.alloc()
    frozen, cleared, cut, mapped = held = [alloc.alloc(QUOTA // 4) for _ in range(4)]
    frozen.freeze()
    cleared.clear(0, cleared.size)
    with pytest.raises(PermissionError):
        os.ftruncate(cut.fileno(), 0)
    region = RegionMap().attach(mapped)
    mapped.close()
    with pytest.raises(OutOfMemory, match="0 are left"):
        alloc.alloc(1)
    for ds in held:
        ds.close()
    with pytest.raises(OutOfMemory):
        alloc.alloc(QUOTA)
    region.detach()
    alloc.alloc(QUOTA).close()


def test_all_programs_of_a_run_share_one_account_and_inside_it_each_may_have_its_own(moe: Moe) -> None:
    greedy, careful = moe.alloc(), moe.factory()
    inner = careful.create(Proto.FACTORY, QUOTA // 4)
    assert isinstance(inner, Gate)
    with greedy.alloc(3 * QUOTA // 4), inner:
        with pytest.raises(OutOfMemory):
            greedy.alloc(1)
        with RemoteMemAlloc(inner).alloc(QUOTA // 4):
            pass


def test_who_asks_without_end_keeps_nobody_waiting(moe: Moe, start: Start) -> None:
    def floods(link: Link) -> None:
        (gate,) = link.take()
        alloc = RemoteMemAlloc(gate)
        link.say("going")
        held = []
        while True:
            try:
                held.append(alloc.alloc(PAGE))
            except OutOfMemory:
                held.clear()

    children = [start(floods) for _ in range(2)]
    for child in children:
        with moe.services.factory() as gate:
            child.give(gate)
        assert child.hear() == "going"
    alloc = moe.alloc()
    served = 0
    while served < 50:
        try:
            alloc.alloc(PAGE).close()
            served += 1
        except OutOfMemory:  # they share the account, and are many
            pass
    for child in children:
        child.kill()
        child.join()
    moe.wait_until_used(0)


def test_what_is_not_there_any_more_is_told_by_the_kernel_without_a_word_of_the_program(moe: Moe, start: Start) -> None:
    def silent(link: Link) -> None:
        (gate,) = link.take()
        held = [RemoteMemAlloc(gate).alloc(PAGE) for _ in range(20)]
        regions = [RegionMap().attach(ds) for ds in held]
        link.say(str(len(regions)))
        os._exit(0)  # no cleanup

    child = start(silent)
    with moe.services.factory() as gate:
        child.give(gate)
    assert child.hear() == "20"
    moe.wait_until_used(0)
    assert len(moe.services.ledger) == 0


def test_with_the_services_go_the_capabilities_and_not_the_memory() -> None:
    services = Services(quota=QUOTA)
    with services.factory() as gate:
        ds = RemoteMemAlloc(gate).alloc(PAGE)
        services.close()
        services.close()
        with pytest.raises(PeerGone):
            RemoteMemAlloc(gate).alloc(PAGE)
    with ds:
        ds.write(0, b"still mine")
