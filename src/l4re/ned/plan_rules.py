"""Rules on plans: what must never be possible in a system, and through what it would be.

A rule says ``A calls B`` or ``A writes NAME``. A and B are tasks: by their names, tags or programs. NAME is a
dataspace, by the name under which some task knows it, or ``TASK.NAME`` if several have one of that name. A rule
about what nobody knows is a mistake, not a rule that holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from l4re.errors import InvalidArgument, NotFound
from l4re.ned.plan import Plan, PlannedTask

__all__ = ["Rule", "breaches"]

_VERBS = ("calls", "writes")


@dataclass(frozen=True, slots=True)
class Rule:
    """What must never be."""

    who: str
    verb: str
    what: str

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Return the rule that ``A calls B`` or ``A writes NAME`` is.

        Raises:
            InvalidArgument: it is neither.
        """
        for verb in _VERBS:
            who, found, what = (part.strip() for part in text.partition(f" {verb} "))
            if found and who and what:
                return cls(who, verb, what)
        raise InvalidArgument(f"a rule is 'A calls B' or 'A writes NAME', not {text!r}")

    def __str__(self) -> str:
        return f"{self.who} {self.verb} {self.what}"


@dataclass(frozen=True, slots=True)
class _Link:
    """Two tasks that can hand each other capabilities."""

    one: str
    other: str
    over: str


def breaches(plan: Plan, rule: Rule, *, delegation: bool = False) -> tuple[str, ...]:
    """Return through what a rule is broken, one text for each way; none if it holds.

    With ``delegation`` also through what could be handed on: whoever can call each other, or fill a namespace for
    each other, can hand on what they hold. That finds more than will happen, and misses nothing that can.

    Raises:
        NotFound: no task, or no dataspace, is called so.
    """
    find = _calls if rule.verb == "calls" else _writes
    return tuple(dict.fromkeys(find(plan, rule, delegation)))


def _calls(plan: Plan, rule: Rule, delegation: bool) -> Iterator[str]:
    callers, callees = _tasks(plan, rule.who), _tasks(plan, rule.what)
    reached: set[tuple[str, str]] = set()
    for reach in plan.reaches():
        if reach.client in callers and reach.server in callees:
            reached.add((reach.client, reach.server))
            yield f"{reach.client} holds {reach.cap!r} ({reach.rights}): {reach.over}, which {reach.server} serves"
    if delegation:
        for caller in callers:
            for task, path in _within_reach(plan, caller).items():
                if task in callees and task != caller and (caller, task) not in reached:
                    yield f"{_told(caller, path)}: what {task} serves can be handed on to {caller}"


def _writes(plan: Plan, rule: Rule, delegation: bool) -> Iterator[str]:
    writers = _tasks(plan, rule.who)
    named = {
        cap.source
        for task in plan.tasks
        for name, cap in plan.held(task)
        if cap.kind == "dataspace" and rule.what in (name, name.rpartition("/")[2], f"{task.name}.{name}")
    }
    if not named:
        known = {name for task in plan.tasks for name, cap in plan.held(task) if cap.kind == "dataspace"}
        raise NotFound(f"no task knows a dataspace as {rule.what!r}" + _there_are(known))
    held = {
        task.name: [(name, cap) for name, cap in plan.held(task) if cap.source in named and "w" in cap.rights]
        for task in plan.tasks
    }
    for writer in writers:
        for name, cap in held[writer]:
            yield f"{writer} holds {name!r} ({cap.rights}): {cap.source}"
        if delegation:
            for task, path in _within_reach(plan, writer).items():
                for name, cap in held[task] if task != writer else ():
                    way = _told(writer, path)
                    yield f"{way}: {task} holds {name!r} ({cap.rights}), {cap.source}, and can hand it on"


def _tasks(plan: Plan, word: str) -> tuple[str, ...]:
    found = tuple(task.name for task in plan.tasks if word in _names(task))
    if not found:
        raise NotFound(f"there is no task {word!r}" + _there_are({task.name for task in plan.tasks}))
    return found


def _names(task: PlannedTask) -> tuple[str | None, ...]:
    return task.name, task.log.tag, task.program, task.program.rpartition("/")[2]


def _there_are(names: set[str]) -> str:
    return f"; there is {', '.join(map(repr, sorted(names)))}" if names else "; there is none at all"


def _links(plan: Plan) -> Iterator[_Link]:
    for reach in plan.reaches():
        yield _Link(reach.client, reach.server, reach.over)
    namespaces: dict[str, list[tuple[str, bool]]] = {}
    for task in plan.tasks:
        for _, cap in plan.held(task):
            if cap.kind == "namespace":
                namespaces.setdefault(cap.source, []).append((task.name, "w" in cap.rights))
    for source, holders in namespaces.items():
        for one, writes in holders:
            for other, _ in holders if writes else ():
                if other != one:
                    yield _Link(one, other, source)


def _within_reach(plan: Plan, start: str) -> dict[str, tuple[_Link, ...]]:
    """Return all tasks that capabilities can come from, each with a shortest way to it."""
    near: dict[str, list[tuple[str, _Link]]] = {}
    for link in _links(plan):
        near.setdefault(link.one, []).append((link.other, link))
        near.setdefault(link.other, []).append((link.one, link))
    found: dict[str, tuple[_Link, ...]] = {start: ()}
    waiting = [start]
    for task in waiting:
        for other, link in near.get(task, ()):
            if other not in found:
                found[other] = (*found[task], link)
                waiting.append(other)
    return found


def _told(start: str, path: tuple[_Link, ...]) -> str:
    words, at = [start], start
    for link in path:
        at = link.other if at == link.one else link.one
        words.append(f"[{link.over}] {at}")
    return " - ".join(words)
