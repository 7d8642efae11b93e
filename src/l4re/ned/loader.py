"""Boot scripts in Python: the loader of ned, for those who do not write Lua.

The verbs, the fields and the rules are those of a script in Lua. The first loader of a process begins a run; all
others belong to it until it is closed. Under ``l4re run`` the run is the command's.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, cast, overload

from l4re.boot import Grant, Task
from l4re.cap import AtMost, Capability, capability_behind
from l4re.errors import Closed, Exists, InvalidArgument, WrongType
from l4re.gate import Channel, Gate, Svr, new_channel
from l4re.log import PLAIN, Console, Tag
from l4re.moe import Root, Stopped
from l4re.ned.rom import Rom
from l4re.ned.system import System, check_name
from l4re.rights import Rights
from l4re.services import Namespace, Scheduler
from l4re.services.mem_alloc import MemoryFactory
from l4re.wire.protocols import Proto

if TYPE_CHECKING:
    from collections.abc import Iterator

    from l4re.interface import Interface

__all__ = ["Loader", "LoaderTask", "given_run"]

_FIELDS: Final = ("caps", "log", "mem", "scheduler")
#: A handler is told the exit status, or None if the script has killed the program.
ExitHandler = Callable[[int | None], object]


class _Run:
    """The run that the loaders of this process belong to."""

    def __init__(self, root: Root, rom: Rom, environment: Mapping[str, str]) -> None:
        self.root = root
        self.rom = rom
        self.environment = environment
        self.tasks: dict[Task, LoaderTask] = {}
        #: What leads to other programs, and is dropped when the script has ended.
        self.foreign: list[Channel | Capability] = []

    def script_ended(self) -> None:
        """Drop what only a script needs, so that servers hear when nobody else can reach them."""
        foreign, self.foreign = self.foreign, []
        for each in foreign:
            each.close()

    def serve(self) -> int:
        """Wait for the programs and run exit handlers, until none runs any more; return the status of the run."""
        self.script_ended()
        while (task := self.root.next_ended()) is not None:
            if (mine := self.tasks.pop(task, None)) is not None:
                mine._fire(task.returncode)
            self.script_ended()
        return self.root.status


_run: _Run | None = None


@contextmanager
def given_run(root: Root, rom: Rom, environment: Mapping[str, str]) -> Iterator[Callable[[], int]]:
    """Have loaders belong to ``root``; gives the function that waits for all that they have started."""
    global _run
    before, _run = _run, _Run(root, rom, environment)
    try:
        yield _run.serve
    finally:
        _run = before


class LoaderTask:
    """A program that a loader has started. For the thread of the loader."""

    def __init__(self, run: _Run, task: Task) -> None:
        self._run = run
        self._handler: ExitHandler | None = None
        self._released = False
        self._killed = False
        self.task: Final = task

    @property
    def name(self) -> str:
        """What the program is called in messages."""
        return self.task.name

    @property
    def pid(self) -> int:
        """Its process number, for people."""
        return self.task.pid

    @property
    def exit_code(self) -> int | None:
        """The exit status; None while the program runs."""
        return self.task.returncode

    @property
    def state(self) -> str | None:
        """``"running"``, ``"zombie"`` once it has ended, None once somebody has waited for it or killed it."""
        if self._released:
            return None
        return "running" if self.task.returncode is None else "zombie"

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the program has ended, run its exit handler, and return its exit status.

        Raises:
            TimeoutError: it still runs after ``timeout`` seconds.
        """
        status = self.task.wait() if self._released else self._run.root.wait(self.task, timeout)
        self._release(status)
        return status

    def kill(self) -> int | None:
        """End the program, which is no failure of the run, and run its exit handler.

        Returns None if it ran, its exit status if it had ended by itself.
        """
        status = self.task.returncode
        if self._released:
            return status
        if status is None:
            self._killed = True
            self._run.root.kill(self.task)
        self._release(status)
        return status

    def exit_handler(self, handler: ExitHandler) -> bool:
        """Have ``handler(status)`` called when the program has ended; ``status`` is None if the script has killed it.

        It runs in `wait`, in `Loader.wait`, or at the end of the ``with`` block. Returns False if it was called at
        once, because the program had ended.

        Raises:
            Exists: there is a handler already.
        """
        if self._handler is not None:
            raise Exists(f"{self.task!r} has an exit handler already")
        status = self.task.returncode
        if self._released or status is not None:
            handler(None if self._killed else status)
            return False
        self._handler = handler
        return True

    def _release(self, status: int | None) -> None:
        self._run.tasks.pop(self.task, None)
        self._released = True
        self._fire(status)

    def _fire(self, status: int | None) -> None:
        handler, self._handler = self._handler, None
        if handler is not None:
            handler(None if self._killed else status)

    def __repr__(self) -> str:
        return repr(self.task).replace("<Task", "<LoaderTask", 1)


