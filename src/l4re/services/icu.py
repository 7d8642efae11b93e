"""Interrupt controllers: several lines, to each of which a client can bind an IRQ (L4's ``Icu``).

The program that serves one is the hardware: it drives the lines. A client that has a capability to it binds an IRQ to
a line, unmasks it, and is triggered.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import TYPE_CHECKING, ClassVar, Final

from l4re.closing import Closing
from l4re.errors import (
    BadProtocol,
    Closed,
    InvalidArgument,
    MessageTooShort,
    NotFound,
    NotImplementedByServer,
    PeerGone,
    PermissionDenied,
    error_from_code,
)
from l4re.interface import U64, Interface, Served, rpc
from l4re.interface.meta import Meta, answer_meta
from l4re.interface.proxy import interfaces_of
from l4re.irq import Irq, IrqMode, Line
from l4re.rights import Rights
from l4re.wire.protocols import Proto
from l4re.wire.stream import Reader, Writer

if TYPE_CHECKING:
    from l4re.cap import Capability
    from l4re.interface import Answer

__all__ = ["Icu", "IcuInfo", "IcuServer"]

_WORD = Struct("=Q")
_TWO = Struct("=QQ")
_THREE = Struct("=QQQ")
_MAX_LINES: Final = 1 << 16
#: What ``bind`` answers: unmask it at the controller, not at the IRQ.
_AT_ICU: Final = 1


class _Op(IntEnum):
    """L4's numbers."""

    BIND = 0
    UNBIND = 1
    INFO = 2
    MSI_INFO = 3
    UNMASK = 4
    MASK = 5
    SET_MODE = 6


@dataclass(frozen=True, slots=True)
class IcuInfo:
    """What an interrupt controller has: feature bits (``MSI`` or none), lines, and message-signalled interrupts."""

    features: U64
    irqs: U64
    msis: U64

    MSI = 1 << 31


class Icu(Interface):
    """An interrupt controller of another program, or of this one; see `IcuServer`."""

    protocol = int(Proto.IRQ)

    def bind(self, irqnum: int, irq: Irq) -> bool:
        """Have ``irq`` triggered by a line once that is unmasked: True if by :meth:`unmask`, False if at the IRQ.

        ``irq`` is lent: the controller becomes a holder of it, until it is unbound or nobody receives it any more.

        Raises:
            InvalidArgument: there is no such line, or something is bound to it.
            PermissionDenied: ``irq`` lacks W.
        """
        label, _, data, _ = self._l4_transact(Icu.protocol, _TWO.pack(_Op.BIND, U64(irqnum)), b"", (irq,))
        if label < 0:
            raise error_from_code(label, data.decode("utf-8", "replace"))
        return label == _AT_ICU

    @rpc(opcode=_Op.UNBIND)
    def unbind(self, irqnum: U64, irq: Irq | None = None) -> None:
        """Have nothing triggered by that line any more, and mask it. ``irq`` need not be said.

        Raises:
            InvalidArgument: there is no such line.
            NotFound: nothing is bound to it.
        """
        raise NotImplementedError

    @rpc(opcode=_Op.INFO)
    def info(self) -> IcuInfo:
        """Return what the controller has."""
        raise NotImplementedError

    @rpc(opcode=_Op.MSI_INFO)
    def msi_info(self, irqnum: U64) -> tuple[U64, U64]:
        """Ask for address and data of a message-signalled interrupt.

        Raises:
            NotImplementedByServer: a controller in software has none.
        """
        raise NotImplementedError

    @rpc(opcode=_Op.UNMASK, oneway=True)
    def unmask(self, irqnum: U64) -> None:
        """Let a line trigger, now if it has something to say. Waits for nothing, learns of no error."""
        raise NotImplementedError

    @rpc(opcode=_Op.MASK, oneway=True)
    def mask(self, irqnum: U64) -> None:
        """Keep a line quiet; one edge is kept. Waits for nothing, learns of no error."""
        raise NotImplementedError

    @rpc(opcode=_Op.SET_MODE)
    def set_mode(self, irqnum: U64, mode: IrqMode) -> None:
        """Say what a line waits for: an edge, or a level.

        Raises:
            InvalidArgument: there is no such line, or no such mode.
        """
        raise NotImplementedError


