"""The factory of a program: what it makes, for whom, how much, and until when."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from itertools import count

import pytest

from l4re import (
    BadProtocol,
    Dataspace,
    Err,
    Gate,
    InvalidArgument,
    L4Error,
    MemAllocFlags,
    MessageTooShort,
    Namespace,
    NotFound,
    NotImplementedByServer,
    NotSupported,
    NsFlags,
    OutOfMemory,
    OutOfRange,
    PeerGone,
    PermissionDenied,
    Proto,
    Rights,
    Scheduler,
    cap_dynamic_cast,
)
from l4re.linux.memfd import PAGE_SIZE as PAGE
from l4re.log import Console, Multiplexer
from l4re.log.multiplexer import Voice
from l4re.moe import Services
from l4re.moe.user_factory import MAX_DEPTH, MAX_OBJECTS, UserFactory
from l4re.services.mem_alloc import MemoryFactory, RemoteMemAlloc
from l4re.services.vcon import Vcon
from l4re.testing import wait_until
from l4re.wire.vargs import Varg
from moe.conftest import QUOTA, Moe
from support.processes import PATIENCE, Child, Link, descriptors

Start = Callable[..., Child]


def made(factory: MemoryFactory, protocol: int, *args: Varg) -> Gate:
    cap = factory.create(protocol, *args)
    assert isinstance(cap, Gate)
    return cap


def refused(factory: MemoryFactory, protocol: int, *args: Varg) -> L4Error:
    with pytest.raises(L4Error) as caught:
        factory.create(protocol, *args).close()
    return caught.value


@pytest.mark.parametrize(
    ("protocol", "args", "error", "text"),
    [
        (Proto.DATASPACE, (), InvalidArgument, "a size"),
        (Proto.DATASPACE, ("4096",), InvalidArgument, "a size"),
        (Proto.DATASPACE, (None,), InvalidArgument, "a size"),
        (Proto.DATASPACE, (0,), OutOfRange, "at least one byte"),
        (Proto.DATASPACE, (-PAGE,), OutOfRange, "at least one byte"),
        (Proto.DATASPACE, (PAGE, 0, 0, 0x1000), InvalidArgument, "physical"),
        (Proto.DATASPACE, (QUOTA + 1,), OutOfMemory, f"left of a quota of {QUOTA}"),
        (Proto.DATASPACE, (-QUOTA, MemAllocFlags.CONTINUOUS), OutOfMemory, "left"),
        (Proto.FACTORY, (), InvalidArgument, "quota in bytes"),
        (Proto.FACTORY, ("1000",), InvalidArgument, "quota in bytes"),
        (Proto.FACTORY, (0,), InvalidArgument, "above 0"),
        (Proto.FACTORY, (-1,), InvalidArgument, "above 0"),
        (Proto.FACTORY, (QUOTA + 1,), OutOfMemory, "left"),
        (Proto.LOG, (), InvalidArgument, "a tag"),
        (Proto.LOG, (7,), InvalidArgument, "a tag"),
        (Proto.LOG, (None, "red"), InvalidArgument, "a tag"),
        (Proto.SCHEDULER, (), InvalidArgument, "a limit"),
        (Proto.SCHEDULER, (256, 0), OutOfRange, "256"),
        (Proto.SCHEDULER, (1, 1), InvalidArgument, "above its offset"),
        (Proto.RM, (), NotSupported, "region map"),
        (Proto.DMA_SPACE, (), NotSupported, "DMA"),
        (Proto.L4RE_DMA_SPACE, (), NotSupported, "DMA"),
        (Proto.GOOS, (), NotSupported, "no objects of protocol"),
        (12345, (), NotSupported, "no objects of protocol 12345"),
    ],
)
def test_what_cannot_be_made_is_a_clear_error_and_costs_nothing(
    moe: Moe, protocol: int, args: tuple[Varg, ...], error: type[L4Error], text: str
) -> None:
    with moe.factory() as factory:
        caught = refused(factory, protocol, *args)
        assert isinstance(caught, error)
        assert text in str(caught)
        assert factory.info()[1] == 0


def test_without_s_nothing_is_made_and_info_is_told(moe: Moe) -> None:
    factory = UserFactory(moe.services, moe.services.account)
    with MemoryFactory(moe.services.serve(factory, Rights.RW)) as weak:
        for protocol in (Proto.DATASPACE, Proto.NAMESPACE, Proto.FACTORY, Proto.LOG, 12345):
            with pytest.raises(PermissionDenied):
                weak.create(protocol, 1)
        assert weak.info()[0] == QUOTA


def test_it_says_what_it_is_and_speaks_nothing_else(moe: Moe) -> None:
    with moe.factory() as factory:
        assert cap_dynamic_cast(factory, MemoryFactory) == factory
        gate = factory.cap
        assert isinstance(gate, Gate)
        with pytest.raises(BadProtocol):
            gate.call(b"", label=Proto.IRQ)
        label, *_ = gate.transact(Proto.MEM_ALLOC, b"")
        assert label == -MessageTooShort.default_code
        label, *_ = gate.transact(Proto.MEM_ALLOC, (9).to_bytes(8, "little"))
        assert label == -NotImplementedByServer.default_code


def test_info_tells_of_the_quota_and_of_the_machine(moe: Moe) -> None:
    with moe.factory() as factory, RemoteMemAlloc(factory.cap).alloc(5000):  # type: ignore[arg-type]
        quota, used, limit, taken, free = factory.info()
        assert (quota, used) == (QUOTA, 2 * PAGE)
        assert taken + free == limit


# ---- memory ----


def test_whoever_asked_is_the_owner_and_has_every_choice(moe: Moe) -> None:
    alloc = moe.alloc()
    with alloc.alloc(PAGE, name="mine") as ds:
        assert (ds.size, ds.name, ds.rights) == (PAGE, "mine", Rights.RW)
        ds.write(0, b"data")
        with ds.ro as reader:
            assert reader.read(0, 4) == b"data"
        ds.freeze()
        assert ds.enforcement == "sealed"
    moe.wait_until_used(0)


def test_all_but_so_much_is_what_a_negative_size_means(moe: Moe) -> None:
    with moe.factory() as factory:
        rest = factory.create(Proto.DATASPACE, -5 * PAGE, MemAllocFlags.CONTINUOUS)
        with rest:
            assert moe.used == QUOTA - 5 * PAGE


def test_one_program_does_not_have_all_that_can_be_watched(moe: Moe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("l4re.moe.user_factory.most_watched", lambda: 80)
    greedy, modest = moe.alloc(), moe.alloc()
    held = [greedy.alloc(1) for _ in range(10)]
    with pytest.raises(OutOfMemory, match="10 dataspaces at most"):
        greedy.alloc(1)
    modest.alloc(1).close()
    held.pop().close()
    wait_until(lambda: moe.used == 9 * PAGE, PATIENCE)
    greedy.alloc(1).close()
    for ds in held:
        ds.close()


# ---- factories inside factories ----


def test_a_factory_takes_its_quota_at_once_and_gives_it_back(moe: Moe) -> None:
    with moe.factory() as factory:
        with MemoryFactory(made(factory, Proto.FACTORY, 64 << 10)) as inner:
            assert moe.used == 64 << 10
            assert inner.info()[:2] == (64 << 10, 0)
            assert refused(inner, Proto.DATASPACE, 65 << 10).code == Err.ENOMEM
            assert refused(inner, Proto.SCHEDULER, 10, 5).code == Err.ENODEV
        moe.wait_until_used(0)


def test_with_a_factory_goes_all_but_memory(moe: Moe) -> None:
    with moe.factory() as factory:
        inner = MemoryFactory(made(factory, Proto.FACTORY, 64 << 10))
        names, log = Namespace(made(inner, Proto.NAMESPACE)), made(inner, Proto.LOG, "inner")
        deeper = MemoryFactory(made(inner, Proto.FACTORY, 8 << 10))
        ds = RemoteMemAlloc(deeper.cap).alloc(PAGE)  # type: ignore[arg-type]
        with names, log, deeper, ds:
            inner.cap.close()
            moe.wait_until_used(PAGE)  # the memory is still somebody's, and paid for
            for call in (lambda: names.query("x"), lambda: Vcon(log).get_attr(), deeper.info):
                with pytest.raises(PeerGone, match="unregistered"):
                    call()
            ds.write(0, b"still here")
        moe.wait_until_used(0)


def test_factories_are_nested_so_deep_and_no_deeper(moe: Moe) -> None:
    chain = [moe.factory()]
    while len(chain) <= MAX_DEPTH:
        chain.append(MemoryFactory(made(chain[-1], Proto.FACTORY, QUOTA - len(chain))))
    assert refused(chain[-1], Proto.FACTORY, 1).code == Err.ENOMEM
    chain[1].cap.close()
    moe.wait_until_used(0)
    for each in chain:
        each.cap.close()


# ---- what else is made ----


def test_a_namespace_has_names_for_everybody_who_holds_it(moe: Moe, start: Start) -> None:
    def reader(link: Link) -> None:
        (names,) = link.take()
        found = Namespace(names).query("memory")
        assert isinstance(found, Dataspace)
        link.say(found.read(0, 5).decode())

    with moe.factory() as factory, moe.alloc().alloc(PAGE) as ds, Namespace(made(factory, Proto.NAMESPACE)) as names:
        ds.write(0, b"hello")
        names.register_obj("memory", ds, NsFlags.RO)
        child = start(reader)
        child.give(names.cap)
        assert child.hear() == "hello"
        child.end()
        with pytest.raises(NotFound):
            names.query("nothing")


def test_what_a_namespace_names_goes_with_it(moe: Moe) -> None:
    with moe.factory() as factory:
        names = Namespace(made(factory, Proto.NAMESPACE))
        with moe.alloc().alloc(PAGE) as ds:
            names.register_obj("memory", ds.ro)
        assert moe.used == PAGE
        names.cap.close()
        moe.wait_until_used(0)


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (("hello",), "hello   | text\n"),
        (("hello", "green"), "hello   | text\n"),
        (("hello", 3), "hello   | text\n"),
        (("a long name", None, "keep"), "a long n| text\n"),
        (("x" * 300,), "xxxxxxxx| text\n"),
    ],
)
def test_a_log_prints_lines_under_its_tag(moe: Moe, args: tuple[Varg, ...], line: str) -> None:
    with moe.factory() as factory, Vcon(made(factory, Proto.LOG, *args)) as log:
        log.write("te")
        log.write("xt\nmo")
        assert moe.printed() == line
        assert log.read() == b""


def test_the_rest_of_a_line_comes_when_nobody_holds_the_log(moe: Moe) -> None:
    with moe.factory() as factory:
        with Vcon(made(factory, Proto.LOG, "rest")) as log:
            log.write("no newline")
        wait_until(lambda: moe.printed() == "rest    | no newline\n", PATIENCE)


def test_lines_of_several_logs_stay_whole(moe: Moe) -> None:
    with moe.factory() as factory:
        logs = [Vcon(made(factory, Proto.LOG, str(number))) for number in range(3)]
        for piece in ("one ", "two ", "three\n"):
            for log in logs:
                log.write(piece)
        assert sorted(moe.printed().splitlines()) == [f"{number}       | one two three" for number in range(3)]
        for log in logs:
            log.cap.close()


class Stuck(io.StringIO):
    """A console that nobody reads until it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = threading.Event()

    def write(self, text: str) -> int:
        self.reader.wait(PATIENCE)
        return super().write(text)


