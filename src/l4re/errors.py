"""Errors: L4Re's codes, and one exception class for each that a program may want to tell apart.

Codes are positive in Python (``Err.EPERM``) and negative in replies (``-Err.EPERM``), as in L4Re. A class says
whose fault it is, the message says what was wanted, what there was and what to do, attributes carry the facts.
`error_from_code` is the only place where a code becomes an exception.
"""

from __future__ import annotations

import errno as _errno
from collections.abc import Iterable
from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar, NoReturn

if TYPE_CHECKING:
    from l4re.rights import Rights

__all__ = [
    "AccessDenied",
    "AddressNotAvailable",
    "BadProtocol",
    "Busy",
    "Closed",
    "Err",
    "Exists",
    "InvalidArgument",
    "IpcErr",
    "IpcError",
    "IpcTimeout",
    "L4Error",
    "MessageTooLong",
    "MessageTooShort",
    "MissingArgument",
    "NotFound",
    "NotImplementedByServer",
    "NotSupported",
    "OutOfMemory",
    "OutOfRange",
    "PeerGone",
    "PermissionDenied",
    "ReplyDropped",
    "ServerError",
    "TryAgain",
    "WrongType",
    "error_from_code",
    "errtostr",
    "raise_from_code",
    "reply_label",
]

_UNKNOWN = "bad, unknown runtime error"
#: A reply's label is a signed number of 16 bits.
_CODE_MAX = 1 << 15


class Err(IntEnum):
    """L4Re's error codes. A reply carries the negative number: ``return -Err.EBADPROTO``."""

    EOK = 0
    EPERM = 1
    ENOENT = 2
    EIO = 5
    ENXIO = 6
    E2BIG = 7
    EAGAIN = 11
    ENOMEM = 12
    EACCESS = 13
    EFAULT = 14
    EBUSY = 16
    EEXIST = 17
    ENODEV = 19
    ENOTDIR = 20
    EINVAL = 22
    ENOSPC = 28
    ERANGE = 34
    ENAMETOOLONG = 36
    ENOSYS = 38
    EBADPROTO = 39
    EADDRNOTAVAIL = 99
    ERRNOMAX = 100
    ENOREPLY = 1000
    EMSGTOOSHORT = 1001
    EMSGTOOLONG = 1002
    EMSGMISSARG = 1003
    EMSGERRRANGE = 1004
    EDROPREPLY = 1005
    EIPC_LO = 2000
    EIPC_HI = 2031

    @property
    def text(self) -> str:
        """A short description; upstream's own text where it has one."""
        return _ERR_TEXT.get(self) or _ERR_MEANING.get(self) or _UNKNOWN


class IpcErr(IntEnum):
    """Why a call itself failed (L4's IPC error word). As a code: ``2000 + value``."""

    SETIMEOUT = 2
    RETIMEOUT = 3
    ENOT_EXISTENT = 4
    SECANCELED = 6
    RECANCELED = 7
    SEMSGCUT = 8
    REMSGCUT = 9
    SESNDPFTO = 10
    RESNDPFTO = 11
    SERCVPFTO = 12
    RERCVPFTO = 13
    SEABORTED = 14
    REABORTED = 15
    SEMAPFAILED = 16
    REMAPFAILED = 17
    NO_REPLY_CAP = 19

    @property
    def text(self) -> str:
        """A short description."""
        return _IPC_TEXT[self]

    @property
    def code(self) -> int:
        """The number as an L4Re error code."""
        return Err.EIPC_LO + self

    @property
    def sending(self) -> bool:
        """Whether it failed before the object had the whole request; else while the answer was awaited."""
        return not self & 1


