"""The parameters of a method, read from its code object.

All that an operation needs to know of its function. `inspect` knows more, of every callable there is, and takes
as long to import as a third of this package; a program that defines an interface would always pay for it.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any, NamedTuple

__all__ = ["REQUIRED", "Parameter", "is_coroutine", "parameters_of"]

_VARARGS, _VARKEYWORDS, _COROUTINE = 0x04, 0x08, 0x80

#: The default of a parameter that has none.
REQUIRED = object()


class Parameter(NamedTuple):
    """One parameter. It can be given by place, by name or both; one that collects the rest, by neither."""

    name: str
    by_place: bool
    by_name: bool
    default: Any = REQUIRED


def parameters_of(function: FunctionType) -> tuple[Parameter, ...]:
    """Return the parameters, those of the function within for one made with `functools.wraps`."""
    while isinstance(within := getattr(function, "__wrapped__", None), FunctionType):
        function = within
    code, defaults, named = function.__code__, function.__defaults__ or (), function.__kwdefaults__ or {}
    places, names = code.co_argcount, code.co_kwonlyargcount
    collecting = bool(code.co_flags & _VARARGS) + bool(code.co_flags & _VARKEYWORDS)
    found = []
    for at, name in enumerate(code.co_varnames[: places + names + collecting]):
        if at < places:
            optional = at - (places - len(defaults))
            default = defaults[optional] if optional >= 0 else REQUIRED
            found.append(Parameter(name, True, at >= code.co_posonlyargcount, default))
        elif at < places + names:
            found.append(Parameter(name, False, True, named.get(name, REQUIRED)))
        else:
            found.append(Parameter(name, False, False))
    return tuple(found)


def is_coroutine(function: FunctionType) -> bool:
    """Whether the function was defined with ``async def``."""
    return bool(function.__code__.co_flags & _COROUTINE)
