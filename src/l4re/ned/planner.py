"""The plan world: what a script asks for is written down, and nothing happens.

Every object answers what its kind would answer; a server behind a channel is taken to answer everything. Programs
end as soon as somebody waits for them, with success; the exit handlers of those that the script itself started run
once, so that what they start is in the plan.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from l4re.errors import Exists, InvalidArgument, L4Error, NotFound, NotSupported, OutOfRange, TryAgain
from l4re.log import colour_number
from l4re.ned.handles import CapHandle
from l4re.ned.hardware import HARDWARE
from l4re.ned.machine import Machine
from l4re.ned.plan import RECEIVE, Cap, Log, Plan, PlannedObject, PlannedTask, Remark
from l4re.ned.rom import Rom
from l4re.ned.script import Ned, read_script
from l4re.ned.world import Denoted, Execute, Program, Started, Word
from l4re.rights import Rights
from l4re.wire.protocols import Proto

__all__ = ["PlanWorld", "plan_of"]

_ENV_RIGHTS: Final = 7
_MOST_TASKS: Final = 1000
_MOST_OBJECTS: Final = 100_000
_OURS: Final = {
    "parent": "parent",
    "mem_alloc": "factory",
    "rm": "region map",
    "log": "log",
    "factory": "factory",
    "scheduler": "scheduler",
}
_INTERFACES: Final = {"factory": "L4::Factory", "sigma0": "L4::Factory", "namespace": "L4Re::Namespace"}
_KERNEL: Final = {
    Proto.NONE: "channel",
    Proto.IRQ_SENDER: "irq",
    Proto.SEMAPHORE: "semaphore",
    Proto.VM: "vm",
    Proto.TASK: "task",
    Proto.THREAD: "thread",
    Proto.FACTORY: "factory",
}
_USER: Final = {
    Proto.NAMESPACE: "namespace",
    Proto.RM: "region map",
    Proto.DMA_SPACE: "dma space",
    Proto.L4RE_DMA_SPACE: "dma space",
    Proto.DATASPACE: "dataspace",
    Proto.FACTORY: "factory",
    Proto.LOG: "log",
    Proto.SCHEDULER: "scheduler",
}


class _Thing:
    """What a capability of the script denotes. Things are equal only to themselves."""

    def __init__(
        self, kind: str, line: str = "", words: tuple[Word, ...] = (), over: _Thing | None = None, name: str = ""
    ) -> None:
        self.kind = kind
        self.line = line
        self.words = words
        self.over = over
        #: How it is called in the plan; things that the script made are called after those who are given them.
        self.name = name
        self.entries: dict[str, CapHandle | None] = {}
        self.served = False

    def valid(self, mask: int) -> bool:
        return True

    def address(self, mask: int) -> int:
        return id(self)


class _Folder(_Thing):
    """A folder of the rom, as a namespace."""

    def __init__(self, path: str) -> None:
        super().__init__("namespace", name=f"Env.{path}")
        self.path = path
        self.found: dict[str, _Thing] = {}


class _Planned:
    """A program that would be started."""

    def __init__(self, name: str, program: Program, line: str, generation: int) -> None:
        self.name = name
        self.program = program
        self.line = line
        self.generation = generation
        self.returncode: int | None = None


class PlanWorld:
    """Writes down what one script would start."""

    def __init__(self, rom: Rom, *, given: Sequence[str] = ()) -> None:
        """Take the folders where programs may lie, and names to find in ``L4.Env`` beside the usual ones."""
        self._rom = rom
        self._tasks: list[_Planned] = []
        self._remarks: dict[Remark, None] = {}
        self._missing: dict[str, None] = {}
        self._generation = 0
        self._objects = 0
        self._served: CapHandle | None = None
        things = {name: _Thing(kind, name=f"Env.{name}") for name, kind in _OURS.items()}
        things |= {name: _Thing(name, name=f"Env.{name}") for name in HARDWARE}
        things |= {name: _Thing("capability", name=f"Env.{name}") for name in given}
        things["rom"] = _Folder("rom")
        self._kernel, self._user = things["factory"], things["mem_alloc"]
        types = {"factory": "L4::Factory", "mem_alloc": "L4::Factory"}
        self._environment = {name: CapHandle(one, _ENV_RIGHTS, types.get(name)) for name, one in things.items()}
        self._environment["user_factory"] = self._environment["mem_alloc"]
        #: Tells the line of the script that is being run.
        self.where: Callable[[], str] = str

    def check(self) -> None:
        """Nothing ends the making of a plan but whoever makes it."""

    def environment(self) -> Mapping[str, CapHandle]:
        return self._environment

    def remark(self, text: str, line: str | None = None) -> None:
        """Note something that whoever reads the plan should know; once."""
        self._remarks[Remark(self.where() if line is None else line, text)] = None

    # ---- objects ----

    def create(self, factory: Denoted, protocol: int, arguments: Sequence[Word]) -> Denoted:
        asked = _thing(factory)
        self._objects += 1
        if self._objects > _MOST_OBJECTS:
            raise NotSupported(f"this script makes more than {_MOST_OBJECTS} objects")
        words = tuple(arguments)
        if asked is self._kernel:
            if protocol not in _KERNEL:
                raise NotSupported(f"the kernel makes no objects of protocol {protocol}")
            return _Thing(_KERNEL[Proto(protocol)], self.where(), words)
        if asked.kind == "factory" and asked.over is None:
            return self._user_object(asked, protocol, words)
        if asked.kind == "sigma0":
            return _Thing("sigma0", self.where(), words)
        if asked.kind in ("namespace", "dataspace", "log", "irq", "semaphore"):
            raise L4Error(f"a {asked.kind} makes no objects", code=39)
        known = {Proto.LOG: "log", Proto.DATASPACE: "dataspace", Proto.NAMESPACE: "namespace", Proto.FACTORY: "factory"}
        kind = known.get(Proto(protocol), "gate") if protocol in list(Proto) else "gate"
        return _Thing(kind, self.where(), words, asked)

    def _user_object(self, factory: _Thing, protocol: int, words: tuple[Word, ...]) -> _Thing:
        if protocol not in _USER:
            raise NotSupported(f"this factory makes no objects of protocol {protocol}")
        kind = _USER[Proto(protocol)]
        first, second = (*words, None, None)[:2]
        if kind in ("dataspace", "factory"):
            if not isinstance(first, int):
                raise InvalidArgument(f"a {kind} is made with a size in bytes, not {first!r}")
            if kind == "factory" and first <= 0:
                raise InvalidArgument(f"a quota is a number of bytes above 0, not {first}")
            if first == 0:
                raise OutOfRange("a dataspace has at least one byte, not 0")
            if kind == "dataspace" and len(words) > 3 and words[3] is not None:
                self.remark("a dataspace at a physical address: refused where there is an MMU")
        if kind == "log" and first is None:
            raise InvalidArgument("a log is made with a tag")
        if kind == "scheduler":
            if factory is not self._user:
                raise NotSupported("a factory with a quota makes no schedulers")
            if not isinstance(first, int) or not isinstance(second, int):
                raise InvalidArgument("a scheduler is made with a limit and an offset of priorities")
            if not (0 <= first <= 255 and 0 <= second <= 255):
                raise OutOfRange(f"priorities are from 0 to 255, not {first} and {second}")
            if first <= second:
                raise InvalidArgument(f"the limit of a scheduler is above its offset: {first} is not above {second}")
        if kind in ("region map", "dma space"):
            self.remark(f"a {kind}: there are none to make here")
        made = _Thing(kind, self.where(), words)
        made.served = factory is not self._user
        return made

    def query(self, namespace: Denoted, name: str) -> Denoted | None:
        asked = _thing(namespace)
        if isinstance(asked, _Folder):
            return self._file(asked, name)
        if asked.kind != "namespace":
            raise L4Error(f"a {asked.kind} has no names", code=39)
        if (
            asked.over is not None or asked.name
        ):  # a program or somebody before us fills it: what is in there is not known
            self.remark(f"whether {name!r} is in the namespace shows when the system runs")
            return _Thing("capability", self.where(), (name,), asked)
        if name not in asked.entries:
            return None
        found = asked.entries[name]
        if found is None:
            raise TryAgain(f"nobody has filled {name!r} yet")
        return found.denoted

    def _file(self, folder: _Folder, name: str) -> _Thing:
        if name not in folder.found:
            path = f"{folder.path}/{name}"
            inside = path.removeprefix("rom/")
            if any((each / inside).is_dir() for each in self._rom.folders):
                folder.found[name] = _Folder(path)
            else:
                folder.found[name] = _Thing("dataspace", name=f"Env.{path}")
                if not any((each / inside).exists() or (each / f"{inside}.py").exists() for each in self._rom.folders):
                    self._missing[path] = None
        return folder.found[name]

    def register(self, namespace: Denoted, name: str, cap: CapHandle | None) -> None:
        asked = _thing(namespace)
        if asked.kind != "namespace":
            raise L4Error(f"a {asked.kind} has no names", code=39)
        if not name or "/" in name:
            raise InvalidArgument(f"a name in a namespace has no '/': {name!r}")
        if cap is None and asked.entries.get(name) is not None:
            raise Exists(f"{name!r} is there already")
        if cap is None:
            self.remark(f"{name!r} in a namespace is reserved: a program is to fill it")
        asked.entries[name] = cap

    def unregister(self, namespace: Denoted, name: str) -> None:
        _thing(namespace).entries.pop(name, None)

    def interface(self, cap: CapHandle) -> str | None:
        asked = _thing(cap.denoted)
        if asked.over is not None or asked.kind in ("channel", "gate", "capability"):
            channel = asked
            while channel.over is not None:
                channel = channel.over
            if channel.kind == "channel" and not self._is_served(channel):
                self.remark("the script asks a channel that no program serves so far: it waits until one does")
            return _INTERFACES.get(asked.kind, "L4::Factory")
        return _INTERFACES.get(asked.kind)

    def _is_served(self, channel: _Thing) -> bool:
        return any(
            handle.server and handle.denoted is channel for task in self._tasks for _, handle in _handles(task.program)
        )

    def debug(self, cap: Denoted, number: int) -> int:
        return 0

    def power(self, cap: Denoted, what: str, argument: int) -> None:
        self.remark(f"the script would {what} the machine here")

    # ---- programs ----

    def start(self, program: Program) -> Started:
        if len(self._tasks) >= _MOST_TASKS:
            raise NotSupported(f"this script starts more than {_MOST_TASKS} programs")
        log = _thing(program.log.denoted)
        tag = log.words[0] if log.kind == "log" and log.words else None
        wanted = str(tag) if tag not in (None, "") else program.words[0].rpartition("/")[2] or program.words[0]
        taken = {task.name for task in self._tasks}
        name, number = wanted, 1
        while name in taken:
            number += 1
            name = f"{wanted}#{number}"
        task = _Planned(name, program, self.where(), self._generation)
        self._tasks.append(task)
        self._look_for(program)
        return task

    def _look_for(self, program: Program) -> None:
        """Note what the program itself would not find."""
        first, _, rest = program.words[0].removeprefix("/").partition("/")
        cap = program.caps.get(first)
        if cap is None:
            self.remark(f"{program.words[0]}: the program has no capability {first!r}, where L4Re looks for it")
        elif isinstance(cap.denoted, _Folder):
            try:
                self._rom.command(program.words)
            except NotFound:
                self._missing[program.words[0]] = None
            except L4Error as error:
                self.remark(str(error))
        else:
            here: CapHandle | None = cap
            for part in rest.split("/") if rest else ():
                here = _thing(here.denoted).entries.get(part) if here is not None else None
            if here is None:
                self.remark(f"{program.words[0]}: there is no {rest!r} in the namespace {first!r} of the program")

    def wait(self, task: Started) -> int:
        assert isinstance(task, _Planned)
        task.returncode = 0
        return 0

    def kill(self, task: Started) -> None:
        assert isinstance(task, _Planned)
        task.returncode = 137

    def next_ended(self) -> Started | None:
        self._generation = 1
        for task in self._tasks:
            if task.returncode is None and not task.generation:
                task.returncode = 0
                return task
        return None

    def sleep(self, seconds: float) -> None:
        """Nothing takes time here."""

    def serve(self, channel: CapHandle, execute: Execute) -> None:
        if self._served is None:
            self._served = channel.svr()

    def script_ended(self) -> None:
        """The script's ends of channels are in no plan."""

    def print(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    # ---- the result ----

    def plan(self, script: str) -> Plan:
        """Return what was written down."""
        if self._missing:
            self.remark(f"not in the rom folders: {', '.join(sorted(self._missing))}", "")
        return _Writer(script, self._tasks, self._served).plan(tuple(self._remarks))


def plan_of(
    script: str | os.PathLike[str],
    *,
    rom: Sequence[str | os.PathLike[str]] = (),
    arguments: Sequence[str] = (),
    given: Sequence[str] = (),
    machine: Machine | None = None,
) -> Plan:
    """Evaluate a script, without starting anything, and return what it would start.

    Its modules come from the folders ``rom``, by default the script's own; the programs need not be there. ``given``
    are names that it is to find in ``L4.Env`` beside the usual ones, ``machine`` is where it is to run. What it
    prints goes to standard error.

    Raises:
        ScriptError: the script cannot be read or has a mistake.
        NotFound: a rom folder does not exist.
    """
    path = os.fspath(script)
    text = read_script(path)
    folders = Rom(rom or [os.path.dirname(path) or "."])
    world = PlanWorld(folders, given=given)

    def odd(text: str) -> None:
        line, _, rest = text.partition(": ")
        world.remark(rest, line)

    ned = Ned(world, folders, machine=machine, only_planned=True, warn=odd)
    world.where = ned.where
    ned.execute(text, path, arguments)
    ned.serve()
    return world.plan(path)


class _Writer:
    """Turns what a script made into a plan: gives everything a name, and says what leads where."""

    def __init__(self, script: str, tasks: Sequence[_Planned], served: CapHandle | None) -> None:
        self._script = script
        self._tasks = tasks
        self._served = served
        self._names: dict[_Thing, str] = {}
        self._objects: dict[str, PlannedObject] = {}

    def plan(self, remarks: tuple[Remark, ...]) -> Plan:
        """Return the plan."""
        # A channel is called after its server, everything else after who is given it first.
        for server in (True, False):
            if server and self._served is not None:
                self._call(_thing(self._served.denoted), "ned.commands")
            for task in self._tasks:
                for name, handle in _handles(task.program):
                    if handle.server == server:
                        self._call(_thing(handle.denoted), f"{task.name}.{name}")
        tasks = tuple(self._task(task) for task in self._tasks)
        if self._served is not None:
            log = Log("ned", None, (), self._cap(CapHandle(_Thing("log", name="Env.log"))))
            tasks = (*tasks, PlannedTask("ned", "ned", (), {"commands": self._cap(self._served)}, log))
        plan = Plan(self._script, tasks, self._objects, remarks)
        return Plan(self._script, tasks, self._objects, (*remarks, *_remarks(plan)))

    def _call(self, thing: _Thing, name: str) -> None:
        if thing in self._names:
            return
        wanted = thing.name or f"{thing.kind} {name}"
        taken = set(self._names.values())
        found, number = wanted, 1
        while found in taken and not thing.name:
            number += 1
            found = f"{wanted}#{number}"
        self._names[thing] = found

    def _task(self, task: _Planned) -> PlannedTask:
        program = task.program
        return PlannedTask(
            name=task.name,
            program=program.words[0],
            args=program.words[1:],
            caps={name: self._cap(handle, f"{task.name}.{name}") for name, handle in program.caps.items()},
            log=self._log(task),
            line=task.line,
            services={name: self._cap(handle, f"{task.name}.{name}") for name, handle in program.services.items()},
            environment=dict(program.environment),
        )

    def _log(self, task: _Planned) -> Log:
        log = _thing(task.program.log.denoted)
        cap = self._cap(task.program.log, f"{task.name}.log")
        if log.kind != "log" or not log.words:
            return Log(None, None, (), cap)
        tag, colour, *options = (*log.words, None)[: max(2, len(log.words))]
        return Log(str(tag), colour_number(colour), tuple(str(word) for word in options if word is not None), cap)

    def _cap(self, handle: CapHandle, name: str = "") -> Cap:
        thing = _thing(handle.denoted)
        self._call(thing, name)
        key = self._names[thing]
        if key not in self._objects:
            over = ""
            if thing.over is not None:
                over = self._cap(CapHandle(thing.over), f"{name} (server)").source
            self._objects[key] = PlannedObject(thing.kind, thing.line, thing.words, over)
            entries = {
                entry: self._cap(inner, f"{name}/{entry}")
                for entry, inner in thing.entries.items()
                if inner is not None
            }
            self._objects[key] = PlannedObject(thing.kind, thing.line, thing.words, over, entries)
        kind = thing.kind
        if kind == "channel":
            kind = RECEIVE if handle.server else "gate"
        return Cap(kind, Rights(handle.mask & int(Rights.RWSD)).letters(), key)


def _handles(program: Program) -> Iterator[tuple[str, CapHandle]]:
    """Yield everything that a program would be given, also inside namespaces."""
    seen: set[int] = set()

    def inside(name: str, handle: CapHandle) -> Iterator[tuple[str, CapHandle]]:
        yield name, handle
        thing = _thing(handle.denoted)
        if id(thing) not in seen:
            seen.add(id(thing))
            for entry, inner in thing.entries.items():
                if inner is not None:
                    yield from inside(f"{name}/{entry}", inner)

    for name, handle in program.caps.items():
        yield from inside(name, handle)
    for name, handle in program.services.items():
        yield from inside(name, handle)
    yield "log", program.log


def _remarks(plan: Plan) -> Iterator[Remark]:
    """Yield what only the whole plan shows."""
    servers = plan.servers()
    for name, tasks in servers.items():
        if len(tasks) > 1:
            line = plan.objects[name].line
            yield Remark(line, f"{name}: given to {' and '.join(tasks)} to serve; here the server's side can move once")
    for name, each in plan.objects.items():
        if each.kind == "channel" and name not in servers:
            yield Remark(each.line, f"{name}: nobody serves it")


def _thing(denoted: Denoted) -> _Thing:
    assert isinstance(denoted, _Thing)
    return denoted
