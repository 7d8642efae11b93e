"""Interfaces: a class whose methods travel.

Made with a capability, an interface is a *proxy*: its methods marshal their arguments, call the object and
return its results. Mixed with `Epiface` the same class describes a *server*. The proxy's methods are
generated from the signatures at their first call; they keep their signature and docstring.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from types import FunctionType, TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from l4re.errors import Closed, InvalidArgument, WrongType
from l4re.interface.rpc import AUTO, mark_of
from l4re.interface.served import Served
from l4re.interface.signature import MethodSpec
from l4re.interface.stubs import async_class, lazy_stub
from l4re.wire.codecs import shown
from l4re.wire.tag import PROTO_EMPTY

if TYPE_CHECKING:
    from l4re.cap import Capability

__all__ = ["Interface", "interfaces_of", "specs_of", "tell_apart"]

_RESERVED = frozenset(("aio", "cap", "obj_cap", "on_client_gone", "protocol", "serve_request", "within"))


class Interface:
    """Base of typed interfaces; see `rpc`.

    An interface may derive from several. Each counts its operations in its own protocol, and an object of the
    derived one answers all of them.

    A proxy shares the capability it was made with: whoever closes one closes the other. It is as thread-safe
    as the capability, and may be handed on wherever a capability may.
    """

    #: The label of a request. An interface that sets none adds its operations to the protocol it inherits.
    protocol: ClassVar[int] = 0

    #: The capability behind a proxy.
    cap: Capability

    _l4_server: ClassVar[bool] = False
    _l4_aio: ClassVar[type[Any]]
    _l4_specs: ClassVar[dict[str, MethodSpec]] = {}
    _l4_transact: Callable[..., tuple[int, bytes, bytes, tuple[Any, ...]]]
    _l4_send: Callable[..., tuple[int, bytes, bytes, tuple[Any, ...]]]
    _l4_timeout: float | None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        marked = {name: value for name, value in vars(cls).items() if mark_of(value)}
        if cls._l4_server:
            if marked:
                raise TypeError(f"{cls.__name__}.{next(iter(marked))}: @rpc belongs into the interface, not the server")
            return
        _define(cls, marked, sys._getframe(1).f_locals)

    def __init__(self, cap: Capability | Interface) -> None:
        """Return a proxy for the object behind ``cap``; nobody is asked whether it speaks this protocol.

        Raises:
            WrongType: ``cap`` is no capability that can be called.
        """
        self._l4_attach(cap, None)

    def _l4_attach(self, cap: Any, timeout: float | None) -> None:
        if isinstance(cap, Interface):
            cap = cap.obj_cap() if isinstance(cap, Served) else cap.cap
        transact = getattr(cap, "transact", None)
        if transact is None:
            raise WrongType(f"{type(self).__name__} needs a gate to call, not {shown(cap)}")
        self.cap = cap
        self._l4_timeout = timeout
        self._l4_transact = self._l4_send = transact if timeout is None else partial(transact, timeout=timeout)

    def within(self, seconds: float | None) -> Self:
        """Return a proxy for the same object whose calls raise `IpcTimeout` after ``seconds``; None: never.

        Raises:
            InvalidArgument: a negative time.
        """
        if seconds is not None and not seconds >= 0:
            raise InvalidArgument(f"a call can wait 0 or more seconds, not {seconds!r}")
        proxy = object.__new__(type(self))
        vars(proxy).update(vars(self))
        proxy._l4_attach(self.cap, seconds)
        return proxy

    @property
    def aio(self) -> Any:
        """The same operations as coroutines: ``await proxy.aio.add(1, 2)``."""
        transact = getattr(self.cap, "transact_async", None)
        if transact is None:
            raise WrongType(f"{shown(self.cap)} cannot be awaited")
        cls = type(self)
        if "_l4_aio" not in vars(cls):
            cls._l4_aio = async_class(cls.__name__, specs_of(cls))
        proxy = cls._l4_aio()
        proxy._l4_send = self._l4_send  # a oneway message is sent without waiting in either world
        proxy._l4_transact = transact if self._l4_timeout is None else partial(transact, timeout=self._l4_timeout)
        return proxy

    def __enter__(self) -> Self:
        if getattr(self.cap, "closed", False):
            raise Closed(f"the capability of this {type(self).__name__} is closed")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cap.close()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Interface) or type(other) is not type(self):
            return NotImplemented
        return bool(self.cap == other.cap)

    def __hash__(self) -> int:
        return hash(self.cap)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} proxy of {self.cap!r}>"


def _define(cls: type[Interface], marked: dict[str, FunctionType], names: dict[str, Any]) -> None:
    """Give a new interface its operations."""
    if not isinstance(cls.protocol, int):
        raise TypeError(f"{cls.__name__}.protocol must be an int, not {shown(cls.protocol)}")
    numbers = [spec.opcode for spec in specs_of(cls) if spec.protocol == cls.protocol and spec.opcode is not None]
    following = max(numbers) + 1 if numbers else 0
    names = {**names, cls.__name__: cls} if marked else names
    own: dict[str, MethodSpec] = {}
    cls._l4_specs = own
    for name, function in marked.items():
        where = f"{cls.__name__}.{name}"
        mark = mark_of(function)
        assert mark is not None
        if name in _RESERVED or name.startswith("_l4_"):
            raise TypeError(f"{where}: every proxy or server has a {name!r} of its own; choose another name")
        if cls.protocol == PROTO_EMPTY:
            raise TypeError(f"{where}: an interface without a protocol has no operations; set {cls.__name__}.protocol")
        opcode = following if mark.opcode is AUTO else mark.opcode
        assert opcode is None or isinstance(opcode, int)
        if opcode is not None:
            following = opcode + 1
        spec = MethodSpec(name, function, mark, cls, opcode, names)
        spec.define()
        own[name] = spec
        setattr(cls, name, lazy_stub(spec))
    tell_apart(cls)


def interfaces_of(cls: type[Interface]) -> list[type[Interface]]:
    """Return the interfaces that ``cls`` has, most derived first; those without a protocol are passed over."""
    found: dict[int, type[Interface]] = {}
    for base in cls.__mro__:
        if not issubclass(base, Interface) or base is Interface or base._l4_server:
            continue
        if base.protocol != PROTO_EMPTY:
            found.setdefault(base.protocol, base)
    return list(found.values())


def specs_of(cls: type[Interface]) -> list[MethodSpec]:
    """Return all operations of ``cls``, most derived interface first, each interface's in order of definition."""
    return [
        spec
        for base in cls.__mro__
        if issubclass(base, Interface) and not base._l4_server
        for spec in vars(base).get("_l4_specs", {}).values()
    ]


def tell_apart(cls: type[Interface]) -> None:
    """Raise TypeError unless every operation of ``cls`` has a name, and a number in its protocol, of its own."""
    names: dict[str, MethodSpec] = {}
    numbers: dict[tuple[int, int | None], MethodSpec] = {}
    specs = specs_of(cls)
    for spec in specs:
        for other, what in (
            (names.setdefault(spec.name, spec), "name"),
            (numbers.setdefault((spec.protocol, spec.opcode), spec), f"protocol and opcode {spec.opcode}"),
        ):
            if other is not spec:
                raise TypeError(f"{cls.__name__}: {other.where} and {spec.where} have the same {what}")
    for spec in specs:
        alone = numbers.get((spec.protocol, None), spec)
        if alone is not spec:
            raise TypeError(f"{cls.__name__}: {alone.where} has no opcode, so {spec.where} cannot have its protocol")