class IcuServer(Served, Closing):
    """Serves an interrupt controller with so many lines; the program that has it drives them.

    Lines are masked and wait for a positive edge to begin with. An edge triggers what is bound once; one that comes
    while the line is masked, or nothing is bound, is kept. A level triggers and masks the line, and triggers again
    when it is unmasked while the level lasts. An IRQ that nobody receives any more is unbound.

    :meth:`drive` and :meth:`pulse` are thread-safe.

    What is an interrupt controller and something more derives from it, and says which ``interface`` it has.
    """

    interface: ClassVar[type[Interface]] = Icu

    def __init__(self, irqs: int) -> None:
        """Make the lines.

        Raises:
            InvalidArgument: less than one, or more than 65536.
        """
        if not 1 <= irqs <= _MAX_LINES:
            raise InvalidArgument(f"an interrupt controller has 1 to {_MAX_LINES} lines, not {irqs}")
        self._lock = threading.RLock()
        self._lines = [Line() for _ in range(irqs)]
        self._bound: dict[int, Irq] = {}

    # ---- the hardware ----

    def drive(self, irqnum: int, high: bool) -> None:
        """Put a line at a level; what is bound hears of it as the line's mode and mask say.

        Raises:
            InvalidArgument: there is no such line.
        """
        with self._lock:
            self._notify(irqnum, self._line(irqnum).drive(high))

    def pulse(self, irqnum: int) -> None:
        """Change a line and change it back: one edge, or a level that ends before anybody looks.

        Raises:
            InvalidArgument: there is no such line.
        """
        with self._lock:
            self._notify(irqnum, self._line(irqnum).pulse())

    @property
    def bound(self) -> tuple[int, ...]:
        """The lines to which something is bound."""
        with self._lock:
            return tuple(sorted(self._bound))

    def _line(self, irqnum: int) -> Line:
        if not 0 <= irqnum < len(self._lines):
            raise InvalidArgument(f"there is no line {irqnum}; this controller has {len(self._lines)}, from 0 on")
        return self._lines[irqnum]

    def _notify(self, irqnum: int, due: bool) -> None:
        if due:
            try:
                self._bound[irqnum].trigger()
            except (PeerGone, Closed):
                self._forget(irqnum)

    def _forget(self, irqnum: int) -> None:
        self._lines[irqnum].mask()
        self._bound.pop(irqnum).close()

    # ---- the clients ----

    def serve_request(
        self, rights: int, label: int, words: bytes, data: bytes, caps: tuple[Capability | None, ...]
    ) -> Answer:
        """See `Served.serve_request`."""
        if label == Meta.PROTOCOL:
            out = Writer()
            return answer_meta(self.interface, Reader(words), out), out.words(), b"", ()
        if label != Proto.IRQ:
            spoken = ", ".join(f"{each.protocol:#x}" for each in interfaces_of(self.interface))
            raise BadProtocol(f"this {type(self).__name__} speaks protocol {spoken}, not {label:#x}")
        if len(words) < _WORD.size:
            raise MessageTooShort("the request has no opcode")
        (opcode,) = _WORD.unpack_from(words)
        match opcode:
            case _Op.INFO:
                return 0, _THREE.pack(0, len(self._lines), 0), b"", ()
            case _Op.MSI_INFO:
                raise NotImplementedByServer("a controller in software has no message-signalled interrupts")
            case _Op.BIND | _Op.UNBIND | _Op.UNMASK | _Op.MASK | _Op.SET_MODE:
                with self._lock:
                    return self._operate(opcode, words[_WORD.size :], caps), b"", b"", ()
        raise NotImplementedByServer(f"an interrupt controller has no operation {opcode}")

    def _operate(self, opcode: int, words: bytes, caps: tuple[Capability | None, ...]) -> int:
        """Do what is about one line; return the answer's label."""
        if len(words) < _WORD.size:
            raise InvalidArgument("the request does not say which line")
        (irqnum,) = _WORD.unpack_from(words)
        line = self._line(irqnum)
        if opcode == _Op.SET_MODE:
            if len(words) < _TWO.size:
                raise InvalidArgument("the request does not say which mode")
            self._notify(irqnum, line.set_mode(_TWO.unpack_from(words)[1]))
        elif opcode == _Op.MASK:
            line.mask()
        elif opcode == _Op.BIND:
            self._bind(irqnum, caps)
            return _AT_ICU
        elif irqnum not in self._bound:
            raise NotFound(f"nothing is bound to line {irqnum}")
        elif opcode == _Op.UNBIND:
            self._forget(irqnum)
        else:
            self._notify(irqnum, line.unmask())
        return 0

    def _bind(self, irqnum: int, caps: tuple[Capability | None, ...]) -> None:
        irq = caps[0] if len(caps) == 1 else None
        if not isinstance(irq, Irq):
            raise InvalidArgument("an IRQ is bound to a line, one, and nothing else")
        if not irq.rights & Rights.W:
            raise PermissionDenied(wanted=Rights.W, held=irq.rights)
        if irqnum in self._bound:
            raise InvalidArgument(f"something is bound to line {irqnum} already")
        self._bound[irqnum] = irq

    def close(self) -> None:
        """Unbind all; a second call does nothing."""
        with self._lock:
            for irqnum in self.bound:
                self._forget(irqnum)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} with {len(self._lines)} lines, {len(self._bound)} bound>"
