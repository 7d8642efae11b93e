"""Events: a ring in shared memory that loses nothing, and the server that fills it."""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

import l4re
from l4re import (
    AxisInfo,
    Closed,
    Event,
    EventBuffer,
    EventCodes,
    EventServer,
    EventStreamInfo,
    Icu,
    InputEvent,
    InvalidArgument,
    Irq,
    IrqMode,
    L4Error,
    NotFound,
    NotSupported,
    OutOfRange,
    Proto,
    RegistryServer,
    cap_dynamic_cast,
    describe,
)
from l4re._native import leaf
from support.processes import PATIENCE, Background, Child, Link, Running

Start = Callable[..., Child]
KEY, ABS = 1, 3
SLOT = 24


def key(code: int, time: int = 1) -> InputEvent:
    return InputEvent(KEY, code, 1, 7, time)


# ---- the ring ----


def test_events_come_out_in_their_order_until_there_are_none() -> None:
    memory = bytearray(3 * SLOT)
    with EventBuffer(memory) as putting, EventBuffer(memory) as getting:
        assert getting.get() is None
        assert all(putting.put(key(code)) for code in range(3))
        assert not putting.put(key(9))
        assert len(putting) == 3
        assert [event.code for event in getting] == [0, 1, 2]
        assert bytes(memory[:8]) == bytes(8)
        assert putting.put(InputEvent(ABS, 2, -5, 1 << 63, -(1 << 62)))
        assert getting.get() == InputEvent(ABS, 2, -5, 1 << 63, -(1 << 62))


def test_the_layout_is_upstreams() -> None:
    memory = bytearray(SLOT)
    with EventBuffer(memory) as ring:
        ring.put(InputEvent(1, 0x0302, -2, 5, 4))
    assert memory == b"\4\0\0\0\0\0\0\0\1\0\2\3\xfe\xff\xff\xff\5\0\0\0\0\0\0\0"


def test_an_event_without_a_time_has_that_of_now() -> None:
    with EventBuffer(bytearray(SLOT)) as ring:
        ring.put(InputEvent(1, 2, 3))
        event = ring.get()
        assert event is not None
        assert event.time > 0


@pytest.mark.parametrize(
    "event",
    [InputEvent(1 << 16, 0, 0), InputEvent(0, -1, 0), InputEvent(0, 0, 1 << 31), InputEvent(0, 0, 0, -1),
     InputEvent(0, 0, 0, 0, 1 << 63)],
)  # fmt: skip
def test_numbers_that_do_not_fit_are_refused_and_nothing_is_put(event: InputEvent) -> None:
    with EventBuffer(bytearray(SLOT)) as ring:
        with pytest.raises(OutOfRange):
            ring.put(event)
        assert ring.get() is None


def test_a_ring_takes_memory_that_can_be_written() -> None:
    for memory in (bytes(SLOT), bytearray(SLOT - 1), memoryview(bytearray(100))[1:], bytearray(0)):
        with pytest.raises(InvalidArgument, match="a ring of events takes"):
            EventBuffer(memory)  # type: ignore[arg-type]
    ring = EventBuffer(bytearray(SLOT))
    ring.close()
    ring.close()
    for call in (ring.get, lambda: ring.put(key(1))):
        with pytest.raises(Closed):
            call()


@given(st.integers(1, 5), st.lists(st.booleans(), max_size=60))
def test_it_is_a_queue_with_a_limit(slots: int, puts: list[bool]) -> None:
    memory, model = bytearray(slots * SLOT), deque[int]()
    with EventBuffer(memory) as putting, EventBuffer(memory) as getting:
        for number, put in enumerate(puts):
            if put:
                assert putting.put(key(number)) == (len(model) < slots)
                if len(model) < slots:
                    model.append(number)
            else:
                event = getting.get()
                assert (None if event is None else event.code) == (model.popleft() if model else None)


