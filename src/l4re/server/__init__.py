"""The server: one loop that serves the objects registered with it.

The room promises that a client can hurt nobody but itself, that whatever a
client sent before it ended is handled before its end is, and that the loop ends
by itself once nobody can reach any of its objects. What the objects do with a
message is left to ``interface``; how a page is read, to the native leaf.
"""

from l4re.server.hooks import LoopHooks
from l4re.server.limits import Limits
from l4re.server.loop import LoopEnd, RegistryServer
from l4re.server.ports import PortInfo, PortNode, PortTree
from l4re.server.registry import ObjectRegistry
from l4re.server.replies import Caller, Reply
from l4re.server.stats import ObjectStats, ServerStats
from l4re.server.timeouts import QueuedTimeout, TimeoutQueue

__all__ = [
    "Caller",
    "Limits",
    "LoopEnd",
    "LoopHooks",
    "ObjectRegistry",
    "ObjectStats",
    "PortInfo",
    "PortNode",
    "PortTree",
    "RegistryServer",
    "Reply",
    "ServerStats",
    "QueuedTimeout",
    "TimeoutQueue",
]
