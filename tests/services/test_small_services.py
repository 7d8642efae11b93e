"""Inhibitors, random numbers, memory to be looked at."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

import l4re
from l4re import (
    Err,
    Icu,
    Inhibitor,
    InhibitorServer,
    InvalidArgument,
    L4Error,
    LockInfo,
    MessageTooLong,
    NotFound,
    NotImplementedByServer,
    NotSupported,
    OutOfRange,
    Proto,
    Random,
    RandomServer,
    RegistryServer,
    RemoteAccess,
    RemoteAccessServer,
    RemoteDataspace,
    Rights,
    ServerError,
    cap_dynamic_cast,
    describe,
    new_channel,
)
from l4re.interface import Served
from l4re.testing import wait_until
from support.processes import PATIENCE, Child, Link, Running

Start = Callable[..., Child]


# ---- inhibitors ----

SUSPEND, SHUTDOWN = 1, 7


class Power(InhibitorServer):
    def __init__(self) -> None:
        super().__init__({SHUTDOWN: "shutdown", SUSPEND: "suspend"})
        self.free: list[int] = []

    def released(self, id: int) -> None:
        self.free.append(id)


def test_a_lock_is_held_for_a_reason_until_it_is_released() -> None:
    with RegistryServer() as server:
        power = Power()
        inhibitor = Inhibitor(server.registry.register_obj(power))
        assert list(inhibitor.locks()) == [LockInfo(SUSPEND, "suspend"), LockInfo(SHUTDOWN, "shutdown")]
        with pytest.raises(NotSupported) as error:
            inhibitor.next_lock_info(SHUTDOWN)
        assert error.value.code == Err.ENODEV
        inhibitor.acquire(SUSPEND, "burning a disc")
        assert power.reasons(SUSPEND) == ("burning a disc",)
        inhibitor.acquire(SUSPEND, "burning two")
        assert power.reasons(SUSPEND) == ("burning two",)
        assert power.reasons(SHUTDOWN) == ()
        inhibitor.release(SUSPEND)
        assert power.free == [SUSPEND]
        with pytest.raises(NotFound, match="not held"):
            inhibitor.release(SUSPEND)
        for call in (lambda: inhibitor.release(2), lambda: inhibitor.acquire(2, "x"), lambda: power.reasons(2)):
            with pytest.raises(NotFound, match="no lock 2"):
                call()
        for reason in ("", "x" * 256):
            with pytest.raises(InvalidArgument):
                inhibitor.acquire(SUSPEND, reason)
        assert cap_dynamic_cast(inhibitor.cap, Inhibitor) == inhibitor
    for wrong in ({-1: "a"}, {1 << 15: "a"}, {0: ""}, {0: "n" * 21}):
        with pytest.raises(InvalidArgument):
            InhibitorServer(wrong)


@pytest.mark.processes
def test_what_a_killed_process_held_is_free(start: Start) -> None:
    def client(link: Link) -> None:
        (gate,) = link.take()
        Inhibitor(gate).acquire(SUSPEND, "until I die")
        link.say("held")
        link.wait_for_end()

    children = [start(client), start(client)]
    power, channel = Power(), new_channel()
    with RegistryServer() as server, channel:
        server.registry.register_obj(power, channel.svr)
        for child in children:
            child.give(channel.gate)
        with Running(server):
            assert [child.hear() for child in children] == ["held", "held"]
            children[0].kill()
            children[0].join()
            wait_until(lambda: len(power.reasons(SUSPEND)) == 1, PATIENCE, "one to be free")
            assert power.free == []
            children[1].kill()
            children[1].join()
            wait_until(lambda: power.free == [SUSPEND], PATIENCE, "all to be free")


# ---- random numbers ----


def test_as_many_random_bytes_come_as_are_wanted() -> None:
    with RegistryServer() as server, RandomServer() as served:
        random = Random(server.registry.register_obj(served))
        assert random.get_random(0) == b""
        data = random.get_random(2000)
        assert len(data) == 2000
        assert len(set(data)) > 200
        assert random.get_random(2000) != data
        assert cap_dynamic_cast(random.cap, Icu).info().irqs == 1
        with pytest.raises(InvalidArgument):
            random.get_random(-1)


def test_a_source_that_gives_nothing_or_too_much_is_an_error() -> None:
    class Poor(RandomServer):
        def __init__(self, given: bytes) -> None:
            super().__init__()
            self.given = given

        def get_random(self, size: int) -> bytes:
            return self.given

    for given_ in (b"", b"toomuch"):
        with RegistryServer() as server, Poor(given_) as poor, pytest.raises(ServerError, match="asked for 3"):
            Random(server.registry.register_obj(poor)).get_random(3)


# ---- memory to be looked at ----


class Looked(RemoteAccessServer):
    ended = 0

    def terminate(self) -> None:
        self.ended += 1


def test_memory_is_looked_at_and_never_written() -> None:
    with RegistryServer() as server, l4re.env().mem_alloc.alloc(100_000) as memory:
        memory.write(50_000, b"here")
        looked = Looked(memory)
        remote = RemoteAccess(server.registry.register_obj(looked))
        assert remote.read_mem(50_000, 4) == b"here"
        assert len(remote.read_mem(0, 32 << 10)) == 32 << 10
        with pytest.raises(MessageTooLong):
            remote.read_mem(0, (32 << 10) + 1)
        for addr in (99_999, 1 << 63):
            with pytest.raises(OutOfRange):
                remote.read_mem(addr, 2)
        with pytest.raises(NotImplementedByServer):
            remote.write_mem(0, b"no")
        assert remote.size == 100_000
        with remote.window().dataspace as window:
            assert window.read(50_000, 4) == b"here"
        assert cap_dynamic_cast(remote.cap, RemoteDataspace).size == 100_000
        assert [each.name for each in describe(remote).protocols] == ["RemoteAccess", "RemoteDataspace"]
        remote.terminate()
        assert looked.ended == 1
        weak = server.registry.register_obj(Looked(memory)).mint(rights=Rights.R)
        weak.close()


def test_only_who_has_w_ends_what_is_looked_at() -> None:
    looked, channel = Looked(), new_channel()
    with RegistryServer() as server, channel:
        server.registry.register_obj(looked, channel.svr)
        with channel.svr.mint(rights=Rights.R) as gate, Running(server):
            RemoteAccess(gate).terminate()
            with pytest.raises(NotSupported):
                RemoteAccess(gate).read_mem(0, 1)  # behind it, in order
            assert looked.ended == 0
            RemoteAccess(channel.gate).terminate()
            with pytest.raises(NotSupported):
                RemoteAccess(channel.gate).read_mem(0, 1)
            assert looked.ended == 1
    RemoteAccessServer().terminate()


@given(st.binary(max_size=48), st.integers(0, 3), st.sampled_from([Proto.NONE, Proto.REMOTE_ACCESS, Proto.INHIBITOR]))
def test_any_words_at_all_are_answered_or_refused(data: bytes, rights: int, label: int) -> None:
    services: tuple[Served, ...] = (RandomServer(), RemoteAccessServer(), InhibitorServer({0: "a"}))
    for service in services:
        try:
            service.serve_request(rights, label, data, b"", ())
        except L4Error:
            pass
