"""`Env`: the capabilities a program starts with.

Authority is handed over, never found: what is not in the environment has to come through what is.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar, overload

from l4re.cap import Capability, import_capability, register_room
from l4re.closing import Closing
from l4re.environment.page import EnvPage
from l4re.errors import InvalidArgument, NotFound
from l4re.gate import Gate
from l4re.linux import sealed
from l4re.linux.fd import Fd
from l4re.linux.limit import raise_descriptor_limit
from l4re.log import Log
from l4re.wire.items import ItemKind

if TYPE_CHECKING:
    from l4re.factory import MemAlloc
    from l4re.factory.kernel import KernelFactory
    from l4re.rm import RegionMap
    from l4re.services.factory import Creator
    from l4re.services.namespace import Namespace
    from l4re.services.parent import Parent, ParentServer
    from l4re.services.scheduler import Scheduler, SchedulerServer

__all__ = ["VARIABLE", "Env", "MainTask", "env"]

#: The environment variable that names the descriptor of the page.
VARIABLE = "L4RE_ENV"

_T = TypeVar("_T")

for _kind, _room in (
    (ItemKind.DATASPACE, "l4re.dataspace"),
    (ItemKind.GATE, "l4re.gate"),
    (ItemKind.IRQ, "l4re.irq"),
    (ItemKind.RECEIVE, "l4re.gate"),
    (ItemKind.SEMAPHORE, "l4re.irq.semaphore"),
):
    register_room(_kind, _room)


class MainTask(NamedTuple):
    """A process by the numbers that Linux gives it: of the process, and of its main thread."""

    pid: int
    main_thread: int


class Env(Closing):
    """What this program was given. Thread-safe: nothing in it changes.

    The capabilities belong to it: ``cap.dup()`` gives one of your own. There is one for each process, from
    :func:`env`; make others only to pass a world to code that takes one.
    """

    __slots__ = ("_caps", "_made", "_services", "_tag")

    def __init__(
        self,
        caps: Mapping[str, Capability] | None = None,
        *,
        log: Log | None = None,
        rm: RegionMap | None = None,
        services: Mapping[str, Capability] | None = None,
        tag: str = "",
    ) -> None:
        """Take ``caps``, and ``services``, of which `environment.page.SERVICES` has the names.

        ``tag`` is what the output of this program is tagged with, unless a ``log`` says it.
        """
        self._caps = MappingProxyType(dict(caps or {}))
        self._services = dict(services or {})
        self._tag = tag
        given = {"rm": rm, "log": log}
        self._made: dict[str, Any] = {name: one for name, one in given.items() if one is not None}

    @classmethod
    def inherited(cls) -> Self:
        """Take over what the parent left for this process; stand alone if that is nothing.

        Raises:
            InvalidArgument: the page is addressed to this process and does not describe its descriptors.
        """
        page = _own_page()
        if page is None:
            return cls()
        entries = (*page.services, *page.caps)
        for entry in entries:
            for fd in entry.fds:
                sealed.keep_from_programs(fd)
        mine = [tuple(Fd(fd, what=f"capability {entry.name!r}") for fd in entry.fds) for entry in entries]
        made = [
            import_capability(entry.kind, entry.rights, entry.value, fds)
            for entry, fds in zip(entries, mine, strict=True)
        ]
        services, caps = made[: len(page.services)], made[len(page.services) :]
        return cls(
            {entry.name: cap for entry, cap in zip(page.caps, caps, strict=True)},
            tag=page.log,
            services={entry.name: cap for entry, cap in zip(page.services, services, strict=True)},
        )

    @property
    def log(self) -> Log:
        """What this program says: by way of its standard output, or to the console that the parent gave it."""
        return self._made_once("log", self._log)

    # What few programs use is made when it is first asked for, and its room loaded then.

    @property
    def mem_alloc(self) -> MemAlloc:
        """Memory, as ``L4Re::Env::mem_alloc``: on the account that the parent gave, or simply the machine's."""
        return self._made_once("mem_alloc", self._mem_alloc)

    @property
    def user_factory(self) -> Creator:
        """Whatever the parent has made for this program (L4Re's ``user_factory``): at least dataspaces."""
        return self._made_once("user_factory", self._user_factory)

    @property
    def rm(self) -> RegionMap:
        """Where in this address space memory is attached."""
        return self._made_once("rm", _process_map)

    @property
    def factory(self) -> KernelFactory:
        """New gates, IRQs and semaphores."""
        return self._made_once("factory", _kernel_factory)

    @property
    def scheduler(self) -> Scheduler | SchedulerServer:
        """Where threads run and how urgently: within what the parent allows, or simply the machine's."""
        return self._made_once("scheduler", self._scheduler)

    @property
    def parent(self) -> Parent | ParentServer:
        """Who is told that this program ends, and how (L4Re's ``Parent``); alone, nobody."""
        return self._made_once("parent", self._parent)

    @property
    def ns(self) -> Namespace:
        """The names the parent gave beside the named capabilities.

        Raises:
            NotFound: it gave none.
        """
        return self._made_once("ns", self._ns)

    @property
    def main_task(self) -> MainTask:
        """This process, and its main thread."""
        return MainTask(os.getpid(), threading.main_thread().native_id or os.getpid())

    def _made_once(self, name: str, make: Callable[[], _T]) -> _T:
        if name not in self._made:
            self._made.setdefault(name, make())  # of two threads, one comes first
        service: _T = self._made[name]
        return service

    def _mem_alloc(self) -> MemAlloc:
        gate = self._services.get("mem_alloc")
        if gate is None:
            from l4re.factory import process_allocator

            return process_allocator()
        from l4re.services.mem_alloc import RemoteMemAlloc

        return RemoteMemAlloc(_gate("mem_alloc", gate))

    def _user_factory(self) -> Creator:
        gate = self._services.get("mem_alloc")
        if gate is None:
            return self.mem_alloc
        from l4re.services.mem_alloc import MemoryFactory

        return MemoryFactory(_gate("mem_alloc", gate))

    def _log(self) -> Log:
        gate = self._services.get("log")
        if gate is None:
            return Log(self._tag)
        from l4re.services.vcon import Vcon

        return Log(self._tag, vcon=Vcon(_gate("log", gate)))

    def _parent(self) -> Parent | ParentServer:
        from l4re.services.parent import Parent, ParentServer

        gate = self._services.get("parent")
        return ParentServer() if gate is None else Parent(_gate("parent", gate))

    def _scheduler(self) -> Scheduler | SchedulerServer:
        from l4re.services.scheduler import Scheduler, SchedulerServer

        gate = self._services.get("scheduler")
        return SchedulerServer() if gate is None else Scheduler(_gate("scheduler", gate))

    def _ns(self) -> Namespace:
        from l4re.services.namespace import Namespace

        gate = self._services.get("ns")
        if gate is None:
            raise NotFound("this program was given no namespace", name="ns", names=self._services)
        return Namespace(_gate("ns", gate))

    @property
    def caps(self) -> Mapping[str, Capability]:
        """The named capabilities, in the order the parent gave them. They stay the environment's."""
        return self._caps

    @property
    def services(self) -> Mapping[str, Capability]:
        """What the parent gave beside, under the names of `environment.page.SERVICES`; the properties lead there."""
        return MappingProxyType(self._services)

    @property
    def standalone(self) -> bool:
        """Whether nobody handed this program anything."""
        return not (self._caps or self._services or self.log.tag)

    @overload
    def get_cap(self, name: str) -> Capability: ...
    @overload
    def get_cap(self, name: str, interface: type[_T]) -> _T: ...
    @overload
    def get_cap(self, name: str, interface: Callable[[Capability], _T]) -> _T: ...
    def get_cap(self, name: str, interface: Callable[[Capability], object] | None = None) -> object:
        """Return the capability ``name``, or a proxy of type ``interface`` for it.

        ``interface`` is a typed interface, which is taken on trust (nobody is asked), or a class of
        capabilities such as ``l4re.Dataspace``, which is checked. Both stay the environment's.

        ``"a/b/c"`` is what the capability ``a``, a `Namespace`, has under ``b/c`` (L4Re's ``Env_ns``); one "/" in front
        does not count. What a path leads to is the caller's own, and a name that has no object yet is waited for.

        Raises:
            NotFound: there is none by that name; the text lists what there is.
            InvalidArgument: it is a capability of another class.
        """
        cap = self._caps.get(name)
        if cap is None:
            first, _, rest = name.removeprefix("/").partition("/")
            cap = self._caps.get(first)
            if cap is None or name.endswith("/"):
                raise NotFound(_not_found(name, self._caps), name=name, names=self._caps)
            if rest:
                return self._beyond(cap, name, rest, interface)
        if interface is None:
            return cap
        wanted: object = interface
        if not isinstance(wanted, type) or not issubclass(wanted, Capability):
            return interface(cap)
        if not isinstance(cap, wanted):
            raise InvalidArgument(f"the capability {name!r} is a {cap.kind}, not a {wanted.kind}")
        return cap

    def _beyond(
        self, cap: Capability, name: str, rest: str, interface: Callable[[Capability], object] | None
    ) -> object:
        from l4re.services.namespace import beyond

        space = beyond(cap, name, rest)
        return space.query(rest) if interface is None else space.query(rest, interface)

    def _adopt(self) -> None:
        """Have this process use what is ours wherever nobody says another."""
        if "mem_alloc" in self._services:
            from l4re.factory import use_allocator

            use_allocator(lambda: self.mem_alloc)

    def close(self) -> None:
        """Drop all capabilities."""
        for cap in (*self._caps.values(), *self._services.values()):
            cap.close()

    def __repr__(self) -> str:
        return f"<Env {', '.join(self._caps) or 'without named capabilities'}>"


