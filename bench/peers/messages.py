"""What all peers share that send a message and wait for one: the echo, the sum, and how a client says goodbye."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import Struct
from tempfile import TemporaryDirectory

from .base import Caller

__all__ = ["Answer", "answers", "caller_of", "folder", "serve"]

#: What a server does with a request.
Answer = Callable[[bytes], bytes]

#: Of a length that no request has.
_GONE = b"gone"
_TWO = Struct("=qq")
_ONE = Struct("=q")


def answers(work: str, clients: int) -> tuple[Answer, Callable[[], bool]]:
    """Return what makes an answer of a request, and what says whether there is a client left."""
    left = clients

    def echo(request: bytes) -> bytes:
        nonlocal left
        if request == _GONE:
            left -= 1
        return request

    def add(request: bytes) -> bytes:
        if len(request) != _TWO.size:
            return echo(request)
        a, b = _TWO.unpack(request)
        return _ONE.pack(a + b)

    return echo if work == "echo" else add, lambda: left > 0


def serve(receive: Callable[[], bytes], send: Callable[[bytes], object], work: str, clients: int) -> None:
    """Answer whatever is received next, until all clients are gone."""
    answer, going = answers(work, clients)
    while going():
        send(answer(receive()))


def caller_of(ask: Answer, work: str, close: Callable[[], object]) -> Caller:
    """Make a caller of what sends a request and returns its answer."""

    def add(a: int, b: int) -> int:
        return int(_ONE.unpack(ask(_TWO.pack(a, b)))[0])

    def leave() -> None:
        ask(_GONE)
        close()

    return Caller(ask if work == "echo" else add, lambda answer: answer, leave)


@contextmanager
def folder() -> Iterator[Path]:
    """A folder for names; all that is left in it goes with it."""
    with TemporaryDirectory(prefix="l4re-bench-") as name:
        yield Path(name)