_ERR_TEXT: dict[int, str] = {
    Err.EOK: "OK",
    Err.EPERM: "Operation not permitted",
    Err.ENOENT: "No such object found",
    Err.EIO: "I/O error",
    Err.EAGAIN: "Try again",
    Err.ENOMEM: "Insufficient memory",
    Err.EACCESS: "Access not permitted",
    Err.EFAULT: "Invalid memory address",
    Err.EBUSY: "Function busy",
    Err.EEXIST: "Object exists",
    Err.ENODEV: "No such device",
    Err.ENOTDIR: "Not a directory",
    Err.EINVAL: "Invalid argument",
    Err.ERANGE: "Argument out of range",
    Err.ENAMETOOLONG: "Name too long",
    Err.ENOSYS: "Function not implemented",
    Err.EBADPROTO: "Invalid protocol",
    Err.EADDRNOTAVAIL: "Address not available",
    Err.ENOREPLY: "Do not reply",
    Err.EMSGTOOSHORT: "Message too short",
    Err.EMSGTOOLONG: "Message too long",
    Err.EMSGMISSARG: "Message is missing (an) argument(s)",
    Err.EMSGERRRANGE: "Error code range error",
    Err.EDROPREPLY: "Server dropped reply capability",
}

_ERR_MEANING: dict[int, str] = {  # where upstream has no string
    Err.ENXIO: "Device or address absent",
    Err.E2BIG: "Value too large",
    Err.ENOSPC: "Device full",
    Err.EIPC_LO: "OK",
}

_IPC_TEXT: dict[int, str] = {
    IpcErr.SETIMEOUT: "Send timeout",
    IpcErr.RETIMEOUT: "Receive timeout",
    IpcErr.ENOT_EXISTENT: "Void capability invoked",
    IpcErr.SECANCELED: "Send operation canceled",
    IpcErr.RECANCELED: "Receive operation canceled",
    IpcErr.SEMSGCUT: "Overflow during send operation",
    IpcErr.REMSGCUT: "Overflow during receive operation",
    IpcErr.SESNDPFTO: "Send page-fault timeout (send phase)",
    IpcErr.RESNDPFTO: "Send page-fault timeout (receive phase)",
    IpcErr.SERCVPFTO: "Receive page-fault timeout (send phase)",
    IpcErr.RERCVPFTO: "Receive page-fault timeout (receive phase)",
    IpcErr.SEABORTED: "Send operation aborted",
    IpcErr.REABORTED: "Receive operation aborted",
    IpcErr.SEMAPFAILED: "Map operation failed (send phase)",
    IpcErr.REMAPFAILED: "Map operation failed (receive phase)",
    IpcErr.NO_REPLY_CAP: "Reply capability slot not available",
}


def errtostr(err: int) -> str | None:
    """Return L4Re's text for a *negative* error code, as ``l4sys_errtostr`` does.

    ``None`` where upstream has no text for a number inside its ranges; numbers outside of them, positive
    ones included, are "bad, unknown runtime error". In Python ``Err.EBADPROTO.text`` reads better.
    """
    nr = -int(err)
    if 0 <= nr < Err.ERRNOMAX or Err.ENOREPLY <= nr <= Err.EDROPREPLY:
        return _ERR_TEXT.get(nr)
    if nr == Err.EIPC_LO:
        return "OK"
    if Err.EIPC_LO < nr < Err.EIPC_HI:
        return _IPC_TEXT.get(nr - Err.EIPC_LO)
    return _UNKNOWN


def _code(value: int) -> Err | int:
    try:
        return Err(value)
    except ValueError:
        return int(value)


def _name_of(code: int) -> str:
    if isinstance(code, Err):
        return code.name
    try:
        return IpcErr(code - Err.EIPC_LO).name
    except ValueError:
        return str(code)


def _text_of(code: int) -> str:
    text = errtostr(-code)
    if text is None:
        text = _ERR_MEANING.get(code)
    return f"error {code}" if text is None or text is _UNKNOWN else text


