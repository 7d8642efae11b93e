"""What a server fails with is what its caller gets: the code unchanged, raw and typed, between real processes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from l4re import (
    Epiface,
    Err,
    Interface,
    Iostream,
    IpcErr,
    L4Error,
    NotFound,
    Opcode,
    PermissionDenied,
    RegistryServer,
    Rights,
    ServerError,
    ServerObject,
    errtostr,
    rpc,
)
from l4re.errors import error_from_code
from support.processes import Child, Link, Running, processes

pytestmark = pytest.mark.processes

KNOWN = [code for code in Err if code not in (Err.EOK, Err.ENOREPLY)]
IPC = [code.code for code in IpcErr]
UNKNOWN = [3, 98, 101, 999, 1006, 1999, 2001, 2030, 2032, 4711, 32767, 32768]
CODES = [int(code) for code in (*KNOWN, *IPC, *UNKNOWN)]


class Failing(Interface):
    protocol = 0x7201

    @rpc
    def fail(self, code: int) -> int:
        """Fail with this code, if it is one."""
        raise NotImplementedError


class Typed(Failing, Epiface):
    def fail(self, code: int) -> int:
        if code:
            raise error_from_code(code, f"because {code}")
        return 1


class Raw(ServerObject):
    def dispatch(self, rights: Rights, ios: Iostream) -> int:
        ios.opcode()
        code = ios.get(int)
        ios << 1
        return -code


class Broken(L4Error):
    """A mistake that is easily made."""

    def __init__(self) -> None:
        pass


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("even this")


class Mistaken(ServerObject):
    """Fails in every way that nobody expects."""

    def dispatch(self, rights: Rights, ios: Iostream) -> int | None:
        match ios.tag.label:
            case 1:
                raise ZeroDivisionError("a fine mess")
            case 2:
                raise Broken
            case 3:
                raise Mute
            case 4:
                raise L4Error("it says success", code=0)
            case 5:
                raise L4Error("it says too much", code=70_000)
            case 6:
                return -70_000
            case 7:
                return "seven"  # type: ignore[return-value]
            case 8:
                raise L4Error("x" * 100_000, code=16)
        return 0


@pytest.fixture
def start() -> Iterator[Callable[..., Child]]:
    with processes() as fork:
        yield fork


def serve(link: Link) -> None:
    with RegistryServer() as server:
        link.give(*(server.registry.register_obj(each) for each in (Typed(), Raw())))
        server.loop()


def typed_call(gate: Any, code: int) -> int:
    return Failing(gate).fail(code)


def raw_call(gate: Any, code: int) -> int:
    ios = Iostream()
    ios.write(0, Opcode).write(code, int)
    ios.call(gate, Failing.protocol)
    return ios.get(int)


def code_of(call: Callable[[Any, int], int], gate: Any, code: int) -> L4Error:
    with pytest.raises(L4Error) as caught:
        call(gate, code)
    return caught.value


@pytest.mark.parametrize("call", [typed_call, raw_call])
@pytest.mark.parametrize("server", [0, 1], ids=["typed server", "raw server"])
def test_every_code_reaches_the_caller_unchanged(
    start: Callable[..., Child], call: Callable[[Any, int], int], server: int
) -> None:
    child = start(serve)
    gates = child.take()
    for code in CODES:
        error = code_of(call, gates[server], code)
        assert (int(error.code), type(error)) == (code, type(error_from_code(code)))
        assert error.text == (f"because {code}" if server == 0 else error_from_code(code).text)
        assert call(gates[server], 0) == 1
    for gate in gates:
        gate.close()
    child.end()


@pytest.mark.parametrize("call", [typed_call, raw_call])
def test_every_code_reaches_a_caller_the_other_way_round(
    start: Callable[..., Child], call: Callable[[Any, int], int]
) -> None:
    def client(link: Link) -> None:
        gates = link.take()
        for gate in gates:
            link.say(" ".join(str(int(code_of(call, gate, code).code)) for code in CODES))
            gate.close()

    child = start(client)
    with RegistryServer() as server:
        child.give(*(server.registry.register_obj(each) for each in (Typed(), Raw())))
        with Running(server):
            for _ in range(2):
                assert child.hear() == " ".join(map(str, CODES))
    child.end()


def test_every_code_reaches_a_caller_of_the_same_thread() -> None:
    with RegistryServer() as server:
        for each in (Typed(), Raw()):
            gate = server.registry.register_obj(each)
            for call in (typed_call, raw_call):
                assert [int(code_of(call, gate, code).code) for code in CODES] == CODES


def test_the_text_of_a_raw_error_is_upstreams() -> None:
    with RegistryServer() as server:
        gate = server.registry.register_obj(Raw())
        for code in CODES:
            text = errtostr(-code)
            if text not in (None, errtostr(1)):  # a hole, or out of all ranges
                assert code_of(raw_call, gate, code).text == text


def test_an_unexpected_exception_is_a_clear_error_and_the_server_goes_on(start: Callable[..., Child]) -> None:
    def mistaken(link: Link) -> None:
        class Telling(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                link.say(logging.Formatter().format(record))

        logging.getLogger("l4re").addHandler(Telling())
        logging.getLogger("l4re").propagate = False
        with RegistryServer() as server:
            link.give(server.registry.register_obj(Mistaken()))
            server.loop()

    def error(label: int) -> L4Error:
        with pytest.raises(L4Error) as caught:
            gate.call(label=label)
        assert gate.call().label == 0  # still there
        return caught.value

    child = start(mistaken)
    (gate,) = child.take()
    with gate:
        for label, name, text in (
            (1, "ZeroDivisionError", "a fine mess"),
            (2, "Broken", "its text cannot be had"),
            (3, "Mute", "its text cannot be had"),
            (7, "TypeError", "must return an int"),
        ):
            said = error(label)
            assert type(said) is ServerError
            assert said.code == Err.EIO
            assert said.text.startswith(f"Mistaken raised {name}: ")
            assert text in said.text
            logged = child.hear()
            assert "Mistaken: a handler raised an exception" in logged
            assert "Traceback" in logged
            assert name in logged
        for label, text in ((4, "it says success"), (5, "it says too much"), (6, "returned -70000")):
            said = error(label)
            assert (said.code, text in said.text) == (Err.EMSGERRRANGE, True)
        said = error(8)
        assert said.code == Err.EBUSY
        assert set(said.text) == {"x"}
    child.end()


def test_facts_of_an_error_stay_with_the_server_and_its_class_and_text_travel() -> None:
    class Missing(Typed):
        def fail(self, code: int) -> int:
            raise NotFound(name="a", names=["b"]) if code else PermissionDenied(wanted=Rights.W, held=Rights.R)

    with RegistryServer() as server:
        proxy = Failing(server.registry.register_obj(Missing()))
        with pytest.raises(NotFound, match="there is no 'a' here; there is 'b'") as missing:
            proxy.fail(1)
        assert missing.value.missing is None
        with pytest.raises(PermissionError, match="needs the right 'w'"):
            proxy.fail(0)
