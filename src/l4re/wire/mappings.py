"""Mappings: what L4 sends to hand something over, what it is told to put where, and what it reports.

Here capabilities travel as descriptors, announced by the items of `l4re.wire.items`. These are L4's own words for
the same thing, bit by bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, IntFlag
from typing import Final, NamedTuple

from l4re.errors import InvalidArgument, MessageTooShort
from l4re.rights import Rights
from l4re.wire.flexpages import Flexpage
from l4re.wire.number import WORD_MASK, unsigned

__all__ = ["MapAttributes", "ReceiveItem", "ReceivedItem", "Received", "SendItem"]

_VALID: Final = 8
_HIGH: Final = WORD_MASK & ~0xFFF


class MapAttributes(IntFlag):
    """More about what is sent: for capabilities, and (``CACHE_...``) for memory."""

    NONE = 0
    NO_REF_CNT = 0x10
    GATE_SERVER = 0x20
    RIGHT2 = 0x40
    RIGHT3 = 0x80
    ALL_RIGHTS = 0xE0
    CACHE_UNCACHEABLE = 0x10
    CACHE_CACHEABLE = 0x30
    CACHE_BUFFERABLE = 0x50
    MASK = 0xF0


class SendItem(NamedTuple):
    """A send item: hand over what ``fpage`` covers. Any two words are one."""

    base: int
    fpage: Flexpage

    @classmethod
    def make(
        cls, fpage: Flexpage, *, hot_spot: int = 0, grant: bool = False, compound: bool = False, attributes: int = 0
    ) -> SendItem:
        """Compose one. ``hot_spot`` is an address: where it goes if the receiver has more room than is sent.

        Raises:
            InvalidArgument: the hot spot is not that of a page, or there are no such attributes.
            OutOfRange: the hot spot does not fit a word.
        """
        if unsigned(hot_spot) & ~_HIGH or attributes & ~MapAttributes.MASK:
            raise InvalidArgument(f"hot spot {hot_spot:#x} with attributes {attributes:#x} would hit other fields")
        return cls(unsigned(hot_spot) | attributes | _VALID | grant << 1 | compound, fpage)

    @classmethod
    def from_words(cls, base: int, fpage: int) -> SendItem:
        """Read two words.

        Raises:
            OutOfRange: one is no word.
        """
        return cls(unsigned(base), Flexpage(fpage))

    @property
    def valid(self) -> bool:
        """Whether the sender meant it as an item; a void one is skipped."""
        return bool(self.base & _VALID) and bool(self.fpage)

    @property
    def compound(self) -> bool:
        """Whether the next item goes into the same buffer."""
        return bool(self.base & 1)

    @property
    def grant(self) -> bool:
        """Whether the sender gives it up."""
        return bool(self.base & 2)

    @property
    def attributes(self) -> MapAttributes:
        """Bits 4-7; what they mean depends on the kind of flexpage."""
        return MapAttributes(self.base & MapAttributes.MASK)

    @property
    def hot_spot(self) -> int:
        """Where it goes if the receiver has more room than is sent."""
        return self.base & _HIGH

    def __repr__(self) -> str:
        marks = "".join(f" {mark}" for mark in ("grant", "compound") if getattr(self, mark))
        return f"<SendItem {self.fpage!r} hot spot {self.hot_spot:#x} attributes {int(self.attributes):#x}{marks}>"


class ReceiveItem(NamedTuple):
    """A receive item: where to put what comes. One word for a single capability, else two; one more to forward."""

    base: int
    fpage: Flexpage | None = None
    task: int | None = None

    @classmethod
    def single(cls, slot: int, *, local_id: bool = False, task: int | None = None) -> ReceiveItem:
        """Take one capability into ``slot``; ``local_id``: or just its label, if it is one of ours.

        Raises:
            InvalidArgument: a local id cannot be forwarded.
            OutOfRange: there is no such slot.
        """
        if local_id and task is not None:
            raise InvalidArgument("a local id means nothing to another task; leave out one of the two")
        return cls(int(Flexpage.make(0, slot, 0)) | _VALID | local_id << 2 | 2 | (task is not None), None, task)

    @classmethod
    def window(cls, fpage: Flexpage, *, hot_spot: int = 0, task: int | None = None) -> ReceiveItem:
        """Take whatever fits ``fpage``.

        Raises:
            InvalidArgument: the hot spot is not that of a page.
        """
        if unsigned(hot_spot) & ~_HIGH:
            raise InvalidArgument(f"hot spot {hot_spot:#x} would hit other fields")
        return cls(unsigned(hot_spot) | _VALID | (task is not None), fpage, task)

    @classmethod
    def from_words(cls, words: Sequence[int]) -> ReceiveItem:
        """Read the item that ``words`` begin with; `words` tells how many it took.

        Raises:
            InvalidArgument: bit 3 is not set, or a local id is asked for that cannot be.
            MessageTooShort: words are missing.
            OutOfRange: one is no word.
        """
        base = unsigned(words[0]) if words else 0
        if words and not base & _VALID:
            raise InvalidArgument(f"{base:#x} is no receive item, bit 3 is not set")
        if base & 4 and base & 3 != 2:
            raise InvalidArgument(f"{base:#x} asks for a local id, which needs a single slot in one's own task")
        needed = 1 + (not base & 2) + (base & 1)
        if len(words) < needed:
            raise MessageTooShort(f"a receive item of {needed} words, there are {len(words)}")
        fpage = None if base & 2 else Flexpage(words[1])
        return cls(base, fpage, unsigned(words[needed - 1]) if base & 1 else None)

    @property
    def words(self) -> tuple[int, ...]:
        """The item as it is written into buffer registers."""
        return (self.base, *(each for each in (self.fpage, self.task) if each is not None))

    @property
    def slot(self) -> int | None:
        """The slot for a single capability; None for a window."""
        return self.base >> 12 if self.base & 2 else None

    @property
    def local_id(self) -> bool:
        """Whether a capability of this task's own is only named."""
        return bool(self.base & 4)

    def __repr__(self) -> str:
        where = f"slot {self.slot:#x}" if self.slot is not None else f"{self.fpage!r}"
        more = " or its local id" if self.local_id else ""
        return f"<ReceiveItem {where}{more}{'' if self.task is None else f' of task {self.task:#x}'}>"


