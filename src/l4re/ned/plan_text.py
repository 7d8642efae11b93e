"""Plans as text for people, and what is different between two of them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping

from l4re.ned.plan import RECEIVE, Cap, Log, Plan, PlannedTask

__all__ = ["Paint", "differences", "plan_text"]

_COLOURS = ("no colour", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
_BOLD, _RED, _GREEN, _YELLOW, _CYAN, _GREY = "1", "31", "32", "33", "36", "90"


class Paint:
    """Colours words for a terminal, or leaves them alone."""

    def __init__(self, *, coloured: bool) -> None:
        self._coloured = coloured

    def __call__(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._coloured and text else text

    def bad(self, text: str) -> str:
        """Return what is not to be."""
        return self(text, _RED)

    def good(self, text: str) -> str:
        """Return what is as it should be."""
        return self(text, _GREEN)


def plan_text(plan: Plan, paint: Paint) -> str:
    """Return a plan as lines of text: the tasks, who can call whom, the remarks."""
    return "\n".join(_lines(plan, paint)) + "\n"


def _lines(plan: Plan, paint: Paint) -> Iterator[str]:
    count = len(plan.tasks)
    yield paint(f"{plan.script}: {count} task{'' if count == 1 else 's'}", _BOLD)
    for task in plan.tasks:
        yield ""
        yield f"{paint(task.name, _CYAN)}  {shlex.join((task.program, *task.args))}  {paint(task.line, _GREY)}"
        yield from _task_lines(plan, task, paint)
    reaches = plan.reaches()
    if reaches:
        yield ""
        yield paint("Who can call whom", _BOLD)
        width = max(len(reach.client) + len(reach.server) for reach in reaches)
        for reach in reaches:
            gap = " " * (width - len(reach.client) - len(reach.server))
            yield (
                f"  {paint(reach.client, _CYAN)} -> {paint(reach.server, _CYAN)}{gap}"
                f"  {reach.over}, held as {reach.cap} ({reach.rights})"
            )
    if plan.remarks:
        yield ""
        yield paint("Remarks", _BOLD)
        for remark in plan.remarks:
            yield f"  {paint(str(remark), _YELLOW)}"


def _task_lines(plan: Plan, task: PlannedTask, paint: Paint) -> Iterator[str]:
    given = {**task.caps, **{f"({name})": cap for name, cap in task.services.items()}}
    width = max((len(name) for name in given), default=0)
    for name, cap in given.items():
        yield f"  {name:<{width}}  {cap.rights:<4}  {_what(plan, cap)}"
        yield from _entry_lines(plan, cap, width + 8, paint)
    yield paint(f"  log: {_log_words(plan, task.log)}", _GREY)
    for name, value in task.environment.items():
        yield paint(f"  {name}={shlex.quote(value)}", _GREY)


def _entry_lines(plan: Plan, cap: Cap, indent: int, paint: Paint, above: tuple[str, ...] = ()) -> Iterator[str]:
    if cap.source in above:
        return
    entries = plan.objects[cap.source].entries
    for name, inner in ((name, entry.out_of(cap)) for name, entry in entries.items()):
        yield f"{' ' * indent}  {name}: {inner.rights}  {_what(plan, inner)}"
        yield from _entry_lines(plan, inner, indent + 2, paint, (*above, cap.source))


def _what(plan: Plan, cap: Cap) -> str:
    each = plan.objects[cap.source]
    if cap.kind == RECEIVE:
        return f"serves {cap.source}"
    words = f"({', '.join('-' if word is None else repr(word) for word in each.words)})" if each.words else ""
    over = f", of {each.over}" if each.over else ""
    return f"{cap.source}{words}{over}"


def _log_words(plan: Plan, log: Log) -> str:
    if log.tag is None:
        return f"{log.cap.source} ({log.cap.rights})"
    bright = "bright " if (log.colour or 0) & 8 else ""
    options = "".join(f", {option}" for option in log.options)
    server = plan.objects[log.cap.source].over
    over = f", of {server}" if server else ""
    return f"{log.tag}, {bright}{_COLOURS[(log.colour or 0) & 7]}{options}{over}"


# ---- what is different ----


def differences(old: Plan, new: Plan, paint: Paint) -> tuple[str, ...]:
    """Return what is different in ``new``, as lines that begin with "+", "-" or "~"; none if nothing is."""
    lines: list[str] = []

    def compare(before: Mapping[str, str], after: Mapping[str, str], told: Callable[[str, str], str]) -> None:
        for key in {**before, **after}:
            one, other = before.get(key), after.get(key)
            if one is None and other is not None:
                lines.append(paint(f"+ {told(key, other)}", _GREEN))
            elif other is None and one is not None:
                lines.append(paint(f"- {told(key, one)}", _RED))
            elif one != other:
                lines.append(paint(f"~ {told(key, f'{one}  ->  {other}')}", _YELLOW))

    def plain(key: str, value: str) -> str:
        return f"{key}: {value}"

    was, now = ({task.name: task for task in plan.tasks} for plan in (old, new))
    compare(_programs(old), _programs(new), lambda name, words: f"task {name}: {words}")
    for name in {**was, **now}:
        if name in was and name in now:
            compare(_facts(old, was[name]), _facts(new, now[name]), plain)
    compare(_reached(old), _reached(new), lambda key, rights: f"{key} ({rights})")
    return tuple(lines)


def _programs(plan: Plan) -> dict[str, str]:
    return {task.name: shlex.join((task.program, *task.args)) for task in plan.tasks}


def _facts(plan: Plan, task: PlannedTask) -> dict[str, str]:
    facts = {
        f"{task.name}, {name}": f"{cap.rights}  {cap.kind}  {_what(plan, cap)}"
        for name, cap in plan.held(task)
        if name != "log" or "log" in task.caps
    }
    facts[f"{task.name}, its log"] = _log_words(plan, task.log)
    return facts | {f"{task.name}, ${name}": value for name, value in task.environment.items()}


def _reached(plan: Plan) -> dict[str, str]:
    return {
        f"{reach.client} can call {reach.server} over {reach.over} as {reach.cap}": reach.rights
        for reach in plan.reaches()
    }
