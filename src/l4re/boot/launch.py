"""Handing a program its capabilities, and starting it.

A hand-over is all or nothing: what was made for it is undone when the start fails, and a receive right closes
here only after the program runs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import IO, Final, NamedTuple, Protocol, cast

from l4re.boot.program import Command, find_command
from l4re.boot.task import Task, reap_abandoned
from l4re.cap import Capability, Export
from l4re.environment.env import VARIABLE
from l4re.environment.env import env as environment
from l4re.environment.page import PID_AT, SERVICES, CapEntry, EnvPage, check_name
from l4re.errors import InvalidArgument, WrongType, error_from_code
from l4re.gate import Svr
from l4re.interface import Interface
from l4re.linux import process, sealed
from l4re.linux.cgroup import MemoryGroup
from l4re.linux.fd import Fd
from l4re.linux.limit import exhausted
from l4re.linux.null import no_input
from l4re.log.multiplexer import shared_multiplexer
from l4re.log.tag import Tag
from l4re.rights import Rights

__all__ = ["Grant", "Printer", "launch", "spawn"]

_FIRST_FD = 3
_OURS = "L4RE_"
#: Seconds that a scheduler has to say where a program belongs.
_PATIENCE: Final = 10.0


class Grant(NamedTuple):
    """A capability for a program, with at most these rights (None: all that ``cap`` carries)."""

    cap: Capability
    rights: Rights | None = None


class Printer(Protocol):
    """What takes the output of a program: the multiplexer, or something like it."""

    def add(self, tag: Tag, /) -> Fd:
        """Return a write end for the program; who starts it closes ours afterwards."""

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything written before this call was printed; False if it took too long."""


def spawn(
    program: Sequence[str | os.PathLike[str]],
    *,
    caps: Mapping[str, Capability | Interface] | None = None,
    services: Mapping[str, Capability | Interface] | None = None,
    log: str | Sequence[str | int] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    stdin: int | IO[str] | IO[bytes] | None = None,
) -> Task:
    """Start ``[program, *args]``, hand it ``caps`` by name, and return its task.

    ``program`` is a path or a name along ``PATH``; a ``*.py`` is run with this interpreter. The program finds the
    capabilities in :func:`l4re.env`; they stay ours as well, except receive rights, which move.

    ``services`` are what its environment leads to beside: ``mem_alloc``, ``scheduler``, ``ns``, ``parent``, ``log``.
    Those that are not named here are ours, if our parent gave us one.

    ``log=None``: it prints where we print. ``log=("client", "green")``: line by line under that tag, on our
    standard output. ``env=None``: our environment variables without those that start with ``L4RE_``; otherwise
    exactly these and the ones we need. ``stdin=None``: there is nothing to read (its process group is not the
    terminal's); otherwise a descriptor or an open file.

    Raises:
        NotFound: there is no such program, or no such ``cwd``.
        PermissionDenied: the program cannot be executed.
        InvalidArgument: a name, a word or a variable makes no sense.
        PeerGone: the server behind a gate is gone.
        OutOfMemory, L4Error: the machine refused; nothing was handed over.
    """
    variables = _variables(env)
    command = find_command(program, variables)
    return launch(
        command,
        grants=_grants("caps", caps or {}),
        services=_grants("services", {**environment().services, **_known(services or {})}),
        log=None if log is None else Tag.of(log),
        env=variables,
        cwd=None if cwd is None else os.fspath(cwd),
        stdin=_number(stdin),
    )


def _grants(what: str, caps: Mapping[str, Capability | Interface]) -> dict[str, Grant]:
    grants: dict[str, Grant] = {}
    for name, cap in caps.items():
        held = cap.cap if isinstance(cap, Interface) else cap
        if not isinstance(held, Capability):
            raise WrongType(f"{what}[{name!r}] is no capability: {cap!r}")
        grants[name] = Grant(held)
    return grants


def _known(services: Mapping[str, Capability | Interface]) -> Mapping[str, Capability | Interface]:
    for name in services:
        if name not in SERVICES:
            raise InvalidArgument(f"services[{name!r}]: a program knows {', '.join(SERVICES)}; name others in caps")
    return services


