"""multiprocessing.Queue: one for requests, one for each client's answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.queues import Queue
from typing import Any

from ..wire import Wire
from .base import Caller, Calls
from .messages import answers, caller_of
from .semaphores import said, taken, taken_lock

__all__ = ["MpQueue"]


def _hand_over(wire: Wire, queue: Any) -> None:
    locks = [said(lock) for lock in (queue._rlock, queue._wlock, queue._sem)]
    wire.send(json.dumps(locks).encode(), [queue._reader.fileno(), queue._writer.fileno()])


def _take(wire: Wire) -> Any:
    """Make of it what a process that multiprocessing spawns gets."""
    said, (reader, writer) = wire.receive()
    reading, writing, free = json.loads(said)
    queue: Any = Queue.__new__(Queue)
    ends = Connection(reader, writable=False), Connection(writer, readable=False)
    queue.__setstate__((False, free[2], *ends, taken_lock(reading), taken_lock(writing), taken(free), 0))
    return queue


class MpQueue(Calls):
    """A thread of each process feeds what it sends, pickled."""

    name = "mp.Queue"
    connections = 1
    any_size = True

    def serve(self, wires: Sequence[Wire], work: str) -> None:
        context = get_context("spawn")
        requests = context.Queue()
        replies = [context.Queue() for _ in wires]
        for number, (wire, queue) in enumerate(zip(wires, replies, strict=True)):
            wire.send(str(number).encode())
            _hand_over(wire, requests)
            _hand_over(wire, queue)
        receive, answer_all = requests.get, [queue.put for queue in replies]
        answer, going = answers(work, len(wires))
        while going():
            number, request = receive()
            answer_all[number](answer(request))
        for queue in (*replies, requests):
            queue.close()
            queue.join_thread()
        for wire in wires:
            wire.receive()  # the semaphores have names as long as we have them

    def connect(self, wire: Wire, work: str) -> Caller:
        number = int(wire.receive()[0])
        requests, replies = _take(wire), _take(wire)
        send, receive = requests.put, replies.get

        def ask(request: bytes) -> bytes:
            send((number, request))
            answer: bytes = receive()
            return answer

        return caller_of(ask, work, lambda: wire.send(b"gone"))
