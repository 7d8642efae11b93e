"""The live world: what a script asks for happens.

What a script denotes is a capability of this process, or becomes one when it is first handed on. Those that lead to
other programs are dropped when the script has ended, so that a server nobody else can reach hears of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from l4re.boot import Grant, Task
from l4re.cap import Capability
from l4re.environment import env
from l4re.errors import Closed, InvalidArgument, NotSupported
from l4re.gate import Channel, Gate, Svr
from l4re.log import PLAIN, Tag, colour_number
from l4re.moe import Root
from l4re.ned.commands import Commands
from l4re.ned.handles import SERVER, CapHandle
from l4re.ned.hardware import HARDWARE, Hardware
from l4re.ned.rom import Rom
from l4re.ned.system import System, check_served
from l4re.ned.world import Denoted, Execute, Program, Started, Word
from l4re.rights import Rights
from l4re.wire.protocols import Proto

__all__ = ["LiveWorld"]

_ENV_RIGHTS: Final = 7
#: What a program is given beside its capabilities: how a script calls it, and how the program does.
_SERVICES: Final = {"mem": "mem_alloc", "scheduler": "scheduler"}


class _Held:
    """A capability of this process, there or to be made when it is needed. ``foreign``: it leads to other programs."""

    __slots__ = ("_cap", "_make", "foreign")

    def __init__(self, cap: Capability | Callable[[], Capability], *, foreign: bool = False) -> None:
        self._cap = cap if isinstance(cap, Capability) else None
        self._make = None if isinstance(cap, Capability) else cap
        self.foreign = foreign

    @property
    def cap(self) -> Capability:
        if self._cap is None:
            assert self._make is not None
            self._cap = self._make()
        return self._cap

    def side(self, mask: int) -> Capability:
        return self.cap

    def check(self) -> None:
        """Raise if to ask it is to wait without end."""

    def valid(self, mask: int) -> bool:
        return self._cap is None or not self.side(mask).closed

    def address(self, mask: int) -> int:
        return id(self) if self._cap is None else self.side(mask).fileno()

    def drop(self) -> None:
        if self._cap is not None:
            self._cap.close()


class _Channel(_Held):
    """A channel that the script made: both of its sides."""

    __slots__ = ("channel",)

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel.gate, foreign=True)
        self.channel = channel

    def side(self, mask: int) -> Gate | Svr:
        return self.channel.svr if mask & SERVER else self.channel.gate

    def check(self) -> None:
        check_served(self.channel)

    def drop(self) -> None:
        self.channel.close()


class _Factory(_Held):
    """A factory that the root serves: it makes logs that cost nothing as long as only a program's output goes there."""

    __slots__ = ()


class _Hardware(_Held):
    """What no Linux process has: a capability that refuses everything, once it is handed on."""

    __slots__ = ()


class _Log(_Held):
    """A place for a program's lines at the root's multiplexer; a console only if it is handed on."""

    __slots__ = ("tag",)

    def __init__(self, tag: Tag, make: Callable[[], Capability]) -> None:
        super().__init__(make)
        self.tag = tag


