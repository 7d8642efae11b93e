"""A pair of SOCK_SEQPACKET sockets, read and written with `os.read` and `os.write`.

Those two are cheaper than the socket methods. The busy kind polls without sleeping: on two cores it saves the wake-ups.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Sequence
from struct import Struct

from ..wire import Wire
from .base import ANSWER_SIZE, Caller, Calls, Grants

__all__ = ["Seqpacket", "SeqpacketBusy"]

_TWO = Struct("=qq")
_ONE = Struct("=q")


def _hand_over(wire: Wire, *, blocking: bool = True) -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(blocking)
    theirs.setblocking(blocking)
    wire.send(fds=[theirs.fileno()])
    theirs.close()
    return ours


def _read_busy(fd: int, size: int) -> bytes:
    while True:
        try:
            return os.read(fd, size)
        except BlockingIOError:
            continue


class Seqpacket(Calls, Grants):
    """Blocking."""

    name = "seqpacket"
    connections = 1000
    _read: Callable[[int, int], bytes] = staticmethod(os.read)

    def serve(self, wires: Sequence[Wire], work: str) -> None:
        ends = {end.fileno(): end for end in (_hand_over(wire, blocking=not self.busy) for wire in wires)}
        if len(ends) == 1:
            self._serve_one(next(iter(ends)), work)
            return
        write, read = os.write, os.read
        epoll = select.epoll()
        for fd in ends:
            epoll.register(fd, select.EPOLLIN)
        while ends:
            for fd, _ in epoll.poll():
                request = read(fd, ANSWER_SIZE)
                if not request:
                    ends.pop(fd).close()
                    continue
                write(fd, request if work == "echo" else _ONE.pack(sum(_TWO.unpack(request))))

    def _serve_one(self, fd: int, work: str) -> None:
        read, write = self._read, os.write
        if work == "echo":
            while request := read(fd, ANSWER_SIZE):
                write(fd, request)
        else:
            while request := read(fd, _TWO.size):
                a, b = _TWO.unpack(request)
                write(fd, _ONE.pack(a + b))

    def connect(self, wire: Wire, work: str) -> Caller:
        fd = wire.receive()[1][0]
        read, write = self._read, os.write

        def echo(data: bytes) -> bytes:
            write(fd, data)
            return read(fd, ANSWER_SIZE)

        def add(a: int, b: int) -> int:
            write(fd, _TWO.pack(a, b))
            return int(_ONE.unpack(read(fd, 8))[0])

        return Caller(echo if work == "echo" else add, lambda answer: answer, lambda: os.close(fd))

    def serve_grants(self, wire: Wire, what: str, count: int = 1) -> None:
        end = _hand_over(wire)
        memory = [os.memfd_create("bench")] * count
        while request := end.recv(ANSWER_SIZE):
            if request == b"1":
                socket.send_fds(end, [b"answer"], memory)
            else:
                end.send(b"answer")

    def connect_grants(self, wire: Wire, what: str, count: int = 1) -> Caller:
        end = socket.socket(fileno=wire.receive()[1][0])

        def call(granted: bool) -> list[int]:
            if granted:
                end.send(b"1")
                return socket.recv_fds(end, ANSWER_SIZE, count)[1]
            end.send(b"0")
            end.recv(ANSWER_SIZE)
            return []

        def check(answer: list[int]) -> int:
            for fd in answer:
                os.close(fd)
            return len(answer)

        return Caller(call, check, end.close)


class SeqpacketBusy(Seqpacket):
    """Polling without end, on both sides."""

    name = "seqpacket busy"
    busy = True
    _read = staticmethod(_read_busy)
