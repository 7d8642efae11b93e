"""Sources of events (L4Re's ``Event``): a ring in shared memory, an IRQ that tells of more, and what the streams are.

The program that serves one puts events; the one client it is for attaches the ring, binds an IRQ to line 0, and gets
them without a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar, Final

from l4re.dataspace import Dataspace
from l4re.errors import InvalidArgument, NotFound, NotSupported, OutOfRange, error_from_code
from l4re.factory import process_allocator
from l4re.interface import S32, U16, U32, U64, Epiface, Interface, rpc
from l4re.rm import process_map
from l4re.services.event_buffer import SLOT, EventBuffer, InputEvent
from l4re.services.icu import Icu, IcuServer
from l4re.wire.marshal import OPCODE
from l4re.wire.protocols import Proto

if TYPE_CHECKING:
    from l4re.cap import Capability
    from l4re.interface import Answer

__all__ = ["AxisInfo", "Event", "EventCodes", "EventServer", "EventStreamInfo", "EventStreams"]

_MAX_SLOTS: Final = 1 << 20


class _Op(IntEnum):
    """L4Re's numbers."""

    GET_BUFFER = 0
    GET_NUM_STREAMS = 1
    GET_STREAM_INFO = 2
    GET_STREAM_INFO_FOR_ID = 3
    GET_AXIS_INFO = 4
    GET_STREAM_STATE_FOR_ID = 5


@dataclass(frozen=True, slots=True)
class EventCodes:
    """Codes of one type of event: those that a stream can bring, or those that are on."""

    type: U16
    codes: list[U16]


@dataclass(frozen=True, slots=True)
class EventStreamInfo:
    """Where events come from: the number in their ``stream``, a name, what Linux says of a device, what it brings."""

    stream_id: U64
    name: str
    bustype: U16
    vendor: U16
    product: U16
    version: U16
    events: list[EventCodes]


@dataclass(frozen=True, slots=True)
class AxisInfo:
    """What an absolute axis measures, as Linux says it."""

    value: S32
    minimum: S32
    maximum: S32
    fuzz: S32
    flat: S32
    resolution: S32


class EventStreams(Interface):
    """The operations of `Event` with answers of their own."""

    protocol = int(Proto.EVENT)

    @rpc(opcode=_Op.GET_BUFFER)
    def get_buffer(self) -> Dataspace:
        """Return the memory of the ring, for an `EventBuffer` over a region; the caller owns it."""
        raise NotImplementedError

    @rpc(opcode=_Op.GET_STREAM_INFO)
    def get_stream_info(self, idx: U32) -> EventStreamInfo:
        """Return what stream number ``idx`` is, counted from 0.

        Raises:
            OutOfRange: there are fewer.
        """
        raise NotImplementedError

    @rpc(opcode=_Op.GET_STREAM_INFO_FOR_ID)
    def get_stream_info_for_id(self, stream_id: U64) -> EventStreamInfo:
        """Return what the stream is that events name so.

        Raises:
            NotFound: there is none.
        """
        raise NotImplementedError

    @rpc(opcode=_Op.GET_AXIS_INFO)
    def get_axis_info(self, stream_id: U64, axes: list[U32]) -> list[AxisInfo]:
        """Return what these axes of a stream measure, one for each.

        Raises:
            NotFound: there is no such stream.
            NotSupported: it has no such axes.
        """
        raise NotImplementedError

    @rpc(opcode=_Op.GET_STREAM_STATE_FOR_ID)
    def get_stream_state_for_id(self, stream_id: U64) -> list[EventCodes]:
        """Return what is on now: keys that are held, switches, lamps.

        Raises:
            NotFound: there is no such stream.
        """
        raise NotImplementedError


class Event(EventStreams, Icu):
    """A source of events of another program, or of this one; see `EventServer`.

    Bind an IRQ to line 0 and unmask it there; when it is triggered, get events until there are none.
    """

    protocol = int(Proto.EVENT)

    def get_num_streams(self) -> int:
        """Return how many streams there are."""
        label, _, data, _ = self._l4_transact(Event.protocol, OPCODE.pack(_Op.GET_NUM_STREAMS))
        if label < 0:
            raise error_from_code(label, data.decode("utf-8", "replace"))
        return label


class EventServer(IcuServer):
    """Serves events to one client: a second one would get those that the first does not.

    :meth:`put` is thread-safe. A subclass may say more of its streams.
    """

    interface: ClassVar[type[Interface]] = Event

    def __init__(self, *streams: EventStreamInfo, slots: int = 170) -> None:
        """Make a ring for ``slots`` events.

        Raises:
            InvalidArgument: less than one, or more than a million.
            OutOfMemory: there is no memory for it.
        """
        if not 1 <= slots <= _MAX_SLOTS:
            raise InvalidArgument(f"a ring has 1 to {_MAX_SLOTS} slots, not {slots}")
        super().__init__(1)
        self.streams: tuple[EventStreamInfo, ...] = streams
        self._memory = process_allocator().alloc(slots * SLOT)
        self._region = process_map().attach(self._memory)
        self._buffer = EventBuffer(self._region)
        self._desk = _Desk(self)

    def put(self, event: InputEvent) -> bool:
        """Put an event and tell the client; False: the ring is full, and the event is lost.

        Raises:
            OutOfRange: a number does not fit its field.
            Closed: after `close`.
        """
        done = self._buffer.put(event)
        self.pulse(0)  # whoever is slow is told once more
        return done

    # ---- to be overridden ----

    def axis_info(self, stream: EventStreamInfo, axes: Sequence[int]) -> list[AxisInfo]:
        """Return what these axes measure; by default refused."""
        raise NotSupported(f"stream {stream.stream_id} has no axes {list(axes)}")

    def stream_state(self, stream: EventStreamInfo) -> list[EventCodes]:
        """Return what is on now; by default nothing."""
        return []

    # ---- the client ----

    def serve_request(
        self, rights: int, label: int, words: bytes, data: bytes, caps: tuple[Capability | None, ...]
    ) -> Answer:
        """See `Served.serve_request`."""
        if label != Proto.EVENT:
            return super().serve_request(rights, label, words, data, caps)
        if words[: OPCODE.size] == OPCODE.pack(_Op.GET_NUM_STREAMS):
            return len(self.streams), b"", b"", ()
        return self._desk.serve_request(rights, label, words, data, caps)

    def close(self) -> None:
        """Unbind the client's IRQ and drop the ring; the client's own mapping stays."""
        super().close()
        self._buffer.close()
        if self._region.mapped:
            self._region.detach()
        self._memory.close()


class _Desk(EventStreams, Epiface):
    """Answers what is about the streams."""

    def __init__(self, server: EventServer) -> None:
        self._server = server

    def get_buffer(self) -> Dataspace:
        return self._server._memory

    def get_stream_info(self, idx: U32) -> EventStreamInfo:
        streams = self._server.streams
        if idx >= len(streams):
            raise OutOfRange(f"there is no stream number {idx}; there are {len(streams)}, from 0 on")
        return streams[idx]

    def get_stream_info_for_id(self, stream_id: U64) -> EventStreamInfo:
        for stream in self._server.streams:
            if stream.stream_id == stream_id:
                return stream
        raise NotFound(f"there is no stream {stream_id}; there is {[each.stream_id for each in self._server.streams]}")

    def get_axis_info(self, stream_id: U64, axes: list[U32]) -> list[AxisInfo]:
        return self._server.axis_info(self.get_stream_info_for_id(stream_id), axes)

    def get_stream_state_for_id(self, stream_id: U64) -> list[EventCodes]:
        return self._server.stream_state(self.get_stream_info_for_id(stream_id))