class Loader:
    """Starts programs of a rom, and gives each of them exactly what it is to have; ned's ``L4.default_loader``.

    A capability is given with R unless the script says more: ``channel`` or ``ds`` to use it, ``channel.m("rws")`` or
    ``ds.m("rw")`` for more, ``channel.svr`` for the server's side, which moves. A mapping in ``caps`` becomes a
    namespace, a function is called with ``caps``, None is left out.

    Leaving ``with`` waits until all programs have ended; after an exception it ends them. `status` is the exit status
    of the first one that failed. Options are attributes, too, and may be set at any time. For one thread.
    """

    #: Who makes logs, namespaces and schedulers: a capability to a factory. None: the root itself; namespaces then
    #: come from ``mem``, if there is one.
    log_fab: Channel | Capability | Interface | None
    ns_fab: Channel | Capability | Interface | None
    sched_fab: Channel | Capability | Interface | None
    #: The factory that programs allocate from, with S; None: each has one of its own, on the quota of the run.
    mem: Capability | Interface | None
    #: What programs are given beside their ``caps``; None: ``rom``, the files of the rom as dataspaces.
    default_caps: Mapping[str, Any] | None

    def __init__(
        self,
        *,
        rom: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
        mem: Capability | Interface | None = None,
        log_fab: Channel | Capability | Interface | None = None,
        ns_fab: Channel | Capability | Interface | None = None,
        sched_fab: Channel | Capability | Interface | None = None,
        default_caps: Mapping[str, Any] | None = None,
    ) -> None:
        """Take the folders where ``rom/NAME`` is looked for: by default that of the script.

        Raises:
            NotFound: there is no such folder.
        """
        global _run
        folders = None
        if rom is not None:
            folders = Rom([rom] if isinstance(rom, str | os.PathLike) else rom)
        self._began = _run is None
        if _run is None:
            console = Console(on_broken=lambda: root.stop(signal.SIGPIPE))
            default = folders or Rom([_script_folder()])
            root = Root(console)
            _run = _Run(root, default, {})
        self._run = _run
        self._system = System(_run.root, folders or _run.rom, environment=_run.environment)
        self.mem, self.log_fab, self.ns_fab, self.sched_fab = mem, log_fab, ns_fab, sched_fab
        self.default_caps = default_caps

    # ---- objects ----

    @property
    def user_factory(self) -> MemoryFactory:
        """What the script itself has objects made by: dataspaces, namespaces, schedulers, factories with a quota."""
        return MemoryFactory(self._system.user_factory)

    @property
    def rom(self) -> Namespace:
        """The files of the rom, as dataspaces that nobody can write."""
        return Namespace(self._system.files)

    @property
    def log(self) -> Gate:
        """The console of the script itself; as ``log`` of a program: lines come out without a tag."""
        return self._system.log

    def new_channel(self) -> Channel:
        """Return a new gate and the right to serve it; both are dropped when the script has ended."""
        channel = new_channel()
        self._run.foreign.append(channel)
        return channel

    def create_namespace(self, content: Mapping[str, Any] | None = None) -> Namespace:
        """Return a new namespace with these names; None reserves a name, a mapping becomes a namespace inside.

        It is dropped when the script has ended, since it holds the gates of servers.
        """
        fab = _plain(self.ns_fab or self.mem) or self._system.user_factory
        space = self._system.create(fab, Proto.NAMESPACE, ())
        if not isinstance(space, Gate):
            space.close()
            raise WrongType(f"the factory made {space!r}, no namespace")
        for name, value in (content or {}).items():
            grant = None if value is None else self._grant(name, value, content)
            self._system.register(space, name, grant)
        self._run.foreign.append(space)
        return Namespace(space)

    def create_sched_proxy(
        self, *, cpus: Collection[int] | None = None, prio_offset: int = 0, prio_limit: int | None = None
    ) -> Scheduler:
        """Return a new scheduler for these CPUs (None: all) and priorities; the caller owns it.

        Raises:
            InvalidArgument, OutOfRange: no such CPUs, or no such priorities.
        """
        masks: list[int] = []
        for cpu in cpus or ():
            masks += [0] * (cpu // 64 + 1 - len(masks))
            masks[cpu // 64] |= 1 << cpu % 64
        words = [mask - (mask >> 63 << 64) for mask in masks]
        limit = prio_offset + 10 if prio_limit is None else prio_limit
        fab = _plain(self.sched_fab) or self._system.user_factory
        made = self._system.create(fab, Proto.SCHEDULER, (limit, prio_offset, *words))
        if not isinstance(made, Gate):
            made.close()
            raise WrongType(f"the factory made {made!r}, no scheduler")
        return Scheduler(made)

    # ---- programs ----

    @overload
    def start(
        self, env: Mapping[str, Any], command: str, posix_env: Mapping[str, str] | None = None, /
    ) -> LoaderTask: ...
    @overload
    def start(
        self,
        command: str,
        posix_env: Mapping[str, str] | None = None,
        /,
        *,
        caps: Mapping[str, Any] | None = None,
        log: Any = None,
        mem: Any = None,
        scheduler: Any = None,
    ) -> LoaderTask: ...
    def start(self, *words: Any, **fields: Any) -> LoaderTask:
        """Start a program: ``start({"caps": ...}, "rom/NAME a b")``, or ``start("rom/NAME a b", caps=...)``.

        The command is split at blanks. ``posix_env`` are the program's environment variables, all of them. ``log`` is
        ``(TAG, COLOUR)``, or a capability to a console (L4's ``Vcon``): another program's, or `log`. ``mem`` and
        ``scheduler`` are the program's own.

        Raises:
            NotFound: there is no such program in the rom.
            InvalidArgument, WrongType: a field that is none, a name or a value that makes no sense.
            Closed: the server's side was given away already.
        """
        env, words = _split(words, fields)
        match words:
            case (str() as command,):
                return self._start(env, command.split(), None)
            case (str() as command, Mapping() | None as posix_env):
                return self._start(env, command.split(), posix_env)
        raise InvalidArgument("start takes a description, a command in one string, and environment variables")

    @overload
    def startv(
        self, env: Mapping[str, Any], program: str, /, *words: str, posix_env: Mapping[str, str] | None = None
    ) -> LoaderTask: ...
    @overload
    def startv(
        self,
        program: str,
        /,
        *words: str,
        posix_env: Mapping[str, str] | None = None,
        caps: Mapping[str, Any] | None = None,
        log: Any = None,
        mem: Any = None,
        scheduler: Any = None,
    ) -> LoaderTask: ...
    def startv(self, *words: Any, posix_env: Mapping[str, str] | None = None, **fields: Any) -> LoaderTask:
        """Start a program as `start` does, its words given one by one."""
        env, words = _split(words, fields)
        if not words or not all(isinstance(word, str) for word in words):
            raise InvalidArgument("startv takes a description, and the words of a command as strings")
        return self._start(env, words, posix_env)

    def _start(self, env: Mapping[str, Any], words: Sequence[str], posix_env: Mapping[str, str] | None) -> LoaderTask:
        if not words:
            raise InvalidArgument("a program is named by a string such as 'rom/hello', not an empty one")
        for field in env:
            if field not in _FIELDS:
                raise InvalidArgument(f"a program is described by {', '.join(_FIELDS)}, not by {field!r}")
        caps = dict(env.get("caps") or {})
        default = {"rom": self.rom} if self.default_caps is None else self.default_caps
        for name, value in default.items():
            caps.setdefault(name, value)
        grants = {
            check_name(name): self._grant(f"caps[{name!r}]", caps[name], caps)
            for name in sorted(caps)
            if caps[name] is not None
        }
        services: dict[str, Grant] = {}
        for field, service in (("mem", "mem_alloc"), ("scheduler", "scheduler")):
            value = env.get(field)
            value = self.mem if value is None and field == "mem" else value
            if value is not None:
                services[service] = self._grant(field, value, env)
        if "mem_alloc" in services and not (services["mem_alloc"].rights or Rights.R) & Rights.S:
            raise InvalidArgument('mem: a program that is to allocate from it needs S, as in factory.cap.m("rs")')
        task = self._system.start(
            words, grants=grants, log=self._log(env.get("log"), words[0]), services=services, environment=posix_env
        )
        mine = self._run.tasks[task] = LoaderTask(self._run, task)
        return mine

    def _grant(self, what: str, value: Any, around: object) -> Grant:
        """Return what a program gets for a value of a script."""
        while callable(value) and not hasattr(value, "cap"):
            value = value(around)
        if isinstance(value, Mapping):
            return Grant(self.create_namespace(value).cap, Rights.R)
        if isinstance(value, Channel):
            value = value.gate
        try:
            cap = capability_behind(value)
        except WrongType:
            raise WrongType(f"{what} is no capability: {value!r}") from None
        if cap.closed:
            moved = "was given away already; it moves" if isinstance(cap, Svr) else "is closed"
            raise Closed(f"{what}: this {cap.kind} {moved}")
        if isinstance(cap, AtMost):
            return Grant(cap.cap, cap.most)
        return Grant(cap, Rights.RWSD if isinstance(cap, Svr) else Rights.R)

    def _log(self, log: Any, program: str) -> Tag | Grant:
        if callable(log) and not hasattr(log, "cap"):
            log = log()
        if isinstance(log, Gate) and self._system.is_log(log):
            return PLAIN
        if isinstance(log, Channel | Capability) or hasattr(log, "cap"):
            return self._grant("log", log, None)
        fab = _plain(self.log_fab)
        words = (log,) if isinstance(log, str) else tuple(log or ())
        if not words or words[0] is None:
            words = (program.rpartition("/")[2], *words[1:])
        if fab is None:
            return Tag.of(words)
        made = self._system.create(fab, Proto.LOG, words)
        assert isinstance(made, Capability)
        self._run.foreign.append(made)
        return Grant(made, Rights.RWS)

    # ---- the end ----

    @property
    def status(self) -> int:
        """The exit status of the first program that failed; 0 as long as none did."""
        return self._run.root.status

    def wait(self) -> int:
        """Wait until all programs of the run have ended, run their exit handlers, and return `status`.

        The script has ended then: its channels are dropped, so that a server that nobody else can reach ends.
        """
        return self._run.serve()

    def close(self) -> None:
        """End all programs of the run, if this loader began it. A second call does nothing."""
        global _run
        if self._began and _run is self._run:
            _run = None
            self._run.script_ended()
            self._run.root.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        root = self._run.root
        try:
            if error is None:
                try:
                    self.wait()
                except BaseException as interrupted:
                    error = interrupted
                    raise
        except Stopped as stop:
            if not self._began:
                raise
            root.end(stop.number)
            raise SystemExit(stop.status) from None
        finally:
            if self._began and error is not None and not isinstance(error, Stopped):
                root.end(signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM)
            self.close()

    def __repr__(self) -> str:
        return f"<Loader of {self._system.rom}>"


def _split(words: tuple[Any, ...], fields: dict[str, Any]) -> tuple[Mapping[str, Any], tuple[Any, ...]]:
    """Return the description of a program, from a mapping in front or from keywords, and the other words."""
    if words and isinstance(words[0], Mapping):
        if fields:
            raise InvalidArgument(f"the description comes in one piece: {sorted(fields)} belong into the mapping")
        return words[0], words[1:]
    return {field: value for field, value in fields.items() if value is not None}, words


def _plain(fab: Channel | Capability | Interface | None) -> Capability | None:
    """Return a capability as the script itself uses it."""
    if fab is None:
        return None
    cap = fab.gate if isinstance(fab, Channel) else capability_behind(fab)
    return cap.cap if isinstance(cap, AtMost) else cap


def _script_folder() -> str:
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    return os.path.dirname(os.path.abspath(cast(str, main))) if main else "."
