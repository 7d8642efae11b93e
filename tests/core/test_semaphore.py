"""Semaphores: a token goes to one of those who wait, and no holder takes others' tokens or hope along when it dies."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
from collections.abc import Callable
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

import l4re
from l4re import (
    Busy,
    Closed,
    InvalidArgument,
    IpcTimeout,
    NotSupported,
    PeerGone,
    PermissionDenied,
    Proto,
    Rights,
    Semaphore,
)
from l4re._native import leaf
from l4re.cap import import_all
from l4re.cap.transfer import export_all
from l4re.factory.kernel import KernelFactory
from l4re.wire.items import ItemKind, pack_item
from support.processes import PATIENCE, Background, Child, Link

Start = Callable[..., Child]
processes = pytest.mark.processes


# ---- counting ----


@given(st.lists(st.booleans(), max_size=200))
def test_it_counts_like_a_number(steps: list[bool]) -> None:
    count = 0
    with Semaphore.create() as semaphore:
        for up in steps:
            if up:
                semaphore.up()
                count += 1
            else:
                assert semaphore.try_down() == (count > 0)
                count = max(0, count - 1)
        for _ in range(count):
            semaphore.down(timeout=0)
        with pytest.raises(IpcTimeout):
            semaphore.down(timeout=0)


def test_it_starts_with_as_many_tokens_as_were_asked_for() -> None:
    with Semaphore.create(3) as semaphore:
        assert [semaphore.try_down() for _ in range(4)] == [True, True, True, False]


def test_it_may_start_full() -> None:
    with Semaphore.create(4096) as semaphore:
        for _ in range(4096):
            semaphore.down(timeout=0)
        assert not semaphore.try_down()


def test_a_start_below_zero_or_beyond_a_pipe_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="0 or more"):
        Semaphore.create(-1)
    with pytest.raises(InvalidArgument, match="cannot hold"):
        Semaphore.create(1 << 22)


def test_a_full_one_says_so_and_goes_on() -> None:
    def fill() -> None:
        for _ in range(1 << 22):
            semaphore.up()

    with Semaphore.create() as semaphore:
        with pytest.raises(Busy, match="nobody takes"):
            fill()
        semaphore.down(timeout=0)


def test_a_flag_of_the_shared_open_file_makes_nobody_wait() -> None:
    with Semaphore.create() as semaphore:
        os.set_blocking(semaphore.fileno(), True)
        assert not semaphore.try_down()
        with pytest.raises(IpcTimeout):
            semaphore.down(timeout=0.01)


# ---- rights ----


def test_who_may_go_up_only_does_not_go_down() -> None:
    with Semaphore.create() as semaphore, semaphore.up_only as upper, semaphore.down_only as downer:
        assert (upper.rights, downer.rights) == (Rights.RW, Rights.R | Rights.S)
        with pytest.raises(PermissionDenied):
            upper.try_down()
        with pytest.raises(PermissionDenied):
            downer.up()
        with pytest.raises(PermissionDenied):
            _ = upper.down_only
        upper.up()
        downer.down(timeout=0)
        assert semaphore == upper == downer
        with Semaphore.create() as other:
            assert semaphore != other


@pytest.mark.parametrize("held", [Rights.RW, Rights.R | Rights.S, Rights.RWS])
@pytest.mark.parametrize("asked", [Rights.RW, Rights.R | Rights.S, Rights.RWS, Rights.RWSD])
def test_rights_only_shrink_when_it_is_handed_over(held: Rights, asked: Rights) -> None:
    with Semaphore.create() as whole:
        semaphore = {Rights.RW: whole.up_only, Rights.R | Rights.S: whole.down_only}.get(held) or whole.dup()
        with semaphore:
            left = held & asked
            if not left & (Rights.W | Rights.S):
                with pytest.raises(InvalidArgument):
                    semaphore.export(asked)
                return
            export = semaphore.export(asked)
            words = pack_item(export.kind, export.rights, len(export.fds), export.value)
            (received,) = import_all(words, [os.dup(fd) for fd in export.fds])
            export.done()
            assert received is not None
            with received:
                assert received.rights == left | Rights.R


def test_a_closed_one_does_nothing() -> None:
    semaphore = Semaphore.create()
    semaphore.close()
    semaphore.close()
    assert semaphore.closed
    for use in (semaphore.up, semaphore.try_down, semaphore.fileno, semaphore.dup, semaphore.export):
        with pytest.raises(Closed):
            use()
    assert repr(semaphore) == "<Semaphore closed>"


# ---- what arrives ----


def lies() -> dict[str, Callable[[int, int, int], tuple[Rights, list[int]]]]:
    """What is no semaphore, of the ends of a pipe and a stranger's descriptor."""
    return {
        "ends in the wrong order": lambda read, write, other: (Rights.RWS, [read, write]),
        "an end too few": lambda read, write, other: (Rights.RWS, [write]),
        "an end too many": lambda read, write, other: (Rights.RW, [write, read]),
        "the other end": lambda read, write, other: (Rights.RW, [read]),
        "a file": lambda read, write, other: (Rights.R | Rights.S, [other]),
        "no rights": lambda read, write, other: (Rights.R, []),
    }


