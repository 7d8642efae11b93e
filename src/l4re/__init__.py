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
        handle_meta_request,
        rpc,
    )
    from l4re.irq import Irq, IrqHandler
    from l4re.rm import Region, RegionMap
    from l4re.server import Caller, Limits, LoopEnd, ObjectRegistry, PortInfo, RegistryServer
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
                *("cap_cast", "cap_dynamic_cast", "cap_reinterpret_cast"),
            ),
            "l4re.irq": ("Irq", "IrqHandler"),
            "l4re.rm": ("Region", "RegionMap"),
            "l4re.server": ("Caller", "Limits", "LoopEnd", "ObjectRegistry", "PortInfo", "RegistryServer"),
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
    "DsFlags",
    "Env",
    "Epiface",
    "Err",
    "Exists",
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
    "Region",
    "RegionMap",
    "RegistryServer",
    "Rights",
    "RmFlags",
    "Served",
    "ServerError",
    "ServerObject",
    "Svr",
    "Tag",
    "Task",
    "TryAgain",
    "WrongType",
    "cap_cast",
    "cap_dynamic_cast",
    "cap_reinterpret_cast",
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
