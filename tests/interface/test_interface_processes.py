"""Typed calls between two processes: capabilities inside values, stated rights, numpy arrays, several protocols."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import l4re
from l4re import Dataspace, Irq, Rights
from l4re.dataspace import Dataspace as Memory
from l4re.testing import wait_until
from support.processes import PATIENCE, Child, Link, Running, descriptors, processes

pytest.importorskip("numpy")
import numpy as np
import numpy.typing as npt

pytestmark = pytest.mark.processes

Floats = npt.NDArray[np.float32]
Table: TypeAlias = np.ndarray[tuple[int, int], np.dtype[np.int16]]


@dataclass
class Part:
    name: str
    memory: Dataspace
    more: list[Dataspace | None]


@dataclass
class Whole:
    parts: list[Part]
    wake: Irq | None
    pair: tuple[l4re.U8, Dataspace]


class Counter(l4re.Interface):
    protocol = 0x101

    @l4re.rpc
    def count(self) -> int:
        raise NotImplementedError

    @l4re.rpc(rights="w")
    def add(self, number: int) -> None:
        raise NotImplementedError


class Values(l4re.Interface):
    protocol = 0x100

    @l4re.rpc
    def whole(self, value: Whole) -> Whole:
        raise NotImplementedError

    @l4re.rpc
    def memories(self, memories: list[Dataspace]) -> list[Dataspace]:
        raise NotImplementedError

    @l4re.rpc
    def read_only(self, memory: Annotated[Dataspace, Rights.R]) -> str:
        """Return the rights that arrived."""
        raise NotImplementedError

    @l4re.rpc
    def writable(self, memory: Annotated[Dataspace | None, Rights.RW]) -> str:
        raise NotImplementedError

    @l4re.rpc
    def lend(self, stated: bool) -> Annotated[Dataspace, Rights.RW]:
        """Return memory, or break the promise."""
        raise NotImplementedError

    @l4re.rpc
    def weak(self, counter: Annotated[Counter, Rights.R]) -> str:
        """Return what `Counter.add` says when it is called through what arrived."""
        raise NotImplementedError

    @l4re.rpc
    def scale(self, values: Floats, factor: float) -> tuple[Floats, bool]:
        """Return the product, and whether what arrived can be written."""
        raise NotImplementedError

    @l4re.rpc
    def transpose(self, table: Table) -> Table:
        raise NotImplementedError

    @l4re.rpc
    def same(self, arrays: list[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        raise NotImplementedError

    @l4re.rpc
    def maybe(self, values: Floats | None) -> Floats | None:
        raise NotImplementedError

    @l4re.rpc(oneway=True)
    def note(self, points: list[tuple[int, int]]) -> None:
        raise NotImplementedError

    @l4re.rpc
    def noted(self) -> list[tuple[int, int]]:
        raise NotImplementedError


class Both(Values, Counter):
    protocol = 0x102

    @l4re.rpc
    def name(self) -> str:
        raise NotImplementedError


class Server(Both, l4re.Epiface):
    def __init__(self) -> None:
        self.points: list[tuple[int, int]] = []
        self.number = 0

    def whole(self, value: Whole) -> Whole:
        for part in value.parts:
            part.memory.write(0, part.name.encode())
        if value.wake is not None:
            value.wake.trigger()
        return value

    def memories(self, memories: list[Dataspace]) -> list[Dataspace]:
        return memories[::-1]

    def read_only(self, memory: Dataspace) -> str:
        return memory.rights.letters()

    def writable(self, memory: Dataspace | None) -> str:
        if memory is None:
            return "-"
        memory.write(0, b"written")
        return memory.rights.letters()

    def lend(self, stated: bool) -> Dataspace:
        memory = l4re.env().mem_alloc.alloc(10)
        return memory if stated else memory.ro

    def weak(self, counter: Counter) -> str:
        try:
            counter.add(1)
        except l4re.PermissionDenied as error:
            return str(error)
        return "done"

    def scale(self, values: Floats, factor: float) -> tuple[Floats, bool]:
        return values * np.float32(factor), bool(values.flags.writeable)

    def transpose(self, table: Table) -> Table:
        return table.T

    def same(self, arrays: list[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        return arrays

    def maybe(self, values: Floats | None) -> Floats | None:
        return values

    def note(self, points: list[tuple[int, int]]) -> None:
        self.points += points

    def noted(self) -> list[tuple[int, int]]:
        return self.points

    def count(self) -> int:
        return self.number

    def add(self, number: int) -> None:
        self.number += number

    def name(self) -> str:
        return "both"


def serve(link: Link) -> None:
    (svr,) = link.take()
    with l4re.RegistryServer() as server:
        server.registry.register_obj(Server(), svr)
        server.loop()


@pytest.fixture
def child() -> Iterator[Child]:
    with processes() as start:
        yield start(serve)


@pytest.fixture
def both(child: Child) -> Iterator[Both]:
    channel = l4re.new_channel()
    child.give(channel.svr)
    with Both(channel.gate) as proxy:
        yield proxy


def alloc(size: int = 16, **options: Any) -> Memory:
    return l4re.env().mem_alloc.alloc(size, **options)


# ---- capabilities ----


def test_capabilities_travel_in_lists_and_dataclasses(both: Both) -> None:
    memories = [alloc() for _ in range(4)]
    wake = l4re.env().factory.create_irq()
    parts = [Part("first", memories[0], [memories[1], None, memories[2].ro]), Part("second", memories[1], [])]
    value = Whole(parts, wake, (200, memories[3]))
    back = both.whole(value)
    wake.receive(timeout=10)
    assert memories[0].read(0, 5) == b"first"
    assert memories[1].read(0, 6) == b"second"
    assert back.parts == value.parts  # the same memory
    assert [each and each.rights.letters() for each in back.parts[0].more] == ["rw", None, "r"]
    assert back.pair == (200, memories[3])
    assert back.wake is not None
    back.wake.trigger()
    wake.receive(timeout=10)
    assert both.whole(Whole([], None, (0, memories[0]))) == Whole([], None, (0, memories[0]))
    wake.close()


def test_sixteen_capabilities_travel_and_seventeen_are_refused_before_anything_is_sent(both: Both) -> None:
    memories = [alloc() for _ in range(16)]
    assert both.memories(memories) == memories[::-1]
    with pytest.raises(l4re.MessageTooLong) as caught:
        both.memories([*memories, memories[0]])
    assert str(caught.value) == "Values.memories: 17 capabilities, and a message takes at most 16"
    assert (caught.value.size, caught.value.limit) == (17, 16)
    assert both.memories([]) == []


def test_what_is_handed_over_carries_the_stated_rights_at_most(both: Both) -> None:
    memory = alloc()
    assert memory.rights == Rights.RW
    assert both.read_only(memory) == "r"
    assert both.writable(memory) == "rw"
    assert memory.read(0, 7) == b"written"
    assert both.writable(None) == "-"


def test_a_capability_without_the_stated_rights_is_refused_before_anything_is_sent(both: Both) -> None:
    with pytest.raises(l4re.PermissionDenied) as caught:
        both.writable(alloc(name="mine").ro)
    assert "Values.writable: argument 'memory' must carry the rights 'rw', and <Dataspace 'mine'" in str(caught.value)
    assert (caught.value.wanted, caught.value.held) == (Rights.RW, Rights.R)
    assert not getattr(caught.value, "__notes__", None)  # nobody answered that


def test_a_server_that_gets_less_than_its_interface_states_says_so(both: Both) -> None:
    number = next(n for n, name in enumerate(vars(Values)["_l4_specs"]) if name == "writable")
    gate: Any = both.cap
    label, _, text, _ = gate.transact(Values.protocol, struct.pack("=i4x", number), b"", (alloc().ro,))
    assert label == -l4re.Err.EPERM
    assert b"Values.writable: argument 'memory' must carry the rights 'rw', and <Dataspace" in text
    assert text.endswith(b"carries 'r'")
    assert both.writable(alloc()) == "rw"  # and it serves on


class OldValues(l4re.Interface):
    """As the server sees itself before it stated rights."""

    protocol = 0x100

    @l4re.rpc(opcode=4)
    def lend(self, stated: bool) -> Dataspace:
        raise NotImplementedError


class OldServer(OldValues, l4re.Epiface):
    def lend(self, stated: bool) -> Dataspace:
        return alloc().ro


def serve_old(link: Link) -> None:
    (svr,) = link.take()
    with l4re.RegistryServer() as server:
        server.registry.register_obj(OldServer(), svr)
        server.loop()


def test_a_client_that_gets_less_than_its_interface_states_says_so() -> None:
    with processes() as start:
        channel = l4re.new_channel()
        child = start(serve_old)
        child.give(channel.svr)
        with Values(channel.gate) as values, pytest.raises(l4re.PermissionDenied) as caught:
            values.lend(True)
        assert "Values.lend: result must carry the rights 'rw'" in str(caught.value)


def test_a_server_that_breaks_its_own_promise_is_at_fault(both: Both) -> None:
    assert both.lend(True).rights == Rights.RW
    with pytest.raises(l4re.ServerError, match=r"Server\.lend must keep to its interface.*must carry the rights 'rw'"):
        both.lend(False)


class LocalCounter(Counter, l4re.Epiface):
    number = 0

    def count(self) -> int:
        return self.number

    def add(self, number: int) -> None:
        self.number += number


def test_a_gate_with_stated_rights_is_weaker_at_its_receiver(both: Both) -> None:
    with l4re.RegistryServer() as server:
        counter = LocalCounter()
        server.registry.register_obj(counter)
        with Running(server):
            assert "Counter.add needs the right 'w', the capability carries 'r'" in both.weak(counter)
    assert counter.number == 0


# ---- arrays ----


@pytest.mark.parametrize("shape", [(), (3,), (0,), (2, 0, 3), (4, 5), (15000,), (100, 200, 3)])
def test_arrays_travel_in_any_shape_and_are_read_only_at_the_receiver(both: Both, shape: tuple[int, ...]) -> None:
    values = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    product, writable = both.scale(values, 2)
    assert product.dtype == np.float32
    assert product.shape == shape
    assert np.array_equal(product, values * 2)
    assert not writable
    assert not product.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        product[...] = 0


def test_an_array_beside_the_message_is_gone_with_its_last_view(child: Child, both: Both) -> None:
    values = np.ones(100_000, np.float32)
    both.scale(values[:1], 2)  # small ones need no descriptors, but a session
    before = descriptors(child.pid)
    for _ in range(20):
        product, _ = both.scale(values, 2)
    wait_until(lambda: descriptors(child.pid) == before, PATIENCE)  # it lends the last one until we have it
    slice_ = product[::1000]
    del product
    assert slice_.sum() == 200


def test_an_array_need_not_be_contiguous_nor_in_this_byte_order(both: Both) -> None:
    values = np.arange(200_000, dtype=">f4").reshape(400, 500)[::2, ::-3]
    product, _ = both.scale(values, 1)
    assert np.array_equal(product, values)
    table = np.arange(60_000, dtype=np.int16).reshape(2, 30_000)
    assert np.array_equal(both.transpose(table), table.T)


def test_of_many_arrays_the_largest_travel_beside_the_message(both: Both) -> None:
    arrays = [np.full(size, n, np.uint8) for n, size in enumerate((10_000, 40_000, 30_000, 5, 20_000, 70_000))]
    back = both.same(arrays)
    assert all(np.array_equal(one, other) for one, other in zip(arrays, back, strict=True))
    inside = [isinstance(each.base, bytes) for each in back]
    assert inside == [True, False, True, True, True, False]


def test_arrays_of_an_unstated_type_keep_theirs(both: Both) -> None:
    for code in "?bhilBHILefdFD":
        (back,) = both.same([np.ones((2, 3), code)])
        assert back.dtype == np.dtype(code)
        assert np.array_equal(back, np.ones((2, 3), code))


def test_too_many_arrays_beside_the_message_are_refused(both: Both) -> None:
    with pytest.raises(l4re.MessageTooLong, match="17 capabilities, and a message takes at most 16"):
        both.same([np.zeros(70_000, np.uint8)] * 17)


def test_an_array_may_be_none(both: Both) -> None:
    assert both.maybe(None) is None
    back = both.maybe(np.ones(3, np.float32))
    assert back is not None
    assert back.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda v: v.scale([1.0], 1), "argument 'values' must be array of float32, not [1.0] (list)"),
        (
            lambda v: v.scale(np.zeros(3), 1),
            "argument 'values' must be array of float32, not one of float64 with 1 dim",
        ),
        (lambda v: v.scale(np.ma.zeros(3, "f4"), 1), "must be array of float32, not masked_array"),
        (
            lambda v: v.transpose(np.zeros(3, np.int16)),
            "must be array of int16 with 2 dimensions, not one of int16 with 1",
        ),
        (lambda v: v.same([np.zeros(3, object)]), "element 0 must be array (of bool, complex128"),
        (lambda v: v.same([np.zeros(3, "M8[s]")]), "not one of datetime64[s] with 1 dimensions"),
        (lambda v: v.same([np.zeros(3, np.longdouble)]), "float64, int16"),
    ],
)
def test_an_array_of_another_type_is_refused_before_anything_is_sent(
    both: Both, call: Callable[[Any], object], words: str
) -> None:
    with pytest.raises(l4re.WrongType) as caught:
        call(both)
    assert words in str(caught.value)


# ---- anything at all ----

#: What a server may say to nonsense. EIO is not among them: that would be an exception that nobody expected.
REFUSALS = {0, *(-code for code in (l4re.Err.EINVAL, l4re.Err.EMSGTOOSHORT, l4re.Err.EMSGMISSARG, l4re.Err.EPERM))}
ACCESS = -l4re.Err.EACCESS  # the handler's own: it writes to what came


def test_any_message_is_answered_and_the_server_serves_on(both: Both) -> None:
    gate: Any = both.cap
    operations = [
        n for n, name in enumerate(vars(Values)["_l4_specs"]) if name not in ("lend", "weak", "scale", "note")
    ]
    writable = alloc(64)
    there = [None, writable, writable.ro, l4re.env().factory.create_irq()]

    @settings(deadline=None, max_examples=200)
    @given(st.sampled_from(operations), st.binary(max_size=120), st.lists(st.integers(0, 3), max_size=3), st.booleans())
    def check(operation: int, noise: bytes, caps: list[int], small: bool) -> None:
        stream = struct.pack("=i", operation) + (bytes(byte & 1 for byte in noise) if small else noise)
        label, *_ = gate.transact(Values.protocol, stream + bytes(-len(stream) % 8), b"", [there[n] for n in caps])
        assert label in REFUSALS or label == ACCESS

    check()
    assert both.name() == "both"
    for cap in there[1:]:
        assert cap is not None
        cap.close()


# ---- all of it, in asyncio and one way ----


def test_all_of_it_can_be_awaited(both: Both) -> None:
    async def program() -> None:
        aio = both.within(20).aio
        memories = [alloc() for _ in range(16)]
        assert await aio.memories(memories) == memories[::-1]
        values = np.ones(50_000, np.float32)
        results = await asyncio.gather(*(aio.scale(values, factor) for factor in range(4)))
        assert [product.sum() for product, _ in results] == [0, 50_000, 100_000, 150_000]
        assert await aio.read_only(memories[0]) == "r"
        with pytest.raises(l4re.WrongType, match="element 0"):
            await aio.memories([7])
        with pytest.raises(l4re.PermissionDenied):
            await aio.writable(memories[0].ro)
        await aio.note([(1, 2)])
        while not (noted := await aio.noted()):  # it travels in another session, so this may overtake it
            pass
        assert noted == [(1, 2)]

    asyncio.run(program())


def test_a_oneway_call_takes_lists(both: Both) -> None:
    both.note([(1, 2), (3, 4)])
    both.note([])
    assert both.noted() == [(1, 2), (3, 4)]


# ---- several protocols ----


def test_an_object_of_several_protocols_answers_each(both: Both) -> None:
    counter = Counter(both.cap)
    counter.add(3)
    both.add(4)
    assert counter.count() == both.count() == 7
    assert both.name() == "both"
    assert isinstance(l4re.cap_dynamic_cast(both, Counter), Counter)
    assert [l4re.Meta(both).interface(n)[0] for n in range(3)] == [0x102, 0x100, 0x101]
    with pytest.raises(
        l4re.BadProtocol, match=r"0x102 \(Both\), 0x100 \(Values\), 0x101 \(Counter\), not protocol 0x103"
    ):
        Other(both.cap).one()


class Other(l4re.Interface):
    protocol = 0x103

    @l4re.rpc
    def one(self) -> None:
        raise NotImplementedError
