"""The live world: what a script asks for happens.

A channel's ends are ours until they are handed out or the script has ended; everything else a script can denote is
a capability of this process, a log, or one of the root's own factories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

from l4re.boot import Grant, Task
from l4re.cap import Capability
from l4re.environment import env
from l4re.errors import Closed, InvalidArgument, NotSupported
from l4re.gate import Channel, Gate, Svr, new_channel
from l4re.log import Tag, colour_number
from l4re.moe import Root
from l4re.ned.handles import SERVER, CapHandle
from l4re.ned.rom import Rom
from l4re.ned.world import Denoted, Execute, Program, Started, Word
from l4re.rights import Rights
from l4re.wire.protocols import Proto

__all__ = ["LiveWorld"]

_ENV_RIGHTS = 7


class _Held:
    """A capability of this process."""

    __slots__ = ("cap",)

    def __init__(self, cap: Capability) -> None:
        self.cap = cap

    def side(self, mask: int) -> Capability:
        return self.cap

    def valid(self, mask: int) -> bool:
        return not self.side(mask).closed

    def address(self, mask: int) -> int:
        return self.side(mask).fileno()


class _Channel(_Held):
    """A channel that the script made: both of its sides."""

    __slots__ = ("channel",)

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel.gate)
        self.channel = channel

    def side(self, mask: int) -> Gate | Svr:
        return self.channel.svr if mask & SERVER else self.channel.gate

    def drop(self) -> None:
        self.channel.gate.close()
        self.channel.svr.close()


class _Ours:
    """What exists once in this process."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def valid(self, mask: int) -> bool:
        return True

    def address(self, mask: int) -> int:
        return id(self)


class _Log(_Ours):
    """A place for a program's lines: a tag at the root's multiplexer."""

    __slots__ = ("tag",)

    def __init__(self, tag: Tag) -> None:
        super().__init__("log")
        self.tag = tag


class LiveWorld:
    """Starts programs under ``root``, from the folders of ``rom``."""

    def __init__(self, root: Root, rom: Rom) -> None:
        self._root = root
        self._rom = rom
        self._channels: list[_Channel] = []
        self._kernel = _Ours("factory")
        self._memory = _Ours("mem_alloc")

    def check(self) -> None:
        self._root.check()

    def environment(self) -> Mapping[str, CapHandle]:
        given = {name: CapHandle(_Held(cap), _ENV_RIGHTS) for name, cap in env().caps.items()}
        ours = {
            "factory": CapHandle(self._kernel, _ENV_RIGHTS, "L4::Factory"),
            "mem_alloc": CapHandle(self._memory, _ENV_RIGHTS, "L4::Factory"),
        }
        ours["user_factory"] = ours["mem_alloc"]
        return {**ours, **given}

    # ---- objects ----

    def create(self, factory: Denoted, protocol: int, arguments: Sequence[Word]) -> Denoted:
        if factory is self._kernel and protocol == Proto.NONE:
            channel = _Channel(new_channel())
            self._channels.append(channel)
            return channel
        if factory is self._memory and protocol == Proto.LOG:
            tag, colour = (*arguments, None, None)[:2]
            if tag is None:
                raise InvalidArgument("a log is made with a tag")
            return _Log(Tag(str(tag), colour_number(colour)))
        raise NotSupported(f"objects of protocol {protocol}: this service is not available here")

    def query(self, namespace: Denoted, name: str) -> Denoted | None:
        _not_here("a namespace")

    def register(self, namespace: Denoted, name: str, cap: CapHandle | None) -> None:
        _not_here("a namespace")

    def unregister(self, namespace: Denoted, name: str) -> None:
        _not_here("a namespace")

    def interface(self, cap: CapHandle) -> str | None:
        return None

    def debug(self, cap: Denoted, number: int) -> int:
        _not_here("a debug interface")

    def power(self, cap: Denoted, what: str, argument: int) -> None:
        raise NotSupported(f"a process does not {what} the machine it runs on")

    # ---- programs ----

    def start(self, program: Program) -> Task:
        command = self._rom.command(program.words)
        for field in program.services:
            _not_here(f"field '{field}'")
        log = program.log.denoted
        if not isinstance(log, _Log):
            _not_here("log = capability")
        grants = {name: _grant(name, handle) for name, handle in program.caps.items()}
        return self._root.start(command, grants=grants, env=program.environment, log=log.tag)

    def wait(self, task: Started) -> int:
        assert isinstance(task, Task)
        return self._root.wait(task)

    def kill(self, task: Started) -> None:
        assert isinstance(task, Task)
        self._root.kill(task)

    def next_ended(self) -> Started | None:
        return self._root.next_ended()

    def sleep(self, seconds: float) -> None:
        _not_here("sleep")

    def serve(self, channel: CapHandle, execute: Execute) -> None:
        _not_here("server_loop")

    def script_ended(self) -> None:
        channels, self._channels = self._channels, []
        for channel in channels:
            channel.drop()

    def print(self, text: str) -> None:
        self._root.console.plain(f"{text}\n")


def _grant(name: str, handle: CapHandle) -> Grant:
    """Return what a program gets for a handle.

    Raises:
        Closed: this process does not hold it any more.
    """
    held = handle.denoted
    if not isinstance(held, _Held):
        _not_here(f"caps.{name}: a capability of this kind")
    side = held.side(handle.mask)
    if side.closed:
        if isinstance(side, Svr):
            raise Closed(f"caps.{name}: the server's side of this channel was given away already; it moves")
        raise Closed(f"caps.{name}: this capability was dropped when the script had ended")
    return Grant(side, Rights(handle.mask & int(Rights.RWSD)))


def _not_here(what: str) -> NoReturn:
    raise NotSupported(f"{what}: this service is not available here")
