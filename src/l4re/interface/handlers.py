"""Generated handlers: the server's side of an operation.

A handler tests the rights, unpacks the arguments, calls the implementation and packs what it returned. An
implementation that returns something else than its interface says is a mistake of the server, so that is
no `L4Error`: the loop logs it, and the client learns that the server failed.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from l4re.errors import InvalidArgument, L4Error, MissingArgument, OutOfRange, PermissionDenied
from l4re.interface.served import Later, WrongResult
from l4re.rights import Rights
from l4re.wire.codecs import shown
from l4re.wire.source import Source

if TYPE_CHECKING:
    from l4re.interface.served import Answer
    from l4re.interface.signature import MethodSpec

__all__ = ["compile_handler", "pack_answer"]

_log = logging.getLogger("l4re.interface")


def compile_handler(spec: MethodSpec, *, awaited: bool = False) -> Callable[..., Any]:
    """Return the function that answers requests for ``spec``; if that is to be ``awaited``, with a `Later`."""
    signature = spec.signature()
    source = Source()
    names = [parameter.name for parameter in spec.parameters]
    source.line(f"{'async ' if awaited else ''}def _l4_handle(_l4_self, _l4_rights, _l4_words, _l4_data, _l4_caps):")
    with source.indented():
        if spec.rights:
            denied = functools.partial(_denied, spec)
            wanted = int(spec.rights)
            source.line(f"if _l4_rights & {wanted} != {wanted}: raise {source.bind(denied)}(_l4_rights)")
        unpack = f"{source.bind(signature.request.unpack)}(_l4_words, _l4_data, _l4_caps)"
        signature.request.emit_unpack(source, names, unpack)
        arguments = ", ".join(spec.call_arguments())
        source.line(f"_l4_result = {'await ' if awaited else ''}_l4_self.{spec.name}({arguments})")
        results = [f"_l4_r{n}" for n in range(len(signature.reply.fields))]
        wrong = source.bind(functools.partial(_wrong, spec))
        if signature.many:
            is_tuple = (
                f"_l4_result.__class__ is {source.bind(tuple)} and {source.bind(len)}(_l4_result) == {len(results)}"
            )
            source.line(f"if not ({is_tuple}): _l4_result = {wrong}(_l4_self, _l4_result)")
            if results:
                source.line(f"{', '.join(results)}, = _l4_result")
        elif results:
            source.line(f"{results[0]} = _l4_result")
        else:
            source.line(f"if _l4_result is not None: {wrong}(_l4_self, _l4_result)")
        if results:
            pack = source.bind(functools.partial(_pack, spec))
            values = f"({''.join(name + ', ' for name in results)})"
            signature.reply.emit_pack(source, results, f"{pack}(_l4_self, {values})")
            plain = signature.reply.plain
            source.line("return 0, _l4_words, b'', ()" if plain else "return 0, _l4_words, _l4_data, _l4_caps")
        else:
            source.line(f"return {source.bind((0, b'', b'', ()))}")
    handler = source.compiled("_l4_handle", f"server of {spec.where}")
    if awaited:
        return _later(spec, _never_answering_later(spec, handler) if spec.oneway else handler)
    return _never_answering(spec, handler) if spec.oneway else handler


def pack_answer(spec: MethodSpec, server: object, *values: Any) -> Answer:
    """Return the answer to a request for ``spec``, from its results one by one.

    Raises:
        TypeError: they are not what the interface says.
    """
    reply = spec.signature().reply
    if len(values) != len(reply.fields):
        raise TypeError(f"{spec.where} has {len(reply.fields)} results, {len(values)} were given")
    words, data, caps = _pack(spec, server, values)
    return 0, words, data, caps


def _later(spec: MethodSpec, handler: Callable[..., Any]) -> Callable[..., Later]:
    def handle(server: Any, *request: Any) -> Later:
        return Later(handler(server, *request), functools.partial(pack_answer, spec, server))

    return handle


def _denied(spec: MethodSpec, rights: int) -> PermissionDenied:
    held = Rights.R | rights & 3
    return PermissionDenied(
        f"{spec.where} needs the right {spec.rights.letters()!r}, the capability carries {held.letters()!r}",
        wanted=spec.rights,
        held=held,
    )


def _wrong(spec: MethodSpec, server: object, result: object) -> tuple[Any, ...]:
    """Return ``result`` if it is a tuple of the right length after all; complain if not."""
    reply = spec.signature().reply
    if isinstance(result, tuple) and len(result) == len(reply.fields) and spec.signature().many:
        return result
    wanted = f"a tuple of {len(reply.fields)}" if spec.signature().many else "None"
    raise WrongResult(f"{type(server).__name__}.{spec.name} must return {wanted}, not {shown(result)}")


def _pack(spec: MethodSpec, server: object, values: tuple[Any, ...]) -> Any:
    """Pack results the plain way; what is wrong with them is the server's own mistake."""
    try:
        return spec.signature().reply.pack(values)
    except (InvalidArgument, OutOfRange, MissingArgument, PermissionDenied) as error:
        raise WrongResult(f"{type(server).__name__}.{spec.name} must keep to its interface. {error.text}") from None


def _never_answering_later(spec: MethodSpec, handler: Callable[..., Any]) -> Callable[..., Any]:
    async def handle(*request: Any) -> Answer:
        try:
            await handler(*request)
        except Exception as error:
            _unanswered(spec, error)
        return None

    return handle


def _unanswered(spec: MethodSpec, error: Exception) -> None:
    if isinstance(error, L4Error):
        _log.info("oneway %s: %s", spec.where, error)
    else:
        _log.error("oneway %s raised an exception", spec.where, exc_info=error)


def _never_answering(spec: MethodSpec, handler: Callable[..., Answer]) -> Callable[..., Answer]:
    """Return ``handler`` for a client that does not wait: errors are logged, nothing is sent."""

    def handle(server: Any, rights: int, words: bytes, data: bytes, caps: tuple[Any, ...]) -> Answer:
        try:
            handler(server, rights, words, data, caps)
        except Exception as error:
            _unanswered(spec, error)
        return None

    return handle
