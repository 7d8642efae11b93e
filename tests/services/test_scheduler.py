"""Schedulers: where threads belong, what Linux makes of it, and what a client may say."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4re import (
    BadProtocol,
    Err,
    InvalidArgument,
    L4Error,
    NotFound,
    NotImplementedByServer,
    OutOfRange,
    Placement,
    Proto,
    RegistryServer,
    Scheduler,
    SchedulerServer,
    ServerError,
    cap_dynamic_cast,
    spawn,
)
from l4re.linux import scheduling
from l4re.wire.vargs import Varg
from support.processes import PATIENCE, Child, Echo, Link, Running

Start = Callable[..., Child]
HERE = frozenset(os.sched_getaffinity(0))
FIRST = min(HERE)
BASE = os.getpriority(os.PRIO_PROCESS, 0)


@contextmanager
def served(scheduler: SchedulerServer) -> Iterator[Scheduler]:
    """A proxy for a scheduler that another thread of this process serves."""
    with RegistryServer() as server:
        gate = server.registry.register_obj(scheduler)
        with Running(server):
            yield Scheduler(gate)


@pytest.fixture(params=["local", "behind a gate"])
def made(request: pytest.FixtureRequest) -> Iterator[Callable[..., Scheduler | SchedulerServer]]:
    """``made(limit, offset, cpus=...)``: the same scheduler in either world."""
    if request.param == "local":
        yield SchedulerServer
        return
    with RegistryServer() as server:

        def register(*args: Any, **options: Any) -> Scheduler:
            return Scheduler(server.registry.register_obj(SchedulerServer(*args, **options)))

        with Running(server):
            yield register


Made = Callable[..., Scheduler | SchedulerServer]


def in_a_thread(act: Callable[[], Any]) -> Any:
    """Return what ``act`` returns in a thread whose place nobody else has."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(act()))
    thread.start()
    thread.join()
    return results[0]


def test_it_tells_the_cpus_there_are(made: Made) -> None:
    info = made().info()
    assert info.cpus == HERE
    assert info.cpu_max > max(HERE)
    assert made(cpus={FIRST}).info().cpus == {FIRST}


def test_a_thread_runs_where_it_is_put_and_others_stay(made: Made) -> None:
    scheduler = made(cpus={FIRST})
    before = os.sched_getaffinity(0)

    def act() -> tuple[Placement, set[int]]:
        return scheduler.run_thread(), os.sched_getaffinity(0)

    placed, where = in_a_thread(act)
    assert placed.cpus == where == {FIRST}
    assert os.sched_getaffinity(0) == before


def test_cpus_are_cut_by_what_the_scheduler_has(made: Made) -> None:
    scheduler = made(cpus={FIRST})
    assert scheduler.place(cpus={FIRST, FIRST + 1}).cpus == {FIRST}
    with pytest.raises(InvalidArgument):
        scheduler.place(cpus={FIRST + 1})
    with pytest.raises(InvalidArgument):
        scheduler.place(cpus=())


@pytest.mark.parametrize("prio", [0, 256, -1, 1 << 64])
def test_a_priority_that_is_none_is_refused(made: Made, prio: int) -> None:
    with pytest.raises(OutOfRange):
        made().place(prio=prio)


def test_more_priority_is_never_less_urgent_and_none_passes_the_limit(made: Made) -> None:
    scheduler = made(200, 100)
    nices = [scheduler.place(prio=prio).nice for prio in range(1, 256)]
    assert nices == sorted(nices, reverse=True)
    assert nices[0] < BASE
    assert nices[99] == nices[254]
    assert made(255, 0).place(prio=2).nice == BASE
    assert made(255, 0).place(prio=255).nice == max(-20, BASE - 19)


def test_a_place_asked_for_in_vain_says_so(made: Made) -> None:
    with pytest.raises(NotFound):
        made().run_thread(1 << 22)
    with spawn(["true"]) as task:
        task.wait()
        with pytest.raises(NotFound):
            made().run_task(task.pid)


def test_a_program_is_placed_with_all_its_threads(made: Made) -> None:
    scheduler = made(255, 120, cpus={FIRST})
    with spawn(["sleep", "1000"]) as task:
        placed = scheduler.run_task(task.pid)
        assert os.sched_getaffinity(task.pid) == {FIRST}
        assert os.getpriority(os.PRIO_PROCESS, task.pid) == placed.nice
        assert placed.nice == max(BASE - 9, scheduling.least_nice())


@pytest.mark.processes
def test_threads_that_are_made_meanwhile_follow(start: Start) -> None:
    def restless(link: Link) -> None:
        stop = threading.Event()
        alive = [threading.Thread(target=stop.wait) for _ in range(20)]

        def make() -> None:
            while not stop.is_set():
                thread = threading.Thread(target=lambda: None)
                thread.start()
                thread.join()

        for thread in (maker := threading.Thread(target=make), *alive):
            thread.start()
        link.say("going")
        link.hear()
        places = {frozenset(os.sched_getaffinity(int(thread))) for thread in os.listdir("/proc/self/task")}
        stop.set()
        maker.join()
        link.say("everywhere" if places != {frozenset({FIRST})} else "there")

    child = start(restless)
    assert child.hear() == "going"
    SchedulerServer(cpus={FIRST}).run_task(child.pid)
    child.say("look")
    assert child.hear() == "there"
    child.end()


