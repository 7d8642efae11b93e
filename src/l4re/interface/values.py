"""Capabilities as typed values: items of a message, checked against the annotation.

``Dataspace`` accepts dataspaces, ``Capability`` any kind, an interface any gate and gives a proxy.
``Dataspace | None`` may be void. ``Annotated[Dataspace, Rights.R]`` hands over no more than these rights, and
believes in nothing that carries less.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Annotated, Any, Union, get_args, get_origin

from l4re.cap import AtMost, Capability
from l4re.errors import InvalidArgument, MissingArgument, PermissionDenied
from l4re.interface.proxy import Interface
from l4re.rights import Rights
from l4re.wire.codecs import Codec, Shape, expanded, name_of, register_codec, shown
from l4re.wire.stream import Reader, Writer

__all__ = ["CapabilityCodec", "capability_of"]


#: Rights there are at all, by kind of capability.
_MOST = {"dataspace": Rights.RW, "irq": Rights.RW}


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
    """A capability of one class, or one that can be called through an interface, perhaps with stated rights."""

    items = 1

    def __init__(
        self, cls: type[Capability] | type[Interface], *, optional: bool = False, rights: Rights = Rights.NONE
    ) -> None:
        self.cls = cls
        self.typed = issubclass(cls, Interface)
        self._make: Callable[[Any], Any] = cls
        self.optional = optional
        self.rights = rights
        self.shape = Shape.OTHER if rights else Shape.ITEM
        self.name = f"{cls.__name__} | None" if optional else cls.__name__

    def _accepts(self, cap: object) -> bool:
        return hasattr(cap, "transact") if self.typed else isinstance(cap, self.cls)

    def _require(self, cap: Capability) -> None:
        if self.rights & ~cap.rights:
            wanted, held = self.rights, cap.rights
            raise PermissionDenied(
                f"must carry the rights {wanted.letters()!r}, and {shown(cap)} carries {held.letters()!r}",
                wanted=wanted,
                held=held,
            )

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
        elif self.rights:
            self._require(cap)
            cap = AtMost(cap, self.rights)
        out.caps.append(cap)

    def get(self, source: Reader) -> Any:
        cap = source.cap()
        if cap is None:
            if self.optional:
                return None
            raise MissingArgument(f"must be {self.name}, and a void capability arrived")
        if not self._accepts(cap):
            raise InvalidArgument(f"must be {self.name}, and {shown(cap)} arrived")
        if self.rights:
            self._require(cap)
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


def _codec(annotation: Any, notes: tuple[Any, ...]) -> Codec | None:
    stated = [note for note in notes if isinstance(note, Rights)]
    base, optional = annotation, False
    if get_origin(base) in (Union, types.UnionType):
        inner = [each for each in get_args(base) if each is not types.NoneType]
        if len(inner) == 1:
            base, optional = expanded(inner[0]), True
    if optional and get_origin(base) is Annotated:
        base, *more = get_args(base)
        stated += [note for note in more if isinstance(note, Rights)]
    if isinstance(base, type) and issubclass(base, Capability | Interface):
        if issubclass(base, Interface) and base._l4_server:
            raise TypeError(f"{base.__name__} is a server; say the interface it serves")
        return CapabilityCodec(base, optional=optional, rights=_rights_of(base, stated))
    if stated:
        raise TypeError(f"only capabilities carry rights like {stated[0]!r}, not values of type {name_of(annotation)}")
    if getattr(get_origin(annotation) or annotation, "__module__", "") == "numpy":
        from l4re.interface.arrays import array_codec  # numpy is there, since the annotation is

        return array_codec(annotation)
    return None


def _rights_of(cls: type[Any], stated: list[Rights]) -> Rights:
    """Return the rights that an annotation states, none if it states none."""
    if not stated:
        return Rights.NONE
    rights = Rights.R
    for each in stated:
        rights |= each
    most = _MOST.get(getattr(cls, "kind", ""), Rights.RWSD)
    if rights & ~most:
        raise TypeError(f"a {cls.__name__} carries the rights {most.letters()!r} at most, never {rights.letters()!r}")
    return rights


register_codec(_codec)
