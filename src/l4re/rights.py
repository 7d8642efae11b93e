"""Rights and flags: the bit sets that travel with capabilities, dataspaces and regions.

The numbers are L4Re's. Note that a *capability* right and a *memory* right are different
alphabets: W is 1 on a capability and 2 on memory. Rights only ever shrink on the way
from one holder to the next.
"""

from __future__ import annotations

from enum import IntFlag

from l4re.errors import InvalidArgument

__all__ = ["DetachResult", "DsFlags", "MemAllocFlags", "Rights", "RmFlags"]

_LETTERS = (("r", 4), ("w", 1), ("s", 2), ("d", 8))


class Rights(IntFlag):
    """What the holder of a capability may do with it.

    ``R`` use it at all, ``W`` change the object, ``S`` hand out special rights (on gates: pass
    capabilities with S through it), ``D`` delete the object. A server sees W and S of the capability
    that was used in the two low bits of the label.
    """

    NONE = 0
    W = 1
    S = 2
    R = 4
    D = 8
    RW = 5
    RS = 6
    RWS = 7
    RD = 12
    RWD = 13
    RSD = 14
    RWSD = 15

    def letters(self) -> str:
        """Return the rights as letters in the order ``rwsd``, e.g. ``"rws"``; ``"-"`` if there are none."""
        return "".join(letter for letter, bit in _LETTERS if self & bit) or "-"

    @classmethod
    def parse(cls, letters: str) -> Rights:
        """Return the rights that ``letters`` name (``"rws"``, in any order; ``""`` and ``"-"`` are none).

        Raises:
            InvalidArgument: a letter that is none of r, w, s, d.
        """
        value = 0
        for letter in letters if letters != "-" else "":
            for known, bit in _LETTERS:
                if letter == known:
                    value |= bit
                    break
            else:
                raise InvalidArgument(f"rights are letters out of 'rwsd', not {letter!r} (in {letters!r})")
        return cls(value)


class DsFlags(IntFlag):
    """What may be done with the memory of a dataspace, and how it is cached (``L4Re::Dataspace::F``)."""

    NONE = 0
    X = 1
    W = 2
    R = 4
    RO = 4
    RX = 5
    RW = 6
    RWX = 7
    RIGHTS_MASK = 0x0F
    NORMAL = 0
    CACHEABLE = 0
    BUFFERABLE = 0x10
    UNCACHEABLE = 0x20
    CACHING_MASK = 0x30


class RmFlags(IntFlag):
    """Rights and kind of a region, and how ``attach`` finds its place (``L4Re::Rm::F``)."""

    NONE = 0
    X = 1
    W = 2
    R = 4
    RO = 4
    RX = 5
    RW = 6
    RWX = 7
    RIGHTS_MASK = 0x0F
    NORMAL = 0
    CACHEABLE = 0
    BUFFERABLE = 0x10
    UNCACHEABLE = 0x20
    CACHING_MASK = 0x30
    KERNEL = 0x100
    PAGER = 0x400
    RESERVED = 0x800
    PRIVATE = 0x1000
    ANONYMOUS = 0x2000
    REGION_MASK = 0xFFFF
    SEARCH_ADDR = 0x2_0000
    IN_AREA = 0x4_0000
    EAGER_MAP = 0x8_0000
    NO_EAGER_MAP = 0x10_0000
    ATTACH_MASK = 0x1F_0000


class DetachResult(IntFlag):
    """What became of the region that a range was detached from (``L4Re::Rm::Detach_result``).

    It went as a whole, lost an end, or lost its middle; ``DETACH_AGAIN`` beside that: the range hits another one.
    """

    DETACHED_DS = 0
    KEPT_DS = 1
    SPLIT_DS = 2
    RESULT_MASK = 3
    DETACH_AGAIN = 4


class MemAllocFlags(IntFlag):
    """How memory is allocated (``L4Re::Mem_alloc``).

    ``SEALABLE`` is beyond L4Re: the owner keeps the choice to ``freeze`` or ``publish`` the dataspace later.
    """

    NONE = 0
    CONTINUOUS = 1
    PINNED = 2
    SUPER_PAGES = 4
    FIXED_PADDR = 8
    SEALABLE = 0x100
