"""A plan: what a boot script would start, as values that can be saved, compared and asked.

A plan knows nothing of Lua or of the script that it came from but the lines; `read` and `as_dict` are each other's
inverse, so that whatever can be asked of a script can be asked of a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

from l4re.errors import InvalidArgument, OutOfRange

__all__ = ["Cap", "Log", "Plan", "PlannedObject", "PlannedTask", "Reach", "Remark"]

VERSION: Final = 1
_MOST_HELD: Final = 100_000
#: What the server's side of a channel is called; the client's side is a gate.
RECEIVE: Final = "receive right"


@dataclass(frozen=True, slots=True)
class Cap:
    """A capability that somebody is given."""

    kind: str
    rights: str
    """The letters held, out of ``rwsd``; "-" if there are none."""
    source: str
    """The object that it leads to; a key of `Plan.objects`."""

    def out_of(self, namespace: Cap) -> Cap:
        """Return what whoever holds ``namespace`` gets of this entry: S only if they have S there, and D never."""
        passed = "rws" if "s" in namespace.rights else "rw"
        rights = "".join(letter for letter in self.rights if letter in passed) or "-"
        return self if rights == self.rights else Cap(self.kind, rights, self.source)

    def as_dict(self) -> dict[str, str]:
        """Return it as it is saved."""
        return {"kind": self.kind, "rights": self.rights, "from": self.source}


@dataclass(frozen=True, slots=True)
class PlannedObject:
    """What capabilities lead to."""

    kind: str
    line: str = ""
    """Where the script made it, as FILE:LINE; "" if it was there before."""
    words: tuple[int | str | None, ...] = ()
    """What it was made with."""
    over: str = ""
    """The channel or object whose server answers for it, if that is not itself."""
    entries: Mapping[str, Cap] = field(default_factory=dict)
    """What a namespace holds."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as it is saved."""
        saved: dict[str, Any] = {"kind": self.kind, "line": self.line, "words": list(self.words), "over": self.over}
        return saved | {"entries": {name: cap.as_dict() for name, cap in self.entries.items()}}


@dataclass(frozen=True, slots=True)
class Log:
    """Where a program's output goes: lines under a tag, or a capability."""

    tag: str | None
    colour: int | None
    options: tuple[str, ...]
    cap: Cap
    """The log itself."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as it is saved."""
        return {"tag": self.tag, "colour": self.colour, "options": list(self.options), "cap": self.cap.as_dict()}


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """A program that would be started."""

    name: str
    """Its tag, or the last part of the program's name; with ``#2`` and so on if that is taken."""
    program: str
    args: tuple[str, ...]
    caps: Mapping[str, Cap]
    log: Log
    line: str = ""
    services: Mapping[str, Cap] = field(default_factory=dict)
    """Of mem, factory, scheduler, rm_fab, dbg_events what is not the usual one."""
    environment: Mapping[str, str] = field(default_factory=dict)

    def given(self) -> Iterator[tuple[str, Cap]]:
        """Yield everything that the program starts with, and under which name."""
        yield from self.caps.items()
        yield from self.services.items()
        yield "log", self.log.cap

    def as_dict(self) -> dict[str, Any]:
        """Return it as it is saved."""
        return {
            "name": self.name,
            "program": self.program,
            "args": list(self.args),
            "caps": {name: cap.as_dict() for name, cap in self.caps.items()},
            "log": self.log.as_dict(),
            "line": self.line,
            "services": {name: cap.as_dict() for name, cap in self.services.items()},
            "environment": dict(self.environment),
        }


@dataclass(frozen=True, slots=True)
class Remark:
    """Something odd, or not known before the system runs."""

    line: str
    text: str

    def __str__(self) -> str:
        return f"{self.line}: {self.text}" if self.line else self.text


