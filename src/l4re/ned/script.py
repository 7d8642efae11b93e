"""Running one boot script in Lua, against a world.

The Lua side is in the ``*.lua`` files beside this one. What it asks for comes here as plain values; what goes wrong
goes back as a text and a code, so that the script sees an error of its own line and may catch it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from importlib import resources
from itertools import count
from pathlib import Path
from typing import Any, Final

import lupa.lua55 as lupa

from l4re.errors import L4Error, errtostr
from l4re.moe import Root, Stopped
from l4re.ned import constants
from l4re.ned.errors import ScriptError
from l4re.ned.handles import CapHandle, TaskHandle, mask_of
from l4re.ned.live import LiveWorld
from l4re.ned.machine import Machine
from l4re.ned.rom import Rom
from l4re.ned.world import Program, World
from l4re.wire.protocols import Proto

__all__ = ["Ned", "ScriptError", "read_script", "run"]

_BOM = b"\xef\xbb\xbf"
#: The Lua side, in the order of loading.
_CHUNKS: Final = ("base", "capabilities", "tasks", "cpus", "loader", "dialects", "l4")
_TYPES: Final = {Proto.FACTORY: "L4::Factory", Proto.NAMESPACE: "L4Re::Namespace"}
_PARSE, _RUN = -22, -5


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


class _Served(BaseException):
    """The script has become a server of commands, and all there was to serve has ended."""


def _answers(function: Callable[..., object]) -> Callable[..., tuple[object, ...]]:
    """Make a host function: (True, results...), or (False, text, code) for what the script may be told."""

    @wraps(function)
    def host(self: Ned, *words: object) -> tuple[object, ...]:
        self.tick()
        try:
            result = function(self, *words)
        except Stopped as stop:  # Lua may catch it: it is seen again at the next call
            self._stopped = stop
            raise
        except L4Error as error:
            return False, str(error), -int(error.code)
        except OSError as error:
            return False, error.strerror or str(error), None
        return (True, *result) if isinstance(result, tuple) else (True, result)

    return host


class Ned:
    """One Lua state with the module L4 in it, speaking to one world. For one thread."""

    def __init__(
        self,
        world: World,
        rom: Rom,
        *,
        machine: Machine | None = None,
        only_planned: bool = False,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        """Take the world, and the folders where a script's own modules lie.

        ``machine`` is what ``L4.Info`` tells, by default this one. With ``only_planned`` the script writes to no
        file. ``warn`` is told what is odd and no mistake; by default that is printed.
        """
        self._world = world
        self._rom = rom
        self._only_planned = only_planned
        self._warn = warn or _print_warning
        self._tasks: dict[int, TaskHandle] = {}
        self._numbers = count()
        #: How many errors of handlers were told and passed over.
        self.complaints = 0
        self._stopped: BaseException | None = None
        self._lua: Any = lupa.LuaRuntime(
            unpack_returned_tuples=True,
            register_eval=False,
            register_builtins=False,
            attribute_handlers=(_refuse, _refuse),
        )
        self._lua.globals().python = None
        self._environment = dict(world.environment())
        table = self._lua.table_from
        ned = self._lua.table()
        ned.host = table(self._host())
        ned.environment = table(self._environment)
        ned.machine = self._machine(machine or Machine.here())
        ned.debug_protocol = int(Proto.DEBUG)
        ned.constants = table({name: table(numbers) for name, numbers in constants.TABLES.items()})
        load = self._lua.eval("function(text, ned) return assert(load(text, '=l4', 't'))(ned) end")
        for chunk in _CHUNKS:
            module = load(resources.files("l4re.ned").joinpath(f"{chunk}.lua").read_bytes(), ned)
        self._run, self._fire, self._execute = module.run, module.fire, module.execute
        self._where = ned.where

    def _host(self) -> dict[str, object]:
        """Return the functions that the Lua side calls."""
        asked = (
            *("create", "query", "register", "unregister", "interface", "debug", "power", "serve"),
            *("mode", "svr", "is_valid", "cast", "start", "wait", "kill", "number", "sleep", "print", "read_module"),
        )
        return {
            **{name: getattr(self, f"_{name}") for name in asked},
            "state": TaskHandle.state,
            "exit_code": TaskHandle.exit_code,
            "kind": _kind,
            "type": _type,
            "text": _text,
            "describe": _describe,
            "compare": _compare,
            "error_text": _error_text,
            "meant": _meant,
            "complain": self._complain,
            "warn": self._warn,
            "tick": self.tick,
            "stopped": self._is_stopped,
            "only_planned": self._is_only_planned,
        }

    def _machine(self, machine: Machine) -> Any:
        names = ("arch", "platform", "bits", "kernel")
        return self._lua.table_from({name: getattr(machine, name) for name in names})

    def execute(self, text: bytes, name: str, arguments: Sequence[str] = ()) -> None:
        """Run the script, and tell the world when it has ended.

        Raises:
            ScriptError: it has a mistake.
            Stopped: the run is to end.
        """
        words = self._lua.table_from(list(arguments))
        words[0] = name
        self._lua.globals().arg = words
        stack = ""
        try:
            done = self._run(text, name, self._lua.table_from(list(arguments)))
        except lupa.LuaError as error:
            done = (False, str(error), stack)
        finally:
            self._world.script_ended()
        if isinstance(self._stopped, _Served):
            self._stopped = None
            return
        if self._stopped is not None:
            raise self._stopped
        if not done[0]:
            raise ScriptError(str(done[1]), str(done[2] or ""))

    def state(self, text: str) -> None:
        """Run a statement, which is its own name in messages; a mistake is told and passed over.

        Raises:
            Stopped: the run is to end.
        """
        try:
            done = self._run(text.encode(), text, self._lua.table_from([]))
        except lupa.LuaError as error:
            done = (False, str(error), "")
        if self._stopped is not None:
            raise self._stopped
        if not done[0]:
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
        if self._stopped is not None:
            raise self._stopped
        try:
            self._world.check()
        except BaseException as stop:
            self._stopped = stop
            raise

    def where(self) -> str:
        """Return the line of the script that is being run, as "FILE:LINE"."""
        return str(self._where()).removesuffix(": ")

    # ---- what Lua asks for: objects ----

    @_answers
    def _create(self, factory: CapHandle, protocol: int, *words: int | str | None) -> CapHandle:
        made = self._world.create(factory.denoted, protocol, words)
        return CapHandle(made, type=_TYPES.get(Proto(protocol)) if protocol in _TYPES else None)

    @_answers
    def _query(self, namespace: CapHandle, name: str) -> CapHandle | None:
        found = self._world.query(namespace.denoted, name)
        return None if found is None else CapHandle(found)

    @_answers
    def _register(self, namespace: CapHandle, name: str, cap: CapHandle | None = None) -> None:
        self._world.register(namespace.denoted, name, cap)

    @_answers
    def _unregister(self, namespace: CapHandle, name: str) -> None:
        self._world.unregister(namespace.denoted, name)

    @_answers
    def _interface(self, cap: CapHandle) -> str | None:
        name = self._world.interface(cap)
        if name is None:
            self._warn(f"{self.where()}: Capability {cap} does not support the meta protocol: it has no methods")
        return name

    @_answers
    def _debug(self, cap: CapHandle, number: int) -> int:
        return self._world.debug(cap.denoted, number)

    @_answers
    def _power(self, cap: CapHandle, what: str, argument: int) -> None:
        self._world.power(cap.denoted, what, argument)

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
    def _cast(self, cap: CapHandle, type: str) -> CapHandle:
        return cap.with_type(type)

    # ---- programs ----

    @_answers
    def _start(
        self,
        words: Any,
        names: Any,
        caps: Any,
        log: CapHandle,
        fields: Any,
        given: Any,
        keys: Any,
        values: Any,
        numbers: Any,
    ) -> TaskHandle:
        services = dict(zip(fields.values(), given.values(), strict=True))
        task = self._world.start(
            Program(
                words=tuple(words.values()),
                caps=dict(zip(names.values(), caps.values(), strict=True)),
                log=log,
                services={field: cap for field, cap in services.items() if not self._is_default(field, cap)},
                environment=dict(zip(keys.values(), values.values(), strict=True)),
                numbers=dict(numbers.items()),
            )
        )
        handle = TaskHandle(next(self._numbers), task)
        self._tasks[handle.number] = handle
        return handle

    def _is_default(self, field: str, cap: CapHandle) -> bool:
        usual = self._environment.get({"mem": "mem_alloc", "rm_fab": "mem_alloc"}.get(field, field))
        return usual == cap and usual.mask == cap.mask

    @_answers
    def _wait(self, handle: TaskHandle) -> tuple[object, ...]:
        if handle.released:
            return None, None
        code = self._world.wait(handle.task)
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

    def _release(self, handle: TaskHandle) -> int:
        handle.released = True
        self._tasks.pop(handle.number, None)
        return handle.number

    # ---- the rest ----

    @_answers
    def _sleep(self, seconds: float) -> None:
        self._world.sleep(max(0.0, float(seconds)))

    @_answers
    def _serve(self, channel: CapHandle) -> None:
        self._world.serve(channel, self._command)
        self.serve()
        self._stopped = _Served()
        raise self._stopped

    def _command(self, text: str) -> tuple[int, str]:
        """Run a text that came over the channel of ``server_loop``."""
        code, result = self._execute(text)
        if code:
            what = {_PARSE: "parse", _RUN: "execute"}[code]
            print(f"lua couldn't {what} '{text}': {result}.", file=sys.stderr, flush=True)
        return int(code), str(result)

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

    def _complain(self, message: object) -> None:
        self.complaints += 1
        print(f"lua error: {message}.", file=sys.stderr, flush=True)

    def _is_stopped(self) -> bool:
        return self._stopped is not None

    def _is_only_planned(self) -> bool:
        return self._only_planned


def _refuse(held: object, name: object, value: object = None) -> object:
    raise AttributeError(f"no script reaches {name!r} of a {_kind(held)}")


def _print_warning(text: str) -> None:
    print(f"l4re: {text}", file=sys.stderr, flush=True)


def _kind(value: object) -> str:
    return "cap" if isinstance(value, CapHandle) else "task" if isinstance(value, TaskHandle) else "other"


def _type(cap: CapHandle) -> str | None:
    return cap.type


def _text(value: object) -> str:
    return str(value) if isinstance(value, CapHandle | TaskHandle) else "host function"


def _error_text(code: int) -> str:
    return errtostr(code) or "error"


def _compare(one: object, other: object) -> int:
    if isinstance(one, CapHandle) and one == other:
        return 0
    first, second = (value.number if isinstance(value, TaskHandle) else id(value) for value in (one, other))
    return (first > second) - (first < second)


def _meant(word: str, known: Any) -> str | None:
    """Return the known word that this one is nearly."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(word, list(known.keys()), 1, 0.7)), None)


def _describe(problem: object) -> str:
    return str(problem) or type(problem).__name__