@pytest.mark.parametrize("lie", lies())
def test_what_is_no_semaphore_is_refused_whole(lie: str) -> None:
    read, write = os.pipe()
    other = os.memfd_create("other")
    rights, fds = lies()[lie](read, write, other)
    with pytest.raises(InvalidArgument):
        import_all(pack_item(ItemKind.SEMAPHORE, rights, len(fds), 0), [os.dup(fd) for fd in fds])
    for fd in (read, write, other):
        os.close(fd)


def test_ends_of_two_pipes_are_no_semaphore() -> None:
    with Semaphore.create() as one, Semaphore.create() as two, one.up_only as upper, two.down_only as downer:
        fds = [os.dup(upper.fileno()), os.dup(downer.fileno())]
        with pytest.raises(InvalidArgument, match="one pipe"):
            import_all(pack_item(ItemKind.SEMAPHORE, Rights.RWS, 2, 0), fds)


def received(semaphore: Semaphore) -> Semaphore:
    """The same, as another process would have it."""
    export = semaphore.export()
    (other,) = import_all(
        pack_item(export.kind, export.rights, len(export.fds), export.value), [os.dup(fd) for fd in export.fds]
    )
    export.done()
    assert isinstance(other, Semaphore)
    return other


def test_who_received_one_shares_no_flag_with_who_sent_it() -> None:
    with Semaphore.create() as semaphore, received(semaphore) as other:
        for mine, theirs in ((semaphore._read, other._read), (semaphore._write, other._write)):
            assert mine is not None
            assert theirs is not None
            fcntl.fcntl(mine.fileno(), fcntl.F_SETFL, os.O_DIRECT)  # may block, and takes a page for each token
            assert fcntl.fcntl(theirs.fileno(), fcntl.F_GETFL) & (os.O_DIRECT | os.O_NONBLOCK) == os.O_NONBLOCK
            assert not os.get_inheritable(theirs.fileno())
        for _ in range(1000):
            other.up()
        assert other == semaphore


def test_without_procfs_the_open_file_is_shared_and_all_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_procfs(*_: object) -> int:
        raise FileNotFoundError

    with Semaphore.create() as semaphore:
        with monkeypatch.context() as patch:
            patch.setattr("l4re.linux.pipes.os.open", no_procfs)
            other = received(semaphore)
        with other:
            os.set_blocking(semaphore.fileno(), True)
            semaphore.up()
            other.down(timeout=0)
            assert not other.try_down()


def test_one_that_nobody_can_lower_any_more_is_received_all_the_same() -> None:
    with Semaphore.create() as semaphore:
        export = semaphore.up_only.export()
        words, fds = pack_item(export.kind, export.rights, 1, 0), [os.dup(export.fds[0])]
        export.done()
    (upper,) = import_all(words, fds)
    assert isinstance(upper, Semaphore)
    with upper, pytest.raises(PeerGone):
        upper.up()


def test_the_leaf_takes_one_byte_and_knows_the_end() -> None:
    read, write = leaf.pipe()
    leaf.unguard(read)
    assert leaf.take_token(read) is False
    os.write(write, b"ab")
    assert leaf.take_token(read) is True
    os.close(write)
    assert leaf.take_token(read) is True
    assert leaf.take_token(read) is None
    os.close(read)
    with pytest.raises(OSError, match="descriptor"):
        leaf.take_token(read)


# ---- several processes ----


def take_three(link: Link) -> None:
    (semaphore,) = link.take()
    for _ in range(3):
        semaphore.down(timeout=PATIENCE)
    link.say("three")


@processes
def test_each_token_goes_to_one_of_those_who_wait(start: Start) -> None:
    with Semaphore.create() as semaphore:
        children = [start(take_three) for _ in range(2)]
        for child in children:
            child.link.give(semaphore)
        for _ in range(6):
            semaphore.up()
        for child in children:
            assert child.link.hear() == "three"
        assert not semaphore.try_down()


def up_and_down(link: Link) -> None:
    (semaphore,) = link.take()
    link.say("going")
    while True:
        semaphore.down()
        semaphore.up()


@processes
def test_a_holder_that_is_killed_takes_at_most_the_token_it_had(start: Start) -> None:
    children = [start(up_and_down) for _ in range(5)]
    with Semaphore.create(12) as semaphore:
        for child in children:
            child.link.give(semaphore)
            assert child.link.hear() == "going"
        for child in children:
            child.kill()
            child.join()
        left = 0
        while semaphore.try_down():
            left += 1
        assert 7 <= left <= 12
        semaphore.up()
        semaphore.down(timeout=0)


def consume(link: Link) -> None:
    (semaphore,) = link.take()
    while True:
        semaphore.down()
        link.say("one")


@processes
def test_a_waiter_that_is_killed_takes_no_token_along(start: Start) -> None:
    waiting, other = start(consume), start(consume)
    with Semaphore.create() as semaphore:
        waiting.link.give(semaphore.down_only)
        waiting.wait_until_waiting()
        waiting.kill()
        waiting.join()
        other.link.give(semaphore.down_only)
        for _ in range(100):
            semaphore.up()
            assert other.hear() == "one"
        assert not semaphore.try_down()


