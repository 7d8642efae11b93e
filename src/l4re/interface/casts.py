"""Casts: the same capability seen as another type.

`cap_cast` looks at the types only, `cap_dynamic_cast` asks the object, `cap_reinterpret_cast` believes you.
The result is the same capability: closing one closes the other.
"""

from __future__ import annotations

from typing import Any, TypeVar

from l4re.cap import Capability
from l4re.errors import BadProtocol, NotImplementedByServer, WrongType
from l4re.interface.meta import Meta
from l4re.interface.proxy import Interface
from l4re.interface.values import capability_of
from l4re.wire.codecs import shown

__all__ = ["cap_cast", "cap_dynamic_cast", "cap_reinterpret_cast"]

_T = TypeVar("_T", bound=Interface | Capability)


def _bare(cap: object, target: type[Any]) -> Capability:
    bare = capability_of(cap)
    if bare is None:
        raise WrongType(f"a capability is needed to make a {target.__name__}, not {shown(cap)}")
    return bare


def cap_cast(cap: Capability | Interface, target: type[_T]) -> _T:
    """Return ``cap`` as a ``target`` if its type is related to that; nobody is asked.

    A bare gate may become any interface, a typed one only an interface above or below its own.

    Raises:
        WrongType: the types have nothing to do with each other.
    """
    bare = _bare(cap, target)
    if isinstance(cap, Interface) and issubclass(target, Interface):
        mine = type(cap)
        if not (issubclass(mine, target) or issubclass(target, mine)):
            raise WrongType(f"{mine.__name__} and {target.__name__} are not related; cap_dynamic_cast asks the object")
    return cap_reinterpret_cast(bare, target)


def cap_reinterpret_cast(cap: Capability | Interface, target: type[_T]) -> _T:
    """Return ``cap`` as a ``target``, whatever it was.

    Raises:
        WrongType: nothing of the kind can be made of it: a dataspace cannot be called.
    """
    bare = _bare(cap, target)
    if issubclass(target, Interface):
        return target(bare)
    if not isinstance(bare, target):
        raise WrongType(f"{shown(bare)} is no {target.__name__}")
    return bare


def cap_dynamic_cast(cap: Capability | Interface, target: type[_T], *, timeout: float | None = None) -> _T:
    """Return ``cap`` as a ``target`` if the object says that it is one (META, one call of ``timeout`` seconds).

    Raises:
        BadProtocol: it says no, or does not answer META, or ``target`` has protocol 0, which says nothing.
        IpcError: nobody answered.
    """
    bare = _bare(cap, target)
    if not issubclass(target, Interface):
        if not isinstance(bare, target):
            raise BadProtocol(f"{shown(bare)} is no {target.__name__}")
        return bare
    if target.protocol == 0:
        raise BadProtocol(f"{target.__name__} has protocol 0, and no object can be asked for that; use cap_cast")
    if not hasattr(bare, "transact"):
        raise BadProtocol(f"{shown(bare)} is no {target.__name__} and cannot be asked")
    try:
        supported = Meta(bare).within(timeout).supports(target.protocol)
    except (BadProtocol, NotImplementedByServer):
        raise BadProtocol(
            f"{shown(bare)} does not answer META, so it is unknown whether it is a {target.__name__}"
        ) from None
    if not supported:
        raise BadProtocol(f"{shown(bare)} is no {target.__name__} (protocol {target.protocol:#x})")
    return target(bare)
