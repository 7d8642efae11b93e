"""IRQs and semaphores: one program tells another that something happened, or how often.

A trigger carries no data, coalesces, and never blocks. Each holder has a pipe
of its own, so that none can disturb another, and beside it a socket through
which the right to trigger can be handed on without asking anybody. What runs
when it arrives is an :class:`IrqHandler` in a server loop, or whoever waits in
:meth:`Irq.receive`.
"""

from l4re.irq.irq import Irq, IrqHandler
from l4re.irq.pin import IrqSource, Pin
from l4re.irq.semaphore import Semaphore

__all__ = ["Irq", "IrqHandler", "IrqSource", "Pin", "Semaphore"]
