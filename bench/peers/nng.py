"""nng: Req0 and Rep0 over a Unix socket."""

from __future__ import annotations

from collections.abc import Sequence

from pynng import Rep0, Req0

from ..wire import Wire
from .base import Caller, Calls
from .messages import caller_of, folder, serve

__all__ = ["Nng"]


class Nng(Calls):
    """Req0 and Rep0 over ipc://."""

    name = "pynng"
    any_size = True

    def serve(self, wires: Sequence[Wire], work: str) -> None:
        with folder() as names, Rep0(listen=f"ipc://{names / 'calls'}") as end:
            for wire in wires:
                wire.send(str(names / "calls").encode())
            serve(end.recv, end.send, work, len(wires))
            for wire in wires:
                wire.receive()  # the last answer has arrived: closing does not wait for that

    def connect(self, wire: Wire, work: str) -> Caller:
        end = Req0(dial=f"ipc://{wire.receive()[0].decode()}", block_on_dial=True)
        send, receive = end.send, end.recv

        def ask(request: bytes) -> bytes:
            send(request)
            answer: bytes = receive()
            return answer

        def close() -> None:
            end.close()
            wire.send(b"gone")

        return caller_of(ask, work, close)
