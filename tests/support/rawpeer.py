"""A peer of the session protocol in plain Python: a client or a server, honest or hostile, driven by hand.

Written from :mod:`l4re.wire.session` and :mod:`l4re.wire.port` alone, never from the leaf. An honest one
always rings and always looks before it waits, so it needs no fences. Python has no compare-exchange, so it
never withdraws while somebody may take.
"""

from __future__ import annotations

import array
import fcntl
import mmap
import os
import select
import socket
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, Self

from l4re.wire import session as wire
from l4re.wire.port import PortKind, PortMessage
from l4re.wire.session import Field, Head, State

__all__ = [
    "FIXED",
    "RawClient",
    "RawPage",
    "RawServer",
    "hung_up",
    "inbox_of",
    "memfd",
    "pair",
    "receive",
    "send",
    "wait_for",
]

PATIENCE = 20.0

#: The seals of an honest session page: against shrinking and growing.
FIXED = 0x2 | 0x4
_ADD_SEALS = 1033


def pair() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a port or session socket."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def memfd(size: int = wire.PAGE_BYTES, seals: int = FIXED, *, flags: int = 0) -> int:
    """Return memory with these seals."""
    fd = os.memfd_create("rawpeer", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | flags)
    os.ftruncate(fd, size)
    if seals:
        fcntl.fcntl(fd, _ADD_SEALS, seals)
    return fd


def send(sock: socket.socket, data: bytes, fds: Sequence[int] = ()) -> bool:
    """Send one packet without waiting; False: it was not taken (full, or nobody is there)."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    try:
        sock.sendmsg([data], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except (BlockingIOError, BrokenPipeError, ConnectionResetError):
        return False
    return True


def wait_for(sock: socket.socket, timeout: float = PATIENCE) -> None:
    """Wait until there is something to read, or the end."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    if not poll.poll(timeout * 1000):
        raise TimeoutError(f"nothing came within {timeout} s")


def hung_up(sock: socket.socket) -> bool:
    """Whether the other side is gone, whatever it left to read."""
    poll = select.poll()
    poll.register(sock, 0)
    return bool(poll.poll(0))


def receive(sock: socket.socket, timeout: float = PATIENCE) -> tuple[bytes, list[int]]:
    """Wait for one packet and its descriptors, which are the caller's; ``b""`` at the end."""
    while True:
        wait_for(sock, timeout)
        with suppress(BlockingIOError, ConnectionResetError):  # a reset is said once, before what is queued
            data, control, _, _ = sock.recvmsg(1024, socket.CMSG_SPACE(4 * 64), socket.MSG_DONTWAIT)
            fds = array.array("i")
            for level, kind, payload in control:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
            return data, fds.tolist()


def inbox_of(sock: socket.socket) -> list[bytes]:
    """Return every packet up to the end or until nothing is there; their descriptors are closed."""
    packets: list[bytes] = []
    while True:
        try:
            data, fds = receive(sock, 0)
        except TimeoutError:
            return packets
        for fd in fds:
            os.close(fd)
        if not data:
            return packets
        packets.append(data)


