"""IRQs and semaphores: one program tells another that something happened, or how often.

A trigger carries no data, coalesces, and never blocks. Each holder has a pipe
of its own, so that none can disturb another, and beside it a socket through
which the right to trigger can be handed on without asking anybody. What runs
when it arrives is an :class:`IrqHandler` in a server loop, or whoever waits in
:meth:`Irq.receive`. :class:`IrqMux` triggers several. The tokens of a
:class:`Semaphore` are in one pipe, which its holders share. When a line of an
interrupt controller notifies is arithmetic (`Line`); the controller itself is
left to ``services``.
"""

from typing import TYPE_CHECKING

from l4re.irq.irq import Irq, IrqHandler
from l4re.irq.pin import IrqSource, Pin
from l4re.on_demand import names_on_demand

if TYPE_CHECKING:
    from l4re.irq.line import IrqMode, Line
    from l4re.irq.mux import IrqMux
    from l4re.irq.semaphore import Semaphore
else:
    __getattr__, __dir__ = names_on_demand(
        globals(),
        {
            "l4re.irq.line": ("IrqMode", "Line"),
            "l4re.irq.mux": ("IrqMux",),
            "l4re.irq.semaphore": ("Semaphore",),
        },
    )

__all__ = ["Irq", "IrqHandler", "IrqMode", "IrqMux", "IrqSource", "Line", "Pin", "Semaphore"]