class L4Error(Exception):
    """Everything this package raises on purpose.

    ``code`` is what a reply carries (positive here): an `Err` where L4Re has one, else a plain number, which
    travels all the same. ``text`` is the message. Every subclass accepts a plain message; some make their own
    from facts given by keyword.
    """

    default_code: ClassVar[int] = Err.EIO
    default_text: ClassVar[str] = ""
    _os_errno: ClassVar[int] = 0

    code: Err | int
    text: str

    def __init__(self, text: str = "", *, code: int | None = None) -> None:
        number = self.default_code if code is None else abs(int(code))
        self.code = _code(number)
        self.text = text or (self.default_text if code is None else "") or _text_of(number)
        super().__init__(self.text)
        if self._os_errno:
            setattr(self, "errno", self._os_errno)  # noqa: B010  only those that are an OSError too have it

    @property
    def name(self) -> str:
        """L4Re's name of the code: ``"ENOENT"``, ``"RETIMEOUT"``; the number where there is none."""
        return _name_of(self.code)

    def __str__(self) -> str:
        return self.text


class OutOfMemory(L4Error, MemoryError):
    """No memory, no quota or no free slot left."""

    default_code = Err.ENOMEM


class NotFound(L4Error, LookupError):
    """There is no such name or object. ``missing`` is what was looked for, ``names`` what there is.

    ``NotFound(name="shm", names=known)`` makes its message of these two.
    """

    default_code = Err.ENOENT

    def __init__(
        self, text: str = "", *, code: int | None = None, name: str | None = None, names: Iterable[str] = ()
    ) -> None:
        self.missing = name
        self.names = tuple(names)
        if not text and name is not None:
            there = ", ".join(repr(n) for n in self.names)
            text = f"there is no {name!r} here; " + (f"there is {there}" if there else "there are no names at all")
        super().__init__(text, code=code)


class _RightMissing(L4Error, PermissionError):
    """What `PermissionDenied` and `AccessDenied` share."""

    def __init__(
        self, text: str = "", *, code: int | None = None, wanted: Rights | None = None, held: Rights | None = None
    ) -> None:
        self.wanted = wanted
        self.held = held
        if not text and wanted is not None:
            has = "" if held is None else f", this capability carries {_letters(held)}"
            text = f"needs {_letters(wanted)}{has}"
        super().__init__(text, code=code)


def _letters(rights: Rights) -> str:
    return f"the right {rights.letters()!r}" if rights else "no rights"


class PermissionDenied(_RightMissing):
    """The capability lacks a right that the operation needs (``wanted``, ``held``)."""

    default_code = Err.EPERM
    _os_errno = _errno.EPERM


class AccessDenied(_RightMissing):
    """The object refuses this access (L4Re's EACCESS: memory written through a read-only capability)."""

    default_code = Err.EACCESS
    _os_errno = _errno.EACCES


class InvalidArgument(L4Error, ValueError):
    """An argument makes no sense here."""

    default_code = Err.EINVAL


class WrongType(InvalidArgument, TypeError):
    """An argument is of a type that the operation does not take."""


class OutOfRange(L4Error, ValueError):
    """An argument is of the right kind and outside its limits."""

    default_code = Err.ERANGE


class Closed(L4Error, ValueError):
    """The capability, task or server was closed before."""

    default_code = Err.EINVAL
    default_text = "used after close()"


class Exists(L4Error):
    """The name or object is there already."""

    default_code = Err.EEXIST


class Busy(L4Error):
    """In use by somebody else, or not allowed at this moment."""

    default_code = Err.EBUSY


class TryAgain(L4Error, BlockingIOError):
    """Not ready yet."""

    default_code = Err.EAGAIN
    _os_errno = _errno.EAGAIN


class NotSupported(L4Error):
    """This kind of object or device is not supported here."""

    default_code = Err.ENODEV


class AddressNotAvailable(L4Error):
    """The address range is taken or cannot be used."""

    default_code = Err.EADDRNOTAVAIL


