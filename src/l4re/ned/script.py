"""Running one boot script, and the system it starts.

The Lua side is ``l4.lua``. What it asks for comes here as plain values; what goes wrong goes back as a text, so
that the script sees an error of its own line and may catch it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from importlib import resources
from itertools import count
from pathlib import Path
from typing import Any

import lupa.lua55 as lupa

from l4re.errors import L4Error
from l4re.moe import Root, Stopped
from l4re.ned import constants
from l4re.ned.handles import CapHandle, TaskHandle, mask_of
from l4re.ned.live import LiveWorld
from l4re.ned.rom import Rom
from l4re.ned.world import Program, World
from l4re.wire.protocols import Proto

__all__ = ["Ned", "ScriptError", "read_script", "run"]

_BOM = b"\xef\xbb\xbf"


class ScriptError(Exception):
    """The script has a mistake; the text says where and what."""


def run(
    script: str | os.PathLike[str] | None,
    *,
    rom: Sequence[str | os.PathLike[str]] = (),
    arguments: Sequence[str] = (),
    statements: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    leave: bool = False,
    timeout: float | None = None,
    root: Root | None = None,
) -> int:
    """Run ``statements`` and ``script``, and return the exit status of the run, once every program has ended.

    Programs come from the folders ``rom``, by default the script's own; they have the variables of ``environment``
    beside those that the script gives. A statement that fails is told and passed over. The status is that of the
    first program that failed, 0 if none did, 128 plus a signal's number if that stopped the run, 124 if it did not
    end within ``timeout`` seconds. With ``leave`` the script is done with at its end: no exit handler of it runs.

    Raises:
        ScriptError: the script cannot be read or has a mistake. What it had started is ended.
        NotFound: a rom folder does not exist.
    """
    path = None if script is None else os.fspath(script)
    text = b"" if path is None else read_script(path)
    folders = Rom(rom or [os.path.dirname(path or "") or "."])
    with root or Root() as ours, ours.signals(timeout=timeout):
        world = LiveWorld(ours, folders, environment=environment)
        try:
            ned = Ned(world, folders)
            for statement in statements:
                ned.state(statement)
            if path is None:
                world.script_ended()
            else:
                ned.execute(text, path, arguments)
            if leave:
                while ours.next_ended() is not None:
                    pass
            else:
                ned.serve()
            return ours.status or (2 if ned.complaints else 0)
        except Stopped as stop:
            world.script_ended()
            ours.end(stop.number)
            return stop.status


def read_script(path: str) -> bytes:
    """Return the text of a script for Lua, line numbers kept.

    Raises:
        ScriptError: it cannot be read.
    """
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise ScriptError(f"cannot open {path}: {error.strerror}") from error
    text = text.removeprefix(_BOM)
    return b"--" + text if text.startswith(b"#") else text


def _answers(function: Callable[..., object]) -> Callable[..., tuple[object, ...]]:
    """Make a host function: (True, results...), or (False, text) for what the script may be told."""

    @wraps(function)
    def host(self: Ned, *words: object) -> tuple[object, ...]:
        self.tick()
        try:
            result = function(self, *words)
        except L4Error as error:
            return False, str(error)
        except OSError as error:
            return False, error.strerror or str(error)
        return (True, *result) if isinstance(result, tuple) else (True, result)

    return host


class Ned:
    """One Lua state with the module L4 in it, speaking to one world. For one thread."""

    def __init__(self, world: World, rom: Rom) -> None:
        """Take the world, and the folders where a script's own modules lie."""
        self._world = world
        self._rom = rom
        self._tasks: dict[int, TaskHandle] = {}
        self._numbers = count()
        #: How many errors of handlers were told and passed over.
        self.complaints = 0
        self._stopped: BaseException | None = None
        self._methods: dict[type, dict[object, Any]] = {}
        self._lua: Any = lupa.LuaRuntime(
            unpack_returned_tuples=True,
            register_eval=False,
            register_builtins=False,
            attribute_handlers=(self._attribute, _refuse),
        )
        self._lua.globals().python = None
        names = ("start", "mode", "svr", "is_valid", "wait", "kill", "number", "new_channel", "print", "read_module")
        host = {name: getattr(self, f"_{name}") for name in names}
        host |= {"state": TaskHandle.state, "exit_code": TaskHandle.exit_code, "kind": _kind, "describe": _describe}
        host |= {"compare": _compare, "complain": self._complain, "tick": self.tick, "stopped": self._is_stopped}
        table = self._lua.table_from
        numbers = {
            "Proto": table(constants.PROTO),
            "Rights": table(constants.RIGHTS),
            "Dbg": table(constants.DBG),
            "Mem_alloc_flags": table(constants.MEM_ALLOC_FLAGS),
        }
        given = self._given = dict(world.environment())
        load = self._lua.eval("function(text, ...) return assert(load(text, '=l4', 't'))(...) end")
        text = resources.files("l4re.ned").joinpath("l4.lua").read_bytes()
        module = load(text, table(host), table(numbers), table({**given, "__probe": self}))
        self._run, self._fire = module.run, module.fire
        self._methods = {CapHandle: dict(module.cap.items()), TaskHandle: dict(module.task.items())}

    def execute(self, text: bytes, name: str, arguments: Sequence[str] = ()) -> None:
        """Run the script, and tell the world when it has ended.

        Raises:
            ScriptError: it has a mistake.
            Stopped: the run is to end.
        """
        words = self._lua.table_from(list(arguments))
        words[0] = name
        self._lua.globals().arg = words
        try:
            done = self._run(text, name, self._lua.table_from(list(arguments)))
        except lupa.LuaError as error:
            done = (False, str(error))
        finally:
            self._world.script_ended()
        if self._stopped is not None:
            raise self._stopped
        if done is not True and not done[0]:
            raise ScriptError(str(done[1]))

    def state(self, text: str) -> None:
        """Run a statement, which is its own name in messages; a mistake is told and passed over.

        Raises:
            Stopped: the run is to end.
        """
        try:
            done = self._run(text.encode(), text, self._lua.table_from([]))
        except lupa.LuaError as error:
            done = (False, str(error))
        if self._stopped is not None:
            raise self._stopped
        if done is not True and not done[0]:
            self._complain(done[1])
            print("Error executing cmdline statement", file=sys.stderr, flush=True)

    def serve(self) -> None:
        """Wait for the programs and run exit handlers, until none runs any more.

        Raises:
            Stopped: the run is to end.
        """
        while (task := self._world.next_ended()) is not None:
            handle = next((one for one in self._tasks.values() if one.task is task), None)
            if handle is not None:
                del self._tasks[handle.number]
                self._fire(handle.number, handle.code())
                self._world.script_ended()
            if self._stopped is not None:
                raise self._stopped

    def tick(self) -> None:
        """Let signals be seen; leave the script if the run is to end, however often it catches that."""
        try:
            self._world.check()
        except BaseException as stop:
            self._stopped = stop
            raise

    # ---- what Lua asks for ----

    @_answers
    def _start(
        self, words: Any, names: Any, handles: Any, tag: str | None, colour: Any, keys: Any, values: Any
    ) -> TaskHandle:
        plain = tuple(str(word) for word in words.values())
        caps = dict(zip(names.values(), handles.values(), strict=True))
        variables = dict(zip(keys.values(), values.values(), strict=True))
        tag = plain[0].rpartition("/")[2] if tag is None else tag
        log = CapHandle(self._world.create(self._given["mem_alloc"].denoted, Proto.LOG, (tag, colour)))
        task = self._world.start(Program(plain, caps, log, environment=variables))
        handle = TaskHandle(next(self._numbers), task)
        self._tasks[handle.number] = handle
        return handle

    @_answers
    def _mode(self, cap: CapHandle, value: object = None) -> object:
        return cap.mask & 15 if value is None else cap.with_mask(mask_of(value))

    @_answers
    def _svr(self, cap: CapHandle) -> CapHandle:
        return cap.svr()

    @_answers
    def _is_valid(self, cap: CapHandle) -> bool:
        return cap.valid

    @_answers
    def _new_channel(self) -> CapHandle:
        return CapHandle(self._world.create(self._given["factory"].denoted, Proto.NONE, ()))

    @_answers
    def _wait(self, handle: TaskHandle) -> tuple[object, ...]:
        if handle.released:
            return None, None
        try:
            code = self._world.wait(handle.task)
        except Stopped as stop:
            self._stopped = stop
            raise
        return self._release(handle), code

    @_answers
    def _kill(self, handle: TaskHandle) -> tuple[object, ...]:
        if handle.released:
            return None, None, None
        code = handle.exit_code()
        if code is None:
            handle.killed = True
            self._world.kill(handle.task)
        return self._release(handle), "killed" if code is None else code, code

    @_answers
    def _number(self, handle: TaskHandle) -> tuple[object, ...]:
        return handle.number, handle.released or handle.task.returncode is not None, handle.code()

    @_answers
    def _print(self, text: str) -> None:
        self._world.print(text)

    @_answers
    def _read_module(self, path: str) -> tuple[object, ...]:
        found = self._rom.file(path)
        if found is None:
            return (None, None)
        try:
            return read_script(str(found)), str(found)
        except ScriptError:
            return (None, None)

    def _release(self, handle: TaskHandle) -> int:
        handle.released = True
        self._tasks.pop(handle.number, None)
        return handle.number

    def _complain(self, message: object) -> None:
        self.complaints += 1
        print(f"lua error: {message}.", file=sys.stderr, flush=True)

    def _is_stopped(self) -> bool:
        return self._stopped is not None

    def _attribute(self, held: object, name: object) -> object:
        # Plain dictionaries: lupa mixes up the stack when a Lua table is indexed while Lua asks for an attribute.
        methods = self._methods.get(type(held))
        return None if methods is None else methods.get(name)


def _refuse(held: object, name: object, value: object) -> None:
    raise AttributeError(f"cannot set {name!r} of a {_kind(held)}")


def _kind(value: object) -> str:
    return "cap" if isinstance(value, CapHandle) else "task" if isinstance(value, TaskHandle) else "other"


def _compare(one: object, other: object) -> int:
    if isinstance(one, CapHandle) and one == other:
        return 0
    first, second = (value.number if isinstance(value, TaskHandle) else id(value) for value in (one, other))
    return (first > second) - (first < second)


def _describe(problem: object) -> str:
    return str(problem) or type(problem).__name__
