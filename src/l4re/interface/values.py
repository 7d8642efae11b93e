"""Capabilities as typed values: items of a message, checked against the annotation.

``Dataspace`` accepts dataspaces, ``Capability`` any kind, an interface any gate and gives a proxy.
``Dataspace | None`` may be void.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, Union, get_args, get_origin

from l4re.cap import Capability
from l4re.errors import InvalidArgument, MissingArgument
from l4re.interface.proxy import Interface
from l4re.wire.codecs import Codec, Shape, register_codec, shown
from l4re.wire.stream import Reader, Writer

__all__ = ["CapabilityCodec", "capability_of"]


def capability_of(value: object) -> Capability | None:
    """Return the capability that ``value`` is or stands for: itself, a proxy's, a registered server object's."""
    if isinstance(value, Capability):
        return value
    if isinstance(value, Interface) and not value._l4_server:
        return value.cap
    if hasattr(value, "_l4_cap"):
        found: Capability = value.obj_cap()  # type: ignore[attr-defined]
        return found
    return None


class CapabilityCodec(Codec):
    """A capability of one class, or one that can be called through an interface."""

    shape = Shape.ITEM

    def __init__(self, cls: type[Capability] | type[Interface], *, optional: bool) -> None:
        self.cls = cls
        self.typed = issubclass(cls, Interface)
        self._make: Callable[[Any], Any] = cls
        self.optional = optional
        self.name = f"{cls.__name__} | None" if optional else cls.__name__

    def _accepts(self, cap: object) -> bool:
        return hasattr(cap, "transact") if self.typed else isinstance(cap, self.cls)

    def put(self, out: Writer, value: Any) -> None:
        cap = capability_of(value)
        if cap is None:
            if value is not None:
                raise self.wrong(value)
            if not self.optional:
                raise MissingArgument(f"must be {self.name}, not None")
        elif not self._accepts(cap) or (
            self.typed and isinstance(value, Interface) and not isinstance(value, self.cls)
        ):
            raise self.wrong(value)
        out.caps.append(cap)

    def get(self, source: Reader) -> Any:
        cap = source.cap()
        if cap is None:
            if self.optional:
                return None
            raise MissingArgument(f"must be {self.name}, and a void capability arrived")
        if not self._accepts(cap):
            raise InvalidArgument(f"must be {self.name}, and {shown(cap)} arrived")
        return self._make(cap) if self.typed else cap

    def fits(self, var: str, bind: Callable[[object], str]) -> str:
        fits = f"{bind(isinstance)}({var}, {bind(self.cls)})"
        return f"({var} is None or {fits})" if self.optional and not self.typed else fits

    def to_wire(self, var: str, bind: Callable[[object], str]) -> str:
        return f"{var}.cap" if self.typed else var

    def arrived(self, var: str, bind: Callable[[object], str]) -> str:
        if self.typed:
            return f"{var} is not None"
        return self.fits(var, bind)

    def from_wire(self, var: str, bind: Callable[[object], str]) -> str:
        return f"{bind(self.cls)}({var})" if self.typed else var


def _codec(annotation: Any) -> Codec | None:
    optional = False
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [each for each in get_args(annotation) if each is not types.NoneType]
        if len(inner) != 1:
            return None
        annotation, optional = inner[0], True
    if not isinstance(annotation, type):
        return None
    if issubclass(annotation, Interface):
        if annotation._l4_server:
            raise TypeError(f"{annotation.__name__} is a server; say the interface it serves")
        return CapabilityCodec(annotation, optional=optional)
    return CapabilityCodec(annotation, optional=optional) if issubclass(annotation, Capability) else None


register_codec(_codec)
