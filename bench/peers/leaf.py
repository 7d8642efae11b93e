"""The native leaf without the layers above it: what they add is the difference to `l4re`."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from struct import Struct
from typing import Any

from l4re._native import leaf

from ..wire import Wire
from .base import Caller, Calls

__all__ = ["Leaf"]

_TWO = Struct("=qq")
_ONE = Struct("=q")


class Leaf(Calls):
    """Sessions as the leaf offers them: no gates, objects or errors."""

    name = "l4re leaf"
    connections = 1000
    any_size = True

    def serve(self, wires: Sequence[Wire], work: str) -> None:
        loop = leaf.open_loop(-1)
        ports = []
        for wire in wires:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            wire.send(fds=[theirs.fileno()])
            theirs.close()
            ports.append((ours, loop.watch(ours.fileno(), ours)))
        left = len(ports)
        while left:
            event: Any = loop.next(-1)
            assert event is not None
            if len(event) == 6:
                _, session, label, words, data, _ = event
                if work == "add":
                    words = _ONE.pack(sum(_TWO.unpack(words)))
                session.reply(label, words, data, 0, None)
                continue
            port, session = event
            if session is not None:
                session.close()
                left -= 1
            elif (message := leaf.recv(port.fileno())) and message[0]:
                sock, memory = message[1]
                loop.accept(sock, memory, port)
                os.close(memory)
            else:  # the client closed its end: its session goes on
                next(source for end, source in ports if end is port).close()
        loop.close()

    def connect(self, wire: Wire, work: str) -> Caller:
        port = socket.socket(fileno=wire.receive()[1][0])
        session = leaf.open_session(port.fileno(), -1)
        assert session is not None
        port.close()
        call: Any = session.call

        def echo(data: bytes) -> Any:
            return call(0, b"", data, 0, None, -1, 0)

        def add(a: int, b: int) -> int:
            return int(_ONE.unpack(call(0, _TWO.pack(a, b), b"", 0, None, -1, 0)[1])[0])

        if work == "add":
            return Caller(add, lambda answer: answer, session.close)
        return Caller(echo, lambda answer: answer[2], session.close)
