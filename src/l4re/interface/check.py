"""Checks that a server object implements what its interfaces promise, before anybody calls it."""

from __future__ import annotations

import inspect
import types
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin, get_type_hints

from l4re.interface.epiface import Epiface
from l4re.interface.proxy import specs_of
from l4re.interface.served import Served
from l4re.interface.stubs import is_stub
from l4re.wire.codecs import expanded, name_of
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
        if spec.default:
            return
        raise TypeError(f"{type(obj).__name__} does not implement {spec.where}{_wanted(spec)}")
    if not callable(implementation):
        raise TypeError(f"{where} must be a method, as {spec.where} is{_wanted(spec)}")
    try:
        theirs = list(inspect.signature(implementation).parameters.values())
    except (TypeError, ValueError):
        return  # a callable that cannot be looked into
    _check_parameters(where, spec, theirs)
    _check_types(where, spec, implementation, theirs)


def _wanted(spec: MethodSpec) -> str:
    """Return what would be accepted, to be put behind a complaint."""
    wanted = inspect.signature(spec.function)
    parameters = [each.replace(annotation=_as_written(each.annotation)) for each in wanted.parameters.values()]
    wanted = wanted.replace(parameters=parameters, return_annotation=_as_written(wanted.return_annotation))
    return f"; `def {spec.name}{wanted}` would do"


class _Unquoted(str):
    __slots__ = ()
    __repr__ = str.__str__


def _as_written(annotation: Any) -> Any:
    """Return an annotation that is shown without quotes."""
    return _Unquoted(annotation) if isinstance(annotation, str) else annotation


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
            raise TypeError(f"{where} does not take argument {wanted.name!r} of {spec.where}{_wanted(spec)}")
    for wanted in (p for p in spec.parameters if not p.by_place):
        if wanted.name in by_name:
            used.add(wanted.name)
        elif not any_name:
            raise TypeError(f"{where} does not take argument {wanted.name!r} of {spec.where}{_wanted(spec)}")
    for parameter in theirs:
        named = parameter.kind in (*_POSITIONAL, _Parameter.KEYWORD_ONLY)
        if named and parameter.name not in used and parameter.default is _Parameter.empty:
            raise TypeError(
                f"{where} wants argument {parameter.name!r}, which {spec.where} does not have{_wanted(spec)}"
            )


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
            said = f"{name_of(hints[name])}, and {spec.where} says {name_of(promised[wanted.name])}"
            raise TypeError(f"{where}: argument {name!r} is {said}{_wanted(spec)}")
    if "return" in hints and not _compatible(hints["return"], promised["return"]):
        said = f"{name_of(hints['return'])}, and {spec.where} says {name_of(promised['return'])}"
        raise TypeError(f"{where} returns {said}{_wanted(spec)}")


def _compatible(given: Any, wanted: Any) -> bool:
    """Whether a ``given`` may stand where ``wanted`` is expected, as far as classes and their arguments tell."""
    given, wanted = _plain(given), _plain(wanted)
    if given == wanted or Any in (given, wanted):
        return True
    if _is_union(given):
        return all(_compatible(each, wanted) for each in get_args(given))
    if _is_union(wanted):
        return any(_compatible(given, each) for each in get_args(wanted))
    mine, theirs = get_origin(given) or given, get_origin(wanted) or wanted
    if not isinstance(mine, type) or not isinstance(theirs, type) or getattr(theirs, "_is_protocol", False):
        return True
    if mine is not theirs:
        return issubclass(mine, theirs) or (theirs is float and issubclass(mine, int))
    parts, others = get_args(given), get_args(wanted)
    if not parts or not others or Ellipsis in (*parts, *others):
        return True
    pairs = list(zip(parts, others, strict=False))
    if mine is tuple:
        return len(parts) == len(others) and all(_compatible(*pair) for pair in pairs)
    return all(_compatible(one, other) and _compatible(other, one) for one, other in pairs)


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def _plain(annotation: Any) -> Any:
    """Return what a type checker sees: no notes, no widths, what a NewType stands for."""
    while True:
        annotation = expanded(annotation)
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        elif isinstance(annotation, type) and issubclass(annotation, SizedInt):
            return int
        else:
            return type(None) if annotation is None else annotation
