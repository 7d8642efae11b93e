"""Services: objects of L4's own protocols that a program can serve, and the proxies for those who use them.

Each protocol has a module: its proxy (:class:`Factory`, :class:`Namespace`, :class:`Scheduler`, ...), and what serves
it (:class:`FactoryServer`, ...). The room promises upstream's messages, word for word as far as there are any, and
that whatever a client sends ends in an answer. The loop that serves them is left to ``server``, and what an object is
to the rooms below.
"""

from typing import TYPE_CHECKING

from l4re.on_demand import names_on_demand

if TYPE_CHECKING:
    from l4re.services.dataspace import DataspaceServer, RemoteDataspace, Window
    from l4re.services.event import AxisInfo, Event, EventCodes, EventServer, EventStreamInfo
    from l4re.services.event_buffer import EventBuffer, InputEvent
    from l4re.services.factory import Factory, FactoryServer, Maker
    from l4re.services.icu import Icu, IcuInfo, IcuServer
    from l4re.services.inhibitor import Inhibitor, InhibitorServer, LockInfo
    from l4re.services.namespace import Namespace, NamespaceEntry, NsFlags, Resolved
    from l4re.services.namespace_server import NamespaceServer
    from l4re.services.parent import Parent, ParentServer
    from l4re.services.random import Random, RandomServer
    from l4re.services.remote_access import RemoteAccess, RemoteAccessServer
    from l4re.services.scheduler import Placement, Scheduler, SchedulerInfo, SchedulerServer
    from l4re.services.vcon import Vcon, VconAttr, VconInput, VconServer
else:
    __getattr__, __dir__ = names_on_demand(
        globals(),
        {
            "l4re.services.dataspace": ("DataspaceServer", "RemoteDataspace", "Window"),
            "l4re.services.event": ("AxisInfo", "Event", "EventCodes", "EventServer", "EventStreamInfo"),
            "l4re.services.event_buffer": ("EventBuffer", "InputEvent"),
            "l4re.services.factory": ("Factory", "FactoryServer", "Maker"),
            "l4re.services.icu": ("Icu", "IcuInfo", "IcuServer"),
            "l4re.services.inhibitor": ("Inhibitor", "InhibitorServer", "LockInfo"),
            "l4re.services.namespace": ("Namespace", "NamespaceEntry", "NsFlags", "Resolved"),
            "l4re.services.namespace_server": ("NamespaceServer",),
            "l4re.services.parent": ("Parent", "ParentServer"),
            "l4re.services.random": ("Random", "RandomServer"),
            "l4re.services.remote_access": ("RemoteAccess", "RemoteAccessServer"),
            "l4re.services.vcon": ("Vcon", "VconAttr", "VconInput", "VconServer"),
            "l4re.services.scheduler": ("Placement", "Scheduler", "SchedulerInfo", "SchedulerServer"),
        },
    )

__all__ = [
    "AxisInfo",
    "DataspaceServer",
    "Event",
    "EventBuffer",
    "EventCodes",
    "EventServer",
    "EventStreamInfo",
    "Factory",
    "FactoryServer",
    "Icu",
    "IcuInfo",
    "IcuServer",
    "Inhibitor",
    "InhibitorServer",
    "InputEvent",
    "LockInfo",
    "Maker",
    "Namespace",
    "NamespaceEntry",
    "NamespaceServer",
    "NsFlags",
    "Parent",
    "ParentServer",
    "Placement",
    "Random",
    "RandomServer",
    "RemoteAccess",
    "RemoteAccessServer",
    "RemoteDataspace",
    "Resolved",
    "Scheduler",
    "SchedulerInfo",
    "SchedulerServer",
    "Vcon",
    "VconAttr",
    "VconInput",
    "VconServer",
    "Window",
]
