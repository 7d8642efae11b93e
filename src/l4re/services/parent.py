"""What a program tells its parent (L4Re's ``Parent``): that it ends, and with which status."""

from __future__ import annotations

from typing import Final

from l4re.interface import U64, Epiface, Interface, rpc
from l4re.wire.protocols import Proto

__all__ = ["Parent", "ParentServer"]

#: The one signal that means something: its value is the exit status.
EXIT: Final = 0


class Parent(Interface):
    """The program that started this one; see `ParentServer`."""

    protocol = int(Proto.PARENT)

    @rpc(opcode=0)
    def signal(self, sig: U64, val: U64) -> None:
        """Tell the parent: signal 0 says that this program ends with status ``val``. Others are not looked at."""
        raise NotImplementedError


class ParentServer(Parent, Epiface):
    """Serves the parent's side; a subclass says what :meth:`exited` does.

    A program can say what it likes about its end, and go on: only its task tells that it has ended.
    """

    def signal(self, sig: U64, val: U64) -> None:
        """See `Parent.signal`."""
        if sig == EXIT:
            self.exited(val)

    def exited(self, status: int) -> None:
        """Hear that the program ends, with a status of 64 bits. This one does nothing."""
