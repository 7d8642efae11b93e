"""Interfaces: the operations of an object, for those who call it and those who serve it.

Here live typed proxies and servers (`Interface`, `rpc`, `Epiface`), the raw kind (`ServerObject`,
`Iostream`), META with `describe`, and the casts; which capabilities and arrays travel as typed values is said
here, plain data is ``wire``'s. The room promises that whatever a peer sends, a request ends in an answer or in an
`L4Error`, and that a bad argument is refused before anything is sent. How messages travel is left to ``gate``, who
is served when to ``server``.
"""

from typing import TYPE_CHECKING

from l4re.interface import values as _values
from l4re.interface.proxy import Interface
from l4re.interface.rpc import rpc
from l4re.interface.served import Answer, Later, Served, WrongResult
from l4re.on_demand import names_on_demand
from l4re.wire.scalars import S8, S16, S32, S64, U8, U16, U32, U64, Length, Opcode

if TYPE_CHECKING:
    from l4re.interface.casts import cap_cast, cap_dynamic_cast, cap_reinterpret_cast
    from l4re.interface.check import check_implementation
    from l4re.interface.description import Answered, Description, ObjectOperation, ObjectProtocol, describe
    from l4re.interface.epiface import Epiface
    from l4re.interface.iostream import Iostream
    from l4re.interface.meta import Meta, handle_meta_request
    from l4re.interface.raw import ServerObject
else:
    __getattr__, __dir__ = names_on_demand(
        globals(),
        {
            "l4re.interface.casts": ("cap_cast", "cap_dynamic_cast", "cap_reinterpret_cast"),
            "l4re.interface.check": ("check_implementation",),
            "l4re.interface.description": ("Answered", "Description", "ObjectOperation", "ObjectProtocol", "describe"),
            "l4re.interface.epiface": ("Epiface",),
            "l4re.interface.iostream": ("Iostream",),
            "l4re.interface.meta": ("Meta", "handle_meta_request"),
            "l4re.interface.raw": ("ServerObject",),
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
    "Answer",
    "Answered",
    "Description",
    "Epiface",
    "Interface",
    "Iostream",
    "Later",
    "Length",
    "Meta",
    "ObjectOperation",
    "ObjectProtocol",
    "Opcode",
    "Served",
    "ServerObject",
    "WrongResult",
    "cap_cast",
    "cap_dynamic_cast",
    "cap_reinterpret_cast",
    "check_implementation",
    "describe",
    "handle_meta_request",
    "rpc",
]

del _values
