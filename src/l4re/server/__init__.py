"""The server: one loop that serves the objects registered with it.

The room promises that a client can hurt nobody but itself, that whatever a
client sent before it ended is handled before its end is, and that the loop ends
by itself once nobody can reach any of its objects. What the objects do with a
message is left to ``interface``; how a page is read, to the native leaf.
"""

from l4re.server.limits import Limits
from l4re.server.loop import Caller, LoopEnd, RegistryServer
from l4re.server.ports import PortInfo
from l4re.server.registry import ObjectRegistry

__all__ = ["Caller", "Limits", "LoopEnd", "ObjectRegistry", "PortInfo", "RegistryServer"]
