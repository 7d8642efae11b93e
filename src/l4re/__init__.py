"""L4Re's application model for ordinary Linux processes.

Programs share memory, call each other and notify each other through capabilities
and nothing else. A program starts with :func:`env`: what its parent gave it.
"""

from typing import TYPE_CHECKING

from l4re.cap import Capability
from l4re.environment import Env, env
from l4re.errors import (
    AccessDenied,
    AddressNotAvailable,
    BadProtocol,
    Busy,
    Closed,
    Err,
    Exists,
    InvalidArgument,
    IpcErr,
    IpcError,
    IpcTimeout,
    L4Error,
    MessageTooLong,
    MessageTooShort,
    MissingArgument,
    NotFound,
    NotImplementedByServer,
    NotSupported,
    OutOfMemory,
    OutOfRange,
    PeerGone,
    PermissionDenied,
    ReplyDropped,
    ServerError,
    TryAgain,
    WrongType,
    error_from_code,
    errtostr,
    raise_from_code,
)
from l4re.gate import Channel, Gate, Message, Svr, new_channel
from l4re.log import Log
from l4re.on_demand import names_on_demand
from l4re.rights import DsFlags, MemAllocFlags, Rights, RmFlags
from l4re.wire.tag import Tag

if TYPE_CHECKING:
    from l4re.boot import Task, spawn
    from l4re.dataspace import Dataspace
    from l4re.factory import MemAlloc
    from l4re.interface import (
        S8,
        S16,
        S32,
        S64,
        U8,
        U16,
        U32,
        U64,
        Description,
        Epiface,
        Interface,
        Iostream,
        Length,
        Meta,
        Opcode,
        Served,
        ServerObject,
        cap_cast,
        cap_dynamic_cast,
        cap_reinterpret_cast,
        describe,
        handle_meta_request,
        rpc,
    )
    from l4re.irq import Irq, IrqHandler
    from l4re.rm import Region, RegionMap
    from l4re.server import Caller, Limits, LoopEnd, ObjectRegistry, PortInfo, RegistryServer
    from l4re.wire.flexpages import Flexpage, FlexpageKind
    from l4re.wire.mappings import MapAttributes, Received, ReceivedItem, ReceiveItem, SendItem
    from l4re.wire.protocols import Proto
    from l4re.wire.timeouts import Timeout, Timeouts
    from l4re.wire.words import Words
else:
    __getattr__, __dir__ = names_on_demand(
        globals(),
        {
            "l4re.boot": ("Task", "spawn"),
            "l4re.dataspace": ("Dataspace",),
            "l4re.factory": ("MemAlloc",),
            "l4re.interface": (
                *("S8", "S16", "S32", "S64", "U8", "U16", "U32", "U64", "Length", "Opcode"),
                *("Epiface", "Interface", "Iostream", "Meta", "Served", "ServerObject", "handle_meta_request", "rpc"),
                *("cap_cast", "cap_dynamic_cast", "cap_reinterpret_cast", "Description", "describe"),
            ),
            "l4re.irq": ("Irq", "IrqHandler"),
            "l4re.rm": ("Region", "RegionMap"),
            "l4re.server": ("Caller", "Limits", "LoopEnd", "ObjectRegistry", "PortInfo", "RegistryServer"),
            "l4re.wire.flexpages": ("Flexpage", "FlexpageKind"),
            "l4re.wire.mappings": ("MapAttributes", "ReceiveItem", "Received", "ReceivedItem", "SendItem"),
            "l4re.wire.protocols": ("Proto",),
            "l4re.wire.timeouts": ("Timeout", "Timeouts"),
            "l4re.wire.words": ("Words",),
        },
    )

__all__ = [
    "S8",
    "S16",
    "S32",
    "S64",
    "U8",
    "U16",
    "U32",
    "U64",
    "AccessDenied",
    "AddressNotAvailable",
    "BadProtocol",
    "Busy",
    "Caller",
    "Capability",
    "Channel",
    "Closed",
    "Dataspace",
    "Description",
    "DsFlags",
    "Env",
    "Epiface",
    "Err",
    "Exists",
    "Flexpage",
    "FlexpageKind",
    "Gate",
    "Interface",
    "InvalidArgument",
    "Iostream",
    "IpcErr",
    "IpcError",
    "IpcTimeout",
    "Irq",
    "IrqHandler",
    "L4Error",
    "Length",
    "Limits",
    "Log",
    "LoopEnd",
    "MapAttributes",
    "MemAlloc",
    "MemAllocFlags",
    "Message",
    "MessageTooLong",
    "MessageTooShort",
    "Meta",
    "MissingArgument",
    "NotFound",
    "NotImplementedByServer",
    "NotSupported",
    "ObjectRegistry",
    "Opcode",
    "OutOfMemory",
    "OutOfRange",
    "PeerGone",
    "PermissionDenied",
    "PortInfo",
    "Proto",
    "ReceiveItem",
    "Received",
    "ReceivedItem",
    "Region",
    "RegionMap",
    "RegistryServer",
    "ReplyDropped",
    "Rights",
    "RmFlags",
    "SendItem",
    "Served",
    "ServerError",
    "ServerObject",
    "Svr",
    "Tag",
    "Task",
    "Timeout",
    "Timeouts",
    "Words",
    "TryAgain",
    "WrongType",
    "cap_cast",
    "cap_dynamic_cast",
    "cap_reinterpret_cast",
    "describe",
    "env",
    "error_from_code",
    "errtostr",
    "handle_meta_request",
    "new_channel",
    "raise_from_code",
    "rpc",
    "spawn",
]

__version__ = "0.1.0"
