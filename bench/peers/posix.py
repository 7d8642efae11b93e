"""POSIX message queues, by posix_ipc: one each way for each client."""

from __future__ import annotations

import os
import select
from collections.abc import Sequence
from itertools import count

from posix_ipc import O_CREX, MessageQueue

from ..wire import Wire
from .base import ANSWER_SIZE, Caller, Calls
from .messages import answers, caller_of, serve

__all__ = ["PosixQueue"]

_NUMBERS = count()


def _offered(wire: Wire) -> tuple[MessageQueue, MessageQueue]:
    """Make both queues; their names are gone when the client has them."""
    names = [f"/l4re-bench-{os.getpid()}-{next(_NUMBERS)}" for _ in range(2)]
    queues = [MessageQueue(name, O_CREX, max_messages=1, max_message_size=ANSWER_SIZE) for name in names]
    wire.send(" ".join(names).encode())
    try:
        wire.receive()
    finally:
        for queue in queues:
            queue.unlink()
    return queues[0], queues[1]


class PosixQueue(Calls):
    """A queue each way; `epoll` where there are several clients."""

    name = "posix_ipc"
    connections = 64  # a system has 256 queues, if nobody allowed it more

    def serve(self, wires: Sequence[Wire], work: str) -> None:
        queues = [_offered(wire) for wire in wires]
        if len(queues) == 1:
            ((requests, replies),) = queues
            receive = requests.receive
            serve(lambda: bytes(receive()[0]), replies.send, work, 1)
        else:
            answer, going = answers(work, len(queues))
            ends = {requests.mqd: (requests.receive, replies.send) for requests, replies in queues}
            with select.epoll() as epoll:
                for fd in ends:
                    epoll.register(fd, select.EPOLLIN)
                while going():
                    for fd, _ in epoll.poll():
                        receive, send = ends[fd]
                        send(answer(receive()[0]))
        for pair in queues:
            for queue in pair:
                queue.close()

    def connect(self, wire: Wire, work: str) -> Caller:
        requests, replies = (MessageQueue(name) for name in wire.receive()[0].decode().split())
        wire.send(b"mine")
        send, receive = requests.send, replies.receive

        def ask(request: bytes) -> bytes:
            send(request)
            return bytes(receive()[0])

        def close() -> None:
            requests.close()
            replies.close()

        return caller_of(ask, work, close)
