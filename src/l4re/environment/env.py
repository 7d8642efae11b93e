"""`Env`: the capabilities a program starts with.

Authority is handed over, never found: what is not in the environment has to come through what is.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from l4re.cap import Capability, import_capability, register_room
from l4re.environment.page import EnvPage
from l4re.errors import InvalidArgument, NotFound
from l4re.linux import sealed
from l4re.linux.fd import Fd
from l4re.linux.limit import raise_descriptor_limit
from l4re.log import Log
from l4re.wire.items import ItemKind

if TYPE_CHECKING:
    from l4re.factory import MemAlloc
    from l4re.factory.kernel import KernelFactory
    from l4re.rm import RegionMap

__all__ = ["VARIABLE", "Env", "env"]

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


class Env:
    """What this program was given. Thread-safe: nothing in it changes.

    The capabilities belong to it: ``cap.dup()`` gives one of your own. There is one for each process, from
    :func:`env`; make others only to pass a world to code that takes one.
    """

    __slots__ = ("_caps", "_services", "log")

    log: Log
    """What this program says."""

    def __init__(
        self, caps: Mapping[str, Capability] | None = None, *, log: Log | None = None, rm: RegionMap | None = None
    ) -> None:
        """Take ``caps``."""
        self._caps = MappingProxyType(dict(caps or {}))
        self._services: dict[Callable[[], object], Any] = {} if rm is None else {_region_map: rm}
        self.log = log or Log()

    @classmethod
    def inherited(cls) -> Self:
        """Take over what the parent left for this process; stand alone if that is nothing.

        Raises:
            InvalidArgument: the page is addressed to this process and does not describe its descriptors.
        """
        page = _own_page()
        if page is None:
            return cls()
        for entry in page.caps:
            for fd in entry.fds:
                sealed.keep_from_programs(fd)
        mine = [tuple(Fd(fd, what=f"capability {entry.name!r}") for fd in entry.fds) for entry in page.caps]
        caps: dict[str, Capability] = {}
        for entry, fds in zip(page.caps, mine, strict=True):
            caps[entry.name] = import_capability(entry.kind, entry.rights, entry.value, fds)
        return cls(caps, log=Log(page.log))

    @property
    def mem_alloc(self) -> MemAlloc:
        """Memory, as ``L4Re::Env::mem_alloc``."""
        return self._service(_mem_alloc)

    @property
    def rm(self) -> RegionMap:
        """Where in this address space memory is attached."""
        return self._service(_region_map)

    @property
    def factory(self) -> KernelFactory:
        """New gates, IRQs and semaphores."""
        return self._service(_factory)

    def _service(self, make: Callable[[], _T]) -> _T:
        """Return what ``make`` made when it was first asked for; many programs only call, and need none of these."""
        if make not in self._services:
            self._services.setdefault(make, make())  # of two threads, one comes first
        service: _T = self._services[make]
        return service

    @property
    def caps(self) -> Mapping[str, Capability]:
        """The named capabilities, in the order the parent gave them. They stay the environment's."""
        return self._caps

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

        Raises:
            NotFound: there is none by that name; the text lists what there is.
            InvalidArgument: it is a capability of another class.
        """
        try:
            cap = self._caps[name]
        except KeyError:
            raise NotFound(_not_found(name, self._caps), name=name, names=self._caps) from None
        if interface is None:
            return cap
        wanted: object = interface
        if not isinstance(wanted, type) or not issubclass(wanted, Capability):
            return interface(cap)
        if not isinstance(cap, wanted):
            raise InvalidArgument(f"the capability {name!r} is a {cap.kind}, not a {wanted.kind}")
        return cap

    def close(self) -> None:
        """Drop all named capabilities."""
        for cap in self._caps.values():
            cap.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Env {', '.join(self._caps) or 'without named capabilities'}>"


def _mem_alloc() -> MemAlloc:
    from l4re.factory import MemAlloc

    return MemAlloc()


def _region_map() -> RegionMap:
    from l4re.rm import RegionMap

    return RegionMap()


def _factory() -> KernelFactory:
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
    return _env


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
