"""What a script holds: capabilities with the rights it means to give, and tasks.

The rights of a handle matter only when the capability is handed to a program, and never add to what the
capability itself carries.
"""

from __future__ import annotations

from l4re.boot import Grant, Task
from l4re.cap import Capability
from l4re.errors import Closed, InvalidArgument
from l4re.gate import Channel, Gate, Svr
from l4re.rights import Rights

__all__ = ["SERVER", "CapHandle", "TaskHandle", "mask_of"]

_LETTERS = {"r": 4, "w": 1, "s": 2, "d": 8, "n": 16, "c": 32}
_READ = 4
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
        return number & 0xFF | _READ
    if isinstance(value, int | float) and not isinstance(value, bool) and int(value) == value:
        return int(value) & 0xFF | _READ
    raise InvalidArgument("bad argument #2 to 'm' (rights are letters such as 'rws', or a number)")


class CapHandle:
    """A capability in a script: of a channel, or one that this process was given."""

    __slots__ = ("_object", "mask")

    def __init__(self, held: Channel | Capability, mask: int) -> None:
        self._object = held
        self.mask = mask

    def with_mask(self, mask: int) -> CapHandle:
        """Return the same capability with other rights to give; itself if they are the same."""
        return self if mask == self.mask else CapHandle(self._object, mask)

    def svr(self) -> CapHandle:
        """Return a handle that gives the server's side, with all rights."""
        return self.with_mask(_SVR_MASK)

    @property
    def valid(self) -> bool:
        """Whether this process still holds the side that the handle gives."""
        return not self._side().closed

    def grant(self, name: str) -> Grant:
        """Return what a program gets for it.

        Raises:
            Closed: this process does not hold it any more.
        """
        side = self._side()
        if side.closed:
            if isinstance(side, Svr):
                raise Closed(f"caps.{name}: the server's side of this channel was given away already; it moves")
            raise Closed(f"caps.{name}: this capability was dropped when the script had ended")
        return Grant(side, Rights(self.mask & int(Rights.RWSD)))

    def _side(self) -> Gate | Svr | Capability:
        if isinstance(self._object, Channel):
            return self._object.svr if self.mask & SERVER else self._object.gate
        return self._object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CapHandle) and self._object is other._object

    def __hash__(self) -> int:
        return id(self._object)

    def __str__(self) -> str:
        if not self.valid:
            return "L4::Cap<void>::Invalid"
        return f"L4::Cap<void>[{self._side().fileno():#x}] r={self.mask & 15:x} f={self.mask >> 4:x}"


class TaskHandle:
    """A started program in a script. It is released by ``wait`` and ``kill``; its exit handler is Lua's business."""

    __slots__ = ("killed", "number", "released", "task")

    def __init__(self, number: int, task: Task) -> None:
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
        return f"L4::Task[{self.task.name} {self.task.pid}]"
