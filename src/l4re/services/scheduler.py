"""Schedulers: on which CPUs the threads of a program run, and how urgently (L4's ``Scheduler``).

A scheduler answers where a thread belongs, within the limits it was made with; who may place the thread does it,
since Linux lets a process place its own threads and those of its children. So the limits are those of whoever
starts a program, and of programs that ask: they confine no program that asks Linux directly.

Priorities are L4's, 1 to 255, more is more urgent. A scheduler adds its offset, and never goes above its limit. Of
nice values Linux has 20 above the usual one: every 13 priorities are one step of nice below that of the program that
serves the scheduler. Steps down are for those who may take them (CAP_SYS_NICE, RLIMIT_NICE); others stay where they
are, and keep the CPUs.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import TYPE_CHECKING, Final, Self

from l4re.errors import (
    BadProtocol,
    InvalidArgument,
    NotFound,
    NotImplementedByServer,
    OutOfRange,
    ServerError,
    error_from_code,
)
from l4re.interface import Interface, Served
from l4re.interface.meta import Meta, answer_meta
from l4re.linux import scheduling
from l4re.wire.protocols import Proto
from l4re.wire.stream import Reader, Writer

if TYPE_CHECKING:
    from l4re.cap import Capability
    from l4re.interface import Answer
    from l4re.wire.vargs import Varg

__all__ = ["Placement", "Scheduler", "SchedulerInfo", "SchedulerServer"]

_WORD = Struct("=Q")
_TWO = Struct("=QQ")
_ASK = Struct("=5Q")
_IDLE = Struct("=QQQ")
_NICE = Struct("=q")
_WINDOW: Final = 64
_MAX_PRIO: Final = 255
_MAX_CPUS: Final = 62 * _WINDOW  # what an answer has room for
#: The set of all CPUs, as a window whose first bit stands for 2**24 of them.
_ALL: Final = (24 << 24, 1)


class _Op(IntEnum):
    """L4's numbers."""

    INFO = 0
    RUN_THREAD = 1
    IDLE_TIME = 2