class RawPage:
    """A mapped session page; numbers are read and written whole."""

    def __init__(self, fd: int) -> None:
        self.map = mmap.mmap(fd, wire.PAGE_BYTES)
        self._bytes = memoryview(self.map)
        self._words = self._bytes.cast("Q")
        self._halves = self._bytes.cast("I")

    def word(self, field: Field) -> int:
        return self._words[field // 8]

    def put(self, field: Field, value: int) -> None:
        self._words[field // 8] = value & (1 << 64) - 1

    def half(self, field: Field) -> int:
        return self._halves[field // 4]

    def put_half(self, field: Field, value: int) -> None:
        self._halves[field // 4] = value

    @property
    def state(self) -> tuple[int, State | None]:
        return wire.split(self.word(Field.STATE))

    def set_state(self, sequence: int, state: int) -> None:
        self.put(Field.STATE, sequence << 8 | state)

    def step(self, name: str) -> int:
        """Make one step of the table; returns the sequence number."""
        word = wire.after(self.word(Field.STATE), name)
        assert word is not None, f"cannot {name} in {self.state}"
        self.put(Field.STATE, word)
        return word >> 8

    @property
    def head(self) -> Head:
        label = self.word(Field.LABEL)
        signed = label - (1 << 64) if label >> 63 else label
        return Head.of(signed, self.word(Field.COUNTS), self.word(Field.SIZE_CPU))

    def write(self, head: Head, words: bytes = b"", data: bytes = b"") -> None:
        """Write a message, whatever its header claims."""
        self._bytes[Field.MESSAGE : Field.MESSAGE + len(words)] = words
        self._bytes[Field.LONG : Field.LONG + len(data)] = data
        self.put(Field.LABEL, head.label)
        self.put(Field.COUNTS, head.counts)
        self.put(Field.SIZE_CPU, head.size_cpu)

    def read(self) -> tuple[Head, bytes, bytes]:
        """Copy the message out."""
        head = self.head
        assert head.sound, head
        words = bytes(self._bytes[Field.MESSAGE : Field.MESSAGE + 8 * head.words])
        return head, words, bytes(self._bytes[Field.LONG : Field.LONG + head.size])

    def scribble(self, at: int, data: bytes) -> None:
        self._bytes[at : at + len(data)] = data

    def close(self) -> None:
        self._halves.release()
        self._words.release()
        self._bytes.release()
        self.map.close()


class _Owner:
    """Closes what it holds, once."""

    def __init__(self) -> None:
        self.owned = ExitStack()

    def own(self, fd: int) -> int:
        self.owned.callback(os.close, fd)
        return fd

    def close(self) -> None:
        self.owned.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class RawClient(_Owner):
    """The client half. ``keep`` keeps copies of the server's ends, which no honest client does."""

    def __init__(self, port: int, *, keep: bool = False, open: bool = True) -> None:
        """Use (a copy of) ``port``, the client end of a port."""
        super().__init__()
        self.port = self.owned.enter_context(socket.socket(fileno=os.dup(port)))
        self.keep = keep
        self.kept: list[socket.socket] = []
        self.page_fd = -1
        self.refusals: list[bytes] = []
        self.sock: Any = None
        self.page: Any = None
        if open:
            self.open()

    def open(self, *, version: int = wire.VERSION) -> None:
        """Make a session and send it through the port."""
        ours, theirs = pair()
        self.sock = self.owned.enter_context(ours)
        fd = memfd()
        self.page = RawPage(fd)
        self.owned.callback(self.page.close)
        self.page.put_half(Field.SERVER_ASLEEP, 1)
        self.page.put_half(Field.VERSION, version)
        sent = self.handshake([theirs.fileno(), fd])
        if self.keep:
            self.kept.append(self.owned.enter_context(theirs))
            self.page_fd = self.own(fd)
        else:
            theirs.close()
            os.close(fd)
        assert sent, "the port is full, or it was shut"

    def handshake(self, fds: Sequence[int], data: bytes | None = None) -> bool:
        """Send these descriptors as a session."""
        return send(self.port, PortMessage(PortKind.SESSION).pack() if data is None else data, fds)

    def derive(self, rights: int = 15, kind: PortKind = PortKind.DERIVE, label: int = 0) -> socket.socket | None:
        """Return the client end of a new port, which is the caller's; None if the port is full."""
        ours, theirs = pair()
        message = PortMessage(kind, rights=rights, label=label).pack()
        queued = send(self.port, message, [theirs.fileno()])
        if self.keep and queued:
            self.kept.append(self.owned.enter_context(theirs))
        else:
            theirs.close()
        if queued:
            return ours
        ours.close()
        return None

    def ring(self) -> bool:
        return send(self.sock, wire.WAKE)

    def post(
        self,
        label: int = 0,
        words: bytes = b"",
        data: bytes = b"",
        items: int = 0,
        fds: Sequence[int] = (),
        flags: int = 0,
    ) -> int:
        """Post an honest message and ring; returns its sequence number."""
        sequence = wire.next_sequence(self.page.state[0])
        if fds:
            assert send(self.sock, wire.pack_ahead(sequence), fds)
        self.page.write(Head(label, len(words) // 8, items, len(fds), flags, len(data)), words, data)
        assert self.page.step("post") == sequence
        self.ring()
        return sequence

    def answer(self, timeout: float = PATIENCE) -> tuple[Head, bytes, bytes, list[int]] | None:
        """Wait for DONE; None if the session ended instead."""
        fds: list[int] = []
        self.page.put_half(Field.CLIENT_ASLEEP, 1)
        ended = False
        self.refusals = []
        while self.page.state[1] is not State.DONE:
            if ended:
                return None
            packet, more = receive(self.sock, timeout)
            fds += more
            ended = not packet
            self.refusals += [packet] if packet[:1] == wire.REFUSAL else []
        head, words, data = self.page.read()
        while len(fds) < head.fds:
            fds += receive(self.sock, timeout)[1]
        return head, words, data, fds

    def call(self, *args: Any, **kwargs: Any) -> tuple[Head, bytes, bytes, list[int]] | None:
        self.post(*args, **kwargs)
        return self.answer()

    def ended(self, timeout: float = PATIENCE) -> list[bytes]:
        """Wait until the server gave the session up; returns what it said before."""
        packets: list[bytes] = []
        while True:
            data, fds = receive(self.sock, timeout)
            for fd in fds:
                os.close(fd)
            if not data:
                return packets
            packets.append(data)


class RawServer(_Owner):
    """The server half of one port and of the last session that came through it."""

    def __init__(self, port: int) -> None:
        """Take ``port``, the server end of a port."""
        super().__init__()
        self.port = self.owned.enter_context(socket.socket(fileno=port))
        self.sock: Any = None
        self.page: Any = None

    def accept(self, timeout: float = PATIENCE) -> None:
        """Wait for a handshake and open the session."""
        data, fds = receive(self.port, timeout)
        message = PortMessage.unpack(data, len(fds))
        assert message is not None, data
        assert message.kind is PortKind.SESSION
        self.sock = self.owned.enter_context(socket.socket(fileno=fds[0]))
        self.page = RawPage(fds[1])
        self.owned.callback(self.page.close)
        os.close(fds[1])
        assert self.page.half(Field.VERSION) == wire.VERSION

    def take(self, timeout: float = PATIENCE) -> tuple[Head, bytes, bytes, list[int]]:
        """Wait for a request and take it."""
        fds: list[int] = []
        while self.page.state[1] is not State.POSTED:
            packet, more = receive(self.sock, timeout)
            fds += more
            assert packet, "the client ended"
        sequence = self.page.step("take")
        head, words, data = self.page.read()
        while len(fds) < head.fds:
            packet, more = receive(self.sock, timeout)
            assert not more or wire.unpack_ahead(packet) == sequence
            fds += more
        if head.flags & wire.ONE_WAY:
            self.page.step("release")
            self.ring()
        return head, words, data, fds

    def reply(
        self, label: int = 0, words: bytes = b"", data: bytes = b"", items: int = 0, fds: Sequence[int] = ()
    ) -> None:
        """Answer as an honest server does."""
        self.done(Head(label, len(words) // 8, items, len(fds), 0, len(data)), words, data, fds)

    def done(self, head: Head, words: bytes = b"", data: bytes = b"", fds: Sequence[int] = ()) -> None:
        """Answer with any header at all."""
        if fds:
            assert send(self.sock, wire.pack_ahead(self.page.state[0]), fds)
        self.page.write(head, words, data)
        self.page.step("reply")
        self.ring()

    def ring(self) -> bool:
        return send(self.sock, wire.WAKE)
