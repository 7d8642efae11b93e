"""Checks that a server object implements what its interfaces promise, before anybody calls it."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, get_type_hints

from l4re.interface.epiface import Epiface
from l4re.interface.proxy import specs_of
from l4re.interface.served import Served
from l4re.interface.stubs import is_stub
from l4re.wire.scalars import SizedInt

if TYPE_CHECKING:
    from l4re.interface.signature import MethodSpec

__all__ = ["check_implementation"]

_Parameter = inspect.Parameter
_POSITIONAL = (_Parameter.POSITIONAL_ONLY, _Parameter.POSITIONAL_OR_KEYWORD)


def check_implementation(obj: object) -> None:
    """Check a server object; the registry does this for every object.

    Raises:
        TypeError: it is no server object, or an operation is missing or takes other arguments than its
            interface says. The message names the operation and the argument.
    """
    if not isinstance(obj, Served):
        raise TypeError(
            f"{type(obj).__name__} is no server object; derive it from ServerObject, or an interface and Epiface"
        )
    if isinstance(obj, Epiface):
        if not obj._l4_protocols:
            raise TypeError(f"{type(obj).__name__} serves nothing; derive it from an interface as well")
        for spec in specs_of(type(obj)):
            _check(obj, spec)


def _check(obj: Epiface, spec: MethodSpec) -> None:
    where = f"{type(obj).__name__}.{spec.name}"
    spec.signature()
    implementation = getattr(obj, spec.name)
    if is_stub(implementation):
        raise TypeError(f"{type(obj).__name__} does not implement {spec.where}")
    if not callable(implementation):
        raise TypeError(f"{where} must be a method, as {spec.where} is")
    try:
        theirs = inspect.signature(implementation).parameters.values()
    except (TypeError, ValueError):
        return  # a callable that cannot be looked into
    _check_parameters(where, spec, list(theirs))
    _check_types(where, spec, implementation, list(theirs))


def _check_parameters(where: str, spec: MethodSpec, theirs: list[_Parameter]) -> None:
    places = [p for p in theirs if p.kind in _POSITIONAL]
    any_place = any(p.kind is _Parameter.VAR_POSITIONAL for p in theirs)
    any_name = any(p.kind is _Parameter.VAR_KEYWORD for p in theirs)
    by_name = {p.name: p for p in theirs if p.kind is not _Parameter.POSITIONAL_ONLY}
    used: set[str] = set()
    for index, wanted in enumerate(p for p in spec.parameters if p.by_place):
        if index < len(places):
            used.add(places[index].name)
        elif not any_place:
            raise TypeError(f"{where} does not take argument {wanted.name!r} of {spec.where}")
    for wanted in (p for p in spec.parameters if not p.by_place):
        if wanted.name in by_name:
            used.add(wanted.name)
        elif not any_name:
            raise TypeError(f"{where} does not take argument {wanted.name!r} of {spec.where}")
    for parameter in theirs:
        named = parameter.kind in (*_POSITIONAL, _Parameter.KEYWORD_ONLY)
        if named and parameter.name not in used and parameter.default is _Parameter.empty:
            raise TypeError(f"{where} wants argument {parameter.name!r}, which {spec.where} does not have")


def _check_types(where: str, spec: MethodSpec, implementation: Any, theirs: list[_Parameter]) -> None:
    """Compare annotations as far as there are any: arguments may be wider, the result narrower."""
    function = inspect.unwrap(getattr(implementation, "__func__", implementation))
    try:
        hints = get_type_hints(function, include_extras=True)
    except Exception:  # names for the type checker only; that one checks them
        return
    promised = spec.signature().hints
    places = [p.name for p in theirs if p.kind in _POSITIONAL]
    for index, wanted in enumerate(spec.parameters):
        name = (places[index : index + 1] or [""])[0] if wanted.by_place else wanted.name
        if name in hints and not _compatible(promised[wanted.name], hints[name]):
            said = _name(promised[wanted.name])
            raise TypeError(f"{where}: argument {name!r} is {_name(hints[name])}, and {spec.where} says {said}")
    if "return" in hints and not _compatible(hints["return"], promised["return"]):
        raise TypeError(f"{where} returns {_name(hints['return'])}, and {spec.where} says {_name(promised['return'])}")


def _compatible(given: Any, wanted: Any) -> bool:
    """Whether a ``given`` may stand where ``wanted`` is expected, as far as plain classes tell."""
    given, wanted = _plain(given), _plain(wanted)
    if given == wanted or Any in (given, wanted) or not isinstance(given, type) or not isinstance(wanted, type):
        return True
    return issubclass(given, wanted) or (wanted is float and issubclass(given, int))


def _plain(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, SizedInt):
        return int
    return type(None) if annotation is None else annotation


def _name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
