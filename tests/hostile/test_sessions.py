"""A hostile client's session: what arrives as one, what stands in the page, what lies in the socket."""

from __future__ import annotations

import ctypes
import fcntl
import os
import random
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from l4re.testing import wait_until
from l4re.wire import session as wire
from l4re.wire.session import Field, Head, State
from support.processes import PATIENCE
from support.rawpeer import FIXED, RawClient, hung_up, inbox_of, memfd, pair, receive, send

from .conftest import Victim, for_each

pytestmark = pytest.mark.processes

_SEAL_WRITE, _SEAL_FUTURE_WRITE = 0x8, 0x10
_SO_PASSPIDFD = 76


# ---- what arrives as a session ----


def _file(stack: ExitStack) -> int:
    fd = os.open("/tmp", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC)
    os.ftruncate(fd, wire.PAGE_BYTES)
    return fd


def _shm_file(stack: ExitStack) -> int:
    fd = os.open("/dev/shm", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC)
    os.ftruncate(fd, wire.PAGE_BYTES)
    return fd


def _fifo(stack: ExitStack) -> int:
    read, write = os.pipe()
    stack.callback(os.close, write)
    return read


def _path(stack: ExitStack) -> int:
    fd = memfd()
    stack.callback(os.close, fd)
    return os.open(f"/proc/self/fd/{fd}", os.O_PATH)


def _read_only(stack: ExitStack) -> int:
    fd = memfd()
    stack.callback(os.close, fd)
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)


def _huge(stack: ExitStack) -> int:
    try:
        return memfd(1 << 21, FIXED, flags=os.MFD_HUGETLB)
    except OSError:
        return _file(stack)  # none here


def _old_version(stack: ExitStack) -> int:
    fd = memfd()
    os.pwrite(fd, (99).to_bytes(4, "little"), Field.VERSION)
    return fd


NO_PAGES: dict[str, Callable[[ExitStack], int]] = {
    "regular file": _file,
    "file on tmpfs": _shm_file,
    "FIFO": _fifo,
    "O_PATH": _path,
    "read-only memfd": _read_only,
    "huge pages": _huge,
    "another version": _old_version,
    "version 0": lambda _: memfd(),
    "unsealed memfd": lambda _: memfd(seals=0),
    "shrink seal only": lambda _: memfd(seals=0x2),
    "grow seal only": lambda _: memfd(seals=0x4),
    "sealed against writing": lambda _: memfd(seals=FIXED | _SEAL_WRITE),
    "sealed against future writing": lambda _: memfd(seals=FIXED | _SEAL_FUTURE_WRITE),
    "too small": lambda _: memfd(wire.PAGE_BYTES - 4096),
    "one byte short": lambda _: memfd(wire.PAGE_BYTES - 1),
    "empty": lambda _: memfd(0),
    "too large": lambda _: memfd(1 << 40),
    "a socket": lambda _: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).detach(),
}


@for_each(NO_PAGES)
def test_what_is_no_session_page_is_refused(victim: Victim, attacker: RawClient, name: str) -> None:
    with ExitStack() as stack:
        fd = NO_PAGES[name](stack)
        stack.callback(os.close, fd)
        ours, theirs = (stack.enter_context(end) for end in pair())
        assert attacker.handshake([theirs.fileno(), fd])
        theirs.close()
        refusal, _ = receive(ours)
        assert refusal[:1] == wire.REFUSAL
        assert b"session" in refusal
        assert receive(ours) == (b"", [])
        victim.holds_what_it_held_but_a_port()


def _listening(stack: ExitStack) -> int:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.bind("")
    sock.listen()
    return sock.detach()


def _stream(stack: ExitStack) -> int:
    ours, theirs = socket.socketpair()
    stack.callback(ours.close)
    return theirs.detach()


def _datagram(stack: ExitStack) -> int:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    stack.callback(ours.close)
    return theirs.detach()


NO_SOCKETS: dict[str, Callable[[ExitStack], int]] = {
    "listening": _listening,
    "stream": _stream,
    "datagram": _datagram,
    "tcp": lambda _: socket.socket().detach(),
    "never connected": lambda _: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).detach(),
    "FIFO": _fifo,
    "regular file": _file,
    "O_PATH": _path,
    "memfd": lambda _: memfd(),
}


