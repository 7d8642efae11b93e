"""Lines: what comes in at one pin of an interrupt controller, and when that notifies. Pure.

An edge is a change; one is kept while the line is masked. A level is a state: it notifies once and masks the line,
and again when the line is unmasked while the state lasts.
"""

from __future__ import annotations

from enum import IntFlag
from typing import Final

from l4re.errors import InvalidArgument

__all__ = ["IrqMode", "Line"]


class IrqMode(IntFlag):
    """When a line notifies (``L4_irq_mode``).

    ``POS_EDGE`` (what a new line has), ``NEG_EDGE``, ``BOTH_EDGE``, ``LEVEL_HIGH`` or ``LEVEL_LOW``; ``NONE`` changes
    nothing. The wake-up bits are taken and have no effect.
    """

    NONE = 0
    SET = 1
    LEVEL = 2
    NEGATIVE = 4
    BOTH = 8
    POS_EDGE = 1
    LEVEL_HIGH = 3
    NEG_EDGE = 5
    LEVEL_LOW = 7
    BOTH_EDGE = 9
    SET_WAKEUP = 0x10
    CLR_WAKEUP = 0x20


_WAKEUP: Final = int(IrqMode.SET_WAKEUP | IrqMode.CLR_WAKEUP)
_TRIGGERS: Final = (IrqMode.POS_EDGE, IrqMode.NEG_EDGE, IrqMode.BOTH_EDGE, IrqMode.LEVEL_HIGH, IrqMode.LEVEL_LOW)


class Line:
    """One line: low, masked, and waiting for a positive edge when it is new.

    What changes it returns whether to notify now.
    """

    __slots__ = ("high", "masked", "mode", "pending")

    def __init__(self) -> None:
        self.mode = IrqMode.POS_EDGE
        self.high = False
        self.masked = True
        self.pending = False

    def set_mode(self, mode: int) -> bool:
        """Wait for something else from now on; an edge that was kept is forgotten.

        Raises:
            InvalidArgument: there is no such mode.
        """
        wanted = int(mode) & ~_WAKEUP
        if wanted & IrqMode.SET:
            if wanted not in _TRIGGERS:
                raise InvalidArgument(f"{mode:#x} is no mode of a line; those are {', '.join(map(str, _TRIGGERS))}")
            self.mode = IrqMode(wanted)
            self.pending = False
        elif wanted:
            raise InvalidArgument(f"{mode:#x} is no mode of a line: it does not have the bit SET")
        return self._due()

    def drive(self, high: bool) -> bool:
        """Put the line at a level."""
        changed = high != self.high
        self.high = high
        if changed and (self.mode & IrqMode.BOTH or self._active()):
            self.pending = True
        return self._due()

    def pulse(self) -> bool:
        """Change the line and change it back. A level that nobody waits for just then is lost, as on hardware."""
        before = self.high
        return self.drive(not before) | self.drive(before)

    def mask(self) -> None:
        """Keep quiet."""
        self.masked = True

    def unmask(self) -> bool:
        """Say from now on what is to be said, and what was kept."""
        self.masked = False
        return self._due()

    def _active(self) -> bool:
        return self.high != bool(self.mode & IrqMode.NEGATIVE)

    def _due(self) -> bool:
        if self.masked:
            return False
        if self.mode & IrqMode.LEVEL:
            self.masked = self._active()
            return self.masked
        due, self.pending = self.pending, False
        return due