class _Ours:
    """What exists once in this process, and cannot be handed on."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def valid(self, mask: int) -> bool:
        return True

    def address(self, mask: int) -> int:
        return id(self)


class LiveWorld:
    """Starts programs under ``root``, from the folders of ``rom``."""

    def __init__(self, root: Root, rom: Rom, *, environment: Mapping[str, str] | None = None) -> None:
        """Give every program the variables of ``environment``, unless the script says another value."""
        self._root = root
        self._system = System(root, rom, environment=environment)
        self._foreign: list[_Held] = []
        self._kernel = _Ours("factory")
        self._memory = _Factory(lambda: self._system.user_factory)
        self._commands: Commands | None = None

    def check(self) -> None:
        self._root.check()

    def environment(self) -> Mapping[str, CapHandle]:
        system = self._system
        given = {name: CapHandle(_Held(cap), _ENV_RIGHTS) for name, cap in env().caps.items()}
        memory = CapHandle(self._memory, _ENV_RIGHTS, "L4::Factory")
        return {
            "factory": CapHandle(self._kernel, _ENV_RIGHTS, "L4::Factory"),
            "mem_alloc": memory,
            "user_factory": memory,
            "log": CapHandle(_Log(PLAIN, lambda: system.log), _ENV_RIGHTS),
            "scheduler": CapHandle(_Held(lambda: system.scheduler), _ENV_RIGHTS),
            "rom": CapHandle(_Held(lambda: system.files), _ENV_RIGHTS, "L4Re::Namespace"),
            "parent": CapHandle(_Ours("parent"), _ENV_RIGHTS),
            "rm": CapHandle(_Ours("rm"), _ENV_RIGHTS),
            **{name: CapHandle(self._hardware(name), _ENV_RIGHTS) for name in HARDWARE},
            **given,
        }

    def _hardware(self, name: str) -> _Hardware:
        return _Hardware(lambda: self._system.serve(Hardware(name)))

    # ---- objects ----

    def create(self, factory: Denoted, protocol: int, arguments: Sequence[Word]) -> Denoted:
        system = self._system
        if factory is self._kernel:
            return self._made(system.kernel.create(protocol, *arguments), foreign=True)
        held = _held(factory, "a factory")
        if isinstance(held, _Hardware) and protocol == Proto.SIGMA0:
            return held
        if isinstance(held, _Factory) and protocol == Proto.LOG:
            tag, colour = (*arguments, None, None)[:2]
            if tag is None:
                raise InvalidArgument("a log is made with a tag")
            return _Log(
                Tag(str(tag), colour_number(colour)), lambda: _one(system.create(held.cap, protocol, arguments))
            )
        held.check()
        made = system.create(held.cap, protocol, arguments)
        if isinstance(held, _Factory) and protocol == Proto.FACTORY:
            return _Factory(_one(made))
        # A namespace holds the gates of servers: it goes with the script, as the script's own do.
        return self._made(made, foreign=not isinstance(held, _Factory) or protocol == Proto.NAMESPACE)

    def _made(self, made: Capability | Channel, *, foreign: bool) -> _Held:
        """Keep what was made; what leads to other programs goes when the script ends."""
        held = _Channel(made) if isinstance(made, Channel) else _Held(made, foreign=foreign)
        if held.foreign:
            self._foreign.append(held)
        return held

    def query(self, namespace: Denoted, name: str) -> Denoted | None:
        held = _held(namespace, "a namespace")
        held.check()
        found = self._system.query(held.cap, name)
        return None if found is None else self._made(found, foreign=found.kind != "dataspace")

    def register(self, namespace: Denoted, name: str, cap: CapHandle | None) -> None:
        held = _held(namespace, "a namespace")
        held.check()
        self._system.register(held.cap, name, None if cap is None else _grant(f"'{name}'", cap))

    def unregister(self, namespace: Denoted, name: str) -> None:
        held = _held(namespace, "a namespace")
        held.check()
        self._system.unregister(held.cap, name)

    def interface(self, cap: CapHandle) -> str | None:
        held = cap.denoted
        if not isinstance(held, _Held):
            return None
        held.check()
        return self._system.interface(held.cap)

    def debug(self, cap: Denoted, number: int) -> int:
        raise NotSupported("objects of Linux have no debug interface")

    def power(self, cap: Denoted, what: str, argument: int) -> None:
        raise NotSupported(f"a process does not {what} the machine it runs on")

    # ---- programs ----

    def start(self, program: Program) -> Task:
        log = program.log.denoted
        grants = {name: _grant(f"caps.{name}", handle) for name, handle in program.caps.items()}
        services: dict[str, Grant] = {}
        for field, handle in program.services.items():
            if field in _SERVICES:
                services[_SERVICES[field]] = _grant(field, handle)
            elif field not in grants:
                grants[field] = _grant(field, handle)
        return self._system.start(
            program.words,
            grants=grants,
            log=log.tag if isinstance(log, _Log) else _grant("log", program.log),
            services=services,
            environment=program.environment,
        )

    def wait(self, task: Started) -> int:
        assert isinstance(task, Task)
        return self._root.wait(task)

    def kill(self, task: Started) -> None:
        assert isinstance(task, Task)
        self._root.kill(task)

    def next_ended(self) -> Started | None:
        return self._root.next_ended()

    def sleep(self, seconds: float) -> None:
        self._root.sleep(seconds)

    def serve(self, channel: CapHandle, execute: Execute) -> None:
        held = channel.denoted
        if not isinstance(held, _Channel):
            raise InvalidArgument("server_loop serves a channel that the script has made")
        if self._commands is not None:
            return  # as upstream: only the first one is served
        self._commands = Commands(self._root, held.channel.svr, execute)
        self.script_ended()

    def script_ended(self) -> None:
        foreign, self._foreign = self._foreign, []
        for held in foreign:
            held.drop()

    def print(self, text: str) -> None:
        self._root.console.plain(f"{text}\n")


def _held(denoted: Denoted, what: str) -> _Held:
    if isinstance(denoted, _Held):
        return denoted
    raise InvalidArgument(f"this is not {what}")


def _one(made: Capability | Channel) -> Capability:
    if isinstance(made, Channel):
        made.close()
        raise InvalidArgument("asked for one object, and got both sides of a channel")
    return made


def _grant(what: str, handle: CapHandle) -> Grant:
    """Return what a program gets for a handle.

    Raises:
        Closed: this process does not hold it any more.
    """
    held = handle.denoted
    if not isinstance(held, _Held):
        name = held.name if isinstance(held, _Ours) else "this"
        raise NotSupported(f"{what}: every program has its own {name}; there is none to hand on")
    side = held.side(handle.mask)
    if side.closed:
        if isinstance(side, Svr):
            raise Closed(f"{what}: the server's side of this channel was given away already; it moves")
        raise Closed(f"{what}: this capability was dropped when the script had ended")
    return Grant(side, Rights(handle.mask & int(Rights.RWSD)))
