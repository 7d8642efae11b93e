"""The system that a boot script describes, in whatever language: its programs, and what they can be handed.

One rule: who waits for another program can be told to stop. What the root serves itself is asked at once; everybody
else is asked aside, and only after somebody was given the right to answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import TYPE_CHECKING, Final, TypeVar

from l4re.boot import Grant, Task
from l4re.cap import Capability
from l4re.errors import InvalidArgument, L4Error, NotFound, PeerGone, TryAgain
from l4re.factory.kernel import KernelFactory
from l4re.gate import Channel, Gate
from l4re.interface import Meta
from l4re.log import PLAIN, Tag
from l4re.moe import Root
from l4re.ned.rom import Rom
from l4re.ned.rom_files import RomFiles
from l4re.rights import Rights
from l4re.services import Factory, Namespace, NsFlags, SchedulerServer, VconServer
from l4re.wire.protocols import Proto

if TYPE_CHECKING:
    from l4re.interface import Served
    from l4re.log.multiplexer import Voice
    from l4re.wire.vargs import Varg

__all__ = ["System", "check_name", "check_served"]

_T = TypeVar("_T")
_MAX_NAME: Final = 16
#: What an object may say it is, and what scripts call that.
_TYPES = {Proto.FACTORY: "L4::Factory", Proto.NAMESPACE: "L4Re::Namespace"}


class System:
    """Programs of ``rom`` under ``root``, and objects for them. For the thread that the root belongs to."""

    def __init__(self, root: Root, rom: Rom, *, environment: Mapping[str, str] | None = None) -> None:
        """Give every program the variables of ``environment``, unless the script says another value."""
        self.root = root
        self.rom = rom
        self._variables = dict(environment or {})
        self._served: dict[int, Served] = {}
        self.kernel = KernelFactory()

    # ---- what the root serves; each is a capability that belongs to the root or to us ----

    @property
    def user_factory(self) -> Capability:
        """The script's own factory: memory, namespaces, schedulers, logs, and factories with a quota."""
        return self.root.user_factory.cap

    @cached_property
    def scheduler(self) -> Gate:
        """All CPUs, and all priorities."""
        return self.serve(SchedulerServer())

    @cached_property
    def files(self) -> Gate:
        """The rom, as a namespace of read-only dataspaces."""
        return self.serve(RomFiles(self.rom), Rights.R)

    @cached_property
    def log(self) -> Gate:
        """A console where the root's own lines come out."""
        return self.serve(_OwnLog(self.root.services.log.voice(PLAIN)))

    def serve(self, obj: Served, rights: Rights = Rights.RWS) -> Gate:
        """Serve an object beside the programs' own, and return a capability to it, which is the system's."""
        gate = self.root.gate_to(obj, rights)
        self._served[id(gate)] = obj
        return gate

    def _own(self, grants: Mapping[str, Grant], until: ExitStack) -> dict[str, Grant]:
        """Have each program be a holder of its own of what we serve, whatever number of them there is."""
        own: dict[str, Grant] = {}
        for name, grant in grants.items():
            obj = self._served.get(id(grant.cap))
            if obj is not None:
                grant = Grant(until.enter_context(self.root.services.again(obj, grant.cap.rights)), grant.rights)
            own[name] = grant
        return own

    def is_log(self, cap: Capability) -> bool:
        """Whether this is `log`, so that what goes there can be printed without asking anybody."""
        return cap is self.__dict__.get("log")

    # ---- objects ----

    def ask(self, cap: Capability, function: Callable[[], _T]) -> _T:
        """Return what ``function`` returns, which calls ``cap``; it may wait for as long as the server likes.

        Raises:
            Stopped: the run is to end.
        """
        if cap is self.user_factory or cap is self.__dict__.get("files"):
            return function()
        return self.root.aside(function)

    def create(self, factory: Capability, protocol: int, arguments: Sequence[Varg]) -> Capability | Channel:
        """Have a factory, or a server that is one for its own sessions, make an object; the caller owns it."""
        return self.ask(factory, lambda: Factory(_gate(factory)).create(protocol, *arguments))

    def query(self, namespace: Capability, name: str) -> Capability | None:
        """Return what a namespace has under a name; None: there is no such name.

        Raises:
            TryAgain: the name is reserved.
        """
        space = Namespace(_gate(namespace))
        try:
            return self.ask(namespace, lambda: space.query(name, timeout=0))
        except NotFound:
            return None

    def register(self, namespace: Capability, name: str, grant: Grant | None) -> None:
        """Put a capability under a name, in the place of what is there; None reserves the name."""
        space = Namespace(_gate(namespace))
        if grant is None:
            self.ask(namespace, lambda: space.register_obj(name))
            return
        rights = grant.cap.rights if grant.rights is None else grant.rights
        flags = NsFlags(int(rights) & NsFlags.RWS) | NsFlags.OVERWRITE
        self.ask(namespace, lambda: space.register_obj(name, grant.cap, flags))

    def unregister(self, namespace: Capability, name: str) -> None:
        """Take a name away; it need not be there."""
        space = Namespace(_gate(namespace))
        try:
            self.ask(namespace, lambda: space.unlink(name))
        except NotFound:
            pass

    def interface(self, cap: Capability) -> str | None:
        """Ask an object what it is, and return what scripts call that; None if that tells them nothing."""
        if not isinstance(cap, Gate):
            return None
        meta = Meta(cap)
        try:
            return self.ask(cap, lambda: next((name for proto, name in _TYPES.items() if meta.supports(proto)), None))
        except PeerGone:
            raise
        except L4Error:
            return None

    # ---- programs ----

    def start(
        self,
        words: Sequence[str],
        *,
        grants: Mapping[str, Grant],
        log: Tag | Grant,
        services: Mapping[str, Grant] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Task:
        """Start ``rom/NAME`` with its arguments.

        What it prints comes out under a tag, or goes to the console behind a capability. One that has `PLAIN` in
        place of a tag has the run's own log, and reads its standard input.
        """
        command = self.rom.command(words)
        given = dict(services or {})
        console = None
        if isinstance(log, Grant):
            console = _gate(log.cap)
            if not console.gone:
                given["log"] = log
            log = Tag(command.name)
        with ExitStack() as until:
            return self.root.start(
                command,
                grants=self._own(grants, until),
                services=self._own(given, until),
                env={**self._variables, **(environment or {})},
                log=log,
                console=console,
                keyboard=log is PLAIN,
            )


class _OwnLog(VconServer):
    """What is written comes out line by line; there is nothing to read."""

    def __init__(self, voice: Voice) -> None:
        super().__init__(room=0)
        self._voice = voice

    def write(self, data: bytes) -> None:
        self._voice.write(data)


def check_served(channel: Channel) -> None:
    """Raise unless somebody was given the server's side of a channel that this process is about to call.

    Raises:
        TryAgain: nobody could ever answer.
    """
    if not (channel.svr.closed or channel.svr.bound):
        raise TryAgain("nobody was given the server's side of this channel yet: a call would wait without end")


def check_name(name: object) -> str:
    """Return the name of a capability in a script.

    Raises:
        InvalidArgument: a program cannot find one by that.
    """
    if not isinstance(name, str) or not name:
        raise InvalidArgument(f"caps are names and capabilities; {name!r} is no name")
    if len(name.encode(errors="replace")) > _MAX_NAME:
        raise InvalidArgument(f"Capability name {name!r} too long (at most {_MAX_NAME} bytes)")
    return name


def _gate(cap: Capability) -> Gate:
    if not isinstance(cap, Gate):
        raise InvalidArgument(f"a {cap.kind} cannot be asked for anything")
    return cap
