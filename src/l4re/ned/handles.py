"""What a script holds: capabilities with the rights it means to give, and tasks.

The rights of a handle matter only when the capability is handed on, and never add to what the capability itself
carries. What it denotes is the world's business.
"""

from __future__ import annotations

from l4re.errors import InvalidArgument
from l4re.ned.world import Denoted, Started

__all__ = ["READ", "SERVER", "CapHandle", "TaskHandle", "mask_of"]

_LETTERS = {"r": 4, "w": 1, "s": 2, "d": 8, "n": 16, "c": 32}
#: What a handle always gives.
READ = 4
#: The bit of a mask that asks for the server's side of a channel.
SERVER = 0x20
_SVR_MASK = 0xEF


def mask_of(value: object) -> int:
    """Return the mask that ``:m(value)`` asks for: letters, or a number; ``r`` is always in it.

    Raises:
        InvalidArgument: it is neither.
    """
    if isinstance(value, str):
        try:
            number = int(value.strip(), 0)
        except ValueError:
            number = sum({_LETTERS.get(letter.lower(), 0) for letter in value})
        return number & 0xFF | READ
    if isinstance(value, int | float) and not isinstance(value, bool) and int(value) == value:
        return int(value) & 0xFF | READ
    raise InvalidArgument("bad argument #2 to 'm' (rights are letters such as 'rws', or a number)")


class CapHandle:
    """A capability in a script: what it denotes, the rights to give, and its type if the script knows it."""

    __slots__ = ("denoted", "mask", "type")

    def __init__(self, denoted: Denoted, mask: int = READ, type: str | None = None) -> None:
        self.denoted = denoted
        self.mask = mask
        #: The name of its interface, such as ``L4::Factory``.
        self.type = type

    def with_mask(self, mask: int) -> CapHandle:
        """Return the same capability with other rights to give; itself if they are the same."""
        return self if mask == self.mask else CapHandle(self.denoted, mask, self.type)

    def with_type(self, type: str) -> CapHandle:
        """Return the same capability as one of that type."""
        return self if type == self.type else CapHandle(self.denoted, self.mask, type)

    def svr(self) -> CapHandle:
        """Return a handle that gives the server's side, with all rights."""
        return self.with_mask(_SVR_MASK)

    @property
    def server(self) -> bool:
        """Whether it gives the server's side of a channel."""
        return bool(self.mask & SERVER)

    @property
    def valid(self) -> bool:
        """Whether what the handle gives is still there."""
        return self.denoted.valid(self.mask)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CapHandle) and self.denoted is other.denoted

    def __hash__(self) -> int:
        return id(self.denoted)

    def __str__(self) -> str:
        kind = self.type or "void"
        if not self.valid:
            return f"L4::Cap<{kind}>::Invalid"
        return f"L4::Cap<{kind}>[{self.denoted.address(self.mask):#x}] r={self.mask & 15:x} f={self.mask >> 4:x}"


class TaskHandle:
    """A started program in a script. It is released by ``wait`` and ``kill``; its exit handler is Lua's business."""

    __slots__ = ("killed", "number", "released", "task")

    def __init__(self, number: int, task: Started) -> None:
        self.number = number
        self.task = task
        self.released = False
        self.killed = False

    def state(self) -> str | None:
        """Return "running", "zombie" (ended, not asked for), or None once released."""
        if self.released:
            return None
        return "running" if self.task.returncode is None else "zombie"

    def exit_code(self) -> int | None:
        """Return the exit status of one that has ended and is not released."""
        return None if self.released else self.task.returncode

    def code(self) -> int | None:
        """Return the exit status for an exit handler, None of one that runs or that the script has killed."""
        return None if self.killed else self.task.returncode

    def __str__(self) -> str:
        return f"L4::Task[{self.task.name} {self.number}]"