def produce(link: Link) -> None:
    (semaphore,) = link.take()
    for count in range(1, 1 << 20):
        semaphore.up()
        link.hear()
        link.say(str(count))


@processes
def test_a_token_of_an_upper_that_is_killed_is_there(start: Start) -> None:
    child = start(produce)
    with Semaphore.create() as semaphore:
        child.link.give(semaphore.up_only)
        for count in range(1, 20):
            semaphore.down(timeout=PATIENCE)
            child.say("on")
            assert child.hear() == str(count)
        child.wait_until_waiting()  # it went up once more
        child.kill()
        child.join()
        semaphore.down(timeout=0)
        assert not semaphore.try_down()


class Tokens(l4re.Interface):
    protocol = 0x5345

    @l4re.rpc
    def up_side(self) -> Annotated[Semaphore, Rights.RW]:
        raise NotImplementedError

    @l4re.rpc
    def both(self, semaphore: Semaphore | None) -> list[Semaphore]:
        raise NotImplementedError


class TokenServer(Tokens, l4re.Epiface):
    def __init__(self) -> None:
        super().__init__()
        self.tokens = Semaphore.create()

    def up_side(self) -> Semaphore:
        return self.tokens

    def both(self, semaphore: Semaphore | None) -> list[Semaphore]:
        return [self.tokens] if semaphore is None else [self.tokens, semaphore]


def test_a_call_takes_and_gives_them_with_the_rights_it_says() -> None:
    served = TokenServer()
    with l4re.RegistryServer() as server, served.tokens, Semaphore.create() as mine:
        tokens = Tokens(server.registry.register_obj(served))
        with tokens.up_side() as upper:
            assert upper.rights == Rights.RW
            upper.up()
        served.tokens.down(timeout=0)
        theirs, back = tokens.both(mine)
        with theirs, back:
            assert (theirs, back) == (served.tokens, mine)
        assert len(tokens.both(None)) == 1


def wait_for_nobody(link: Link) -> None:
    (semaphore,) = link.take()
    semaphore.down(timeout=PATIENCE)
    try:
        semaphore.down(timeout=PATIENCE)
    except PeerGone:
        link.say("gone")


@processes
def test_who_only_goes_down_learns_that_nobody_goes_up(start: Start) -> None:
    child = start(wait_for_nobody)
    with Semaphore.create(1) as semaphore, semaphore.down_only as downer:
        child.link.give(downer)
    assert child.link.hear() == "gone"


def test_who_only_goes_up_learns_that_nobody_goes_down() -> None:
    with Semaphore.create() as semaphore:
        upper = semaphore.up_only
    with upper, pytest.raises(PeerGone):
        upper.up()


@processes
def test_a_program_finds_it_in_its_environment() -> None:
    program = "import l4re; l4re.env().get_cap('tokens', l4re.Semaphore).up()"
    with (
        Semaphore.create() as semaphore,
        l4re.spawn([sys.executable, "-c", program], caps={"tokens": semaphore}) as task,
    ):
        semaphore.down(timeout=PATIENCE)
        assert task.wait(PATIENCE) == 0


def test_a_waiting_thread_is_woken() -> None:
    with Semaphore.create() as semaphore:
        waiting = Background(lambda: semaphore.down(timeout=PATIENCE))
        semaphore.up()
        waiting.join()


def test_asyncio_programs_wait_for_a_token() -> None:
    async def play() -> None:
        with Semaphore.create() as semaphore:
            waiting = asyncio.ensure_future(semaphore.wait())
            await asyncio.sleep(0)
            assert not waiting.done()
            semaphore.up()
            await asyncio.wait_for(waiting, PATIENCE)

    asyncio.run(play())


# ---- the factory ----


def test_the_factory_makes_objects_by_the_number_of_their_protocol() -> None:
    factory = KernelFactory()
    with factory.create(Proto.SEMAPHORE) as semaphore, factory.create(Proto.IRQ_SENDER) as irq:
        assert isinstance(semaphore, Semaphore)
        assert isinstance(irq, l4re.Irq)
    with factory.create(Proto.KOBJECT) as channel:
        assert isinstance(channel, l4re.Channel)
        assert channel.gate.rights & Rights.W
    assert channel.gate.closed
    assert channel.svr.closed


@pytest.mark.parametrize("protocol", [Proto.TASK, Proto.VM, 12345])
def test_what_the_factory_does_not_make_is_enodev(protocol: int) -> None:
    with pytest.raises(NotSupported, match=str(int(protocol))) as error:
        KernelFactory().create(protocol)
    assert error.value.code == l4re.Err.ENODEV


def test_sixteen_of_them_travel_in_one_message() -> None:
    with Semaphore.create() as semaphore:
        words, fds, exports = export_all((semaphore,) * 16)
        received = import_all(words, [os.dup(fd) for fd in fds])
        for export in exports:
            export.done()
        for one in received:
            assert one == semaphore
            assert one is not None
            one.close()
