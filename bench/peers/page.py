"""A hand-written shared page: what one would build to be fast, with nothing checked and nothing survived.

Blocking, an eventfd each way wakes the other side; slicing an `mmap` copies faster than a `memoryview` does, and
edge-triggered `epoll` saves the read of each eventfd where there are many. The busy kind looks at a counter in the
page without end and never sleeps.
"""

from __future__ import annotations

import mmap
import os
import select
from collections.abc import Callable, Sequence
from struct import Struct

from ..wire import Wire
from .base import ANSWER_SIZE, Caller, Calls, Listener, Notifier, Notifies

__all__ = ["Page", "PageBusy"]

_TWO = Struct("=qq")
_ONE = Struct("=q")
_REQUEST = slice(64, 64 + ANSWER_SIZE)
_REPLY = slice(192, 192 + ANSWER_SIZE)
_REQUEST_AT, _REPLY_AT = 64, 192
_GONE = b"\xff" * ANSWER_SIZE
#: Counters of the busy kind: a cache line each.
_ASKED, _ANSWERED = 256 // 8, 320 // 8


def _make(wire: Wire) -> tuple[mmap.mmap, int, int]:
    memory = os.memfd_create("bench")
    os.ftruncate(memory, 4096)
    asked, answered = os.eventfd(0), os.eventfd(0)
    wire.send(fds=[memory, asked, answered])
    page = mmap.mmap(memory, 4096)
    os.close(memory)
    return page, asked, answered


def _take(wire: Wire) -> tuple[mmap.mmap, int, int]:
    memory, asked, answered = wire.receive()[1]
    page = mmap.mmap(memory, 4096)
    os.close(memory)
    return page, asked, answered


def _answer(page: mmap.mmap, work: str) -> bool:
    """Write the reply; False: that was the last request."""
    if work == "add":
        a, b = _TWO.unpack_from(page, _REQUEST_AT)
        _ONE.pack_into(page, _REPLY_AT, a + b)
        return bool(page[_REQUEST] != _GONE)
    request = page[_REQUEST]
    page[_REPLY] = request
    return request != _GONE


class Page(Calls, Notifies):
    """Blocking: an eventfd each way."""

    name = "page+eventfd"
    connections = 1000

    def serve(self, wires: Sequence[Wire], work: str) -> None:
        made = [_make(wire) for wire in wires]
        if len(made) == 1:
            self._serve_one(*made[0], work)
            return
        clients = {asked: (page, answered) for page, asked, answered in made}
        wake, epoll = os.eventfd_write, select.epoll()
        for asked in clients:
            epoll.register(asked, select.EPOLLIN | select.EPOLLET)
        while clients:
            for asked, _ in epoll.poll():
                page, answered = clients[asked]
                if not _answer(page, work):
                    del clients[asked]
                wake(answered, 1)

    def _serve_one(self, page: mmap.mmap, asked: int, answered: int, work: str) -> None:
        wait, wake = os.eventfd_read, os.eventfd_write
        if work == "echo":
            request = b""
            while request != _GONE:
                wait(asked)
                page[_REPLY] = request = page[_REQUEST]
                wake(answered, 1)
            return
        going = True
        while going:
            wait(asked)
            going = _answer(page, work)
            wake(answered, 1)

    def connect(self, wire: Wire, work: str) -> Caller:
        page, asked, answered = _take(wire)
        wait, wake = os.eventfd_read, os.eventfd_write

        def echo(data: bytes) -> bytes:
            page[_REQUEST] = data
            wake(asked, 1)
            wait(answered)
            return page[_REPLY]

        def add(a: int, b: int) -> int:
            _TWO.pack_into(page, _REQUEST_AT, a, b)
            wake(asked, 1)
            wait(answered)
            return int(_ONE.unpack_from(page, _REPLY_AT)[0])

        return Caller(echo if work == "echo" else add, lambda answer: answer, lambda: void(echo(_GONE)))

    def listen(self, wire: Wire) -> Listener:
        bell = os.eventfd(0)
        wire.send(fds=[bell])

        def sleep(handler: Callable[[], None], done: Callable[[], bool]) -> None:
            wait = os.eventfd_read
            while not done():
                wait(bell)
                handler()

        def spin(handler: Callable[[], None], done: Callable[[], bool]) -> None:
            look = os.eventfd_read
            os.set_blocking(bell, False)
            while not done():
                try:
                    look(bell)
                except BlockingIOError:
                    continue
                handler()

        return Listener(sleep, spin)

    def notifier(self, wire: Wire) -> Notifier:
        bell = wire.receive()[1][0]
        wake = os.eventfd_write
        return Notifier(lambda: wake(bell, 1), lambda: os.close(bell))


class PageBusy(Calls):
    """Looking at the page without end, on both sides; for one client."""

    name = "page busy"
    busy = True

    def serve(self, wires: Sequence[Wire], work: str) -> None:
        ((page, _, _),) = [_make(wire) for wire in wires]
        words = memoryview(page).cast("Q")
        turn, going = 0, True
        while going:
            while words[_ASKED] == turn:
                pass
            going = _answer(page, work)
            turn = words[_ANSWERED] = turn + 1

    def connect(self, wire: Wire, work: str) -> Caller:
        page, _, _ = _take(wire)
        words = memoryview(page).cast("Q")
        turn = 0

        def echo(data: bytes) -> bytes:
            nonlocal turn
            turn += 1
            page[_REQUEST] = data
            words[_ASKED] = turn
            while words[_ANSWERED] != turn:
                pass
            return page[_REPLY]

        def add(a: int, b: int) -> int:
            nonlocal turn
            turn += 1
            _TWO.pack_into(page, _REQUEST_AT, a, b)
            words[_ASKED] = turn
            while words[_ANSWERED] != turn:
                pass
            return int(_ONE.unpack_from(page, _REPLY_AT)[0])

        return Caller(echo if work == "echo" else add, lambda answer: answer, lambda: void(echo(_GONE)))


def void(answer: object) -> None:
    """Drop an answer."""
