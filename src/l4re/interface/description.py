"""What an unknown object can do: `describe` asks it, and says plainly what came of asking.

An object behind a gate is asked with META, one short call after the other, all within one time limit; what it
answers is its own claim. An object that is no gate is known by its kind, nobody is asked.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import Enum
from time import monotonic
from typing import Any, Final, get_args

from l4re.cap import Capability
from l4re.errors import (
    BadProtocol,
    Closed,
    IpcError,
    IpcTimeout,
    L4Error,
    NotImplementedByServer,
    OutOfMemory,
    PeerGone,
    WrongType,
)
from l4re.interface.meta import Meta
from l4re.interface.proxy import Interface
from l4re.interface.signature import MethodSpec
from l4re.interface.values import capability_of
from l4re.rights import Rights
from l4re.wire.codecs import shown
from l4re.wire.protocols import Proto

__all__ = ["Answered", "Description", "ObjectOperation", "ObjectProtocol", "describe"]

#: More interfaces than this are not asked for; who claims more is not believed.
_MOST: Final = 64
#: What an object without META answers.
_NO_META: Final = (BadProtocol, NotImplementedByServer)
_KINDS: Final = {"dataspace": Proto.DATASPACE, "irq": Proto.IRQ_SENDER, "semaphore": Proto.SEMAPHORE}


class Answered(Enum):
    """What came of asking an object (``Description.answered``); the value says it in words."""

    YES = "it says so itself"
    KIND = "known by its kind, nobody was asked"
    NO_META = "it does not answer META, so it may be anything"
    WRONGLY = "it answers META, and not as one should"
    LATE = "it did not answer in the time given"
    GONE = "it is gone"
    FAILED = "it could not be asked"


@dataclass(frozen=True, slots=True)
class ObjectOperation:
    """One operation of a protocol, as this process knows it; ``opcode`` is None where none travels."""

    name: str
    signature: str
    opcode: int | None = None
    rights: Rights = Rights.NONE
    oneway: bool = False
    summary: str = ""

    def __str__(self) -> str:
        marks = [f"needs {self.rights.letters()}"] * bool(self.rights) + ["one way"] * self.oneway
        return f"{self.name}{self.signature}" + (f"  [{', '.join(marks)}]" if marks else "")


@dataclass(frozen=True, slots=True)
class ObjectProtocol:
    """One protocol that the object has. ``known``: a class of this process has this name and number."""

    number: int
    name: str
    known: bool = False
    operations: tuple[ObjectOperation, ...] = ()

    def __str__(self) -> str:
        number = f"{self.number:#x}" if self.number >= 0 else str(self.number)
        lines = [f"{_printable(self.name)} (protocol {number})" + ("" if self.known else ", not known here")]
        return "\n".join(lines + [f"  {each}" for each in self.operations])


@dataclass(frozen=True, slots=True)
class Description:
    """What is known of an object: print it, or look at the parts.

    ``protocols`` are in the object's order, the most derived first. ``detail`` says more about ``answered``.
    """

    kind: str
    rights: Rights
    answered: Answered
    protocols: tuple[ObjectProtocol, ...] = ()
    detail: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the same as plain values, fit for JSON."""
        plain = asdict(self)
        plain["rights"] = self.rights.letters()
        plain["answered"] = self.answered.name
        for protocol in plain["protocols"]:
            for operation in protocol["operations"]:
                operation["rights"] = operation["rights"].letters()
        return plain

    def __str__(self) -> str:
        lines = [f"{self.kind} {self.rights.letters()}: {self.answered.value}"]
        if self.detail:
            lines.append(f"  {_printable(self.detail)}")
        for protocol in self.protocols:
            lines += [f"  {line}" for line in str(protocol).split("\n")]
        return "\n".join(lines)


