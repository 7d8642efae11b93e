"""iceoryx2: request and response in loaned memory, with an event each way to wake up, or looking without end.

Under names of the bench alone. What the library keeps for all its nodes stays: a file in /dev/shm, a folder in /tmp.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any

import iceoryx2 as iox2

from ..wire import Wire
from .base import ANSWER_SIZE, Caller, Calls
from .messages import answers, caller_of

__all__ = ["Iceoryx", "IceoryxBusy"]

_CLIENTS = 64
_HEAD = Struct("=ii")


class _Message(ctypes.Structure):
    _fields_ = (("client", ctypes.c_int32), ("length", ctypes.c_int32), ("data", ctypes.c_uint8 * ANSWER_SIZE))


_SIZE = ctypes.sizeof(_Message)


def _packed(data: bytes, client: int) -> _Message:
    return _Message.from_buffer_copy((_HEAD.pack(client, len(data)) + data).ljust(_SIZE, b"\0"))


def _bytes(message: _Message) -> bytes:
    return ctypes.string_at(ctypes.addressof(message) + _HEAD.size, message.length)


class _Names:
    """A node, and the services of one run."""

    def __init__(self, root: str) -> None:
        iox2.set_log_level(iox2.LogLevel.Error)
        config = iox2.config.default()
        config.global_cfg.root_path = iox2.Path.new("/tmp/l4re-bench-iceoryx2/")
        config.global_cfg.prefix = iox2.FileName.new("l4re-bench-iceoryx2-")
        self._node = iox2.NodeBuilder.new().config(config).create(iox2.ServiceType.Ipc)
        self._root = root

    def _service(self, name: str) -> Any:
        return self._node.service_builder(iox2.ServiceName.new(f"{self._root} {name}"))

    def calls(self) -> Any:
        builder = self._service("calls").request_response(_Message, _Message)
        return builder.max_clients(_CLIENTS).max_nodes(_CLIENTS).open_or_create()

    def event(self, name: str) -> Any:
        builder = self._service(name).event()
        return builder.max_notifiers(_CLIENTS).max_nodes(_CLIENTS).open_or_create()


class Iceoryx(Calls):
    """Blocking: one event for all requests, one for each client's answers."""

    name = "iceoryx2"
    connections = 1

    def serve(self, wires: Sequence[Wire], work: str) -> None:
        root = f"{os.getpid()}-{time.monotonic_ns()}"  # its services are nobody else's
        names = _Names(root)
        server = names.calls().server_builder().create()
        asked = names.event("asked").listener_builder().create()
        notifiers = [names.event(f"answered {number}").notifier_builder().create() for number in range(len(wires))]
        wakes = [notifier.notify for notifier in notifiers]
        for number, wire in enumerate(wires):
            wire.send(f"{root} {number}".encode())
        for wire in wires:
            wire.receive()
        receive = server.receive
        answer, going = answers(work, len(wires))
        while going():
            self._wait(asked)
            while (request := receive()) is not None:
                message = request.payload().contents
                number, reply = message.client, answer(_bytes(message))
                request.loan_uninit().write_payload(_packed(reply, number)).send()
                request.delete()
                self._wake(wakes[number])
        for wire in wires:
            wire.receive()  # what was sent to it lasts until it says that it has got it

    def connect(self, wire: Wire, work: str) -> Caller:
        root, number = wire.receive()[0].decode().split()
        client = int(number)
        names = _Names(root)
        port = names.calls().client_builder().create()
        answered = names.event(f"answered {client}").listener_builder().create()
        notifier = names.event("asked").notifier_builder().create()
        wake, loan, wait = notifier.notify, port.loan_uninit, self._wait
        wire.send(b"ready")

        def ask(request: bytes) -> bytes:
            pending = loan().write_payload(_packed(request, client)).send()
            self._wake(wake)
            while (response := pending.receive()) is None:
                wait(answered)
            answer = _bytes(response.payload().contents)
            response.delete()
            pending.delete()
            return answer

        def close() -> None:
            for end in (port, answered, notifier):
                end.delete()
            wire.send(b"gone")

        return caller_of(ask, work, close)

    def _wait(self, listener: Any) -> None:
        listener.blocking_wait()

    def _wake(self, notify: Callable[[], object]) -> None:
        notify()


class IceoryxBusy(Iceoryx):
    """Looking without end, on both sides; no events."""

    name = "iceoryx2 busy"
    busy = True

    def _wait(self, listener: Any) -> None:
        """Look again."""

    def _wake(self, notify: Callable[[], object]) -> None:
        """They look."""
