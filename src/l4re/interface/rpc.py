"""The ``rpc`` mark on the methods of an interface."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from types import FunctionType
from typing import Any, Final, NamedTuple, TypeVar, overload

from l4re.errors import InvalidArgument
from l4re.rights import Rights

__all__ = ["AUTO", "Auto", "Mark", "mark_of", "rpc"]

_F = TypeVar("_F", bound=Callable[..., Any])
_MARK: Final = "_l4_rpc"


class Auto(Enum):
    """The opcode is one more than that of the operation before."""

    AUTO = "auto"


AUTO: Final = Auto.AUTO


class Mark(NamedTuple):
    """What the decorator was told about ``function``; copies of the mark on wrappers do not count."""

    function: Callable[..., Any]
    opcode: int | None | Auto
    rights: Rights
    oneway: bool
    default: bool


@overload
def rpc(method: _F, /) -> _F: ...
@overload
def rpc(
    *, opcode: int | None | Auto = AUTO, rights: str | Rights = "", oneway: bool = False, default: bool = False
) -> Callable[[_F], _F]: ...
def rpc(
    method: _F | None = None,
    /,
    *,
    opcode: int | None | Auto = AUTO,
    rights: str | Rights = "",
    oneway: bool = False,
    default: bool = False,
) -> _F | Callable[[_F], _F]:
    """Make a method of an `Interface` an operation that clients call and servers implement.

    Its annotations say what travels: int, U8 to S64, bool, float, str, bytes, enums of integers, capabilities,
    interfaces and numpy arrays; dataclasses, lists and tuples of these; ``X | None`` of each. A list, str or bytes
    may state its `Length`, a capability its `Rights`: ``Annotated[Dataspace, Rights.R]`` is handed over with these
    at most, and a receiver of less raises `PermissionDenied`.

    A body of its own is what a server does that does not implement the operation; the client's side never runs
    it. A body that is ``...``, or that says ``raise NotImplementedError``, is none: every server implements it.

    Args:
        opcode: its number; counts up in order of definition if not given. None: no number travels, and
            the operation is the only one of its protocol.
        rights: what the caller's capability must carry, out of ``"ws"``; else `PermissionDenied`.
        oneway: the client does not wait, and learns of no error.
        default: the body counts even if there is nothing in it: servers need not implement the operation.
    """
    wanted = Rights.parse(rights) if isinstance(rights, str) else Rights(rights)
    if wanted & ~Rights.RWS:
        raise InvalidArgument(f"a server learns of the caller's rights W and S only, not of {rights!r}")
    if isinstance(opcode, int) and not -(1 << 31) <= opcode < 1 << 31:
        raise InvalidArgument(f"an opcode has 32 bits, {opcode} does not fit")

    def apply(function: _F) -> _F:
        if not isinstance(function, FunctionType):
            raise TypeError(f"@rpc goes on plain methods, not on a {type(function).__name__}")
        body = default or _has_body(function)
        setattr(function, _MARK, Mark(function, opcode, wanted & ~Rights.R, oneway, body))
        return function

    return apply if method is None else apply(method)


def _nothing() -> None: ...


def _only_words() -> None:
    """Say something."""


_EMPTY: Final = {each.__code__.co_code for each in (_nothing, _only_words)}


def _has_body(function: FunctionType) -> bool:
    while isinstance(within := getattr(function, "__wrapped__", None), FunctionType):
        function = within
    code = function.__code__
    if NotImplementedError.__name__ in code.co_names:
        return False
    return code.co_code not in _EMPTY or not {None, function.__doc__}.issuperset(code.co_consts)


def mark_of(value: object) -> Mark | None:
    """Return the mark of a decorated function, None for anything else."""
    if isinstance(value, classmethod | staticmethod):
        value = value.__func__
        if mark_of(value):
            raise TypeError(f"@rpc goes on plain methods, and {value.__qualname__} is a class or static method")
        return None
    mark = value.__dict__.get(_MARK) if isinstance(value, FunctionType) else None
    return mark if isinstance(mark, Mark) and mark.function is value else None