@for_each(NO_SOCKETS)
def test_what_is_no_session_socket_is_dropped(victim: Victim, attacker: RawClient, name: str) -> None:
    with ExitStack() as stack:
        fd = NO_SOCKETS[name](stack)
        stack.callback(os.close, fd)
        page = memfd()
        stack.callback(os.close, page)
        os.pwrite(page, (wire.VERSION).to_bytes(4, "little"), Field.VERSION)
        assert attacker.handshake([fd, page])
    victim.holds_what_it_held_but_a_port()


@for_each([0, 1, 3, 64, 65, 200])
def test_a_handshake_with_another_number_of_descriptors_ends_its_port(
    victim: Victim, attacker: RawClient, count: int
) -> None:
    fd = memfd()
    assert attacker.handshake([fd] * count)
    os.close(fd)
    assert receive(attacker.port) == (b"", [])
    victim.holds_what_it_held()


def test_a_memfd_sealed_after_the_handshake_goes_on(victim: Victim, attacker: RawClient) -> None:
    attacker.keep = True
    attacker.open()
    attacker.call()
    for seal in (_SEAL_FUTURE_WRITE, 0x1):
        fcntl.fcntl(attacker.page_fd, 1033, seal)
    assert attacker.call(data=b"still") is not None


def test_pages_punched_out_under_a_call_are_zeros_and_no_signal(victim: Victim, attacker: RawClient) -> None:
    attacker.keep = True
    attacker.open()
    attacker.call(data=b"x" * 60000)
    punch = ctypes.CDLL(None, use_errno=True).fallocate
    assert punch(attacker.page_fd, 3, ctypes.c_long(0), ctypes.c_long(wire.PAGE_BYTES)) == 0  # KEEP_SIZE | PUNCH_HOLE
    attacker.page.put_half(Field.SERVER_ASLEEP, 1)
    answer = attacker.call(data=b"")
    assert answer is not None


# ---- what stands in the page ----

