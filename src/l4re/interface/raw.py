"""Raw server objects: they look at the tag, read and write the message themselves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from types import CoroutineType
from typing import TYPE_CHECKING, Any, cast

from l4re._native import leaf
from l4re.errors import Err, L4Error
from l4re.interface.iostream import Iostream
from l4re.interface.served import Answer, Later, Served
from l4re.rights import Rights

if TYPE_CHECKING:
    from l4re.cap import Capability

__all__ = ["ServerObject"]

_RIGHTS = tuple(Rights(bits) for bits in range(4))
_LABEL_MIN, _LABEL_MAX = -(1 << 15), (1 << 15) - 1


class ServerObject(Served, ABC):
    """A raw server object: looks at the tag, reads and writes the message itself."""

    @abstractmethod
    def dispatch(self, rights: Rights, ios: Iostream) -> int | None:
        """Answer the request in ``ios``; ``rights`` are W and S as far as the caller's capability has them.

        Return 0 or a positive number with what was written to ``ios``, or a negative error code:
        ``-Err.EBADPROTO`` for protocols this object does not speak, ``-Err.ENOREPLY`` for no answer at all.
        None counts as 0. It may be an ``async def``, for servers that run under ``serve()``.
        """

    def serve_request(
        self, rights: int, label: int, words: bytes, data: bytes, caps: tuple[Capability | None, ...]
    ) -> Answer:
        """See `Served.serve_request`; what does not fit a label becomes EMSGERRRANGE, as in L4Re."""
        ios = Iostream(label, words, data, caps)
        return self._answer(self.dispatch(_RIGHTS[rights & 3], ios), ios)

    def _l4_handler(self) -> Callable[..., Answer]:
        plain = type(self).serve_request is ServerObject.serve_request
        return leaf.raw_handler(self, Iostream, _RIGHTS) if plain else self.serve_request

    def _l4_packer(self, label: int, stream: bytes) -> Callable[..., Answer]:
        def pack(*values: object, label: int = 0) -> Answer:
            ios = Iostream(0, b"", b"", ())
            for value in values:
                ios << value
            return self._answer(label, ios)

        return pack

    async def _l4_awaited(self, coroutine: Coroutine[Any, Any, Any], ios: Iostream) -> Answer:
        return self._answer(await coroutine, ios)

    def _answer(self, result: Any, ios: Iostream) -> Answer:
        """Return the answer that a result of `dispatch` and what it wrote make."""
        if result is None:
            result = 0
        elif result.__class__ is not int:
            if result.__class__ is CoroutineType:
                return cast(Answer, Later(self._l4_awaited(result, ios), self._l4_packer(0, b""), result))
            result = self._checked(result)
        if result >= 0:
            if result > _LABEL_MAX:
                raise L4Error(f"{type(self).__name__}.dispatch returned {result}", code=Err.EMSGERRRANGE)
            out, long, handed = ios.answer()
            return result, out, long, handed
        if result == -Err.ENOREPLY:
            return None
        if result < _LABEL_MIN:
            raise L4Error(f"{type(self).__name__}.dispatch returned {result}", code=Err.EMSGERRRANGE)
        return result, b"", b"", ()

    def _checked(self, result: object) -> int:
        where = f"{type(self).__name__}.dispatch"
        if isinstance(result, Err) and result > 0:
            raise TypeError(f"{where} returned {result!r}; errors are negative: return -Err.{result.name}")
        if not isinstance(result, int):
            raise TypeError(f"{where} must return an int or None, not {result!r}")
        return int(result)
