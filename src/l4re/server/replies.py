"""Deferred replies: a handler takes the right to answer, and somebody answers later.

The one rule: a request is answered once. Whoever settles it first has done so;
what comes from a handler that gave the right away is not sent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from l4re._native import leaf
from l4re.cap import Capability
from l4re.closing import Closing
from l4re.errors import Err, Exists, InvalidArgument, L4Error
from l4re.interface import Answer, Served

if TYPE_CHECKING:
    from l4re.rights import Rights
    from l4re.server.loop import RegistryServer

__all__ = ["Caller", "Reply", "Serving", "serving"]


class Caller(NamedTuple):
    """Who called, as the server itself recorded it when the capability was made: nothing a client could forge.

    ``port`` is 0 for the thread that runs the loop and calls its own object.
    """

    label: int
    rights: Rights
    port: int


class Reply(Closing):
    """The right to answer one request (L4Re's reply capability). Made by ``server.take_reply()``.

    ``answer``, ``fail`` and ``close`` may be called from any thread, by one at a time; the first settles the
    request. One that is dropped unanswered answers EDROPREPLY. A client that went away meanwhile, or whose
    object was unregistered, makes it ``gone``; answering is harmless then.
    """

    __slots__ = ("__weakref__", "_gone", "_number", "_packer", "_server", "_session", "_unsettled", "object")

    def __init__(
        self, server: RegistryServer, obj: Served, session: leaf.Source, packer: Callable[..., Answer]
    ) -> None:
        #: The object that was called.
        self.object = obj
        self._server = server
        self._session = session
        self._number = session.requests
        self._packer = packer
        self._unsettled = [True]
        self._gone = False
        session.taken = False

    @property
    def gone(self) -> bool:
        """Whether nobody waits for the answer any more: the client, its session or the server ended."""
        return self._gone or self._server.closed

    @property
    def settled(self) -> bool:
        """Whether it was answered, or given up."""
        return not self._unsettled

    def answer(self, *values: Any, **options: Any) -> bool:
        """Send the answer; False: nobody waits for it any more.

        Of a typed operation, ``values`` are its results one by one. Of a raw object they are written to the
        message one by one, and ``label=`` says what it is labelled. Capabilities among them are lent until this
        returns; with such, and called in another thread, it waits for the loop to send them.

        Raises:
            Exists: it was settled before.
            TypeError: the values are not what the interface says; it can still be answered.
        """
        return self._settle(self._packer(*values, **options))

    def fail(self, error: BaseException | Err) -> bool:
        """Answer with an error, as if the handler had raised it; False: nobody waits for it any more.

        Raises:
            Exists: it was settled before.
        """
        if isinstance(error, Err):
            error = L4Error(code=error)
        return self._settle(self._server._explained(self.object, error))

    def close(self) -> None:
        """Give it up: the client gets EDROPREPLY, unless it was answered."""
        if self._unsettled:
            name = type(self.object).__name__
            why = f"{name} dropped the reply without an answer"
            self._send(-int(Err.EDROPREPLY), b"", why.encode(), ())

    def _settle(self, answer: Answer) -> bool:
        sent = False if answer is None else self._send(*answer)
        if sent is None:
            raise Exists("this request was answered already")
        return sent

    def _send(self, label: int, words: bytes, data: bytes, caps: Sequence[Capability | None]) -> bool | None:
        """Whether it was sent; None: it was settled before."""
        try:
            self._unsettled.pop()
        except IndexError:
            return None
        server, session = self._server, self._session
        if self.gone or session.requests != self._number:  # a client that did not wait for its answer gets none
            return False
        server._outstanding.pop(session, None)
        return server._reply(self.object, session, (label, words, data, caps))

    def _forget(self) -> None:
        """Settle it without an answer: none will ever be sent."""
        self._unsettled.clear()
        self._server._outstanding.pop(self._session, None)

    def _client_left(self) -> None:
        self._gone = True

    def __del__(self) -> None:
        if getattr(self, "_unsettled", None):
            self.close()

    def __repr__(self) -> str:
        state = "settled" if self.settled else "gone" if self.gone else "open"
        return f"<Reply of {type(self.object).__name__} {state}>"


class Serving:
    """A request that is served elsewhere than in the leaf: by a worker, by a coroutine, or for its own thread."""

    __slots__ = ("caller", "gave_away", "reply", "server", "why_not")

    def __init__(self, server: RegistryServer, caller: Caller, reply: Reply | None, why_not: str) -> None:
        self.server = server
        self.caller = caller
        #: None: it cannot be taken; ``why_not`` says why.
        self.reply = reply
        self.why_not = why_not
        self.gave_away = False

    def take(self) -> Reply:
        """Give the reply away."""
        reply, self.reply = self.reply, None
        if reply is None:
            raise InvalidArgument(self.why_not)
        self.why_not = "the reply was taken already"
        self.gave_away = True
        return reply


#: What is served by this thread or task, where the leaf does not know.
serving: ContextVar[Serving | None] = ContextVar("l4re_serving", default=None)
