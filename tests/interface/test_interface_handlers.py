"""What a loop calls for a request does exactly what `serve_request` does in Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import l4re
from l4re.interface.served import Served

RESULTS = st.one_of(
    st.none(), st.integers(-40000, 40000), st.sampled_from((True, 1 << 80, -(1 << 80), 2.5, "text", l4re.Err.EPERM))
)
REQUEST = st.tuples(
    st.integers(0, 7), st.integers(-(1 << 63), (1 << 63) - 1), st.binary(max_size=504), st.binary(max_size=100)
)


class Scripted(l4re.ServerObject):
    """Does what it is told, and notes what it saw."""

    def __init__(self, act: Callable[[l4re.Iostream], Any], result: Any) -> None:
        self.act = act
        self.result = result
        self.seen: list[Any] = []

    def dispatch(self, rights: l4re.Rights, ios: l4re.Iostream) -> Any:
        self.seen.append((rights, ios.tag, ios.data, ios.caps, ios.get(l4re.U32), ios.get(bytes)))
        self.act(ios)
        return self.result


class Sums(l4re.Interface):
    protocol = 0x5AA5

    @l4re.rpc(rights=l4re.Rights.W)
    def add(self, a: l4re.S32, b: l4re.S32) -> l4re.S32: ...  # type: ignore[empty-body]

    @l4re.rpc
    def name(self, text: str) -> str: ...  # type: ignore[empty-body]


class Summer(Sums, l4re.Epiface):
    def add(self, a: int, b: int) -> int:
        return a + b

    def name(self, text: str) -> str:
        return text * 2


def outcome(function: Callable[..., Any], *args: Any) -> Any:
    """What a call returns, or what it raises."""
    try:
        return function(*args)
    except Exception as error:
        return type(error), str(error)


def both(make: Callable[[], Served], *request: Any) -> tuple[Any, Any]:
    one, other = make(), make()
    fast = one._l4_handler()
    assert fast.__name__ in ("raw_handler", "typed_handler")
    return (outcome(fast, *request), vars(one).get("seen")), (
        outcome(other.serve_request, *request),
        vars(other).get("seen"),
    )


@given(RESULTS, REQUEST, st.booleans(), st.binary(max_size=64))
def test_raw(result: Any, request: tuple[Any, ...], writes: bool, put: bytes) -> None:
    def act(ios: l4re.Iostream) -> None:
        if put:
            ios.put(put)
        if writes:
            _ = ios << 7 << "seven"

    fast, slow = both(lambda: Scripted(act, result), *request, ())
    assert fast == slow


@given(st.integers(0, 7), st.sampled_from((0x5AA5, 0x5AA6, 0)), st.integers(0, 3), st.binary(max_size=40))
def test_typed(rights: int, label: int, opcode: int, rest: bytes) -> None:
    words = opcode.to_bytes(4, "little") + rest
    server = Summer()
    fast = server._l4_handler()
    for _ in range(2):  # the second time the operation is known
        assert outcome(fast, rights, label, words, b"", ()) == outcome(
            server.serve_request, rights, label, words, b"", ()
        )


def test_operations_in_turns_are_not_mixed_up() -> None:
    server = Summer()
    fast: Any = server._l4_handler()
    add = b"\0\0\0\0" + (3).to_bytes(4, "little") + (4).to_bytes(4, "little")
    name = b"\1\0\0\0\0\0\0\0" + (3).to_bytes(8, "little") + b"ab\0"
    for _ in range(3):
        assert fast(7, 0x5AA5, add, b"", ())[1][:4] == (7).to_bytes(4, "little")
        assert b"abab" in fast(7, 0x5AA5, name, b"", ())[1]


def test_a_server_that_serves_requests_itself_is_asked() -> None:
    class Own(Scripted):
        def serve_request(self, *request: Any) -> Any:
            return 5, b"", b"own", ()

    server = Own(lambda ios: None, 0)
    assert server._l4_handler() == server.serve_request


@pytest.mark.parametrize("arguments", [(), (1, 2, 3), (1, "x", b"", b"", ()), ("r", 0, b"", b"", ())])
@pytest.mark.parametrize("server", [Scripted(lambda ios: None, 0), Summer()])
def test_wrong_arguments_are_an_error_and_no_crash(server: Served, arguments: tuple[Any, ...]) -> None:
    with pytest.raises((TypeError, l4re.L4Error)):
        server._l4_handler()(*arguments)
