"""IPC timeouts as L4 packs them: 16 bits each, two in a word.

Calls here take seconds; these values are for programs that know the packed ones. 0 is never, 0x400 not at all,
others ``m << e`` microseconds with m in bits 0-9 and e in bits 10-14; bit 15 says that a buffer register holds
the point in time.
"""

from __future__ import annotations

import math
from typing import ClassVar, Final, Self

from l4re.errors import InvalidArgument
from l4re.wire.number import Number

__all__ = ["Timeout", "Timeouts"]

_ABSOLUTE: Final = 0x8000
_MANTISSA: Final = 0x3FF
_EXPONENT_MAX: Final = 31


class Timeout(Number):
    """How long one side of a call waits. ``Timeout.from_us(1500)``, ``Timeout.NEVER``, or any 16 bits."""

    __slots__ = ()

    bits: ClassVar[int] = 16
    NEVER: ClassVar[Timeout]
    """Wait for ever: 0."""
    ZERO: ClassVar[Timeout]
    """Do not wait: 0x400."""

    @classmethod
    def make(cls, mantissa: int, exponent: int) -> Self:
        """Return ``mantissa << exponent`` microseconds; twice 0 is never.

        Raises:
            OutOfRange: one does not fit its field.
        """
        return cls(cls._field("mantissa", mantissa, 10) | cls._field("exponent", exponent, 5) << 10)

    @classmethod
    def from_us(cls, microseconds: int) -> Self:
        """Return the shortest timeout that is not shorter; never, where there is none.

        Raises:
            InvalidArgument: a negative time.
        """
        if microseconds < 0:
            raise InvalidArgument(f"a timeout is 0 or more microseconds, not {microseconds}")
        if microseconds == 0:
            return cls(0x400)
        exponent = max(0, microseconds.bit_length() - 10)
        mantissa = -(-microseconds >> exponent)
        if mantissa > _MANTISSA:
            exponent, mantissa = exponent + 1, -(-mantissa >> 1)
        return cls.make(mantissa, exponent) if exponent <= _EXPONENT_MAX else cls(0)

    @classmethod
    def from_seconds(cls, seconds: float | None) -> Self:
        """Return the timeout for what calls here take; None is never.

        Raises:
            InvalidArgument: a negative time, or none at all.
        """
        if seconds is None or seconds == math.inf:
            return cls(0)
        if not seconds >= 0:
            raise InvalidArgument(f"a timeout is 0 or more seconds, not {seconds!r}")
        return cls.from_us(math.ceil(seconds * 1_000_000))

    @classmethod
    def at(cls, register: int) -> Self:
        """Return the timeout whose point in time stands in a buffer register.

        Raises:
            OutOfRange: there is no such register.
        """
        return cls(_ABSOLUTE | cls._field("register", register, 6))

    @property
    def absolute(self) -> bool:
        """Whether it is a point in time."""
        return bool(int(self) & _ABSOLUTE)

    @property
    def register(self) -> int | None:
        """The buffer register that holds the point in time; None for a relative timeout."""
        return int(self) & 0x3F if self.absolute else None

    @property
    def us(self) -> int | None:
        """Microseconds; None is never.

        Raises:
            InvalidArgument: it is a point in time.
        """
        if self.absolute:
            raise InvalidArgument(f"{self!r} is a point in time, not a number of microseconds")
        return None if int(self) == 0 else (int(self) & _MANTISSA) << (int(self) >> 10)

    @property
    def seconds(self) -> float | None:
        """What calls here take as ``timeout=``.

        Raises:
            InvalidArgument: it is a point in time.
        """
        us = self.us
        return None if us is None else us / 1_000_000

    def __repr__(self) -> str:
        if self.absolute:
            return f"<Timeout at buffer register {self.register}>"
        return "<Timeout never>" if self.us is None else f"<Timeout {self.us} us>"


class Timeouts(Number):
    """The timeouts of a call: ``send << 16 | receive``."""

    __slots__ = ()

    bits: ClassVar[int] = 32
    NEVER: ClassVar[Timeouts]
    """Wait for ever in both phases: 0."""
    BOTH_0: ClassVar[Timeouts]
    """Do not wait in either phase: 0x04000400."""
    SEND_0: ClassVar[Timeouts]
    """Do not wait for the receiver, and for ever for the answer: 0x04000000."""
    RECV_0: ClassVar[Timeouts]
    """Do not wait for an answer, and for ever for the receiver: 0x400."""

    @classmethod
    def make(cls, send: int, receive: int) -> Self:
        """Put two timeouts together.

        Raises:
            OutOfRange: one has more than 16 bits.
        """
        return cls(Timeout(send) << 16 | Timeout(receive))

    @property
    def send(self) -> Timeout:
        """How long to wait until the receiver takes it."""
        return Timeout(int(self) >> 16)

    @property
    def receive(self) -> Timeout:
        """How long to wait for what comes back."""
        return Timeout(int(self) & 0xFFFF)

    def __repr__(self) -> str:
        return f"Timeouts(send={self.send!r}, receive={self.receive!r})"


Timeout.NEVER = Timeout(0)
Timeout.ZERO = Timeout(0x400)
Timeouts.NEVER = Timeouts(0)
Timeouts.BOTH_0 = Timeouts(0x0400_0400)
Timeouts.SEND_0 = Timeouts(0x0400_0000)
Timeouts.RECV_0 = Timeouts(0x400)