@dataclass(frozen=True, slots=True)
class SchedulerInfo:
    """The CPUs a scheduler has, and the number that all CPUs of the machine are below."""

    cpus: frozenset[int]
    cpu_max: int


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a thread runs, and how urgently: a nice value, -20 (most) to 19."""

    cpus: frozenset[int]
    nice: int


class _Places:
    """What a scheduler does with threads once it knows where they belong."""

    #: The priority of a program that asks for none.
    PRIO: Final = 2

    def place(self, *, prio: int = PRIO, cpus: Collection[int] | None = None) -> Placement:
        """Return where a thread with that priority belongs, out of ``cpus`` (None: all); nothing is done about it.

        Raises:
            OutOfRange: a priority that is none.
            InvalidArgument: the scheduler has none of these CPUs.
        """
        raise NotImplementedError

    def run_thread(
        self, thread: int | None = None, *, prio: int = PRIO, cpus: Collection[int] | None = None
    ) -> Placement:
        """Place one thread of this process, by its native id (None: the calling one), and return where it is then.

        Raises:
            NotFound: there is no such thread.
            OutOfRange, InvalidArgument: as of :meth:`place`.
        """
        wanted = self.place(prio=prio, cpus=cpus)
        number = threading.get_native_id() if thread is None else thread
        with _told(f"there is no thread {number}"):
            return Placement(wanted.cpus, scheduling.place(number, wanted.cpus, wanted.nice))

    def run_task(self, pid: int, *, prio: int = PRIO, cpus: Collection[int] | None = None) -> Placement:
        """Place all threads of this process, or of a child that nobody waited for; those it makes later follow.

        Raises:
            NotFound: it has ended.
            OutOfRange, InvalidArgument: as of :meth:`place`.
        """
        wanted = self.place(prio=prio, cpus=cpus)
        with _told(f"the process {pid} has ended"):
            nice = scheduling.place_process(pid, wanted.cpus, wanted.nice)
        if nice is None:
            raise NotFound(f"the process {pid} has ended")
        return Placement(wanted.cpus, nice)


@contextmanager
def _told(missing: str) -> Iterator[None]:
    """Turn what the kernel says into errors of this package."""
    try:
        yield
    except ProcessLookupError as error:
        raise NotFound(missing) from error
    except OSError as error:
        raise InvalidArgument(f"Linux does not place a thread there: {error.strerror}") from error


class Scheduler(_Places, Interface):
    """A scheduler of another program; see `SchedulerServer`. It needs no right."""

    protocol = int(Proto.SCHEDULER)

    def info(self) -> SchedulerInfo:
        """Return the CPUs the scheduler has."""
        cpus: set[int] = set()
        cpu_max = _WINDOW
        for offset in range(0, _MAX_CPUS, _WINDOW):
            if offset >= cpu_max:
                break
            mask, cpu_max = _TWO.unpack(self._l4_ask(_TWO.size, _TWO.pack(_Op.INFO, offset)))
            cpus |= _numbers(mask, offset)
        return SchedulerInfo(frozenset(cpus), cpu_max)

    def place(self, *, prio: int = _Places.PRIO, cpus: Collection[int] | None = None) -> Placement:
        window = _ALL if cpus is None else _window(cpus)
        words = self._l4_ask(_NICE.size, _ASK.pack(_Op.RUN_THREAD, *window, _word(prio), 0))
        (nice,) = _NICE.unpack_from(words)
        found = _numbers(int.from_bytes(words[_NICE.size :], "little"), 0)
        if not found or not scheduling.LOWEST_NICE <= nice < -scheduling.LOWEST_NICE:
            raise ServerError(f"the scheduler says CPUs {sorted(found)} and nice {nice}, which makes no sense")
        return Placement(frozenset(found), nice)

    def idle_time(self, cpu: int) -> int:
        """Return for how many microseconds a CPU had nothing to do since the start of the machine.

        Raises:
            InvalidArgument: the scheduler has no such CPU.
        """
        words = self._l4_ask(_WORD.size, _IDLE.pack(_Op.IDLE_TIME, *_window((cpu,))))
        return int(_WORD.unpack_from(words)[0])

    def _l4_ask(self, size: int, words: bytes) -> bytes:
        """Return the words of an answer of at least so many bytes."""
        label, answer, data, caps = self._l4_transact(self.protocol, words)
        for cap in caps:
            if cap is not None:
                cap.close()
        if label < 0:
            raise error_from_code(label, data.decode("utf-8", "replace"))
        if len(answer) < size:
            raise ServerError(f"the scheduler's answer has {len(answer)} bytes, not {size}")
        return answer


class SchedulerServer(_Places, Served):
    """A scheduler: of this process, and of everybody who is given a capability to it once it is registered.

    Thread-safe: nothing in it changes.
    """

    def __init__(self, limit: int = _MAX_PRIO, offset: int = 0, *, cpus: Iterable[int] | None = None) -> None:
        """Give threads priorities from ``offset`` up to ``limit``, on ``cpus`` (None: all that this process may use).

        Raises:
            OutOfRange: a priority that is not 0 to 255.
            InvalidArgument: a limit that is not above the offset, or no CPU that this process may use.
        """
        for number in (limit, offset):
            if not 0 <= number <= _MAX_PRIO:
                raise OutOfRange(f"priorities are 0 to {_MAX_PRIO}, not {number}")
        if limit <= offset:
            raise InvalidArgument(f"the limit of a scheduler is above its offset: {limit} is not above {offset}")
        there = scheduling.usable()
        wanted = there if cpus is None else frozenset(cpus)
        self.limit: Final = limit
        self.offset: Final = offset
        self.cpus: Final = wanted & there
        if not self.cpus:
            raise InvalidArgument(f"of the CPUs {sorted(wanted)} none can be used here: there are {sorted(there)}")
        self._base = scheduling.nice()

    @classmethod
    def of(cls, *args: Varg) -> Self:
        """Return a scheduler from the arguments of a factory: limit, offset, and a mask for each 64 CPUs (none: all).

        Raises:
            InvalidArgument: one is missing, or no number; and as of the constructor.
            OutOfRange: as of the constructor.
        """
        numbers = [arg for arg in args if isinstance(arg, int)]
        if len(numbers) != len(args) or len(args) < 2:
            raise InvalidArgument(f"a scheduler is made with a limit, an offset and masks of CPUs, not {args!r}")
        limit, offset, *masks = numbers
        cpus: set[int] = set()
        for at, mask in enumerate(masks):
            cpus |= _numbers(mask & 2**_WINDOW - 1, at * _WINDOW)
        return cls(limit, offset, cpus=cpus if masks else None)

    def info(self) -> SchedulerInfo:
        """Return the CPUs it has."""
        return SchedulerInfo(self.cpus, max(scheduling.possible(), max(self.cpus) + 1))

    def place(self, *, prio: int = _Places.PRIO, cpus: Collection[int] | None = None) -> Placement:
        if not 1 <= prio <= _MAX_PRIO:
            raise OutOfRange(f"a thread has a priority of 1 to {_MAX_PRIO}, not {prio}")
        found = self.cpus if cpus is None else self.cpus.intersection(cpus)
        if not found:
            raise InvalidArgument(f"this scheduler has the CPUs {sorted(self.cpus)}, none of {sorted(cpus or ())}")
        steps = min(prio + self.offset, self.limit) * -scheduling.LOWEST_NICE // (_MAX_PRIO + 1)
        return Placement(found, max(scheduling.LOWEST_NICE, self._base - steps))

    def idle_time(self, cpu: int) -> int:
        """Return for how many microseconds a CPU had nothing to do since the start of the machine.

        Raises:
            InvalidArgument: it has no such CPU.
            NotImplementedByServer: the kernel does not tell here.
        """
        if cpu not in self.cpus:
            raise InvalidArgument(f"this scheduler has the CPUs {sorted(self.cpus)}, not {cpu}")
        idle = scheduling.idle_time(cpu)
        if idle is None:
            raise NotImplementedByServer(f"how long the CPU {cpu} was idle takes procfs, which is not mounted here")
        return idle

    def serve_request(
        self, rights: int, label: int, words: bytes, data: bytes, caps: tuple[Capability | None, ...]
    ) -> Answer:
        """See `Served.serve_request`. A capability to a thread, as upstream's clients send, is not looked at."""
        if label == Meta.PROTOCOL:
            out = Writer()
            return answer_meta(Scheduler, Reader(words), out), out.words(), b"", ()
        if label != Proto.SCHEDULER:
            raise BadProtocol(f"a scheduler speaks protocol {Scheduler.protocol}, not {label:#x}")
        sent = [word for (word,) in _WORD.iter_unpack(words[: len(words) // _WORD.size * _WORD.size])]
        match sent:
            case [_Op.INFO, window, *_]:
                return 0, self._window(window), b"", ()
            case [_Op.RUN_THREAD, window, mask, prio, *_]:
                found = self.place(prio=prio, cpus=self._named(window, mask))
                cpus = sum(1 << cpu for cpu in found.cpus)
                size = -(-cpus.bit_length() // _WINDOW) * _WORD.size
                return 0, _NICE.pack(found.nice) + cpus.to_bytes(size, "little"), b"", ()
            case [_Op.IDLE_TIME, window, mask, *_]:
                cpus_named = self._named(window, mask)
                if not cpus_named:
                    raise InvalidArgument("the request names no CPU that this scheduler has")
                return 0, _WORD.pack(self.idle_time(min(cpus_named))), b"", ()
            case [_Op.INFO | _Op.RUN_THREAD | _Op.IDLE_TIME, *_] | []:
                raise InvalidArgument(f"a request to a scheduler of {len(sent)} words lacks some")
        raise NotImplementedByServer(f"a scheduler has no operation {sent[0]}")

    def _window(self, window: int) -> bytes:
        info = self.info()
        offset = window & 0xFF_FFFF
        if offset >= info.cpu_max:
            raise OutOfRange(f"CPUs are numbered below {info.cpu_max}, there is no {offset}")
        mask = sum({1 << at for cpu in info.cpus if 0 <= (at := cpu - offset >> (window >> 24 & 0xFF)) < _WINDOW})
        return _TWO.pack(mask, info.cpu_max)

    def _named(self, window: int, mask: int) -> frozenset[int]:
        """Return those of our CPUs that a window of a client names; each bit stands for ``1 << granularity``."""
        offset, granularity = window & 0xFF_FFFF, window >> 24 & 0xFF
        return frozenset(cpu for cpu in self.cpus if cpu >= offset and mask >> (cpu - offset >> granularity) & 1)

    def __repr__(self) -> str:
        return f"<SchedulerServer {self.offset} to {self.limit} on CPUs {sorted(self.cpus)}>"


def _word(number: int) -> int:
    if not 0 <= number <= 2**64 - 1:
        raise OutOfRange(f"a priority is 1 to {_MAX_PRIO}, not {number}")
    return number


def _numbers(mask: int, offset: int) -> set[int]:
    return {offset + bit for bit in range(mask.bit_length()) if mask >> bit & 1}


def _window(cpus: Collection[int]) -> tuple[int, int]:
    """Return a set of CPUs as L4 has it: a first number, and a mask of 64 from there."""
    first = min(cpus, default=0)
    if not cpus or first < 0 or max(cpus) >= min(_MAX_CPUS, first + _WINDOW):
        raise InvalidArgument(f"a set of CPUs names some within {_WINDOW} of each other, not {sorted(cpus)}")
    return first, sum(1 << cpu - first for cpu in set(cpus))