class BadProtocol(L4Error):
    """The object does not speak this protocol."""

    default_code = Err.EBADPROTO


class NotImplementedByServer(L4Error, NotImplementedError):
    """The object speaks the protocol and has no such operation."""

    default_code = Err.ENOSYS


class MessageTooShort(L4Error):
    """A message lacks bytes or capabilities that its signature promises."""

    default_code = Err.EMSGTOOSHORT


class MessageTooLong(L4Error, ValueError):
    """Does not fit into a message; ``size`` and ``limit`` in bytes. Big data belongs into a dataspace."""

    default_code = Err.EMSGTOOLONG

    def __init__(
        self, text: str = "", *, code: int | None = None, size: int | None = None, limit: int | None = None
    ) -> None:
        self.size = size
        self.limit = limit
        if not text and size is not None:
            most = "" if limit is None else f", a message takes at most {limit}"
            text = f"{size} bytes{most}; put big data into a dataspace and send its capability"
        super().__init__(text, code=code)


class MissingArgument(L4Error, ValueError):
    """A capability that the operation must have is missing or closed."""

    default_code = Err.EMSGMISSARG


class ReplyDropped(L4Error):
    """The server had the request and dropped what it could have answered with."""

    default_code = Err.EDROPREPLY


class ServerError(L4Error):
    """The server's handler raised something nobody expected; its own log has the traceback."""

    default_code = Err.EIO


class IpcError(L4Error):
    """The call itself failed: nobody answered. ``ipc`` says how, where L4 has a number for it."""

    default_code = IpcErr.REABORTED.code

    @property
    def ipc(self) -> IpcErr | None:
        """The IPC error, or None for a number L4 does not know."""
        try:
            return IpcErr(self.code - Err.EIPC_LO)
        except ValueError:
            return None


class IpcTimeout(IpcError, TimeoutError):
    """The time given for the call is over."""

    default_code = IpcErr.RETIMEOUT.code
    default_text = "nobody answered in the time given"
    _os_errno = _errno.ETIMEDOUT


class PeerGone(IpcError, ConnectionError):
    """The other side is gone, or the capability was revoked."""

    default_code = IpcErr.ENOT_EXISTENT.code
    default_text = "the other side is gone"
    _os_errno = _errno.ECONNRESET


_CLASSES: dict[int, type[L4Error]] = {
    cls.default_code: cls
    for cls in (
        OutOfMemory,
        NotFound,
        PermissionDenied,
        AccessDenied,
        InvalidArgument,
        OutOfRange,
        Exists,
        Busy,
        TryAgain,
        NotSupported,
        AddressNotAvailable,
        BadProtocol,
        NotImplementedByServer,
        MessageTooShort,
        MessageTooLong,
        MissingArgument,
        ReplyDropped,
        ServerError,
        IpcTimeout,
        PeerGone,
    )
}
_CLASSES[IpcErr.SETIMEOUT.code] = IpcTimeout


def error_from_code(code: int, text: str = "") -> L4Error:
    """Return the exception for an error code, positive or negative as in a reply, of the fitting class.

    An unknown number makes a plain `L4Error` with that number; 0 is no error and gives one all the same.
    """
    number = abs(int(code))
    cls = _CLASSES.get(number)
    if cls is None:
        cls = IpcError if Err.EIPC_LO < number < Err.EIPC_HI else L4Error
    return cls(text, code=number)


def raise_from_code(code: int, text: str = "") -> NoReturn:
    """Raise what `error_from_code` makes of ``code`` and ``text``."""
    raise error_from_code(code, text)


def reply_label(error: L4Error) -> int:
    """Return the label of the reply that tells a caller of ``error``: its code, negative.

    A reply has 16 bits for it. What does not fit, and 0, which would mean success, becomes EMSGERRRANGE, as in
    L4Re.
    """
    number = int(error.code)
    return -number if 0 < number <= _CODE_MAX else -int(Err.EMSGERRRANGE)