LIES = {
    "64 words": Head(words=64),
    "65535 words": Head(words=0xFFFF),
    "17 items": Head(words=63, items=17),
    "items beyond the words": Head(words=3, items=2),
    "65 descriptors": Head(fds=65),
    "65535 descriptors": Head(fds=0xFFFF),
    "a long area of 60 KiB and a byte": Head(size=wire.LONG_BYTES + 1),
    "a long area of 4 GiB": Head(size=0xFFFFFFFF),
    "descriptors that never came": Head(fds=3),
    "everything": Head(-1, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
}


@for_each(LIES)
def test_a_header_that_lies_ends_its_session(victim: Victim, attacker: RawClient, name: str) -> None:
    attacker.open()
    attacker.call(data=b"honest so far")
    attacker.page.write(LIES[name])
    attacker.page.step("post")
    attacker.ring()
    attacker.ended()
    victim.holds_what_it_held_but_a_port()


def test_unknown_flags_and_any_label_are_no_crime(victim: Victim, attacker: RawClient) -> None:
    attacker.open()
    for label in (7, -7, -(1 << 63), (1 << 63) - 1):
        attacker.page.write(Head(label, flags=0xFFFE, cpu=0xFFFFFFFF))
        attacker.page.step("post")
        attacker.ring()
        assert attacker.answer() is not None


@for_each([0, 2, 3, 4, 5, 0x7F, 0xFF])
def test_a_state_that_says_nothing_changes_nothing(victim: Victim, attacker: RawClient, state: int) -> None:
    attacker.open()
    attacker.page.set_state(1 << 54, state)
    attacker.ring()
    victim.serves()
    attacker.page.set_state((1 << 55) - 1, State.POSTED)
    attacker.page.write(Head())
    attacker.ring()
    assert attacker.answer() is not None


def test_the_state_is_the_clients_to_ruin(victim: Victim, attacker: RawClient) -> None:
    """The server answers into whatever became of the page, once, and goes on."""
    attacker.open()
    for state in range(6):
        attacker.page.set_state(state, State.POSTED)
        attacker.ring()
        attacker.page.set_state(0, state)
        attacker.ring()
        victim.serves()


def test_a_page_that_a_thread_scribbles_on_hurts_its_own_session(victim: Victim, attacker: RawClient) -> None:
    attacker.open()
    stop = threading.Event()
    numbers = random.Random(1)

    def scribble() -> None:
        words = [Field.STATE, Field.LABEL, Field.COUNTS, Field.SIZE_CPU]
        halves = [Field.SERVER_ASLEEP, Field.CLIENT_ASLEEP, Field.VERSION]
        while not stop.is_set():
            attacker.page.put(numbers.choice(words), numbers.getrandbits(numbers.choice([2, 8, 17, 33, 64])))
            attacker.page.set_state(numbers.getrandbits(3), State.POSTED)
            attacker.page.put_half(numbers.choice(halves), numbers.getrandbits(numbers.choice([1, 32])))
            attacker.page.scribble(Field.MESSAGE, numbers.randbytes(504))

    thread = threading.Thread(target=scribble)
    thread.start()
    try:
        for _ in range(300):
            if not attacker.ring():  # its session was given up, or its queue is full
                inbox_of(attacker.sock)
            victim.serves()
    finally:
        stop.set()
        thread.join()


# ---- what lies in the socket ----

PACKETS = {
    "an unknown packet": [(b"?", 0)],
    "an empty packet": [(b"", 0)],
    "an empty packet with descriptors": [(b"", 3)],
    "a wake-up with a descriptor": [(wire.WAKE, 1)],
    "descriptors of no message": [(wire.FDS_AHEAD, 2)],
    "descriptors twice": [(wire.pack_ahead(1), 2), (wire.pack_ahead(1), 2)],
    "descriptors without descriptors": [(wire.pack_ahead(1), 0)],
    "a packet too long": [(b"w" * 5000, 0)],
    "too many descriptors": [(wire.pack_ahead(1), 65)],
    "descriptors of another message": [(wire.pack_ahead(77), 1)],
}


@for_each(PACKETS)
def test_a_packet_that_no_client_sends_ends_the_session(victim: Victim, attacker: RawClient, name: str) -> None:
    attacker.open()
    fd = memfd()
    for packet, count in PACKETS[name]:
        send(attacker.sock, packet, [fd] * count)
    os.close(fd)
    attacker.page.write(Head(fds=1))
    attacker.page.step("post")
    attacker.ring()
    attacker.ended()
    victim.holds_what_it_held_but_a_port()


def test_a_refusal_from_a_client_is_ignored(victim: Victim, attacker: RawClient) -> None:
    attacker.open()
    send(attacker.sock, wire.REFUSAL + b"x" * 200)
    assert attacker.call() is not None


@pytest.mark.skipif(os.getuid() != 0, reason="without privileges the kernel's own bound comes first")
@for_each(["close", "shut down"])
def test_descriptors_that_are_never_posted_do_not_fill_the_server(
    victim: Victim, attacker: RawClient, end: str
) -> None:
    fd = memfd()
    before = len(os.listdir(f"/proc/{victim.pid}/fd"))
    with ExitStack() as stack:
        for _ in range(20):
            client = stack.enter_context(RawClient(attacker.port.fileno()))
            assert client.call() is not None
            while send(client.sock, wire.pack_ahead(2), [fd] * 60):
                pass
        victim.serves()
        assert len(os.listdir(f"/proc/{victim.pid}/fd")) <= before + 20 + 1
        client.page.write(Head(words=2, items=1, fds=60))  # what lay there can still be claimed, by who posts
        client.page.step("post")
        client.ring()
        if end == "shut down":
            client.sock.shutdown(socket.SHUT_RDWR)
    os.close(fd)
    victim.holds_what_it_held_but_a_port()


def test_an_idle_server_with_parked_descriptors_sleeps(victim: Victim, attacker: RawClient) -> None:
    attacker.open()
    assert attacker.call() is not None
    fd = memfd()
    assert send(attacker.sock, wire.pack_ahead(2), [fd])
    victim.serves()

    def naps() -> int:
        with open(f"/proc/{victim.pid}/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("voluntary_ctxt"))

    wait_until(victim.asleep, PATIENCE)
    before = naps()
    attacker.page.set_state(2, State.FREE)
    attacker.post(data=b"late")  # a message without them is served, or the session ends; either way the server sleeps
    attacker.answer()
    wait_until(victim.asleep, PATIENCE)
    assert naps() <= before + 20
    os.close(fd)


def test_a_client_that_asks_for_pidfds_fills_no_table(victim: Victim, attacker: RawClient) -> None:
    attacker.keep = True
    attacker.open()
    try:
        attacker.kept[-1].setsockopt(socket.SOL_SOCKET, _SO_PASSPIDFD, 1)
    except OSError as error:
        pytest.skip(f"before Linux 6.5: {error.strerror}")
    for _ in range(50):
        attacker.ring()
    attacker.kept.pop().close()
    attacker.ended()
    victim.holds_what_it_held_but_a_port()


def test_options_of_the_servers_end_that_its_maker_kept(victim: Victim, attacker: RawClient) -> None:
    """Credentials in every message, time stamps, tiny buffers, O_NONBLOCK off, a filter: its own affair."""
    attacker.keep = True
    attacker.open()
    theirs = attacker.kept[-1]
    attacker.call()
    options: list[tuple[int, int | bytes]] = [
        (socket.SO_PASSCRED, 1),
        (socket.SO_RCVBUF, 1),
        (socket.SO_SNDBUF, 1),
        (socket.SO_RCVTIMEO, b"\1" + bytes(15)),
        (socket.SO_SNDTIMEO, b"\1" + bytes(15)),
        (29, 1),  # SO_TIMESTAMP
        (42, 1),  # SO_PEEK_OFF
    ]
    for number, (option, value) in enumerate(options):
        theirs.setsockopt(socket.SOL_SOCKET, option, value)
        theirs.setblocking(not theirs.getblocking())
        attacker.page.write(Head())
        attacker.page.set_state(number, State.POSTED)
        attacker.ring()
        victim.serves()
    for how in (socket.SHUT_RD, socket.SHUT_WR):
        theirs.shutdown(how)
        attacker.ring()
        victim.serves()


def test_a_client_that_never_reads_its_answers(victim: Victim, attacker: RawClient) -> None:
    """Its queue fills with wake-ups and descriptors until the server gives it up."""
    attacker.open()
    rounds = 0
    while not hung_up(attacker.sock):
        attacker.page.write(Head(2))  # answered with a gate, an IRQ and a dataspace
        attacker.page.put_half(Field.CLIENT_ASLEEP, 1)
        attacker.page.set_state(rounds, State.POSTED)
        attacker.ring()
        wait_until(lambda: attacker.page.state[1] is not State.POSTED or hung_up(attacker.sock), PATIENCE)
        rounds += 1
    assert rounds > 10


def test_a_session_socket_that_is_the_attackers_own_port(victim: Victim, attacker: RawClient) -> None:
    """The server then talks to itself through two ends it holds for this client; only that client loses them."""
    page = memfd()
    os.pwrite(page, (wire.VERSION).to_bytes(4, "little"), Field.VERSION)
    assert attacker.handshake([attacker.port.fileno(), page])
    os.pwrite(page, wire.state_word(1, State.POSTED).to_bytes(8, "little"), 0)
    for _ in range(5):
        send(attacker.port, wire.WAKE)
        victim.serves()
    os.close(page)


def test_a_socket_inside_its_own_queue(victim: Victim, attacker: RawClient) -> None:
    ours, theirs = pair()
    for _ in range(20):
        send(ours, b"w", [ours.fileno(), theirs.fileno()])
    page = memfd()
    os.pwrite(page, (wire.VERSION).to_bytes(4, "little"), Field.VERSION)
    assert attacker.handshake([theirs.fileno(), page])
    os.close(page)
    ours.close()
    theirs.close()
    victim.serves()