@given(st.integers(1, 6), st.integers(0, 12), st.integers(0, 6))
def test_whoever_comes_late_finds_the_oldest(slots: int, before: int, left: int) -> None:
    memory = bytearray(slots * SLOT)
    left = min(left, slots)
    with EventBuffer(memory) as putting, EventBuffer(memory) as first, EventBuffer(memory) as second:
        for number in range(before):
            putting.put(key(number, time=number + 1))
            first.get()
        for number in range(left):
            assert putting.put(key(100 + number, time=100 + number))
        assert [event.code for event in second] == [100 + number for number in range(left)]
        putting.put(key(200, time=200))
        assert [event.code for event in second] == [200]


@given(st.binary(min_size=SLOT, max_size=10 * SLOT))
def test_any_bytes_are_events_and_nothing_worse(data: bytes) -> None:
    with EventBuffer(bytearray(data)) as ring:
        assert len(list(ring)) <= len(ring)
        ring.put(key(1))


@given(st.binary(min_size=8, max_size=64), st.integers(-16, 80), st.integers(-(1 << 63), (1 << 63) - 1))
def test_a_word_is_read_and_written_where_it_is_or_refused(data: bytes, offset: int, value: int) -> None:
    memory = bytearray(data)
    if offset % 8 or not 0 <= offset <= len(data) - 8:
        with pytest.raises(ValueError, match="no aligned word"):
            leaf.load_word(memory, offset)
        with pytest.raises(ValueError, match="no aligned word"):
            leaf.store_word(memory, offset, value)
        assert memory == data
        return
    assert leaf.load_word(memory, offset) == struct.unpack_from("=q", data, offset)[0]
    leaf.store_word(memory, offset, value)
    assert memory == data[:offset] + struct.pack("=q", value) + data[offset + 8 :]
    with pytest.raises(TypeError):
        leaf.store_word(data, offset, value)
    with pytest.raises(OverflowError):
        leaf.store_word(memory, offset, 1 << 63)


@pytest.mark.processes
def test_two_processes_lose_nothing_and_see_nothing_twice(start: Start) -> None:
    count = 5000

    def getter(link: Link) -> None:
        (memory,) = link.take()
        with memory, l4re.env().rm.attach(memory) as region, EventBuffer(region) as ring:
            link.say("ready")
            for number in range(count):
                while (event := ring.get()) is None:
                    os.sched_yield()
                assert event == InputEvent(number % 1000, number % 7, number, number + 1, number + 1), event
            link.say("all")

    child = start(getter)
    with l4re.env().mem_alloc.alloc(16 * SLOT) as memory:
        child.give(memory)
        with l4re.env().rm.attach(memory) as region, EventBuffer(region) as ring:
            assert child.hear() == "ready"
            for number in range(count):
                while not ring.put(InputEvent(number % 1000, number % 7, number, number + 1, number + 1)):
                    os.sched_yield()
            assert child.hear() == "all"
    child.end()


# ---- the server ----

STREAM = EventStreamInfo(7, "pad", 3, 0x46D, 1, 2, [EventCodes(KEY, [30, 48]), EventCodes(ABS, [0, 1])])


class Pad(EventServer):
    def axis_info(self, stream: EventStreamInfo, axes: Sequence[int]) -> list[AxisInfo]:
        return [AxisInfo(0, -100, 100, 1, 2, 3)] if axes == [0] else super().axis_info(stream, axes)

    def stream_state(self, stream: EventStreamInfo) -> list[EventCodes]:
        return [EventCodes(KEY, [30])]


