"""A factory behind a gate: what one process asks for, another allows, and nobody else holds."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4re import (
    U64,
    BadProtocol,
    Capability,
    Dataspace,
    Err,
    Factory,
    FactoryServer,
    InvalidArgument,
    Irq,
    L4Error,
    MemAlloc,
    MemAllocFlags,
    MessageTooLong,
    NotSupported,
    OutOfMemory,
    OutOfRange,
    PeerGone,
    Proto,
    RegistryServer,
    Rights,
    Semaphore,
    ServerError,
    cap_dynamic_cast,
)
from l4re.factory.kernel import KernelFactory
from l4re.wire.vargs import Varg, pack_vargs
from support.processes import PATIENCE, Background, Child, Echo, Link, Running, descriptors

Start = Callable[..., Child]


@contextmanager
def factory(*makers: Any) -> Iterator[Factory]:
    """A factory that is served by another thread of this process."""
    with RegistryServer() as server:
        gate = server.registry.register_obj(FactoryServer(*makers))
        with Running(server):
            yield Factory(gate)


def test_it_makes_semaphores_irqs_gates_and_memory() -> None:
    with factory() as made_by:
        with made_by.create_semaphore(2) as semaphore:
            assert [semaphore.try_down() for _ in range(3)] == [True, True, False]
            assert semaphore.rights == Rights.RWS
        with made_by.create_irq() as irq, irq.dup() as holder:
            holder.trigger()
            irq.receive(timeout=PATIENCE)
        memory = made_by.create(Proto.DATASPACE, 100, U64(MemAllocFlags.PINNED), 16)
        assert isinstance(memory, Dataspace)
        with memory:
            assert memory.size == 100


def test_a_gate_comes_with_the_right_to_serve_it() -> None:
    with factory() as made_by:
        gate, svr = made_by.create_gate()
        assert gate.rights >= Rights.RW
        with gate, svr, RegistryServer() as server:
            echo = Echo()
            server.registry.register_obj(echo, svr)
            with Running(server):
                assert gate.call(b"hello", timeout=PATIENCE).data == b"hello"


def test_an_object_lives_without_the_factory() -> None:
    with factory() as made_by:
        semaphore = made_by.create_semaphore()
    with semaphore, semaphore.down_only as downer:
        semaphore.up()
        downer.down(timeout=0)
        semaphore.close()
        with pytest.raises(PeerGone):  # the factory kept no end
            downer.down(timeout=PATIENCE)


def test_it_says_what_it_is_and_speaks_nothing_else() -> None:
    with factory() as made_by:
        assert cap_dynamic_cast(made_by, Factory) == made_by
        with pytest.raises(BadProtocol):
            made_by.cap.call(b"", label=Proto.IRQ)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("protocol", "args", "error"),
    [
        (Proto.TASK, (), NotSupported),
        (0x7777, (), NotSupported),
        (Proto.IRQ_SENDER, (1,), InvalidArgument),
        (Proto.KOBJECT, ("label",), InvalidArgument),
        (Proto.SEMAPHORE, (-1,), InvalidArgument),
        (Proto.SEMAPHORE, ("one",), InvalidArgument),
        (Proto.DATASPACE, (), InvalidArgument),
        (Proto.DATASPACE, ("big",), InvalidArgument),
        (Proto.DATASPACE, (1, 0, 0, 0), InvalidArgument),
        (Proto.DATASPACE, (0,), OutOfRange),
        (Proto.DATASPACE, (-5,), OutOfRange),
        (Proto.DATASPACE, (1 << 62,), OutOfMemory),
        (1 << 63, (), OutOfRange),
        (Proto.SEMAPHORE, ("x" * 600,), MessageTooLong),
    ],
)
def test_what_cannot_be_made_is_a_clear_error_and_the_factory_goes_on(
    protocol: int, args: tuple[Varg, ...], error: type[L4Error]
) -> None:
    with factory() as made_by:
        with pytest.raises(error):
            made_by.create(protocol, *args)
        made_by.create_semaphore().close()


def test_the_makers_say_the_same_without_a_gate() -> None:
    with MemAlloc().create(Proto.DATASPACE, 100) as ds, KernelFactory().create(Proto.SEMAPHORE, 1) as semaphore:
        assert ds.size == 100
        assert isinstance(semaphore, Semaphore)
        assert semaphore.try_down()
    with pytest.raises(NotSupported):
        MemAlloc().create(Proto.SEMAPHORE)
    with pytest.raises(InvalidArgument):
        KernelFactory().create(Proto.IRQ_SENDER, 1)


def test_a_maker_of_ones_own_may_count_and_refuse() -> None:
    class Few:
        kinds = (Proto.SEMAPHORE,)
        left = 1

        def create(self, protocol: int, *args: Varg) -> Capability:
            if not self.left:
                raise OutOfMemory("no more for you")
            self.left -= 1
            return Semaphore.create()

    with factory(Few()) as made_by:
        made_by.create_semaphore().close()
        with pytest.raises(OutOfMemory, match="no more for you"):
            made_by.create_semaphore()
        with pytest.raises(NotSupported, match=r"protocols \[-20\]"):
            made_by.create_irq()


def request(*words: int) -> bytes:
    return struct.pack(f"={len(words)}q", *words)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (b"", Err.EMSGTOOSHORT),
        (request(Proto.SEMAPHORE, 1 | 8 << 16), Err.EMSGTOOSHORT),
        (request(Proto.SEMAPHORE, 9), Err.EINVAL),
        (request(Proto.SEMAPHORE, 1 | 4 << 16, 0), Err.EINVAL),
        (request(12345), Err.ENODEV),
    ],
)
def test_what_is_no_request_is_answered_with_an_error(words: bytes, error: Err) -> None:
    with factory() as made_by:
        label, _, text, caps = made_by._l4_transact(Proto.FACTORY, words)
        assert label == -error
        assert text
        assert not caps


def test_capabilities_are_no_arguments_and_are_not_kept() -> None:
    with factory() as made_by, Semaphore.create() as semaphore:
        with semaphore.up_only as upper:
            label, *_ = made_by._l4_transact(Proto.FACTORY, request(Proto.SEMAPHORE), b"", (upper,))
        assert label == -Err.EINVAL


@given(st.binary(max_size=64))
def test_any_words_at_all_are_answered_or_refused(words: bytes) -> None:
    class Nothing(FactoryServer):
        def create(self, protocol: int, *args: Varg) -> None:
            assert pack_vargs(args) is not None

    try:
        answer = Nothing().serve_request(Rights.S, Proto.FACTORY, words, b"", ())
    except L4Error:
        return
    assert answer == (0, b"", b"", (None,))


@pytest.mark.parametrize("answer", [(), (None,), "two semaphores", "a gate"])
def test_an_answer_that_makes_no_sense_is_the_servers_fault_and_nothing_of_it_is_kept(answer: Any) -> None:
    with Semaphore.create() as semaphore, RegistryServer() as server:
        echo = Echo()
        gate = server.registry.register_obj(echo)
        gift = {"two semaphores": (semaphore, semaphore), "a gate": (gate,)}.get(str(answer), answer)

        class Liar(Echo):
            def serve_request(self, *request: Any) -> Any:
                return 0, b"", b"", gift

        with Running(server), pytest.raises(ServerError):
            Factory(server.registry.register_obj(Liar())).create_semaphore()


@pytest.mark.processes
def test_another_process_makes_what_it_was_allowed_to_and_hands_it_on(start: Start) -> None:
    def client(link: Link) -> None:
        (gate,) = link.take()
        made_by = Factory(gate)
        with made_by.create_semaphore() as semaphore, made_by.create_irq() as irq:
            link.give(semaphore, irq)
            irq.receive(timeout=PATIENCE)
            semaphore.up()
        link.hear()

    child = start(client)
    with RegistryServer() as server:
        child.give(server.registry.register_obj(FactoryServer()))
        with Running(server):
            semaphore, irq = child.take()
            with semaphore, irq:
                assert isinstance(semaphore, Semaphore)
                assert isinstance(irq, Irq)
                irq.trigger()
                semaphore.down(timeout=PATIENCE)
            child.say("done")
            child.end()


@pytest.mark.processes
def test_who_is_killed_while_it_makes_objects_leaves_nothing_in_the_factory(start: Start) -> None:
    def client(link: Link) -> None:
        (gate,) = link.take()
        made_by = Factory(gate)
        link.say("going")
        while True:
            made_by.create_semaphore(3)
            made_by.create_gate()

    children = [start(client) for _ in range(3)]
    with RegistryServer() as server:
        gate = server.registry.register_obj(FactoryServer())
        before = descriptors()
        for child in children:
            child.give(gate)
        loop = Background(server.loop)
        for child in children:
            assert child.hear() == "going"
            child.kill()
            child.join()
        loop.join()  # nobody is left
        assert descriptors() == before
