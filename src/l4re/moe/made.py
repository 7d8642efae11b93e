"""What a program can have made for it, beside memory: objects of the root that go with their last holder."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from l4re.interface import Served
from l4re.services.namespace_server import NamespaceServer
from l4re.services.scheduler import SchedulerServer
from l4re.services.vcon import VconServer

if TYPE_CHECKING:
    from l4re.log.multiplexer import Voice

__all__ = ["Made", "ProgramLog", "ProgramNamespace", "ProgramScheduler"]


class _Maker(Protocol):
    """The factory that made something."""

    def drop(self, obj: Made) -> None:
        """Hear that nobody holds it any more."""


class Made(Served):
    """Such an object."""

    maker: _Maker
    #: How many objects it counts as: more than one if it holds descriptors.
    weight: ClassVar[int] = 1

    def on_orphaned(self) -> None:
        self.maker.drop(self)


class ProgramNamespace(Made, NamespaceServer):
    """A namespace; each name holds a descriptor."""

    weight = 16


class ProgramScheduler(Made, SchedulerServer):
    """A scheduler."""


class ProgramLog(Made, VconServer):
    """A log: what is written comes out line by line under a tag. There is nothing to read; an IRQ may be bound."""

    weight = 4

    def __init__(self, voice: Voice) -> None:
        super().__init__(room=0)
        self._voice = voice

    def write(self, data: bytes) -> None:
        self._voice.write(data)

    def close(self) -> None:
        super().close()
        self._voice.close()
