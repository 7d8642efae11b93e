"""The environment page: a few lines of text that tell a program which descriptor is which capability.

The page names its addressee. Who is somebody else does not read on, so a page that travels further than it should
gives nobody anything. Pure: `boot` writes it, `Env` reads it, a program in any language can.

The first line says what it is, the second whose. Then one line for each capability, its name last: those the
parent named, and those every program may look for, which have the names of `SERVICES`::

    l4re-env 1
    pid 0000012345
    log server
    env gate rs 0 4 mem_alloc
    cap gate rws 0 5 calculator
    cap dataspace r 16384 6,7 camera frames

Kinds are those of :class:`~l4re.wire.items.ItemKind` in small letters, ``-`` stands for nothing, and a reader
skips lines that begin with a word it does not know.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Self

from l4re.errors import InvalidArgument
from l4re.rights import Rights
from l4re.wire.items import ItemKind

__all__ = ["MAX_NAME", "PID_AT", "SERVICES", "CapEntry", "EnvPage", "check_name"]

#: What a parent can give beside the capabilities that it names (``L4Re::Env``).
SERVICES: Final = ("parent", "mem_alloc", "log", "scheduler", "ns")

#: Bytes of the name of a capability.
MAX_NAME = 255
_MAGIC = "l4re-env 1"
_DIGITS = 10
#: Where in the page the addressee writes its pid, in ten digits.
PID_AT: Final = len(_MAGIC) + len("\npid ")
_MAX_FDS = 64


def check_name(name: object) -> str:
    """Return ``name`` if a capability can be called that.

    Raises:
        InvalidArgument: it is no string, empty, too long, or holds characters that do not print.
    """
    if not isinstance(name, str) or not name or not name.isprintable() or name.strip() != name:
        raise InvalidArgument(f"a capability's name is a printable string, not {name!r}")
    if len(name.encode(errors="replace")) > MAX_NAME:
        raise InvalidArgument(f"a capability's name has at most {MAX_NAME} bytes: {name!r}")
    return name


class CapEntry(NamedTuple):
    """One capability: what it is, the descriptors it is made of, and its name."""

    kind: ItemKind
    rights: Rights
    value: int
    fds: tuple[int, ...]
    name: str

    def line(self, word: str = "cap") -> str:
        """Return it as a line of the page."""
        fds = ",".join(map(str, self.fds)) or "-"
        return f"{word} {self.kind.name.lower()} {self.rights.letters()} {self.value} {fds} {self.name}"

    @classmethod
    def parse(cls, line: str) -> Self:
        """Read such a line.

        Raises:
            InvalidArgument: it is none.
        """
        try:
            _, kind, rights, value, fds, name = line.split(" ", 5)
            numbers = () if fds == "-" else tuple(_number(fd, 2**31) for fd in fds.split(","))
            if len(numbers) > _MAX_FDS:
                raise ValueError
            return cls(ItemKind[kind.upper()], Rights.parse(rights), _number(value, 2**64), numbers, check_name(name))
        except (ValueError, KeyError):
            raise InvalidArgument(f"not a capability in an environment page: {line!r}") from None


class EnvPage(NamedTuple):
    """What the page says. ``pid`` is 0 until the addressee has written its own."""

    caps: tuple[CapEntry, ...] = ()
    log: str = ""
    pid: int = 0
    services: tuple[CapEntry, ...] = ()

    def pack(self) -> bytes:
        """Return the page."""
        lines = [_MAGIC, f"pid {self.pid:0{_DIGITS}}"]
        if self.log:
            lines.append("log " + "".join(c if c.isprintable() else "?" for c in self.log))
        lines += (cap.line("env") for cap in self.services)
        lines += (cap.line() for cap in self.caps)
        return "".join(f"{line}\n" for line in lines).encode()

    @classmethod
    def addressee(cls, data: bytes) -> int | None:
        """Return whose page this is; None if it is no page."""
        head, digits, rest = data[:PID_AT], data[PID_AT : PID_AT + _DIGITS], data[PID_AT + _DIGITS :]
        is_page = head == f"{_MAGIC}\npid ".encode() and digits.isdigit() and rest[:1] == b"\n"
        return int(digits) if is_page else None

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a page.

        Raises:
            InvalidArgument: it is none, or a line of it makes no sense.
        """
        pid = cls.addressee(data)
        try:
            lines = data.decode().split("\n")[2:] if data.endswith(b"\n") else None
        except UnicodeDecodeError:
            lines = None
        if pid is None or lines is None:
            raise InvalidArgument("this is not an environment page")
        caps: list[CapEntry] = []
        services: list[CapEntry] = []
        log = ""
        for line in lines:
            if line.startswith("cap "):
                caps.append(CapEntry.parse(line))
            elif line.startswith("env "):
                services.append(CapEntry.parse(line))
            elif line.startswith("log "):
                log = line[4:]
        names = [("cap", cap.name) for cap in caps] + [("env", cap.name) for cap in services]
        fds = [fd for cap in (*caps, *services) for fd in cap.fds]
        if len(set(names)) != len(names) or len(set(fds)) != len(fds):
            raise InvalidArgument("an environment page names a capability or a descriptor twice")
        return cls(tuple(caps), log, pid, tuple(services))


def _number(text: str, limit: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and (number := int(text)) < limit):
        raise ValueError(text)
    return number
