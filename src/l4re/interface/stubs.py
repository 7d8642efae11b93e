"""Generated methods: the client's side of an operation, blocking and awaited.

What a generated method does is what `_call` says in plain words; it is written out so that a call costs one
``struct`` for its numbers and no look at its signature.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from l4re.errors import InvalidArgument, L4Error, MissingArgument, ServerError, error_from_code
from l4re.interface.parameters import REQUIRED
from l4re.wire.source import Source

if TYPE_CHECKING:
    from l4re.interface.signature import MethodSpec

__all__ = ["async_class", "compile_stub", "is_stub", "lazy_stub"]

_MAX_TEXT = 4096


def lazy_stub(spec: MethodSpec) -> Callable[..., Any]:
    """Return a method that generates its successor when it is called first, and puts it in its own place."""

    made: list[Callable[..., Any]] = []

    @functools.wraps(spec.function)
    def first_call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        if not made:  # a method that was bound before its first call comes here every time
            made.append(compile_stub(spec))
            if vars(spec.owner).get(spec.name) is first_call:
                setattr(spec.owner, spec.name, made[0])
        return made[0](self, *args, **kwargs)

    first_call._l4_stub = first_call  # type: ignore[attr-defined]
    return first_call


def compile_stub(spec: MethodSpec, *, asynchronous: bool = False) -> Callable[..., Any]:
    """Return the proxy's method for ``spec``."""
    signature = spec.signature()
    source = Source()
    names = [parameter.name for parameter in spec.parameters]
    values = f"({''.join(name + ', ' for name in names)})"
    pack = f"{source.bind(signature.request.pack)}({values})"
    message = "_l4_words" if signature.request.plain else "_l4_words, _l4_data, _l4_caps"
    call = f"_l4_self._l4_transact({spec.protocol}, {message})"
    source.line(f"{'async ' if asynchronous else ''}def _l4_call({_parameters(spec, source)}):")
    with source.indented():
        if spec.default and not asynchronous:
            default = f"{source.bind(spec.function)}({', '.join(['_l4_self', *spec.call_arguments()])})"
            source.line(f"if _l4_self._l4_server: return {default}")
        signature.request.emit_pack(source, names, pack)
        if spec.oneway:
            source.line(f"_l4_self._l4_send({spec.protocol}, {message}, oneway=True)")
        else:
            source.line(f"_l4_label, _l4_words, _l4_data, _l4_caps = {'await ' if asynchronous else ''}{call}")
            refused = functools.partial(_refused, spec)
            source.line(f"if _l4_label < 0: raise {source.bind(refused)}(_l4_label, _l4_data)")
            results = [f"_l4_r{n}" for n in range(len(signature.reply.fields))]
            unpack = functools.partial(_unpack, spec)
            signature.reply.emit_unpack(source, results, f"{source.bind(unpack)}(_l4_words, _l4_data, _l4_caps)")
            if signature.many:
                source.line(f"return ({''.join(name + ', ' for name in results)})")
            elif results:
                source.line(f"return {results[0]}")
    stub = source.compiled("_l4_call", spec.where)
    functools.update_wrapper(stub, spec.function)
    stub._l4_stub = stub  # type: ignore[attr-defined]
    return stub


def is_stub(method: object) -> bool:
    """Whether a method, bound or not, is a proxy's; a wrapper around one is not."""
    function = getattr(method, "__func__", method)
    return getattr(function, "_l4_stub", None) is function


def _parameters(spec: MethodSpec, source: Source) -> str:
    """Return the source text of the parameters, with their defaults."""
    parts = ["_l4_self"]
    places_only = sum(not parameter.by_name for parameter in spec.parameters)
    places = sum(parameter.by_place for parameter in spec.parameters)
    for index, parameter in enumerate(spec.parameters):
        if index == places_only:
            parts.append("/")
        if index == places:
            parts.append("*")
        required = parameter.default is REQUIRED
        parts.append(parameter.name if required else f"{parameter.name}={source.bind(parameter.default)}")
    if places_only == len(spec.parameters):
        parts.append("/")
    return ", ".join(parts)


def _refused(spec: MethodSpec, label: int, data: bytes) -> L4Error:
    """Return the error that a reply with a negative label is."""
    error = error_from_code(label, data[:_MAX_TEXT].decode("utf-8", "replace"))
    error.add_note(f"answered by the server of {spec.where}()")
    return error


def _unpack(spec: MethodSpec, words: bytes, data: bytes, caps: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the results the plain way; a server that answers nonsense is at fault, not the caller."""
    try:
        return spec.signature().reply.unpack(words, data, caps)
    except (InvalidArgument, MissingArgument) as error:
        raise ServerError(f"the server's answer makes no sense: {error.text}") from None


def async_class(name: str, specs: Iterable[MethodSpec]) -> type[Any]:
    """Return a class with the operations ``specs`` as coroutine methods."""
    methods = {spec.name: compile_stub(spec, asynchronous=True) for spec in specs}
    return type(f"{name}.aio", (), {**methods, "__slots__": ("_l4_send", "_l4_transact")})