@dataclass(frozen=True, slots=True)
class Reach:
    """That one task can call another."""

    client: str
    server: str
    over: str
    """The channel."""
    cap: str
    """The name under which the client holds it, with ``/`` where a namespace lies between."""
    rights: str

    def as_dict(self) -> dict[str, str]:
        """Return it as it is saved."""
        return {"from": self.client, "to": self.server, "over": self.over, "cap": self.cap, "rights": self.rights}


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a script would start, and what it would be given."""

    script: str
    tasks: tuple[PlannedTask, ...]
    objects: Mapping[str, PlannedObject]
    remarks: tuple[Remark, ...] = ()

    def held(self, task: PlannedTask) -> Iterator[tuple[str, Cap]]:
        """Yield what a task can use at its start: what it is given, and what lies in namespaces among that.

        Raises:
            OutOfRange: there are too many ways through the namespaces.
        """
        found = chain.from_iterable(self._inside(name, cap, frozenset()) for name, cap in task.given())
        for count, each in enumerate(found):
            if count == _MOST_HELD:
                raise OutOfRange(f"{task.name} can find more than {_MOST_HELD} names in its namespaces")
            yield each

    def _inside(self, name: str, cap: Cap, above: frozenset[str]) -> Iterator[tuple[str, Cap]]:
        yield name, cap
        if cap.source not in above:
            for entry, inner in self.objects[cap.source].entries.items():
                yield from self._inside(f"{name}/{entry}", inner.out_of(cap), above | {cap.source})

    def answering(self, source: str) -> str:
        """Return the object whose server answers calls to this one: its channel, or itself."""
        seen: set[str] = set()
        while (over := self.objects[source].over) and source not in seen:
            seen.add(source)
            source = over
        return source

    def servers(self) -> dict[str, tuple[str, ...]]:
        """Return by channel the names of the tasks that are given its server's side."""
        found: dict[str, dict[str, None]] = {}
        for task in self.tasks:
            for _, cap in self.held(task):
                if cap.kind == RECEIVE:
                    found.setdefault(cap.source, {})[task.name] = None
        return {channel: tuple(tasks) for channel, tasks in found.items()}

    def reaches(self) -> tuple[Reach, ...]:
        """Return who can call whom, over which channel."""
        servers = self.servers()
        return tuple(
            dict.fromkeys(
                Reach(task.name, server, channel, name, cap.rights)
                for task in self.tasks
                for name, cap in self.held(task)
                if cap.kind != RECEIVE
                for channel in (self.answering(cap.source),)
                for server in servers.get(channel, ())
            )
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as it is saved; the schema is in the documentation of ``l4re check``."""
        return {
            "version": VERSION,
            "script": self.script,
            "tasks": [task.as_dict() for task in self.tasks],
            "objects": {name: each.as_dict() for name, each in self.objects.items()},
            "reaches": [reach.as_dict() for reach in self.reaches()],
            "remarks": [{"line": remark.line, "text": remark.text} for remark in self.remarks],
        }

    @classmethod
    def read(cls, saved: Any) -> Plan:
        """Return the plan that `as_dict` made this of.

        Raises:
            InvalidArgument: it is no such thing.
        """
        try:
            if saved["version"] != VERSION:
                raise InvalidArgument(f"this plan is of version {saved['version']}, known is {VERSION}")
            plan = cls(
                str(saved["script"]),
                tuple(map(_task, saved["tasks"])),
                {str(name): _object(each) for name, each in saved["objects"].items()},
                tuple(Remark(str(each["line"]), str(each["text"])) for each in saved["remarks"]),
            )
            plan.reaches()  # looks at every name that stands for something else
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, InvalidArgument | OutOfRange):
                raise
            raise InvalidArgument(f"this is no plan of `l4re check --json`: {error!r}") from error
        return plan


def _cap(saved: Any) -> Cap:
    return Cap(str(saved["kind"]), str(saved["rights"]), str(saved["from"]))


def _caps(saved: Any) -> dict[str, Cap]:
    return {str(name): _cap(cap) for name, cap in saved.items()}


def _object(saved: Any) -> PlannedObject:
    words = tuple(word if isinstance(word, int | str | None) else str(word) for word in saved["words"])
    return PlannedObject(str(saved["kind"]), str(saved["line"]), words, str(saved["over"]), _caps(saved["entries"]))


def _log(saved: Any) -> Log:
    tag, colour = saved["tag"], saved["colour"]
    return Log(
        None if tag is None else str(tag),
        None if colour is None else int(colour),
        tuple(map(str, saved["options"])),
        _cap(saved["cap"]),
    )


def _task(saved: Any) -> PlannedTask:
    return PlannedTask(
        str(saved["name"]),
        str(saved["program"]),
        tuple(map(str, saved["args"])),
        _caps(saved["caps"]),
        _log(saved["log"]),
        str(saved["line"]),
        _caps(saved["services"]),
        {str(name): str(value) for name, value in saved["environment"].items()},
    )
