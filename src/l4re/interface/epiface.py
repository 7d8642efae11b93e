"""Epiface: typed server objects.

``class Provider(SharedMemory, Epiface)`` implements the operations of ``SharedMemory``. A request goes from
its label to the protocol, from its opcode to the operation, and from there to a handler generated for that
signature; whatever is not in the tables is judged in L4Re's order: protocol, opcode, rights, arguments.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar

from l4re._native import leaf
from l4re.errors import BadProtocol, MessageTooShort, NotImplementedByServer
from l4re.interface.handlers import compile_handler, pack_answer
from l4re.interface.meta import Meta, answer_meta
from l4re.interface.parameters import is_coroutine
from l4re.interface.proxy import Interface, interfaces_of, specs_of, tell_apart
from l4re.interface.served import Answer, Served
from l4re.interface.stubs import is_stub
from l4re.wire.marshal import OPCODE
from l4re.wire.stream import Reader, Writer

if TYPE_CHECKING:
    from l4re.cap import Capability
    from l4re.interface.signature import MethodSpec

__all__ = ["Epiface"]

_Handler = Callable[..., Answer]


class _Only:
    """The table of a protocol whose requests carry no opcode."""

    __slots__ = ("_handler",)

    def __init__(self, handler: _Handler) -> None:
        self._handler = handler

    def get(self, _opcode: bytes) -> _Handler:
        return self._handler


def _is_async(method: Any) -> bool:
    function = getattr(method, "__func__", method)
    return isinstance(function, FunctionType) and is_coroutine(function)


class Epiface(Interface, Served):
    """Mixed in after an interface, makes a class whose objects serve it.

    Registering an object checks that every operation is implemented with the interface's signature. An
    implementation returns what the interface says, or raises; `L4Error` reaches the client as it is.
    """

    _l4_server = True
    _l4_protocols: ClassVar[dict[int, dict[int | None, MethodSpec]]] = {}
    _l4_tables: ClassVar[dict[int, Any]] = {}

    def __init__(self) -> None:
        pass

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._l4_tables = {}
        cls._l4_protocols = {each.protocol: {} for each in interfaces_of(cls)}
        tell_apart(cls)
        for spec in specs_of(cls):
            cls._l4_protocols[spec.protocol][spec.opcode] = spec

    def serve_request(
        self, rights: int, label: int, words: bytes, data: bytes, caps: tuple[Capability | None, ...]
    ) -> Answer:
        """See `Served.serve_request`."""
        table = self._l4_tables.get(label)
        if table is not None:
            handler = table.get(words[:4])
            if handler is not None:
                answer: Answer = handler(self, rights, words, data, caps)
                return answer
        return self._l4_seldom(rights, label, words, data, caps)

    def _l4_handler(self) -> Callable[..., Answer]:
        cls = type(self)
        plain = cls.serve_request is Epiface.serve_request
        return leaf.typed_handler(self, cls._l4_tables) if plain else self.serve_request

    def _l4_seldom(self, rights: int, label: int, words: bytes, data: bytes, caps: tuple[Any, ...]) -> Answer:
        """Answer what is not in the tables: the first of its kind, a very long one, META, or a mistake."""
        cls = type(self)
        specs = cls._l4_protocols.get(label)
        if specs is None:
            if label == Meta.PROTOCOL:
                out = Writer()
                return answer_meta(cls, Reader(words or data), out), out.words(), b"", ()
            raise BadProtocol(f"{cls.__name__} speaks {self._l4_spoken()}, not protocol {label:#x}")
        stream = words or data
        spec = specs.get(None)
        if spec is None:
            if len(stream) < OPCODE.size:
                raise MessageTooShort(f"{cls.__name__}: the request has no opcode")
            opcode = OPCODE.unpack_from(stream)[0]
            spec = specs.get(opcode)
            if spec is None:
                raise NotImplementedByServer(f"{cls.__name__} has no operation {opcode} in protocol {label:#x}")
        implementation = getattr(self, spec.name)
        if is_stub(implementation) and not spec.default:
            raise NotImplementedByServer(f"{cls.__name__} does not implement {spec.where}")
        if _is_async(implementation):
            handler = compile_handler(spec, awaited=True)
        else:
            handler = spec.handler = spec.handler or compile_handler(spec)
        if spec.opcode is None:
            cls._l4_tables[label] = _Only(handler)
        else:
            cls._l4_tables.setdefault(label, {})[OPCODE.pack(spec.opcode)] = handler
        answer: Answer = handler(self, rights, words, data, caps)
        return answer

    def _l4_packer(self, label: int, stream: bytes) -> Callable[..., Answer]:
        specs = type(self)._l4_protocols.get(label, {})
        spec = specs.get(None) or specs.get(OPCODE.unpack_from(stream)[0] if len(stream) >= OPCODE.size else None)
        return super()._l4_packer(label, stream) if spec is None else functools.partial(pack_answer, spec, self)

    def _l4_spoken(self) -> str:
        spoken = (f"{each.protocol:#x} ({each.__name__})" for each in interfaces_of(type(self)))
        return "protocol " + ", ".join(spoken)

    def _l4_transact(self, *_message: Any, **_options: Any) -> Any:
        raise NotImplementedByServer(f"{type(self).__name__} serves this operation and does not implement it")

    _l4_send = _l4_transact

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<{type(self).__qualname__} server object at {id(self):#x}>"

    def __enter__(self) -> Any:
        raise TypeError(f"{type(self).__name__} is a server object, not a capability; nothing to close")
