"""Signatures: what one operation of an interface takes and gives, read from its annotations.

Annotations are resolved when the class is made. A name that does not exist yet (an interface defined further
down) postpones that to the first use; everything else that cannot travel is an error at once, and the error
names the method and the argument.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import FunctionType, NoneType
from typing import TYPE_CHECKING, Any, NamedTuple, get_args, get_origin, get_type_hints

from l4re.interface.parameters import Parameter, is_coroutine, parameters_of
from l4re.interface.rpc import Mark
from l4re.wire.codecs import codec_for, expanded, scope
from l4re.wire.marshal import Field, Layout

if TYPE_CHECKING:
    from l4re.interface.proxy import Interface

__all__ = ["MethodSpec", "Signature"]

_OURS = "_l4_"


class Signature(NamedTuple):
    """The two layouts of an operation, and how its results are given back."""

    request: Layout
    reply: Layout
    many: bool  # the results are a tuple
    hints: Mapping[str, Any]


class MethodSpec:
    """One operation: its name, number and rights, and its signature as soon as that can be known."""

    def __init__(
        self,
        name: str,
        function: FunctionType,
        mark: Mark,
        owner: type[Interface],
        opcode: int | None,
        names: Mapping[str, Any] | None,
    ) -> None:
        """Note what is known when the class is made; ``names``: the local names at that place."""
        self.name = name
        self.function = function
        self.owner = owner
        self.protocol = owner.protocol
        self.opcode = opcode
        self.rights = mark.rights
        self.oneway = mark.oneway
        self.default = mark.default
        self.names = names
        self.parameters: tuple[Parameter, ...] = ()
        self.handler: Callable[..., Any] | None = None
        self._signature: Signature | None = None

    @property
    def where(self) -> str:
        """How messages name the operation."""
        return f"{self.owner.__name__}.{self.name}"

    def define(self) -> None:
        """Read what can be read when the class is made.

        Raises:
            TypeError: a parameter or the result cannot travel.
        """
        if is_coroutine(self.function):
            raise TypeError(f"{self.where}: define it with plain `def`; clients await it as `proxy.aio.{self.name}()`")
        self.parameters = parameters_of(self.function)[1:]
        for parameter in self.parameters:
            if not (parameter.by_place or parameter.by_name):
                raise TypeError(f"{self.where}: *{parameter.name} cannot travel; name every argument")
            if parameter.name.startswith(_OURS):
                raise TypeError(f"{self.where}: names that begin with {_OURS} are ours, rename {parameter.name!r}")
        try:
            self._resolve()
        except NameError:
            pass

    def signature(self) -> Signature:
        """Return the signature.

        Raises:
            TypeError: an annotation cannot be resolved even now.
        """
        if self._signature is None:
            try:
                self._resolve()
            except NameError as error:
                raise TypeError(
                    f"{self.where}: {error} in {self._culprit(error)}; "
                    "import the name where the program runs, not only for the type checker"
                ) from None
        assert self._signature is not None
        return self._signature

    def _culprit(self, error: NameError) -> str:
        for name, annotation in getattr(self.function, "__annotations__", {}).items():
            if isinstance(annotation, str) and error.name and error.name in annotation:
                return "the result" if name == "return" else f"the annotation of argument {name!r}"
        return "an annotation"

    def _resolve(self) -> None:
        before = scope.set(self.names)
        try:
            self._signature = self._read()
        finally:
            scope.reset(before)
        self.names = None

    def _read(self) -> Signature:
        hints = get_type_hints(self.function, localns=self.names, include_extras=True)
        arguments = []
        for parameter in self.parameters:
            what = f"argument {parameter.name!r}"
            if parameter.name not in hints:
                said = f"nobody knows how it travels; say what it is, as `{parameter.name}: int`"
                raise TypeError(f"{self.where}: {what} has no annotation, so {said}")
            arguments.append(self._field(what, hints[parameter.name]))
        if "return" not in hints:
            raise TypeError(f"{self.where}: the result has no annotation; say `-> None` if there is none")
        returns = expanded(hints["return"])
        many = get_origin(returns) is tuple
        if returns in (None, NoneType):
            results = []
        elif many:
            types = () if get_args(returns) == ((),) else get_args(returns)
            if Ellipsis in types:
                raise TypeError(
                    f"{self.where}: the result {returns} has no fixed length, so it does not travel; a list does"
                )
            results = [self._field(f"result {n}", each) for n, each in enumerate(types, 1)]
        else:
            results = [self._field("result", returns)]
        if self.oneway and (results or many):
            raise TypeError(f"{self.where}: a oneway operation has no answer, so its result must be None")
        request, reply = Layout(self.where, arguments, self.opcode), Layout(self.where, results)
        return Signature(request, reply, many, dict(hints))

    def _field(self, what: str, annotation: Any) -> Field:
        try:
            return Field(what, codec_for(annotation))
        except TypeError as error:
            raise TypeError(f"{self.where}: {what}: {error}") from None

    def call_arguments(self) -> list[str]:
        """Return the source text of each argument, as the server's implementation is called."""
        return [p.name if p.by_place else f"{p.name}={p.name}" for p in self.parameters]
