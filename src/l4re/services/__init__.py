"""Services: objects of L4's own protocols that a program can serve, and the proxies for those who use them.

Here live the interrupt controller (:class:`Icu`, :class:`IcuServer`), the factory behind a gate
(:class:`Factory`, :class:`FactoryServer`), and the scheduler (:class:`Scheduler`, :class:`SchedulerServer`). The
room promises upstream's messages, word for word as far as there are any, and that whatever a client sends ends in an
answer. The loop that serves them is left to ``server``, and what an object is to ``irq`` and ``factory``.
"""

from l4re.services.factory import Factory, FactoryServer, Maker
from l4re.services.icu import Icu, IcuInfo, IcuServer
from l4re.services.scheduler import Placement, Scheduler, SchedulerInfo, SchedulerServer

__all__ = [
    "Factory",
    "FactoryServer",
    "Icu",
    "IcuInfo",
    "IcuServer",
    "Maker",
    "Placement",
    "Scheduler",
    "SchedulerInfo",
    "SchedulerServer",
]
