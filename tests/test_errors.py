"""Errors, codes and rights."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    MissingArgument,
    NotFound,
    NotImplementedByServer,
    OutOfMemory,
    OutOfRange,
    PeerGone,
    PermissionDenied,
    ServerError,
    TryAgain,
    WrongType,
    error_from_code,
    errtostr,
    raise_from_code,
    reply_label,
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
        (MissingArgument, ValueError, Err.EMSGMISSARG),
        (TryAgain, BlockingIOError, Err.EAGAIN),
        (NotImplementedByServer, NotImplementedError, Err.ENOSYS),
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


#: The whole table: name, number, and upstream's text; None where it has none.
TABLE = [
    ("EOK", 0, "OK"),
    ("EPERM", 1, "Operation not permitted"),
    ("ENOENT", 2, "No such object found"),
    ("EIO", 5, "I/O error"),
    ("ENXIO", 6, None),
    ("E2BIG", 7, None),
    ("EAGAIN", 11, "Try again"),
    ("ENOMEM", 12, "Insufficient memory"),
    ("EACCESS", 13, "Access not permitted"),
    ("EFAULT", 14, "Invalid memory address"),
    ("EBUSY", 16, "Function busy"),
    ("EEXIST", 17, "Object exists"),
    ("ENODEV", 19, "No such device"),
    ("ENOTDIR", 20, "Not a directory"),
    ("EINVAL", 22, "Invalid argument"),
    ("ENOSPC", 28, None),
    ("ERANGE", 34, "Argument out of range"),
    ("ENAMETOOLONG", 36, "Name too long"),
    ("ENOSYS", 38, "Function not implemented"),
    ("EBADPROTO", 39, "Invalid protocol"),
    ("EADDRNOTAVAIL", 99, "Address not available"),
    ("ERRNOMAX", 100, "bad, unknown runtime error"),
    ("ENOREPLY", 1000, "Do not reply"),
    ("EMSGTOOSHORT", 1001, "Message too short"),
    ("EMSGTOOLONG", 1002, "Message too long"),
    ("EMSGMISSARG", 1003, "Message is missing (an) argument(s)"),
    ("EMSGERRRANGE", 1004, "Error code range error"),
    ("EDROPREPLY", 1005, "Server dropped reply capability"),
    ("EIPC_LO", 2000, "OK"),
    ("EIPC_HI", 2031, "bad, unknown runtime error"),
]
IPC_TABLE = [
    ("SETIMEOUT", 2, "Send timeout"),
    ("RETIMEOUT", 3, "Receive timeout"),
    ("ENOT_EXISTENT", 4, "Void capability invoked"),
    ("SECANCELED", 6, "Send operation canceled"),
    ("RECANCELED", 7, "Receive operation canceled"),
    ("SEMSGCUT", 8, "Overflow during send operation"),
    ("REMSGCUT", 9, "Overflow during receive operation"),
    ("SESNDPFTO", 10, "Send page-fault timeout (send phase)"),
    ("RESNDPFTO", 11, "Send page-fault timeout (receive phase)"),
    ("SERCVPFTO", 12, "Receive page-fault timeout (send phase)"),
    ("RERCVPFTO", 13, "Receive page-fault timeout (receive phase)"),
    ("SEABORTED", 14, "Send operation aborted"),
    ("REABORTED", 15, "Receive operation aborted"),
    ("SEMAPFAILED", 16, "Map operation failed (send phase)"),
    ("REMAPFAILED", 17, "Map operation failed (receive phase)"),
    ("NO_REPLY_CAP", 19, "Reply capability slot not available"),
]


def test_the_codes_are_upstreams_and_no_others() -> None:
    assert [(name, code.value) for name, code in Err.__members__.items()] == [row[:2] for row in TABLE]
    assert [(name, code.value) for name, code in IpcErr.__members__.items()] == [row[:2] for row in IPC_TABLE]
    assert [code.code for code in IpcErr] == [2000 + number for _, number, _ in IPC_TABLE]


def test_errtostr_gives_upstreams_text_for_every_number_there_is() -> None:
    texts: dict[int, str | None] = {number: text for _, number, text in TABLE}
    texts |= {2000 + number: text for _, number, text in IPC_TABLE}
    holes = {*range(100), *range(2000, 2031)} - set(texts)
    for number in range(-5000, 70000):
        expected = None if number in holes else texts.get(number, "bad, unknown runtime error")
        assert errtostr(-number) == expected, number


def test_errtostr_takes_negative_numbers_as_upstream() -> None:
    assert errtostr(-Err.EBADPROTO) == "Invalid protocol"
    for unknown in (1, 39, 2003):
        assert errtostr(unknown) == "bad, unknown runtime error"


def test_an_ipc_error_says_in_which_half_of_the_call_it_happened() -> None:
    assert {code.name for code in IpcErr if not code.sending} == {
        *("RETIMEOUT", "RECANCELED", "REMSGCUT", "RESNDPFTO", "RERCVPFTO", "REABORTED", "REMAPFAILED", "NO_REPLY_CAP")
    }


def test_an_error_knows_the_name_of_its_code() -> None:
    assert (L4Error(code=-39).name, PeerGone().name, IpcTimeout().name) == ("EBADPROTO", "ENOT_EXISTENT", "RETIMEOUT")
    assert L4Error(code=4711).name == "4711"
    missing = NotFound(name="shm", names=["log"])
    assert (missing.name, missing.missing, missing.names) == ("ENOENT", "shm", ("log",))


@given(st.integers(-(1 << 70), 1 << 70))
def test_the_label_of_a_reply_brings_the_code_back_if_it_fits_one(code: int) -> None:
    label = reply_label(error_from_code(code))
    assert -(1 << 15) <= label < 0
    fits = 0 < abs(code) <= 1 << 15
    assert label == (-abs(code) if fits else -Err.EMSGERRRANGE)
    assert not fits or error_from_code(label).code == abs(code)


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