def launch(
    command: Command,
    *,
    grants: Mapping[str, Grant],
    env: Mapping[str, str],
    services: Mapping[str, Grant] | None = None,
    log: Tag | None = None,
    multiplexer: Printer | None = None,
    cwd: str | None = None,
    stdin: int | None = None,
    group: MemoryGroup | None = None,
) -> Task:
    """Start ``command`` with ``grants``; the part of :func:`spawn` that a loader shares.

    ``services`` are those of `environment.page.SERVICES` that the program is given; it starts where its scheduler,
    if there is one, says that it belongs. ``env`` is taken as it is, plus what the program needs to find its
    capabilities. With a tag its output goes to ``multiplexer``, by default the one of this process. It is in ``group``
    from its first instruction on.
    """
    reap_abandoned()
    if log is not None and multiplexer is None:
        multiplexer = shared_multiplexer()
    variables = {**_checked(env), VARIABLE: str(_FIRST_FD)}
    variables.setdefault("PYTHONUNBUFFERED", "1")
    placed = _placed((services or {}).get("scheduler"))
    exports: list[Export] = []
    closing: list[Fd] = []
    try:
        fds: list[int] = []
        entries = _export(grants, exports, fds)
        given = _export(services or {}, exports, fds)
        name = "" if log is None else log.name
        page = sealed.make(EnvPage(entries, name, services=given).pack(), "l4re-env")
        closing.append(page)
        if stdin is None:
            closing.append(no_input())
            stdin = closing[-1].fileno()
        if group is not None:
            closing.append(entrance := group.entrance())
        output = -1
        if log is not None and multiplexer is not None:
            closing.append(multiplexer.add(log))
            output = closing[-1].fileno()
        started = process.spawn(
            command.path,
            command.argv,
            variables,
            fds=(page.fileno(), *fds),
            stdio=(stdin, output, output),
            cwd=cwd,
            pid_at=PID_AT,
            placed=placed,
            cgroup=-1 if group is None else entrance.fileno(),
        )
    except BaseException as error:
        for export in exports:
            export.failed()
        if isinstance(error, OSError) and not hasattr(error, "code"):
            raise _refusal(error, command, cwd) from error
        raise
    finally:
        for fd in closing:
            fd.close()
    task = Task(started, (log.name if log else "") or command.name, None if multiplexer is None else multiplexer.flush)
    for export in exports:
        if export.on_task is not None:
            export.on_task(started.pidfd.fileno())
        export.done()
    return task


def _placed(scheduler: Grant | None) -> tuple[frozenset[int], int] | None:
    """Ask the scheduler where a program belongs, before there is one."""
    if scheduler is None:
        return None
    from l4re.services.scheduler import Scheduler

    place = Scheduler(scheduler.cap).within(_PATIENCE).place()
    return place.cpus, place.nice


def _export(grants: Mapping[str, Grant], exports: list[Export], fds: list[int]) -> tuple[CapEntry, ...]:
    """Prepare the hand-overs; what was prepared is in ``exports`` and ``fds``, also when this raises."""
    entries: list[CapEntry] = []
    moving: set[int] = set()
    for name, grant in grants.items():
        check_name(name)
        if isinstance(grant.cap, Svr):
            if id(grant.cap) in moving:
                raise InvalidArgument(f"caps[{name!r}]: a receive right moves, it cannot go under two names; use dup()")
            moving.add(id(grant.cap))
        export = grant.cap.export(grant.rights)
        exports.append(export)
        at = _FIRST_FD + 1 + len(fds)
        fds.extend(export.fds)
        entries.append(CapEntry(export.kind, export.rights, export.value, tuple(range(at, at + len(export.fds))), name))
    return tuple(entries)


def _variables(env: Mapping[str, str] | None) -> dict[str, str]:
    if env is None:
        return {key: value for key, value in os.environ.items() if not key.startswith(_OURS)}
    return dict(env)


def _checked(env: Mapping[str, str]) -> Mapping[str, str]:
    for key, value in cast("Mapping[object, object]", env).items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise WrongType(f"environment variables are strings, not {key!r}={value!r}")
        if not key or "=" in key or "\0" in key or "\0" in value:
            raise InvalidArgument(f"no environment variable can be {key!r}={value!r}")
    return env


def _number(stdin: int | IO[str] | IO[bytes] | None) -> int | None:
    return stdin if stdin is None or isinstance(stdin, int) else stdin.fileno()


def _refusal(error: OSError, command: Command, cwd: str | None) -> Exception:
    stage = error.stage if isinstance(error, process.StartFailed) else None
    if stage == process.Stage.DIRECTORY:
        text = f"cannot start {command.name} in {cwd}: {os.strerror(error.errno or 0)}"
    elif stage == process.Stage.EXECUTE:
        text = f"cannot execute {command.path}: {os.strerror(error.errno or 0)}"
        if error.errno == 2:
            text += " (the file is there: the interpreter named in its first line is not)"
    else:
        return exhausted(f"cannot start {command.name}", error)
    return error_from_code(-(error.errno or 5), text)