def _gate(name: str, cap: Capability) -> Gate:
    if not isinstance(cap, Gate):
        raise InvalidArgument(f"the parent gave a {cap.kind} as {name}, not a gate")
    return cap


def _process_map() -> RegionMap:
    from l4re.rm import process_map

    return process_map()


def _kernel_factory() -> KernelFactory:
    from l4re.factory.kernel import KernelFactory

    return KernelFactory()


def _own_page() -> EnvPage | None:
    """Return the page that is addressed to this process; None if there is none."""
    text = os.environ.get(VARIABLE, "")
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        return None
    fd = int(text)
    data = sealed.read(fd)
    if data is None or EnvPage.addressee(data) != os.getpid():
        return None
    page = EnvPage.parse(data)
    Fd(fd, what="environment page").close()
    return page


def _not_found(name: object, names: Mapping[str, Capability]) -> str:
    if not names:
        return f"there is no capability {name!r}: this program was given no named capabilities"
    from difflib import get_close_matches

    close = get_close_matches(str(name), names, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"there is no capability {name!r}{hint}; this program was given {', '.join(map(repr, names))}"


_env: Env | None = None
_lock = threading.Lock()


def env() -> Env:
    """Return the environment of this process; the first call takes it over.

    That call also allows this process as many descriptors as it may have.

    Raises:
        InvalidArgument: what the parent left does not fit together.
    """
    global _env
    if _env is None:
        with _lock:
            if _env is None:
                raise_descriptor_limit()
                _env = Env.inherited()
                _env._adopt()
    return _env


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
