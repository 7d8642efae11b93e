"""Errors, codes and rights."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

import l4re.errors
from l4re.errors import (
    AccessDenied,
    Closed,
    Err,
    InvalidArgument,
    IpcErr,
    IpcError,
    IpcTimeout,
    L4Error,
    MessageTooLong,
    NotFound,
    OutOfMemory,
    OutOfRange,
    PeerGone,
    PermissionDenied,
    ServerError,
    WrongType,
    error_from_code,
    errtostr,
    raise_from_code,
)
from l4re.rights import DsFlags, MemAllocFlags, Rights, RmFlags

CLASSES = [
    c for c in vars(l4re.errors).values() if inspect.isclass(c) and issubclass(c, L4Error) and c.__name__[0] != "_"
]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_takes_no_message_a_plain_one_and_a_code(cls: type[L4Error]) -> None:
    assert str(cls())
    assert str(cls("it broke")) == cls("it broke").text == "it broke"
    assert cls("it broke", code=77).code == 77
    assert cls("it broke", code=-39).code is Err.EBADPROTO


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_errors_survive_copying_and_pickling(cls: type[L4Error], again: object) -> None:
    error = cls("it broke", code=16)
    other = again(error)  # type: ignore[operator]
    assert (type(other), str(other), other.code, other.args) == (cls, "it broke", Err.EBUSY, error.args)


def test_facts_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(PermissionDenied(wanted=Rights.W, held=Rights.R)))
    assert (error.wanted, error.held) == (Rights.W, Rights.R)


@pytest.mark.parametrize(
    ("cls", "builtin", "code"),
    [
        (OutOfMemory, MemoryError, Err.ENOMEM),
        (NotFound, LookupError, Err.ENOENT),
        (PermissionDenied, PermissionError, Err.EPERM),
        (AccessDenied, PermissionError, Err.EACCESS),
        (InvalidArgument, ValueError, Err.EINVAL),
        (WrongType, TypeError, Err.EINVAL),
        (OutOfRange, ValueError, Err.ERANGE),
        (Closed, ValueError, Err.EINVAL),
        (MessageTooLong, ValueError, Err.EMSGTOOLONG),
        (IpcTimeout, TimeoutError, 2003),
        (PeerGone, ConnectionError, 2004),
    ],
)
def test_classes_are_their_builtin_too(cls: type[L4Error], builtin: type[Exception], code: int) -> None:
    with pytest.raises(builtin) as caught:
        raise cls("it broke")
    assert isinstance(caught.value, cls)
    assert caught.value.code == code


@pytest.mark.parametrize("code", [c for c in Err if 0 < c < 1000 or 1001 <= c <= 1003])
def test_codes_come_back_as_themselves(code: Err) -> None:
    for number in (code, -code):
        error = error_from_code(number, "said the server")
        assert (error.code, error.text) == (code, "said the server")
        assert error_from_code(number).text


def test_codes_pick_the_class() -> None:
    assert type(error_from_code(-1)) is PermissionDenied
    assert type(error_from_code(5)) is ServerError
    assert type(error_from_code(-2002)) is IpcTimeout
    assert type(error_from_code(-2003)) is IpcTimeout
    assert type(error_from_code(-2004)) is PeerGone
    assert type(error_from_code(-2009)) is IpcError
    assert type(error_from_code(-4711)) is L4Error
    with pytest.raises(NotFound, match="nothing here"):
        raise_from_code(-2, "nothing here")


def test_ipc_errors_know_their_ipc_code() -> None:
    error = error_from_code(-(2000 + IpcErr.REMSGCUT))
    assert isinstance(error, IpcError)
    assert error.ipc is IpcErr.REMSGCUT
    assert IpcError(code=2005).ipc is None
    assert IpcErr.SETIMEOUT.text == "Send timeout"


def test_errtostr_takes_negative_numbers_as_upstream() -> None:
    assert errtostr(0) == "OK"
    assert errtostr(-39) == "Invalid protocol"
    assert errtostr(-1002) == "Message too long"
    assert errtostr(-2000) == "OK"
    assert errtostr(-2003) == "Receive timeout"
    for hole in (-3, -6, -28, -2001, -2005):
        assert errtostr(hole) is None
    for unknown in (1, 39, -100, -101, -999, -1006, -1999, -2031, -5000):
        assert errtostr(unknown) == "bad, unknown runtime error"


def test_every_code_has_a_text() -> None:
    assert Err.EBADPROTO.text == "Invalid protocol"
    assert all(code.text for code in Err)
    assert all(code.text for code in IpcErr)


def test_messages_are_made_of_facts() -> None:
    assert "'w'" in str(PermissionDenied(wanted=Rights.W, held=Rights.R))
    missing = NotFound(name="shm", names=["log", "gui"])
    assert "'shm'" in str(missing)
    assert "'log', 'gui'" in str(missing)
    assert "70000" in str(MessageTooLong(size=70000, limit=61440))
    assert "dataspace" in str(MessageTooLong(size=70000, limit=61440))


def test_rights_are_letters() -> None:
    assert (Rights.RWS.letters(), Rights.NONE.letters(), Rights.RWSD.letters()) == ("rws", "-", "rwsd")
    assert all(Rights.parse(rights.letters()) == rights for rights in map(Rights, range(16)))
    with pytest.raises(InvalidArgument, match="'x'"):
        Rights.parse("rx")


def test_numbers_are_upstreams() -> None:
    assert (Rights.W, Rights.S, Rights.R, Rights.D) == (1, 2, 4, 8)
    assert (DsFlags.R, DsFlags.W, DsFlags.X, DsFlags.RWX) == (4, 2, 1, 7)
    assert RmFlags.SEARCH_ADDR | RmFlags.IN_AREA | RmFlags.EAGER_MAP | RmFlags.NO_EAGER_MAP == 0x1E0000
    assert (MemAllocFlags.CONTINUOUS, MemAllocFlags.PINNED, MemAllocFlags.SUPER_PAGES) == (1, 2, 4)
