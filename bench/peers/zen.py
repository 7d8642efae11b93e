"""Zenoh: a queryable, two sessions linked without a router over loopback; nothing is searched for on the network."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Sequence

import zenoh

from ..wire import Wire
from .base import Caller, Calls
from .messages import answers, caller_of

__all__ = ["Zenoh"]

_KEY = "l4re/bench"


def _session(side: str, address: str) -> zenoh.Session:
    config = zenoh.Config()
    for key, value in (
        ("mode", "peer"),
        ("scouting/multicast/enabled", False),
        ("listen/endpoints", []),
        ("transport/shared_memory/enabled", False),  # slower with small messages, and it leaves files behind
        (f"{side}/endpoints", [address]),
    ):
        config.insert_json5(key, json.dumps(value))
    return zenoh.open(config)


def _free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as end:
        return f"tcp/127.0.0.1:{end.getsockname()[1]}"


class Zenoh(Calls):
    """A queryable that answers in its callback, a declared querier."""

    name = "zenoh"
    connections = 64
    any_size = True

    def serve(self, wires: Sequence[Wire], work: str) -> None:
        answer, going = answers(work, len(wires))
        gone = threading.Event()

        def reply(query: zenoh.Query) -> None:
            query.reply(_KEY, answer(bytes(query.payload)))
            if not going():
                gone.set()

        address = _free_address()
        with _session("listen", address) as session:
            queryable = session.declare_queryable(_KEY, reply)
            for wire in wires:
                wire.send(address.encode())
            gone.wait()
            for wire in wires:
                wire.receive()  # the last answer has arrived
            queryable.undeclare()

    def connect(self, wire: Wire, work: str) -> Caller:
        session = _session("connect", wire.receive()[0].decode())
        querier = session.declare_querier(_KEY)
        get = querier.get

        def ask(request: bytes) -> bytes:
            reply = get(payload=request).recv()
            return bytes(reply.ok.payload)

        while not querier.matching_status:
            pass  # the queryable is made known

        def close() -> None:
            querier.undeclare()
            session.close()
            wire.send(b"gone")

        return caller_of(ask, work, close)
