"""A hostile holder: what it sends through its port, what it does to the descriptors it has, and its limits."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from l4re import Gate, Irq, L4Error, Limits, OutOfMemory, PeerGone, PermissionDenied
from l4re._native import leaf
from l4re.cap.capability import Capability
from l4re.linux.fd import Fd
from l4re.rights import Rights
from l4re.testing import wait_until
from l4re.wire import session as wire
from l4re.wire.port import PortKind, PortMessage
from support.processes import PATIENCE, Background, Child, Link, processes
from support.rawpeer import RawClient, memfd, pair, receive, send

from .conftest import Victim, for_each, victims

pytestmark = pytest.mark.processes


@pytest.fixture
def start() -> Iterator[Callable[..., Child]]:
    with processes() as fork:
        yield fork


def gate_of(end: socket.socket | None, rights: Rights = Rights.RWSD) -> Gate:
    """Return a gate over the client end of a port, which it takes."""
    assert end is not None
    return Gate(Fd(end.detach()), rights)


# ---- messages ----

GARBAGE = {
    "nothing": b"",
    "one byte": b"S",
    "a short one": PortMessage(PortKind.DERIVE).pack()[:-1],
    "a long one": PortMessage(PortKind.DERIVE).pack() + b"\0",
    "an unknown kind": b"X" + bytes(15),
    "a refusal": b"R" + bytes(15),
    "beyond any datagram": b"D" * 5000,
}


@for_each([(name, fds) for name in GARBAGE for fds in range(3)])
def test_garbage_ends_the_port_it_came_through(victim: Victim, attacker: RawClient, case: tuple[str, int]) -> None:
    name, fds = case
    fd = memfd()
    assert send(attacker.port, GARBAGE[name], [fd] * fds)
    os.close(fd)
    assert receive(attacker.port) == (b"", [])


def test_garbage_cuts_the_one_who_sent_it_and_none_it_handed_the_capability_to(
    victim: Victim, attacker: RawClient
) -> None:
    with gate_of(attacker.derive()) as heir:
        heir.call(b"", timeout=PATIENCE)
        attacker.open()
        assert attacker.call() is not None
        send(attacker.port, b"garbage")
        attacker.ended()
        assert heir.call(b"still", timeout=PATIENCE).data == b"still"
    victim.holds_what_it_held()


@for_each([0, 1, 7, 15, 16, 0xFF])
def test_deriving_never_widens(victim: Victim, attacker: RawClient, rights: int) -> None:
    with gate_of(attacker.derive(Rights.R | Rights.W)) as narrow, RawClient(narrow.fileno(), open=False) as client:
        with gate_of(client.derive(rights, label=0xFFFC)) as gate:
            label, seen = (int(n) for n in gate.call(label=1, timeout=PATIENCE).data.split())
        assert label == 0
        assert seen | rights & 5 == rights & 5


def test_who_is_no_owner_cannot_mint(victim: Victim, attacker: RawClient) -> None:
    with gate_of(attacker.derive(15, PortKind.MINT, label=0x1000)) as gate, pytest.raises(L4Error, match="minted by"):
        gate.call(timeout=PATIENCE)
    attacker.open()
    assert attacker.call() is not None, "asking was no crime"


NO_ENDS: dict[str, Callable[[ExitStack], int]] = {
    "memfd": lambda _: memfd(),
    "stream": lambda stack: stack.enter_context(socket.socket(socket.AF_UNIX)).detach(),
    "tcp": lambda _: socket.socket().detach(),
    "eventfd": lambda _: os.eventfd(0),
    "pipe": lambda stack: _pipe_end(stack),
    "never connected": lambda _: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).detach(),
    "listening": lambda _: _listening(),
    "half closed": lambda stack: _half_closed(stack),
}


def _pipe_end(stack: ExitStack) -> int:
    read, write = os.pipe()
    stack.callback(os.close, write)
    return read


def _listening() -> int:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.bind("")
    sock.listen()
    return sock.detach()


def _half_closed(stack: ExitStack) -> int:
    ours, theirs = pair()
    ours.close()
    return theirs.detach()


@for_each(NO_ENDS)
def test_what_is_no_server_end_is_dropped(victim: Victim, attacker: RawClient, name: str) -> None:
    with ExitStack() as stack:
        fd = NO_ENDS[name](stack)
        stack.callback(os.close, fd)
        assert send(attacker.port, PortMessage(PortKind.DERIVE).pack(), [fd])
    victim.holds_what_it_held_but_a_port()


def test_one_server_end_many_times(victim: Victim, attacker: RawClient) -> None:
    ours, theirs = pair()
    for _ in range(20):
        assert send(attacker.port, PortMessage(PortKind.DERIVE).pack(), [theirs.fileno()])
    theirs.close()
    with gate_of(ours) as gate:
        assert gate.call(b"one of them", timeout=PATIENCE).data == b"one of them"


# ---- limits ----


def test_the_limits_are_told_to_whom_they_hit() -> None:
    with victims(Limits(ports=8, depth=3, sessions=4)) as victim:
        with ExitStack() as stack:
            chain = stack.enter_context(victim.port())
            chain = stack.enter_context(chain.dup())  # the third from the channel's first gate
            chain.call(timeout=PATIENCE)
            with chain.dup() as deep, pytest.raises(OutOfMemory, match="handed on 3 times"):
                deep.call(timeout=PATIENCE)
        victim.holds_what_it_held()
        with ExitStack() as stack:
            many = [stack.enter_context(victim.gate.dup()) for _ in range(8)]
            refused = 0
            for gate in many:
                try:
                    gate.call(timeout=PATIENCE)
                except OutOfMemory as error:
                    refused += "8 ports" in str(error)
            assert 0 < refused < 8
        victim.holds_what_it_held()
        with victim.port() as gate, ExitStack() as stack:
            for _ in range(4):
                assert stack.enter_context(RawClient(gate.fileno())).call() is not None
            with pytest.raises(OutOfMemory, match="4 threads"):
                gate.call(timeout=PATIENCE)


def test_no_holder_uses_what_all_have() -> None:
    """Handing on to oneself and leaving does not get around the limit either."""
    with victims(Limits(ports=64, holder=10)) as limited:
        hostile: Any
        hostile, *rest = limited.gate.call(label=2, timeout=PATIENCE).caps
        for cap in rest:
            assert cap is not None
            cap.close()
        with ExitStack() as stack:
            heirs = []
            for _ in range(5):
                with hostile.dup() as parent, suppress(OutOfMemory, PeerGone):  # refused by now, perhaps
                    heirs += [stack.enter_context(parent.dup()), stack.enter_context(parent.dup())]
            hostile.close()
            served = 0
            for heir in heirs:
                with suppress(OutOfMemory, PeerGone):
                    heir.call(timeout=PATIENCE)
                    served += 1
            assert served < 5
            with limited.port() as other:
                assert other.call(b"room", timeout=PATIENCE).data == b"room"
        limited.holds_what_it_held()


def test_a_server_short_of_descriptors_refuses_before_anything_is_cut_off(victim: Victim) -> None:
    import resource

    _, hard = resource.prlimit(victim.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(victim.pid, resource.RLIMIT_NOFILE, (64, hard))
    with victim.port() as gate, ExitStack() as stack:
        said: list[bytes] = []
        while not said:
            client = stack.enter_context(RawClient(gate.fileno()))
            client.post()
            if client.answer() is None:
                said = client.refusals
        assert b"few descriptors" in said[0]
        for _ in range(100):
            with suppress(AssertionError):
                stack.enter_context(RawClient(gate.fileno()))
            victim.serves()
    victim.holds_what_it_held()
    resource.prlimit(victim.pid, resource.RLIMIT_NOFILE, (hard, hard))


# ---- a co-holder ----


def test_whatever_a_co_holder_does_to_its_descriptors(victim: Victim) -> None:
    """Each holder has a port and a pipe of its own, so shutdown, tiny buffers and flags hurt nobody else."""
    irq: Any
    gate, irq, ds = victim.gate.call(label=2, timeout=PATIENCE).caps
    with gate, irq, ds, victim.port() as hostile, RawClient(hostile.fileno(), keep=True) as client:
        assert client.call() is not None
        hostile_irq = irq.dup()
        with hostile_irq, gate_of(client.derive()) as derived:
            derived.call(timeout=PATIENCE)
            numbers = [*_descriptors(hostile_irq), hostile.fileno(), client.sock.fileno(), derived.fileno()]
            numbers += [kept.fileno() for kept in client.kept]
            for number in numbers:
                _vandalise(number)
                victim.serves()
                gate.call(timeout=PATIENCE)
                irq.trigger()
            before = int(gate.call(label=4, timeout=PATIENCE).data)
            irq.trigger()
            wait_until(lambda: int(gate.call(label=4, timeout=PATIENCE).data) > before, PATIENCE)
            ds.read(0, 1)
    victim.gate.call(label=0, timeout=PATIENCE)


def _descriptors(irq: Irq) -> list[int]:
    assert irq._derive is not None
    return [irq.fileno(), irq._derive.fileno()]


def _vandalise(number: int) -> None:
    """Do to a descriptor whatever its holder can."""
    for flags in (0, os.O_NONBLOCK, os.O_DIRECT, os.O_ASYNC, os.O_APPEND, os.O_DIRECT | os.O_NONBLOCK):
        with suppress(OSError):
            fcntl.fcntl(number, fcntl.F_SETFL, flags)
    for size in (1, 4096, 1 << 20, 4096):
        with suppress(OSError):
            fcntl.fcntl(number, fcntl.F_SETPIPE_SZ, size)
    with suppress(OSError):
        fcntl.fcntl(number, fcntl.F_SETOWN, os.getpid())
    if leaf.what(number) != "seqpacket":
        return
    with suppress(OSError), socket.socket(fileno=os.dup(number)) as sock:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, 1)
        with suppress(OSError):
            sock.bind("")
        with suppress(OSError):
            sock.listen()
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def _flood(link: Link) -> None:
    """Fill everything there is, for as long as the test runs."""
    gate, irq, _ = (caps := link.take()[0].call(label=2).caps)
    numbers = random.Random(2)
    with RawClient(gate.fileno(), keep=True) as client:
        fd = memfd()
        link.say("flooding")
        while True:
            for _ in range(100):
                match numbers.randrange(6):
                    case 0:
                        client.ring()
                    case 1:
                        send(client.sock, wire.pack_ahead(numbers.getrandbits(8)), [fd] * numbers.randrange(1, 64))
                    case 2:
                        send(client.port, PortMessage(PortKind.DERIVE, 15).pack(), [client.kept[0].fileno()])
                    case 3:
                        send(client.port, PortMessage(PortKind.SESSION).pack(), [client.kept[0].fileno(), fd])
                    case 4:
                        with suppress(L4Error):
                            irq.trigger()
                    case 5:
                        for kept in (*_descriptors(irq), *(sock.fileno() for sock in client.kept[:4])):
                            fcntl.fcntl(kept, fcntl.F_SETFL, numbers.choice([0, os.O_NONBLOCK, os.O_DIRECT]))
            _hand_on_the_irq(irq)
            if leaf.wait((link.fileno(),), 0) == 0:
                break
        os.close(fd)
    for cap in caps:
        assert isinstance(cap, Capability)
        cap.close()


def _hand_on_the_irq(irq: Irq) -> None:
    """Queue pins whose read ends and sockets stay here, too."""
    for _ in range(20):
        read, write = os.pipe()
        ours, theirs = pair()
        with socket.socket(fileno=os.dup(_descriptors(irq)[1])) as derive:
            send(derive, PortMessage(PortKind.DERIVE).pack(), [read, theirs.fileno()])
        with suppress(L4Error, BlockingIOError):
            leaf.trigger(irq.fileno(), leaf.DERIVE_BYTE)
        for number in (read, write):
            fcntl.fcntl(number, fcntl.F_SETFL, os.O_DIRECT)
            os.close(number)
        ours.close()
        theirs.close()


def test_an_innocent_client_is_served_throughout_a_flood(victim: Victim, start: Callable[..., Child]) -> None:
    floods = []
    for _ in range(2):
        child = start(_flood)
        child.give(victim.gate)
        assert child.hear() == "flooding"
        floods.append(child)
    (irq, *caps) = victim.gate.call(label=2, timeout=PATIENCE).caps[1:]
    for _ in range(200):
        victim.serves()
        irq.trigger()
        with victim.gate.dup() as fresh:
            assert fresh.call(b"new", timeout=PATIENCE).data == b"new"
    assert len(os.listdir(f"/proc/{victim.pid}/fd")) < 6000
    assert int(victim.gate.call(label=4, timeout=PATIENCE).data) > 0
    for child in floods:
        child.kill()
    irq.close()
    for cap in caps:
        cap.close()
    victim.holds_what_it_held()


def test_threads_that_flood_handshakes_end_with_their_own_port(victim: Victim, attacker: RawClient) -> None:
    def flood() -> None:
        for _ in range(500):
            with suppress(AssertionError):
                attacker.open()

    threads = [Background(flood)]
    for _ in range(100):
        victim.serves()
    for thread in threads:
        thread.join()
    attacker.close()
    victim.holds_what_it_held_but_a_port()


def test_a_holder_of_an_irq_that_never_stops_handing_on_is_cut(victim: Victim) -> None:
    irq: Any
    gate, irq, ds = victim.gate.call(label=2, timeout=PATIENCE).caps
    stop = threading.Event()
    hostile = irq.dup()

    def flood() -> None:
        while not stop.is_set():
            _hand_on_the_irq(hostile)

    thread = Background(flood)
    try:
        for _ in range(100):
            victim.serves()
            irq.trigger()
    finally:
        stop.set()
        thread.join()
    for cap in (hostile, gate, irq, ds):
        cap.close()
    victim.holds_what_it_held()


NO_PINS: dict[str, Callable[[int, int, int], tuple[int, ...]]] = {
    "the wrong end": lambda read, write, sock: (write, sock),
    "no pipe": lambda read, write, sock: (sock, sock),
    "no socket": lambda read, write, sock: (read, read),
    "one": lambda read, write, sock: (read,),
    "three": lambda read, write, sock: (read, sock, sock),
    "too many": lambda read, write, sock: (read, sock) * 40,
    "none": lambda read, write, sock: (),
}


@for_each(NO_PINS)
def test_what_is_no_pin_is_dropped(victim: Victim, attacker: RawClient, name: str) -> None:
    irq: Any
    gate, irq, ds = victim.gate.call(label=2, timeout=PATIENCE).caps
    gate.close()
    ds.close()
    with irq.dup() as other:
        read, write = os.pipe()
        ours, theirs = pair()
        with socket.socket(fileno=os.dup(_descriptors(irq)[1])) as derive:
            send(derive, PortMessage(PortKind.DERIVE).pack(), NO_PINS[name](read, write, theirs.fileno()))
        leaf.trigger(irq.fileno(), leaf.DERIVE_BYTE)
        with suppress(PeerGone):
            irq.trigger()
        before = int(victim.gate.call(label=4, timeout=PATIENCE).data)
        other.trigger()
        wait_until(lambda: int(victim.gate.call(label=4, timeout=PATIENCE).data) > before, PATIENCE)
        for end in (ours, theirs):
            end.close()
        os.close(read)
        os.close(write)
    irq.close()
    victim.holds_what_it_held_but_a_port()


def test_permission_errors_are_permission_errors(victim: Victim, attacker: RawClient) -> None:
    with gate_of(attacker.derive(15, PortKind.MINT)) as gate, pytest.raises(PermissionError) as caught:
        gate.call(timeout=PATIENCE)
    assert isinstance(caught.value, PermissionDenied | PermissionError)