class Received(Enum):
    """What became of one item, as its receiver is told (bits 1 and 2)."""

    MAPPED = 0
    NOTHING = 2
    ID = 4
    LOCAL_ID = 6


class ReceivedItem(NamedTuple):
    """What the receiver finds in the place of a send item. Any two words are one."""

    base: int
    value: int

    @classmethod
    def from_words(cls, base: int, value: int) -> ReceivedItem:
        """Read two words.

        Raises:
            OutOfRange: one is no word.
        """
        return cls(unsigned(base), unsigned(value))

    @property
    def valid(self) -> bool:
        """Whether there is an item at all."""
        return bool(self.base & _VALID)

    @property
    def outcome(self) -> Received:
        """What became of it."""
        return Received(self.base & 6)

    @property
    def cap_received(self) -> bool:
        """Whether a capability was mapped."""
        return self.base & 0x3E == 0x38

    @property
    def id_received(self) -> bool:
        """Whether it was a gate of the receiver's own: `label` and `rights` say which."""
        return self.base & 0x3E == 0x3C

    @property
    def local_id_received(self) -> bool:
        """Whether the sender is in the same task: `fpage` is the sender's."""
        return self.base & 0x3E == 0x3E

    @property
    def label(self) -> int:
        """Of a gate of the receiver's own: the label it was bound with."""
        return self.value & ~3

    @property
    def rights(self) -> Rights:
        """Of a gate of the receiver's own: W and S as the sender had them."""
        return Rights(self.value & 3)

    @property
    def fpage(self) -> Flexpage:
        """Of an item of the same task: what the sender's flexpage was."""
        return Flexpage(self.value)

    def __repr__(self) -> str:
        if not self.valid:
            return f"<ReceivedItem void {self.base:#x}>"
        what = ""
        if self.id_received:
            what = f" label {self.label:#x} {self.rights.letters()}"
        elif self.local_id_received:
            what = f" {self.fpage!r}"
        return f"<ReceivedItem {self.outcome.name.lower().replace('_', ' ')}{what}>"
