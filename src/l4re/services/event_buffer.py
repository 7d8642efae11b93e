"""Event buffers: a ring of events in shared memory, from one who puts to one who gets (L4Re's ``Event_buffer``).

A slot is 24 bytes: time, type, code, value, stream. Its time says whose it is: 0 and it is free, else it holds an
event. Whoever puts writes the time last, whoever gets clears it last, so no event is seen in part, lost or seen twice.
The other side may write anything at all: then the events are nonsense, and nothing else is.
"""

from __future__ import annotations

import threading
from struct import Struct
from time import monotonic_ns
from typing import TYPE_CHECKING, Final, NamedTuple

from l4re._native import leaf
from l4re.closing import Closing
from l4re.errors import Closed, InvalidArgument, OutOfRange

if TYPE_CHECKING:
    from collections.abc import Iterator

    from l4re.rm import Region

__all__ = ["SLOT", "EventBuffer", "InputEvent"]

_REST = Struct("=HHiQ")
_TIME: Final = 8
#: Bytes of one event.
SLOT: Final = _TIME + _REST.size


class InputEvent(NamedTuple):
    """Something happened: types, codes and values are those of Linux's input events.

    ``stream`` says where; ``time`` in microseconds, 0 for now.
    """

    type: int
    code: int
    value: int
    stream: int = 0
    time: int = 0


class EventBuffer(Closing):
    """A ring of events over a region, or any memory that can be written. It begins with zeros, all of it free.

    One program puts and one gets, each with an `EventBuffer` of its own; each may do so from several threads. Whoever
    gets may come late: the oldest event is found. Close it before the region is detached.
    """

    def __init__(self, memory: Region | bytearray | memoryview) -> None:
        """Use ``memory``, which is lent: as many slots of 24 bytes as it has.

        Raises:
            InvalidArgument: it cannot be written, or has less than a slot.
        """
        view = memoryview(memory).cast("B")
        try:
            leaf.store_word(view, 0, leaf.load_word(view, 0))
            if len(view) < SLOT:
                raise ValueError(f"{len(view)} bytes")
        except (TypeError, ValueError) as error:
            view.release()
            raise InvalidArgument(
                f"a ring of events takes memory that can be written, {SLOT} bytes or more, at a multiple of 8: {error}"
            ) from None
        self._view = view
        self._lock = threading.Lock()
        self._slots = len(view) // SLOT
        self._put_at = 0
        self._get_at: int | None = None  # not known before the first event was found

    def __len__(self) -> int:
        """How many events it has room for."""
        return self._slots

    def put(self, event: InputEvent) -> bool:
        """Put an event; False: the ring is full, and nothing was put. To tell the other side is an IRQ's work.

        Raises:
            OutOfRange: a number does not fit its field.
        """
        time = event.time or monotonic_ns() // 1000
        try:
            rest = _REST.pack(event.type, event.code, event.value, event.stream)
            if not -(1 << 63) <= time < 1 << 63:
                raise OverflowError
        except Exception as error:
            raise OutOfRange(
                f"an event has time, type, code, value and stream of i64, u16, u16, i32 and u64: {event}"
            ) from error
        with self._lock:
            at = self._put_at * SLOT
            if self._load(at):
                return False
            self._view[at + _TIME : at + SLOT] = rest
            self._store(at, time)
            self._put_at = (self._put_at + 1) % self._slots
        return True

    def get(self) -> InputEvent | None:
        """Return the oldest event, and free its slot; None: there is none."""
        with self._lock:
            if self._get_at is None:
                self._get_at = self._oldest()
                if self._get_at is None:
                    return None
            at = self._get_at * SLOT
            time = self._load(at)
            if not time:
                return None
            kind, code, value, stream = _REST.unpack(self._view[at + _TIME : at + SLOT])
            self._store(at, 0)
            self._get_at = (self._get_at + 1) % self._slots
        return InputEvent(kind, code, value, stream, time)

    def __iter__(self) -> Iterator[InputEvent]:
        """Get what is there, one after the other."""
        while (event := self.get()) is not None:
            yield event

    def _oldest(self) -> int | None:
        """Return the first slot of the events there are: from any of them back to a free one, while others are put."""
        slot = next((slot for slot in range(self._slots) if self._load(slot * SLOT)), None)
        if slot is None:
            return None
        for _ in range(self._slots):
            before = (slot - 1) % self._slots
            if not self._load(before * SLOT):
                return slot
            slot = before
        return min(range(self._slots), key=lambda slot: self._load(slot * SLOT))  # it is full

    def _load(self, at: int) -> int:
        try:
            return leaf.load_word(self._view, at)
        except ValueError:
            raise Closed("this ring of events is closed") from None

    def _store(self, at: int, time: int) -> None:
        leaf.store_word(self._view, at, time)

    def close(self) -> None:
        """Let go of the memory; a second call does nothing."""
        with self._lock:
            self._view.release()

    def __repr__(self) -> str:
        return f"<EventBuffer with {self._slots} slots>"
