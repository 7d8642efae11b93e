"""An allocator behind a gate, seen by its client: what it asks for, and what it believes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from l4re import (
    Dataspace,
    Err,
    InvalidArgument,
    L4Error,
    MemAlloc,
    NotSupported,
    OutOfMemory,
    OutOfRange,
    PeerGone,
    PermissionDenied,
    Proto,
    RegistryServer,
    Rights,
    ServerError,
)
from l4re.dataspace import ToOwner
from l4re.linux.memfd import PAGE_SIZE as PAGE
from l4re.services import FactoryServer
from l4re.services.mem_alloc import RemoteMemAlloc
from support.processes import Echo, Running

F = MemAlloc.F


@contextmanager
def allocator(answer: Callable[..., Any]) -> Iterator[RemoteMemAlloc]:
    """An allocator that answers each request with what ``answer(words)`` returns."""

    class Server(Echo):
        def serve_request(self, rights: int, label: int, words: bytes, *rest: Any) -> Any:
            return answer(words)

    with RegistryServer() as server, Running(server), server.registry.register_obj(Server()).mint() as gate:
        yield RemoteMemAlloc(gate)


def owned(size: int) -> Any:
    return 0, b"", b"", (ToOwner(MemAlloc().alloc(size)),)


def test_what_it_makes_is_as_the_local_one_would_make_it() -> None:
    with allocator(lambda words: owned(5000)) as mem, mem.alloc(5000, align=16, name="mine") as ds:
        assert (ds.size, ds.name, ds.rights) == (5000, "mine", Rights.RW)
        assert ds.read(0, 5000) == bytes(5000)
        with ds.ro as reader:
            assert reader.rights == Rights.R
        ds.freeze()


@pytest.mark.parametrize(
    ("size", "options", "error"),
    [
        (0, {}, OutOfRange),
        (-1, {}, OutOfRange),
        (PAGE, {"align": 64}, InvalidArgument),
        (PAGE, {"flags": 1 << 20}, InvalidArgument),
        (PAGE, {"flags": F.FIXED_PADDR}, NotSupported),
        (1.5, {}, TypeError),
    ],
)
def test_what_makes_no_sense_is_refused_before_anybody_is_asked(
    size: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    asked: list[bytes] = []
    with allocator(asked.append) as mem, pytest.raises(error):
        mem.alloc(size, **options)
    assert asked == []


@pytest.mark.parametrize(
    "answer",
    [
        lambda words: (0, b"", b"", ()),
        lambda words: (0, b"", b"", (None,)),
        lambda words: owned(PAGE - 1),
        lambda words: owned(2 * PAGE),
        lambda words: (0, b"", b"", (*owned(PAGE)[3], *owned(PAGE)[3])),
        lambda words: (0, b"", b"", (MemAlloc().alloc(PAGE).ro,)),
    ],
)
def test_an_allocator_that_lies_is_not_believed_and_nothing_of_it_is_kept(answer: Callable[..., Any]) -> None:
    with allocator(answer) as mem, pytest.raises(L4Error) as caught:
        mem.alloc(PAGE)
    assert isinstance(caught.value, ServerError)


def test_memory_whose_seals_are_sealed_is_memory_all_the_same() -> None:
    def sealed(words: bytes) -> Any:
        return 0, b"", b"", (MemAlloc().alloc(PAGE),)  # handed on, not over: it seals the seals

    with allocator(sealed) as mem, mem.alloc(PAGE) as ds:
        ds.write(0, b"usable")
        with pytest.raises(PermissionDenied):
            ds.freeze()


def test_its_errors_reach_the_caller_as_they_are() -> None:
    with allocator(lambda words: (-Err.ENOMEM, b"", b"not today", ())) as mem:
        with pytest.raises(OutOfMemory, match="not today"):
            mem.alloc(PAGE)
        with pytest.raises(OutOfMemory, match="not today"):
            mem.create(Proto.DATASPACE, PAGE)


def test_it_makes_memory_and_nothing_else() -> None:
    with allocator(lambda words: owned(PAGE)) as mem:
        with pytest.raises(NotSupported):
            mem.create(Proto.NAMESPACE)
        made = mem.create(Proto.DATASPACE, PAGE)
        assert isinstance(made, Dataspace)
        made.close()


def test_an_allocator_that_is_gone_is_an_error_and_memory_stays() -> None:
    with RegistryServer() as server:
        gate = server.registry.register_obj(FactoryServer()).mint()
        with Running(server):
            made = RemoteMemAlloc(gate).create(Proto.DATASPACE, PAGE)
    with gate, pytest.raises(PeerGone):
        RemoteMemAlloc(gate).alloc(PAGE)
    with made as ds:
        ds.write(0, b"mine")


def test_an_ordinary_factory_that_makes_memory_will_do() -> None:
    with RegistryServer() as server, Running(server):
        gate = server.registry.register_obj(FactoryServer())
        mem = RemoteMemAlloc(gate)
        with mem.create(Proto.DATASPACE, PAGE) as made, mem.alloc(PAGE, name="mine") as named:
            assert made.size == PAGE
            assert named.name == "mine"
