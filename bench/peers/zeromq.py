"""ZeroMQ: REQ and REP over a Unix socket."""

from __future__ import annotations

from collections.abc import Sequence

import zmq

from ..wire import Wire
from .base import Caller, Calls
from .messages import caller_of, folder, serve

__all__ = ["ZeroMq"]


class ZeroMq(Calls):
    """REQ and REP over ipc://, one I/O thread in each process."""

    name = "zmq"
    any_size = True

    def serve(self, wires: Sequence[Wire], work: str) -> None:
        with folder() as names, zmq.Context() as context, context.socket(zmq.REP) as end:
            address = f"ipc://{names / 'calls'}"
            end.bind(address)
            for wire in wires:
                wire.send(address.encode())
            serve(end.recv, end.send, work, len(wires))

    def connect(self, wire: Wire, work: str) -> Caller:
        address = wire.receive()[0].decode()
        end = zmq.Context.instance().socket(zmq.REQ)
        end.connect(address)
        send, receive = end.send, end.recv

        def ask(request: bytes) -> bytes:
            send(request)
            return bytes(receive())

        return caller_of(ask, work, end.close)