def test_it_tells_what_its_streams_are() -> None:
    with RegistryServer() as server, Pad(STREAM) as pad, EventServer() as none:
        event = Event(server.registry.register_obj(pad))
        assert event.get_num_streams() == 1
        assert event.get_stream_info(0) == STREAM
        assert event.get_stream_info_for_id(7) == STREAM
        assert event.get_axis_info(7, [0]) == [AxisInfo(0, -100, 100, 1, 2, 3)]
        assert event.get_stream_state_for_id(7) == [EventCodes(KEY, [30])]
        with pytest.raises(NotSupported):
            event.get_axis_info(7, [5])
        with pytest.raises(OutOfRange):
            event.get_stream_info(1)
        for ask in (event.get_stream_info_for_id, event.get_stream_state_for_id, lambda _: event.get_axis_info(8, [])):
            with pytest.raises(NotFound, match=r"no stream 8; there is \[7\]"):
                ask(8)
        assert Event(server.registry.register_obj(none)).get_num_streams() == 0
        assert none.stream_state(STREAM) == []


def test_an_irq_tells_of_events() -> None:
    with RegistryServer() as server, EventServer(STREAM, slots=2) as pad, Irq.create() as irq:
        event = Event(server.registry.register_obj(pad))
        event.bind(0, irq)
        event.set_mode(0, IrqMode.POS_EDGE)
        event.unmask(0)
        memory = event.get_buffer()
        with memory, l4re.env().rm.attach(memory) as region, EventBuffer(region) as ring:
            for _ in range(3):
                assert pad.put(key(1))
                assert pad.put(key(2))
                assert not pad.put(key(3))
                irq.receive(timeout=PATIENCE)
                assert [each.code for each in ring] == [1, 2]


def test_it_is_an_interrupt_controller_too() -> None:
    with RegistryServer() as server, EventServer() as served:
        event = Event(server.registry.register_obj(served))
        assert event.info().irqs == 1
        assert cap_dynamic_cast(event.cap, Icu).info().irqs == 1
        assert cap_dynamic_cast(event.cap, Event) == event
        assert describe(event).protocols[0].name == "Event"
    for slots in (0, (1 << 20) + 1):
        with pytest.raises(InvalidArgument):
            EventServer(slots=slots)
    with pytest.raises(Closed):
        served.put(key(1))


@given(st.binary(max_size=48), st.integers(0, 3))
def test_any_words_at_all_are_answered_or_refused(data: bytes, rights: int) -> None:
    with EventServer(STREAM, slots=1) as served:
        try:
            served.serve_request(rights, Proto.EVENT, data, b"", ())
        except L4Error:
            pass


@pytest.mark.processes
def test_a_client_gets_events_without_calls_until_it_is_killed(start: Start) -> None:
    def client(link: Link) -> None:
        (gate,) = link.take()
        event = Event(gate)
        with Irq.create() as irq:
            event.bind(0, irq)
            event.unmask(0)
            with event.get_buffer() as memory, l4re.env().rm.attach(memory) as region, EventBuffer(region) as ring:
                link.say("ready")
                while True:
                    irq.receive(timeout=PATIENCE)
                    for each in ring:
                        link.say(str(each.code))

    child = start(client)
    with RegistryServer() as server, EventServer(STREAM) as pad:
        child.give(server.registry.register_obj(pad))
        with Running(server) as loop:
            assert child.hear() == "ready"
            for code in range(20):
                assert pad.put(key(code))
            assert [int(child.hear()) for _ in range(20)] == list(range(20))
            child.kill()
            child.join()
            loop.join()
        assert pad.put(key(1))  # nobody gets it; the IRQ is unbound
        assert pad.bound == ()


def test_events_are_put_from_several_threads() -> None:
    memory = bytearray(4096)
    with EventBuffer(memory) as putting, EventBuffer(memory) as getting:

        def put(stream: int) -> None:
            for code in range(200):
                while not putting.put(InputEvent(1, code, 0, stream)):
                    os.sched_yield()

        putters = [Background(lambda stream=stream: put(stream)) for stream in range(3)]  # type: ignore[misc]
        seen: dict[int, list[int]] = {0: [], 1: [], 2: []}
        while sum(map(len, seen.values())) < 600:
            for event in getting:
                seen[event.stream].append(event.code)
            os.sched_yield()
        for putter in putters:
            putter.join()
    assert all(codes == list(range(200)) for codes in seen.values())