def describe(cap: Capability | Interface, *, timeout: float = 1.0) -> Description:
    """Return what an object can do: kind, rights, protocols and, where this process knows them, the operations.

    ``cap`` is lent. An object that does not answer, or is gone, is described as that. All questions together take
    ``timeout`` seconds at most; an object that claims more than 64 protocols is asked for the first 64.

    Raises:
        WrongType: ``cap`` is no capability.
        Closed: it is one that was closed here.
    """
    bare = capability_of(cap)
    if bare is None:
        raise WrongType(f"only a capability can be described, not {shown(cap)}")
    if bare.closed:
        raise Closed(f"this {bare.kind} is closed; there is nothing to describe")
    if not hasattr(bare, "transact"):
        return Description(bare.kind, bare.rights, Answered.KIND, (_of_kind(bare),))
    known = {(each.protocol, each.__name__): each for each in _interfaces(Interface)}
    if isinstance(cap, Interface):
        known |= {(each.protocol, each.__name__): each for each in _mine(type(cap))}
    found: list[ObjectProtocol] = []
    answered, detail = _ask(Meta(bare), timeout, lambda told: found.append(_protocol(*told, known.get(told))))
    return Description(bare.kind, bare.rights, answered, tuple(found), detail)


def _ask(meta: Meta, timeout: float, tell: Callable[[tuple[int, str]], None]) -> tuple[Answered, str]:
    """Ask for each interface; return how that went, and more about it."""
    deadline = monotonic() + timeout

    def in_time() -> Meta:
        return meta.within(max(0.0, deadline - monotonic()))

    count = -1
    try:
        count = in_time().num_interfaces()
        for index in range(min(count, _MOST)):
            tell(in_time().interface(index))
    except PeerGone as error:
        return Answered.GONE, error.text
    except IpcTimeout as error:
        return Answered.LATE, error.text
    except L4Error as error:
        why = f"{error.name}: {error.text}"
        if count < 0:
            return (Answered.NO_META if isinstance(error, _NO_META) else Answered.FAILED), why
        if isinstance(error, (IpcError, OutOfMemory)):
            return Answered.FAILED, why
        return Answered.WRONGLY, f"it claims {count} interfaces, and then: {why}"
    if count > _MOST:
        return Answered.WRONGLY, f"it claims {count} interfaces; these are the first {_MOST}"
    return Answered.YES, "" if count else "it names no protocol"


def _interfaces(cls: type[Interface]) -> Iterator[type[Interface]]:
    """Yield the interfaces defined in this process, in no order but that later ones come after earlier ones."""
    for each in cls.__subclasses__():
        if not each._l4_server:
            yield each
            yield from _interfaces(each)


def _mine(cls: type[Interface]) -> Iterator[type[Interface]]:
    return (each for each in reversed(cls.__mro__) if issubclass(each, Interface) and each is not Interface)


def _protocol(number: int, name: str, cls: type[Interface] | None) -> ObjectProtocol:
    if cls is None:
        return ObjectProtocol(number, name)
    bases = [each for each in cls.__mro__ if issubclass(each, Interface) and each.protocol == number]
    specs = [spec for each in reversed(bases) for spec in vars(each).get("_l4_specs", {}).values()]
    return ObjectProtocol(number, name, True, tuple(map(_operation, specs)))


def _operation(spec: MethodSpec) -> ObjectOperation:
    signature = _signature(spec.function)
    return ObjectOperation(spec.name, signature, spec.opcode, spec.rights, spec.oneway, _summary(spec.function))


def _of_kind(cap: Capability) -> ObjectProtocol:
    """Describe an object that is known by its class."""
    cls = type(cap)
    methods = [
        ObjectOperation(name, _signature(value), summary=_summary(value))
        for name, value in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_") and not hasattr(Capability, name)
    ]
    return ObjectProtocol(_KINDS.get(cap.kind, Proto.NONE), cls.__name__, True, tuple(methods))


def _signature(function: Callable[..., Any]) -> str:
    """Return the signature as it was written, without ``self``."""
    signature = inspect.signature(function)
    arguments = [each.replace(annotation=_bare(each.annotation)) for each in signature.parameters.values()]
    return str(signature.replace(parameters=arguments[1:], return_annotation=_bare(signature.return_annotation)))


class _Bare(str):
    """How an annotation is shown: without the quotes of one that was never evaluated, a class by its name."""

    def __repr__(self) -> str:
        return str(self)


def _bare(annotation: Any) -> Any:
    if annotation is inspect.Parameter.empty or not isinstance(annotation, (str, type)) or get_args(annotation):
        return annotation
    return _Bare(annotation if isinstance(annotation, str) else annotation.__qualname__)


def _summary(function: Callable[..., Any]) -> str:
    return (inspect.getdoc(function) or "").partition("\n")[0]


def _printable(text: str) -> str:
    """Return what another process said without what a terminal would obey."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
