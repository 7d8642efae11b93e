"""SharedMemory and semaphores: what one writes by hand with the standard library."""

from __future__ import annotations

import json
from collections.abc import Sequence
from multiprocessing.shared_memory import SharedMemory

from ..wire import Wire
from .base import ANSWER_SIZE, Caller, Calls
from .memory import attached
from .messages import answers, caller_of
from .semaphores import made, said, taken

__all__ = ["SharedSemaphore"]

#: Of each client: a byte that says how long the message is, and the message; the same for the answer.
_SLOT = 256
_ANSWER = 128


class SharedSemaphore(Calls):
    """A block for each client, a semaphore for all requests and one for each client's answers."""

    name = "SharedMemory+semaphore"

    def serve(self, wires: Sequence[Wire], work: str) -> None:
        memory = SharedMemory(create=True, size=_SLOT * len(wires))
        asked, answered = made(), [made() for _ in wires]
        for number, wire in enumerate(wires):
            wire.send(json.dumps([memory.name, number, said(asked), said(answered[number])]).encode())
        page, wait, wakes = memory.buf, asked.acquire, [semaphore.release for semaphore in answered]
        answer, going = answers(work, len(wires))
        number, last = 0, len(wires)
        while going():
            wait()
            while not page[number * _SLOT]:  # somebody has asked: go round, so that all have their turn
                number = (number + 1) % last
            at = number * _SLOT
            reply = answer(bytes(page[at + 1 : at + 1 + page[at]]))
            page[at] = 0
            end = at + _ANSWER
            page[end] = len(reply)
            page[end + 1 : end + 1 + len(reply)] = reply
            wakes[number]()
            number = (number + 1) % last
        for wire in wires:
            wire.receive()  # the semaphores have names as long as we have them
        page.release()
        memory.close()
        memory.unlink()

    def connect(self, wire: Wire, work: str) -> Caller:
        name, number, asking, answering = json.loads(wire.receive()[0])
        memory = attached(name)
        page = memory.buf[number * _SLOT : number * _SLOT + _SLOT]
        wake, wait = taken(asking).release, taken(answering).acquire

        def ask(request: bytes) -> bytes:
            page[1 : 1 + len(request)] = request
            page[0] = len(request)
            wake()
            wait()
            return bytes(page[_ANSWER + 1 : _ANSWER + 1 + page[_ANSWER]])

        def close() -> None:
            page.release()
            memory.close()
            wire.send(b"gone")

        return caller_of(ask, work, close)


assert ANSWER_SIZE < _ANSWER