@pytest.mark.processes
def test_who_may_not_be_more_urgent_stays_and_keeps_the_cpus(start: Start) -> None:
    if os.getuid():
        pytest.skip("takes a user that may give a privilege up")

    def client(link: Link) -> None:
        (gate,) = link.take()
        os.setuid(65534)
        placed = Scheduler(gate).run_thread()
        link.say(f"{placed.nice} {sorted(os.sched_getaffinity(0))}")

    child = start(client)
    with RegistryServer() as server:
        child.give(server.registry.register_obj(SchedulerServer(255, 200, cpus={FIRST})))
        with Running(server):
            assert child.hear() == f"{BASE} [{FIRST}]"
            child.end()


# ---- made by a factory ----


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ((), InvalidArgument),
        ((10,), InvalidArgument),
        (("10", 5), InvalidArgument),
        ((10, None), InvalidArgument),
        ((10, 5, "1"), InvalidArgument),
        ((256, 5), OutOfRange),
        ((10, 256), OutOfRange),
        ((10, -1), OutOfRange),
        ((10, 10), InvalidArgument),
        ((5, 10), InvalidArgument),
        ((10, 5, 0), InvalidArgument),
        ((10, 5, 0, 0, 1 << 63), InvalidArgument),
    ],
)
def test_arguments_that_make_no_scheduler(args: tuple[Varg, ...], error: type[L4Error]) -> None:
    with pytest.raises(error):
        SchedulerServer.of(*args)


def test_masks_name_cpus_64_at_a_time() -> None:
    assert SchedulerServer.of(10, 5).cpus == HERE
    assert SchedulerServer.of(10, 5, -1).cpus == {cpu for cpu in HERE if cpu < 64}  # all bits, as a signed word
    assert SchedulerServer.of(10, 5, *([0] * (FIRST // 64)), 1 << FIRST % 64).cpus == {FIRST}


# ---- the wire ----


def words(*numbers: int) -> bytes:
    return struct.pack(f"={len(numbers)}Q", *numbers)


def test_the_words_are_upstreams() -> None:
    scheduler = SchedulerServer(cpus={FIRST})
    with served(scheduler) as proxy:
        label, answer, _, _ = proxy._l4_transact(Proto.SCHEDULER, words(0, 0))
        assert label == 0
        mask, cpu_max = struct.unpack("=QQ", answer)
        assert mask == 1 << FIRST
        assert cpu_max == scheduler.info().cpu_max
        assert proxy._l4_transact(Proto.SCHEDULER, words(1, 0, 1 << FIRST, 2, 0))[0] == 0
        assert proxy.idle_time(FIRST) <= proxy.idle_time(FIRST)
        assert cap_dynamic_cast(proxy, Scheduler) == proxy
        with pytest.raises(BadProtocol):
            proxy.cap.call(b"", label=Proto.IRQ)  # type: ignore[attr-defined]


def test_a_bit_may_stand_for_several_cpus() -> None:
    scheduler = SchedulerServer()
    answer = scheduler.serve_request(0, Proto.SCHEDULER, words(0, 24 << 24), b"", ())
    assert answer is not None
    assert struct.unpack("=QQ", answer[1])[0] == 1


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"", Err.EINVAL),
        (words(0), Err.EINVAL),
        (words(0, 1 << 20), Err.ERANGE),
        (words(1, 0, 1), Err.EINVAL),
        (words(1, 0, 0, 2, 0), Err.EINVAL),
        (words(1, 0, 2**64 - 1, 300, 0), Err.ERANGE),
        (words(2, 0, 0), Err.EINVAL),
        (words(3, 0), Err.ENOSYS),
    ],
)
def test_what_is_no_request_is_answered_with_an_error(sent: bytes, error: Err) -> None:
    with served(SchedulerServer()) as proxy:
        label, _, text, _ = proxy._l4_transact(Proto.SCHEDULER, sent)
        assert label == -error
        assert text


@given(st.binary(max_size=64))
def test_any_words_at_all_are_answered_or_refused(sent: bytes) -> None:
    try:
        answer = SchedulerServer().serve_request(0, Proto.SCHEDULER, sent, b"", ())
    except L4Error:
        return
    assert answer is not None
    assert answer[0] == 0


@pytest.mark.parametrize("answer", [b"", words(0), words(0, 0), words(99, 1), words(2**64 - 40, 1)])
def test_a_scheduler_that_lies_is_not_believed(answer: bytes) -> None:
    class Liar(Echo):
        def serve_request(self, *request: Any) -> Any:
            return 0, answer, b"", ()

    with RegistryServer() as server, Running(server):
        proxy = Scheduler(server.registry.register_obj(Liar())).within(PATIENCE)
        with pytest.raises(ServerError):
            proxy.run_thread()


def test_a_set_of_cpus_that_no_message_holds_is_refused() -> None:
    with served(SchedulerServer()) as proxy:
        for cpus in ((0, 64), (-1,), (1 << 30,)):
            with pytest.raises(InvalidArgument):
                proxy.place(cpus=cpus)


def test_idle_time_is_of_cpus_that_are_there(made: Made) -> None:
    assert made().idle_time(FIRST) >= 0
    with pytest.raises((InvalidArgument, NotImplementedByServer)):
        made().idle_time(3000)
