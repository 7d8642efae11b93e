"""Capabilities that are not what they claim to be, from a client and from a server."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from l4re.wire import session as wire
from l4re.wire.items import ItemKind, pack_item
from l4re.wire.session import Head
from support.rawpeer import FIXED, RawClient, memfd, pair, send

from .conftest import Victim, attacking_in_session, for_each

pytestmark = pytest.mark.processes

#: (kind, rights, value, descriptors): what one item says and what comes with it.
Claim = tuple[int, int, int, Callable[[ExitStack], list[int]]]


def _memory(size: int = 4096, seals: int = FIXED, mode: int = os.O_RDWR) -> Callable[[ExitStack], list[int]]:
    def make(stack: ExitStack) -> list[int]:
        fd = memfd(size, seals)
        stack.callback(os.close, fd)
        if mode != os.O_RDWR:
            fd = os.open(f"/proc/self/fd/{fd}", mode)
            stack.callback(os.close, fd)
        return [fd]

    return make


def _huge(stack: ExitStack) -> list[int]:
    """Memory of the pool of huge pages, sealed as it should be; where there is no such thing, none at all."""
    try:
        fd = os.memfd_create("huge", os.MFD_ALLOW_SEALING | os.MFD_HUGETLB)
    except OSError:
        return []
    stack.callback(os.close, fd)
    os.ftruncate(fd, HUGE)
    fcntl.fcntl(fd, 1033, FIXED)
    return [fd]


def _both(*makers: Callable[[ExitStack], list[int]]) -> Callable[[ExitStack], list[int]]:
    return lambda stack: [fd for make in makers for fd in make(stack)]


def _pipe(*order: int) -> Callable[[ExitStack], list[int]]:
    def make(stack: ExitStack) -> list[int]:
        ends = os.pipe()
        sockets = pair()
        for fd in ends:
            stack.callback(os.close, fd)
        numbers = [*ends, *(stack.enter_context(sock).fileno() for sock in sockets)]
        return [numbers[at] for at in order]

    return make


def _file(path: str, flags: int = os.O_RDWR | os.O_TMPFILE) -> Callable[[ExitStack], list[int]]:
    def make(stack: ExitStack) -> list[int]:
        fd = os.open(path, flags)
        stack.callback(os.close, fd)
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            os.ftruncate(fd, 4096)
        return [fd]

    return make


def _socket(kind: int) -> Callable[[ExitStack], list[int]]:
    def make(stack: ExitStack) -> list[int]:
        one, two = socket.socketpair(socket.AF_UNIX, kind)
        return [stack.enter_context(one).fileno(), stack.enter_context(two).fileno()][:1]

    return make


_DS, _GATE, _IRQ, _SVR = ItemKind.DATASPACE, ItemKind.GATE, ItemKind.IRQ, ItemKind.RECEIVE
_SEM = ItemKind.SEMAPHORE
READ, WRITE, SOCK = 0, 1, 2
HUGE = 2 << 20

LIES: dict[str, Claim] = {
    "an unknown kind": (200, 15, 0, _memory()),
    "an unknown kind without descriptors": (9, 0, 0, _pipe()),
    "nothing, with a descriptor": (0, 0, 0, _memory()),
    "rights that do not exist": (_DS, 0x15, 4096, _memory()),
    "all rights there could be": (_GATE, 0xFF, 0, _pipe(SOCK)),
    "a dataspace without rights": (_DS, 0, 4096, _memory()),
    "a dataspace larger than it is": (_DS, 5, 1 << 40, _memory()),
    "a dataspace smaller than it is": (_DS, 5, 1, _memory()),
    "a dataspace of 2^64-1": (_DS, 5, (1 << 64) - 1, _memory()),
    "an empty dataspace": (_DS, 5, 0, _memory(0)),
    "an unsealed dataspace": (_DS, 5, 4096, _memory(seals=0)),
    "a dataspace that may grow": (_DS, 5, 4096, _memory(seals=0x2)),
    "a writable dataspace sealed against writing": (_DS, 5, 4096, _memory(seals=FIXED | 0x8)),
    "a writable dataspace sealed against new writers": (_DS, 5, 4096, _memory(seals=FIXED | 0x10)),
    "a read-only dataspace that is writable": (_DS, 4, 4096, _memory()),
    "a writable dataspace that is read-only": (_DS, 5, 4096, _memory(mode=os.O_RDONLY)),
    "a dataspace by path only": (_DS, 4, 4096, _memory(mode=os.O_PATH)),
    "a dataspace that is a file": (_DS, 5, 4096, _file("/tmp")),
    "a dataspace that is a file on tmpfs": (_DS, 5, 4096, _file("/dev/shm")),
    "a dataspace that is a device": (_DS, 5, 4096, _file("/dev/zero", os.O_RDWR)),
    "a dataspace that is a folder": (_DS, 4, 4096, _file("/", os.O_RDONLY)),
    "a dataspace that is a pipe": (_DS, 4, 4096, _pipe(READ)),
    "a dataspace of no descriptor": (_DS, 5, 4096, _pipe()),
    "a dataspace of huge pages": (_DS, 5, HUGE, _huge),
    "a dataspace of two descriptors": (_DS, 5, 4096, _pipe(SOCK, SOCK)),
    "a dataspace of two memories": (_DS, 5, 4096, _both(_memory(), _memory(mode=os.O_RDONLY))),
    "a dataspace of two that can write": (_DS, 5, 4096, _both(_memory(), _memory())),
    "a dataspace of three descriptors": (_DS, 5, 4096, _both(_memory(), _memory(), _memory())),
    "a gate that is a pipe": (_GATE, 7, 0, _pipe(WRITE)),
    "a gate that is memory": (_GATE, 7, 0, _memory()),
    "a gate that is a stream": (_GATE, 7, 0, _socket(socket.SOCK_STREAM)),
    "a gate that is a datagram socket": (_GATE, 7, 0, _socket(socket.SOCK_DGRAM)),
    "a gate of no descriptor": (_GATE, 7, 0, _pipe()),
    "a gate of two": (_GATE, 7, 0, _pipe(SOCK, SOCK)),
    "an irq of files": (_IRQ, 5, 0, _file("/tmp")),
    "an irq of the wrong end": (_IRQ, 5, 0, _pipe(READ, SOCK)),
    "an irq the wrong way round": (_IRQ, 5, 0, _pipe(SOCK, WRITE)),
    "an irq without its socket": (_IRQ, 5, 0, _pipe(WRITE)),
    "an irq of two pipes": (_IRQ, 5, 0, _pipe(WRITE, WRITE)),
    "an irq of three": (_IRQ, 5, 0, _pipe(WRITE, SOCK, SOCK)),
    "a semaphore of files": (_SEM, 5, 0, _file("/tmp")),
    "a semaphore to go up that is for going down": (_SEM, 5, 0, _pipe(READ)),
    "a semaphore to go down that is for going up": (_SEM, 6, 0, _pipe(WRITE)),
    "a semaphore the wrong way round": (_SEM, 7, 0, _pipe(READ, WRITE)),
    "a semaphore of one end that says two": (_SEM, 7, 0, _pipe(WRITE)),
    "a semaphore of three": (_SEM, 7, 0, _pipe(WRITE, READ, READ)),
    "a semaphore without rights": (_SEM, 4, 0, _pipe()),
    "a semaphore that is a socket": (_SEM, 5, 0, _pipe(SOCK)),
    "a receive right that is a pipe": (_SVR, 15, 1, _pipe(READ)),
    "a receive right of nothing": (_SVR, 15, 0, _pipe()),
}


@for_each(LIES, attacking_in_session)
def test_a_capability_that_lies_ends_its_session(victim: Victim, attacker: RawClient, name: str) -> None:
    kind, rights, value, make = LIES[name]
    with ExitStack() as stack:
        fds = make(stack)
        attacker.post(3, pack_item(kind, rights, len(fds), value), items=1, fds=fds)
        answer = attacker.answer()
        if answer is not None:  # the reason, and then the end
            assert answer[0].label < 0
            assert answer[2]
            attacker.ended()
    victim.holds_what_it_held_but_a_port()


HONEST: dict[str, Claim] = {
    "dataspace": (_DS, 5, 4096, _memory()),
    "read-only dataspace": (_DS, 4, 4096, _memory(mode=os.O_RDONLY)),
    "gate": (_GATE, 7, 0, _pipe(SOCK)),
    "irq": (_IRQ, 5, 0, _pipe(WRITE, SOCK)),
    "semaphore": (_SEM, 7, 0, _pipe(WRITE, READ)),
    "none": (0, 0, 0, _pipe()),
}


@for_each(HONEST, attacking_in_session)
def test_what_is_what_it_claims_to_be_is_taken(victim: Victim, attacker: RawClient, name: str) -> None:
    kind, rights, value, make = HONEST[name]
    with ExitStack() as stack:
        fds = make(stack)
        answer = attacker.call(3, pack_item(kind, rights, len(fds), value), items=1, fds=fds)
        assert answer is not None
        assert answer[2].decode() == name.removeprefix("read-only ")
    victim.holds_what_it_held_but_a_port_and_a_session()


@for_each(
    [(2, 1, 1), (1, 1, 2), (0, 1, 1), (0, 0, 5), (255, 1, 64), (30, 2, 60), (0xFFFF, 1, 64)], attacking_in_session
)
def test_counts_that_do_not_add_up(victim: Victim, attacker: RawClient, counts: tuple[int, int, int]) -> None:
    claimed, items, sent = counts
    fd = memfd(4096)
    words = pack_item(_DS, 5, claimed, 4096) * items
    attacker.post(3, words, items=items, fds=[fd] * sent)
    os.close(fd)
    answer = attacker.answer()
    assert answer is None or answer[0].label < 0
    attacker.ended()
    victim.holds_what_it_held_but_a_port()


def test_sixteen_capabilities_of_as_many_descriptors_as_fit(victim: Victim, attacker: RawClient) -> None:
    fd = memfd(4096)
    attacker.open()
    for nfds in (1, 4):
        words = pack_item(_DS, 5, nfds, 4096) * 16
        attacker.post(3, words, items=16, fds=[fd] * 16 * nfds)
        answer = attacker.answer()
        assert answer is not None
        if nfds == 1:
            assert answer[2] == b",".join([b"dataspace"] * 16)
        else:
            assert answer[0].label < 0
    os.close(fd)
    attacker.ended()
    victim.holds_what_it_held_but_a_port()


@for_each([0, 1, 2, 5], attacking_in_session)
def test_descriptors_that_are_not_those_of_the_message(victim: Victim, attacker: RawClient, announced: int) -> None:
    """Missing, too few, too many, and those of another message."""
    fd = memfd(4096)
    sequence = wire.next_sequence(attacker.page.state[0])
    if announced:
        send(attacker.sock, wire.pack_ahead(sequence if announced != 5 else sequence + 1), [fd] * announced)
    os.close(fd)
    attacker.page.write(Head(3, 6, 3, 3), pack_item(_DS, 5, 1, 4096) * 3)
    attacker.page.step("post")
    attacker.ring()
    attacker.ended()
    victim.holds_what_it_held_but_a_port()
