"""The client's side of a gate.

A gate holds one port. A thread's first call opens a session through it; from
then on the call is one function of the native leaf that writes a page, spins a
little and sleeps. Everything that is not that straight line (the first call,
capabilities, a busy session, an error) takes :meth:`Gate._slow`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from threading import get_ident
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, cast

from l4re._native import leaf
from l4re.cap import Capability, Export, export_all, import_all, register_kind
from l4re.errors import (
    Busy,
    Closed,
    InvalidArgument,
    IpcErr,
    IpcError,
    IpcTimeout,
    MessageTooLong,
    OutOfMemory,
    PeerGone,
    error_from_code,
)
from l4re.gate.link import Link
from l4re.gate.threads import CallPath, remember, this_thread
from l4re.linux.clock import deadline_after, nanoseconds_left
from l4re.linux.ends import sockets
from l4re.linux.fd import Fd, take
from l4re.linux.limit import exhausted
from l4re.rights import Rights
from l4re.wire.items import ITEM_BYTES, ItemKind, join_items, split_items
from l4re.wire.port import PortKind, PortMessage, unpack_refusal
from l4re.wire.tag import Tag

__all__ = ["MAX_DATA", "MAX_WORDS", "Answer", "Gate", "Message"]

#: Bytes of the words of one message: 63 words, as in L4, two of them for each capability.
MAX_WORDS = 63 * 8
#: Bytes of the long area of one message. More belongs into a dataspace.
MAX_DATA = leaf.PAGE_LONG

_R = int(Rights.R)
_GATE = ItemKind.GATE

#: (label, words, long data, capabilities): what a call returns before anybody interprets it.
Answer = tuple[int, bytes, bytes, tuple[Capability | None, ...]]


class Message(NamedTuple):
    """What an untyped call returned: ``tag``, ``data`` (the long area), ``words``, ``caps`` (owned by the message)."""

    label: int
    words: bytes
    data: bytes
    caps: tuple[Capability | None, ...]

    @property
    def tag(self) -> Tag:
        """The message tag as L4Re packs it."""
        return Tag.make(self.label, len(self.words) // 8, len(self.caps))

    def __repr__(self) -> str:
        return (
            f"<Message label={self.label} {len(self.words) // 8} words, {len(self.data)} bytes, {len(self.caps)} caps>"
        )


#: A message of an answer, which has the same four parts, in one step.
_message: Callable[[type[Message], Any], Message] = tuple.__new__
leaf.answer_with(Message)


class Gate(Capability, leaf.Caller):
    """A capability to call an object in some server (L4Re's IPC gate, client side).

    Thread-safe: every thread has a session of its own. ``close()`` while another
    thread calls takes effect when that call ends. After ``fork`` the child's first
    call opens a session of the child's own.
    """

    __slots__ = ("__weakref__", "_last_word", "_link", "_port", "_rights", "_spares")

    kind: ClassVar[str] = "gate"
    _sessions: dict[int, CallPath]

    def __init__(self, port: Fd | None, rights: Rights, *, link: Link | None = None) -> None:
        """Take ``port``, the client end of a port that carries ``rights``."""
        self._port = port
        self._rights = rights
        self._link = link
        self._spares: list[leaf.Session] = []
        self._last_word = ""

    # ---- calling ----

    if TYPE_CHECKING:  # these two are the leaf's, which asks the four below in all but the usual case

        def call(
            self,
            data: bytes | bytearray | memoryview = b"",
            *,
            label: int = 0,
            caps: Sequence[Capability | None] = (),
            timeout: float | None = None,
        ) -> Message:
            """Send ``data`` (at most 60 KiB) and capabilities, and wait for the answer.

            Raises:
                L4Error: the object answered with an error (a negative label).
                IpcTimeout: nobody answered within ``timeout`` seconds. A request no server had begun is withdrawn.
                PeerGone: the server ended, or the capability was revoked.
                MessageTooLong: ``data`` or ``caps`` do not fit one message.
            """

        def transact(
            self,
            label: int,
            words: bytes,
            data: bytes | bytearray | memoryview = b"",
            caps: Sequence[Capability | None] = (),
            timeout: float | None = None,
            oneway: bool = False,
        ) -> Answer:
            """Send one message and return the answer as it came: label, words, long data, capabilities.

            What everything else is built on. A negative label is returned, not raised. ``words`` is at most 504
            bytes less 16 for each capability. One-way messages return at once with label 0.

            Raises:
                IpcTimeout, PeerGone, IpcError: nobody answered (see :meth:`call`).
                MessageTooLong: it does not fit one message.
            """

    def _call(
        self,
        data: bytes | bytearray | memoryview = b"",
        *,
        label: int = 0,
        caps: Sequence[Capability | None] = (),
        timeout: float | None = None,
    ) -> Message:
        return self._received(self._slow(label, b"", data, caps, timeout, False))

    def _transact(
        self,
        label: int,
        words: bytes,
        data: bytes | bytearray | memoryview = b"",
        caps: Sequence[Capability | None] = (),
        timeout: float | None = None,
        oneway: bool = False,
    ) -> Answer:
        return self._slow(label, words, data, caps, timeout, oneway)

    def _resume(
        self,
        session: CallPath,
        answer: Any,
        label: int,
        words: bytes,
        data: Any,
        caps: Sequence[Capability | None],
        timeout: float | None,
        oneway: bool,
    ) -> Answer:
        """Go on where the leaf got an answer out of the ordinary."""
        deadline = None if timeout is None else deadline_after(timeout)
        return self._finish(session, answer, label, words, data, caps, deadline, oneway)

    def _received(self, answer: Answer) -> Message:
        if answer[0] < 0:
            raise error_from_code(answer[0], answer[2].decode(errors="replace"))
        return _message(Message, answer)

    async def transact_async(
        self,
        label: int,
        words: bytes,
        data: bytes | bytearray | memoryview = b"",
        caps: Sequence[Capability | None] = (),
        timeout: float | None = None,
    ) -> Answer:
        """Do what :meth:`transact` does, in an asyncio program; any number of calls may be under way."""
        from l4re.gate.aio import transact  # asyncio costs as much to import as all of l4re

        _check_size(words, data, caps)
        return await transact(self, label, words, data, caps, timeout)

    def _slow(
        self,
        label: int,
        words: bytes,
        data: Any,
        caps: Sequence[Capability | None],
        timeout: float | None,
        oneway: bool,
    ) -> Answer:
        """Call on any path there is, opening one if there is none."""
        _check_size(words, data, caps)
        deadline = deadline_after(timeout)
        while True:
            session = self._sessions.get(get_ident())
            if session is None:
                session = self._open(deadline)
                if self.closed:
                    session.close()
                    raise Closed("this gate was closed")
                self._sessions[get_ident()] = session
                remember(self)
            items, fds, exports = export_all(caps) if caps else (b"", None, [])
            sent = False
            try:
                payload = join_items(words, items)
                left = -1 if deadline is None else nanoseconds_left(deadline)
                answer = session.call(label, payload, data, len(items) // ITEM_BYTES, fds, left, oneway)
                if answer == leaf.BUSY:  # a nested call of this thread, from a signal handler or a finalizer
                    session = spare = self._spare(deadline)
                    left = -1 if deadline is None else nanoseconds_left(deadline)
                    try:
                        answer = spare.call(label, payload, data, len(items) // ITEM_BYTES, fds, left, oneway)
                    finally:
                        if isinstance(spare, leaf.Session) and not (spare.dead or self.closed):
                            self._spares.append(spare)
                        else:
                            spare.close()
                sent = isinstance(answer, tuple) or answer in (0, leaf.RECEIVE_TIMEOUT)
            except OSError as error:  # too many are on their way already, for this user
                if error.__class__ is not OSError:  # a signal handler raised it, or nobody read the port
                    raise
                raise OutOfMemory(f"{self!r}: the capabilities cannot be sent now: {error.strerror}") from error
            finally:
                for export in exports:
                    (export.done if sent else export.failed)()
            if answer not in (leaf.STALE, leaf.CLOSED) or self.closed:
                return self._finish(session, answer, label, words, data, caps, deadline, oneway)
            self._forget(session)

    def _finish(
        self,
        session: CallPath,
        answer: Any,
        label: int,
        words: bytes,
        data: Any,
        caps: Any,
        deadline: int | None,
        oneway: bool,
    ) -> Answer:
        """Make an answer of what the leaf returned, or the error that says what happened."""
        if isinstance(answer, tuple):
            if not answer[3]:
                return cast(Answer, answer)
            items, fds = answer[3]
            plain, tail = split_items(answer[1], items)
            try:
                return answer[0], plain, answer[2], import_all(tail, fds)
            except InvalidArgument as error:
                self._forget(session)
                raise IpcError(
                    f"{self!r}: the server sent what it should not; the session was given up: {error}"
                ) from error
        if answer == 0:
            return 0, b"", b"", ()
        if answer in (leaf.STALE, leaf.CLOSED, leaf.BUSY) and not self.closed:
            if answer != leaf.BUSY:
                self._forget(session)
            timeout = None if deadline is None else nanoseconds_left(deadline) / 1e9
            return self._slow(label, words, data, caps, timeout, oneway)
        if answer not in (leaf.SEND_TIMEOUT, leaf.FULL) or getattr(session, "dead", False):
            self._forget(session)
        raise self._error(session, answer)

    def _error(self, session: CallPath, status: int) -> Exception:
        if status == leaf.SEND_TIMEOUT:
            return IpcTimeout(f"{self!r}: no server took the request in the time given", code=IpcErr.SETIMEOUT.code)
        if status == leaf.RECEIVE_TIMEOUT:
            return IpcTimeout(f"{self!r}: the server took the request but did not answer in the time given")
        if status == leaf.REFUSED:
            return _refused(getattr(session, "refusal", ""))
        if status == leaf.FULL:
            return Busy(f"{self!r}: the server does not take what was sent before")
        if status == leaf.BROKEN:
            return IpcError(f"{self!r}: the server broke the session protocol; the session was given up")
        if status == leaf.FORKED:
            return IpcError(f"{self!r}: a signal handler forked during the call; the answer goes to the parent process")
        if self.closed:
            return Closed("this gate is closed")
        return self._refusal()

    # ---- sessions ----

    def _open(self, deadline: int | None) -> CallPath:
        """Open a session; the handshake queues in the port if no server runs yet."""
        while True:
            port = self.fileno()  # anew each time: another thread may have closed it
            watch = self._link.pidfd if self._link is not None else -1
            try:
                session = leaf.open_session(port, watch)
            except (BrokenPipeError, ConnectionResetError):
                raise self._refusal() from None
            except OSError as error:
                raise exhausted("cannot open a session", error) from error
            if session is not None:
                break
            if leaf.wait((~port,), -1 if deadline is None else nanoseconds_left(deadline)) < 0:
                raise IpcTimeout(f"{self!r}: the port is full and no server reads it", code=IpcErr.SETIMEOUT.code)
        for loop in this_thread.loops:
            loop.take_in()
            direct = loop.own_port(session)
            if direct is not None:
                session.close()
                return direct
        return session

    def _refusal(self) -> Exception:
        """Why the port is shut: the server's last word, if it left one."""
        try:
            said = leaf.recv(self._port.fileno()) if self._port is not None else None
        except (OSError, Closed):
            said = None
        if said is not None:
            take(said[1])
            if said[0][:1] == b"R":
                self._last_word = said[0][16:].decode(errors="replace")
        if self._last_word:
            return _refused(self._last_word)
        return PeerGone(f"{self!r}: the server ended or revoked the capability")

    def _spare(self, deadline: int | None) -> CallPath:
        while self._spares:
            session = self._spares.pop()
            if not session.dead:
                return session
        return self._open(deadline)

    def _forget(self, session: CallPath) -> None:
        for ident, known in list(self._sessions.items()):
            if known is session:
                self._sessions.pop(ident, None)
        session.close()

    def _thread_ended(self, ident: int) -> None:
        session = self._sessions.pop(ident, None)
        if session is not None:
            session.close()

    # ---- the capability ----

    @property
    def rights(self) -> Rights:
        """What the port carries, as far as this side knows; the server decides by its own record."""
        return self._rights

    @property
    def closed(self) -> bool:
        return self._port is None or self._port.closed

    @property
    def gone(self) -> bool:
        port = self.fileno()  # a server says nothing on it but why it closes it
        watch = () if self._link is None or self._link.pidfd < 0 else (self._link.pidfd,)
        return leaf.wait((port, *watch), 0) >= 0

    def fileno(self) -> int:
        if self._port is None:
            raise Closed("this gate is closed")
        return self._port.fileno()

    def close(self) -> None:
        sessions = [*self._sessions.values(), *self._spares]
        self._sessions.clear()
        self._spares.clear()
        for session in sessions:
            session.close()
        if self._port is not None:
            self._port.close()

    def dup(self) -> Self:
        """Return a gate of its own port to the same object."""
        export = self.export()
        owned, export.owned = export.owned, ()
        return cast(Self, Gate(owned[0], self._rights, link=self._link))

    def export(self, rights: Rights | None = None) -> Export:
        """Derive a port for the receiver: like this one, with no more than ``rights``.

        Raises:
            PeerGone: nobody holds the other side any more.
            Busy: the port's queue is full and no server reads it.
            OutOfMemory: no descriptors are left.
        """
        weaker = self._rights if rights is None else self._rights & (rights | Rights.R)
        port = self.fileno()
        try:
            client, server = sockets()
            with server:
                queued = leaf.send(port, PortMessage(PortKind.DERIVE, rights=weaker).pack(), (server.fileno(),))
        except (BrokenPipeError, ConnectionResetError):
            raise self._refusal() from None
        except OSError as error:
            raise exhausted(f"{self!r}: cannot be handed on now", error) from error
        if not queued:
            raise Busy(f"{self!r}: cannot be handed on, its port is full and no server reads it")
        return Export(_GATE, weaker, 0, (client.fileno(),), owned=(client,))

    def _key(self) -> Hashable:
        return self.fileno()

    def __repr__(self) -> str:
        return "<Gate closed>" if self.closed else f"<Gate {self._rights.letters()} fd {self.fileno()}>"


def _refused(text: str) -> Exception:
    """Return the error that a server's refusal means; it may say anything."""
    code, why = unpack_refusal(text)
    return error_from_code(-code, why) if code else IpcError(f"the server refused: {why!r}")


def _check_size(words: bytes, data: Any, caps: Sequence[Capability | None]) -> None:
    """Say what does not fit, before anything is sent."""
    size = len(data) if isinstance(data, bytes) else memoryview(data).nbytes
    if size > MAX_DATA:
        raise MessageTooLong(f"{size} bytes in one message; at most {MAX_DATA} fit: share a dataspace instead")
    room = MAX_WORDS - ITEM_BYTES * len(caps)
    if len(words) > room:
        raise MessageTooLong(f"{len(words)} bytes of words beside {len(caps)} capabilities; at most {room} fit")


def _import_gate(rights: Rights, value: int, fds: tuple[Fd, ...]) -> Gate:
    if len(fds) != 1 or leaf.what(fds[0].fileno()) != "seqpacket":
        raise InvalidArgument("what arrived as a gate is not the client end of a port")
    return Gate(fds[0], rights if int(rights) & _R else rights | Rights.R)


register_kind(ItemKind.GATE, _import_gate)
