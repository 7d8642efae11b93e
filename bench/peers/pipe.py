"""multiprocessing.Pipe: what the standard library offers first.

`send_bytes` of packed numbers rather than `send` of a tuple, and `epoll` rather than
`multiprocessing.connection.wait` for many clients: both are faster, so that is what we compare with.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Callable, Sequence
from multiprocessing import Pipe, reduction
from multiprocessing.connection import Connection
from struct import Struct

from ..wire import Wire
from .base import Caller, Calls, Frames, Grants, Publisher, Spawns, nothing

__all__ = ["MpPipe"]

_TWO = Struct("=qq")
_ONE = Struct("=q")
_SPAWNED = """import sys, time
from multiprocessing.connection import Connection
pipe = Connection(int(sys.argv[1]))
pipe.send_bytes(b"first")
answer = pipe.recv_bytes()
done = time.perf_counter_ns()
assert answer == b"first"
pipe.send_bytes(done.to_bytes(8, "little"))
"""


def offered(wire: Wire) -> Connection:
    """Make a pipe and return one end."""
    ours, theirs = Pipe()
    wire.send(fds=[theirs.fileno()])
    theirs.close()
    return ours


def accepted(wire: Wire) -> Connection:
    """Return the other end."""
    return Connection(wire.receive()[1][0])


class MpPipe(Calls, Grants, Frames, Spawns):
    """A duplex pipe (a stream socket pair) per client."""

    name = "mp.Pipe"
    connections = 1000
    any_size = True
    imports = "from multiprocessing.connection import Connection"

    def serve(self, wires: Sequence[Wire], work: str) -> None:
        connections = [offered(wire) for wire in wires]
        if len(connections) == 1:
            self._serve_one(connections[0], work)
            return
        by_fd = {connection.fileno(): connection for connection in connections}
        epoll = select.epoll()
        for fd in by_fd:
            epoll.register(fd, select.EPOLLIN)
        while by_fd:
            for fd, _ in epoll.poll():
                connection = by_fd[fd]
                try:
                    request = connection.recv_bytes()
                except EOFError:
                    del by_fd[fd]
                    connection.close()
                    continue
                connection.send_bytes(request if work == "echo" else _ONE.pack(sum(_TWO.unpack(request))))

    def _serve_one(self, connection: Connection, work: str) -> None:
        receive, send = connection.recv_bytes, connection.send_bytes
        try:
            if work == "echo":
                while True:
                    send(receive())
            while True:
                a, b = _TWO.unpack(receive())
                send(_ONE.pack(a + b))
        except EOFError:
            connection.close()

    def connect(self, wire: Wire, work: str) -> Caller:
        connection = accepted(wire)
        receive, send = connection.recv_bytes, connection.send_bytes

        def echo(data: bytes) -> bytes:
            send(data)
            return receive()

        def add(a: int, b: int) -> int:
            send(_TWO.pack(a, b))
            return int(_ONE.unpack(receive())[0])

        return Caller(echo if work == "echo" else add, lambda answer: answer, connection.close)

    def serve_grants(self, wire: Wire, what: str, count: int = 1) -> None:
        connection = offered(wire)
        memory = os.memfd_create("bench")
        client = int(wire.receive()[0])
        try:
            while True:
                wanted = connection.recv_bytes() == b"1"
                connection.send_bytes(b"answer")
                for _ in range(count if wanted else 0):
                    reduction.send_handle(connection, memory, client)
        except EOFError:
            connection.close()

    def connect_grants(self, wire: Wire, what: str, count: int = 1) -> Caller:
        connection = accepted(wire)
        wire.send(str(os.getpid()).encode())

        def call(granted: bool) -> list[int]:
            connection.send_bytes(b"1" if granted else b"0")
            connection.recv_bytes()
            return [reduction.recv_handle(connection) for _ in range(count)] if granted else []

        def check(answer: list[int]) -> int:
            for fd in answer:
                os.close(fd)
            return len(answer)

        return Caller(call, check, connection.close)

    def publish(self, wires: Sequence[Wire], size: int) -> Publisher:
        frame = memoryview(bytearray(size))
        connections = [offered(wire) for wire in wires]

        def announce() -> None:
            for connection in connections:
                connection.send_bytes(frame)

        return Publisher(frame, announce, nothing)

    def subscribe(self, wire: Wire, size: int) -> Callable[[Callable[[memoryview], None], Callable[[], bool]], None]:
        connection = accepted(wire)
        frame = memoryview(bytearray(size))

        def listen(handle: Callable[[memoryview], None], done: Callable[[], bool]) -> None:
            while not done():
                connection.recv_bytes_into(frame)
                handle(frame)

        return listen

    def spawner(self) -> Callable[[], int]:
        def spawn() -> int:
            ours, theirs = Pipe()
            end = theirs.fileno()
            program = subprocess.Popen([sys.executable, "-c", _SPAWNED, str(end)], pass_fds=[end])
            theirs.close()
            with ours, program:
                ours.send_bytes(ours.recv_bytes())
                return int.from_bytes(ours.recv_bytes(), "little")

        return spawn