def test_who_writes_without_end_where_nobody_reads_keeps_nobody_waiting() -> None:
    console = Stuck()
    with Multiplexer(Console(console, colours=False)) as printer:
        services = Services(quota=QUOTA, log=printer)
        try:
            with services.factory() as ours, services.factory() as theirs:
                log = Vcon(made(MemoryFactory(theirs), Proto.LOG, "loud"))
                for number in range(2 * Voice.ROOM // 400):
                    log.write(f"{number:399}\n")
                RemoteMemAlloc(ours).alloc(PAGE).close()
                assert console.getvalue() == ""
                log.get_attr()  # all of it has arrived
                log.cap.close()
        finally:
            console.reader.set()
            services.close()
        assert printer.flush(PATIENCE)
    assert "bytes were lost here]" in console.getvalue()


def test_a_scheduler_comes_from_the_programs_own_factory(moe: Moe) -> None:
    first = min(os.sched_getaffinity(0))
    with moe.factory() as factory, Scheduler(made(factory, Proto.SCHEDULER, 20, 10, 1 << first)) as scheduler:
        assert scheduler.info().cpus == {first}
        assert scheduler.place(prio=255) == scheduler.place(prio=10)


# ---- until when ----


def objects(moe: Moe) -> int:
    """How many objects are served."""
    return moe.services.do(lambda: len(moe.services._server.registry._bindings))


def test_everything_goes_with_its_last_holder(moe: Moe) -> None:
    with moe.factory() as factory:
        factory.info()
        before, open_before = objects(moe), descriptors()
        caps = [
            made(factory, Proto.NAMESPACE),
            made(factory, Proto.LOG, "log"),
            made(factory, Proto.FACTORY, 1),
            made(factory, Proto.SCHEDULER, 20, 10),
        ]
        assert objects(moe) == before + 4
        for cap in caps:
            cap.close()
        wait_until(lambda: objects(moe) == before, PATIENCE)
        wait_until(lambda: descriptors() == open_before, PATIENCE)


def test_what_a_program_made_is_there_for_others_when_it_ends(moe: Moe, start: Start) -> None:
    def maker(link: Link) -> None:
        (gate,) = link.take()
        factory = MemoryFactory(gate)
        link.give(made(factory, Proto.NAMESPACE), made(factory, Proto.LOG, "left"))
        link.hear()

    child = start(maker)
    child.give(moe.services.factory())
    names, log = child.take()
    child.kill()
    child.join()
    with Namespace(names) as space, Vcon(log) as console:
        space.register_obj("later", None)
        console.write("behind\n")
        wait_until(lambda: moe.printed() == "left    | behind\n", PATIENCE)
        assert [entry.name for entry in space.list()] == ["later"]


def test_a_program_has_so_many_objects_however_it_makes_them(moe: Moe) -> None:
    with moe.factory() as factory, MemoryFactory(made(factory, Proto.FACTORY, PAGE)) as inner:
        most = (MAX_OBJECTS - 1) // 16  # one is the factory inside
        held = [made((factory, inner)[number % 2], Proto.NAMESPACE) for number in range(most)]
        assert f"{MAX_OBJECTS} objects" in str(refused(inner, Proto.NAMESPACE))
        with moe.factory() as other:  # another program is not held back
            made(other, Proto.NAMESPACE).close()
        held.pop().close()
        wait_until(lambda: objects(moe) == 2 + len(held), PATIENCE)
        made(inner, Proto.NAMESPACE).close()
        for cap in held:
            cap.close()


def test_programs_that_are_killed_while_they_make_things_leave_nothing(moe: Moe, start: Start) -> None:
    def client(link: Link) -> None:
        (gate,) = link.take()
        factory, alloc = MemoryFactory(gate), RemoteMemAlloc(gate)
        for turn in count():
            if turn == 5:
                link.say("going")
            inner = MemoryFactory(made(factory, Proto.FACTORY, 4 * PAGE))
            with RemoteMemAlloc(inner.cap).alloc(PAGE), alloc.alloc(PAGE) as ds:  # type: ignore[arg-type]
                Namespace(made(inner, Proto.NAMESPACE)).register_obj("x", ds.ro)
            Vcon(made(factory, Proto.LOG, "x")).write("half")

    before, open_before = objects(moe), descriptors()
    children = [start(client) for _ in range(3)]
    for child in children:
        with moe.services.factory() as gate:
            child.give(gate)
        assert child.hear() == "going"
    for child in children:
        child.kill()
        child.join()
        child.close()
    moe.wait_until_used(0)
    wait_until(lambda: objects(moe) == before, PATIENCE)
    wait_until(lambda: descriptors() == open_before, PATIENCE)


def test_its_repr_tells_who_pays(moe: Moe) -> None:
    assert f"of {QUOTA} bytes" in repr(UserFactory(moe.services, moe.services.account))
