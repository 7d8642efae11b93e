"""The session page and the socket beside it: states, transitions and offsets, as one table.

One thread of a client and one server share a page and have one call at a time. The native leaf is what
runs; this is what it must do, in a form that a test, a diagram and a peer in another language can read.
The leaf's own copy is ``_native/page.h``; tests let a peer written from this table talk to it.

==========  ==========  ========  ============================================================
from        to          by        meaning
==========  ==========  ========  ============================================================
FREE, DONE  POSTED      client    ``post``: the next sequence number, the message is written
POSTED      TAKEN       server    ``take``, by compare-exchange
POSTED      FREE        client    ``withdraw``, by compare-exchange: as if never posted
TAKEN       DONE        server    ``reply``: the answer is written
TAKEN       FREE        server    ``release``: the message was one-way, and copied out
==========  ==========  ========  ============================================================

Descriptors go ahead of their message in a ``C`` packet that names its sequence number. Whoever is about to
sleep raises its ``asleep`` word and looks once more; whoever stores a state that the other waits for sends
``w`` if it finds the other's word raised.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from struct import Struct
from types import MappingProxyType
from typing import Final

__all__ = [
    "ASLEEP_OF",
    "FDS_AHEAD",
    "LONG_BYTES",
    "MAX_FDS",
    "MAX_ITEMS",
    "ONE_WAY",
    "PAGE_BYTES",
    "REFUSAL",
    "STEPS",
    "VERSION",
    "WAKE",
    "WORDS",
    "Field",
    "Head",
    "Side",
    "State",
    "Step",
    "after",
    "next_sequence",
    "pack_ahead",
    "split",
    "state_word",
    "unpack_ahead",
]

PAGE_BYTES: Final = 65536
VERSION: Final = 1
WORDS: Final = 63
LONG_BYTES: Final = 60 * 1024
MAX_ITEMS: Final = 16
MAX_FDS: Final = 64

#: The only flag of a message: nobody waits for an answer.
ONE_WAY: Final = 1

_SEQUENCES: Final = 1 << 55


class State(IntEnum):
    """The low byte of the state word; above it is the sequence number."""

    FREE = 0
    POSTED = 1
    TAKEN = 2
    DONE = 3


class Side(Enum):
    """Who may make a step."""

    CLIENT = "client"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Step:
    """One arrow of the diagram."""

    name: str
    side: Side
    before: State
    after: State


STEPS: Final = (
    Step("post", Side.CLIENT, State.FREE, State.POSTED),
    Step("post", Side.CLIENT, State.DONE, State.POSTED),
    Step("take", Side.SERVER, State.POSTED, State.TAKEN),
    Step("withdraw", Side.CLIENT, State.POSTED, State.FREE),
    Step("reply", Side.SERVER, State.TAKEN, State.DONE),
    Step("release", Side.SERVER, State.TAKEN, State.FREE),
)


class Field(IntEnum):
    """Offsets in the page, in bytes. Numbers are in the machine's byte order."""

    STATE = 0  # u64: sequence << 8 | State
    LABEL = 8  # s64
    COUNTS = 16  # u64: words | items << 16 | descriptors << 32 | flags << 48
    SIZE_CPU = 24  # u64: bytes in the long area | (CPU of the writer + 1) << 32
    MESSAGE = 32  # 63 words
    SERVER_ASLEEP = 576  # u32, starts as 1
    CLIENT_ASLEEP = 640  # u32
    VERSION = 644  # u32
    PROBE = 648  # u64, scratch
    LONG = 704  # 60 KiB


#: Which word a side raises before it sleeps.
ASLEEP_OF: Final = MappingProxyType({Side.CLIENT: Field.CLIENT_ASLEEP, Side.SERVER: Field.SERVER_ASLEEP})

# Packets on the session socket, by their first byte.
WAKE: Final = b"w"
FDS_AHEAD: Final = b"C"
REFUSAL: Final = b"R"

_AHEAD = Struct("=c7xQ")


def state_word(sequence: int, state: State) -> int:
    """Return the state word."""
    return sequence << 8 | state


def split(word: int) -> tuple[int, State | None]:
    """Return sequence number and state of a word; None for a byte that is no state."""
    low = word & 0xFF
    return word >> 8, State(low) if low <= State.DONE else None


def next_sequence(sequence: int) -> int:
    """Return the number of the message after number ``sequence``."""
    return (sequence + 1) % _SEQUENCES


def after(word: int, name: str) -> int | None:
    """Return the state word after step ``name``, or None if the step cannot be made from ``word``."""
    sequence, state = split(word)
    for step in STEPS:
        if step.name == name and step.before is state:
            return state_word(next_sequence(sequence) if name == "post" else sequence, step.after)
    return None


def pack_ahead(sequence: int) -> bytes:
    """Return the packet that carries the descriptors of message ``sequence``."""
    return _AHEAD.pack(FDS_AHEAD, sequence)


def unpack_ahead(packet: bytes) -> int | None:
    """Return whose descriptors a packet carries; None if it is no such packet."""
    return _AHEAD.unpack_from(packet)[1] if packet[:1] == FDS_AHEAD and len(packet) >= _AHEAD.size else None


@dataclass(frozen=True, slots=True)
class Head:
    """The header of a message: everything beside its words and its long area."""

    label: int = 0
    words: int = 0
    items: int = 0
    fds: int = 0
    flags: int = 0
    size: int = 0
    cpu: int = 0

    @property
    def counts(self) -> int:
        """The word at `Field.COUNTS`."""
        return self.words | self.items << 16 | self.fds << 32 | self.flags << 48

    @property
    def size_cpu(self) -> int:
        """The word at `Field.SIZE_CPU`."""
        return self.size | self.cpu << 32

    @classmethod
    def of(cls, label: int, counts: int, size_cpu: int) -> Head:
        """Return what three copied words say."""
        return cls(
            label,
            counts & 0xFFFF,
            counts >> 16 & 0xFFFF,
            counts >> 32 & 0xFFFF,
            counts >> 48,
            size_cpu & 0xFFFFFFFF,
            size_cpu >> 32,
        )

    @property
    def sound(self) -> bool:
        """Whether an honest peer can have written it."""
        return (
            self.words <= WORDS
            and self.items <= MAX_ITEMS
            and 2 * self.items <= self.words
            and self.fds <= MAX_FDS
            and self.size <= LONG_BYTES
        )
