"""What a server loop can serve."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from l4re.errors import NotFound

if TYPE_CHECKING:
    from l4re.cap import Capability

__all__ = ["Answer", "Later", "Served", "WrongResult"]

#: Label, words, long data, capabilities (lent) of a reply; None: no reply.
Answer = tuple[int, bytes, bytes, "Sequence[Capability | None]"] | None


class WrongResult(TypeError):
    """A handler returned something else than its interface says; it may, once it gave its reply away."""


class Later:
    """What a handler returns that is a coroutine: an answer to come, and how `Reply.answer` packs one instead."""

    __slots__ = ("_within", "coroutine", "packer")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, Answer],
        packer: Callable[..., Answer],
        within: Coroutine[Any, Any, Any] | None = None,
    ) -> None:
        self.coroutine = coroutine
        self.packer = packer
        self._within = within  # what the coroutine awaits once it begins

    def close(self) -> None:
        """End it, or see that it never begins."""
        self.coroutine.close()
        if self._within is not None:
            self._within.close()


class Served:
    """An object behind a gate. A server loop calls it from one thread, one request at a time."""

    _l4_cap: Capability | None = None

    def serve_request(
        self, rights: int, label: int, words: bytes, data: bytes, caps: tuple[Capability | None, ...]
    ) -> Answer:
        """Answer one request, which may hold anything at all.

        The received capabilities are the object's; what it does not keep is closed. The capabilities of the
        answer are lent until it is sent. A raised `L4Error` becomes its code and text, anything else is
        logged and becomes EIO; both are the loop's work.
        """
        raise NotImplementedError

    def _l4_handler(self) -> Callable[..., Answer]:
        """Return what a loop calls for each request: `serve_request`, or what does the same faster."""
        return self.serve_request

    def _l4_packer(self, label: int, stream: bytes) -> Callable[..., Answer]:
        """Return what packs the answer to this request from values, for `Reply.answer`."""
        return _as_it_is

    def on_client_gone(self) -> None:
        """Called by the loop after a client of this object has gone."""

    def on_orphaned(self) -> None:
        """Called by the loop when nobody outside this process can call this object any more.

        Everybody who was given it is gone, and so are all to whom they handed it on. It may happen again after
        the object was handed out anew.
        """

    def obj_cap(self) -> Capability:
        """Return the local capability to this object, lent.

        Raises:
            NotFound: it is not registered.
        """
        if self._l4_cap is None:
            raise NotFound(f"this {type(self).__name__} is not registered, so there is no capability to it")
        return self._l4_cap


def _as_it_is(label: int = 0, words: bytes = b"", data: bytes = b"", caps: Sequence[Capability | None] = ()) -> Answer:
    return label, words, data, caps
