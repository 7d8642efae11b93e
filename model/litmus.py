"""Check the orders of memory accesses, as C11 has them: for every CPU, also a weakly ordered one.

Reads the tests in ``litmus/`` (the format of herd7, of which these use a part) and builds every execution
the axioms of RC11 allow: who reads from whom, in which order stores to a place come, and what follows.
``~exists`` must be found impossible, and free of data races; ``exists`` marks a mutant, which must be found
possible or racing. Small tests only: the number of executions is the product of everything that may differ.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import permutations, product
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "litmus"

Pairs = frozenset[tuple[int, int]]

RELEASE = {"release", "acq_rel", "seq_cst"}
ACQUIRE = {"acquire", "acq_rel", "seq_cst"}


@dataclass(frozen=True, slots=True)
class Event:
    """One access or fence. ``kind`` is R, W, U (a compare-exchange that succeeded) or F."""

    kind: str
    place: str
    order: str
    read: int = 0
    written: int = 0
    thread: int = -1

    @property
    def reads(self) -> bool:
        return self.kind in "RU"

    @property
    def writes(self) -> bool:
        return self.kind in "WU"


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a thread; ``body`` only for an ``if``."""

    kind: str
    target: str = ""
    place: str = ""
    order: str = ""
    value: int = 0
    expected: str = ""
    body: tuple[Statement, ...] = ()


@dataclass(frozen=True, slots=True)
class Litmus:
    """A test: threads, what places hold at first, and the outcome it asks for."""

    name: str
    about: str
    initial: dict[str, int]
    threads: list[tuple[Statement, ...]]
    outcome: list[tuple[int, str, int]]
    forbidden: bool


# ---- reading ----

_PATTERNS = [
    ("store", r"atomic_store_explicit\((?P<place>\w+), (?P<value>\d+), memory_order_(?P<order>\w+)\);"),
    ("load", r"int (?P<target>\w+) = atomic_load_explicit\((?P<place>\w+), memory_order_(?P<order>\w+)\);"),
    ("fence", r"atomic_thread_fence\(memory_order_(?P<order>\w+)\);"),
    (
        "exchange",
        r"int (?P<target>\w+) = atomic_compare_exchange_strong_explicit\((?P<place>\w+), (?P<expected>\w+), "
        r"(?P<value>\d+), memory_order_(?P<order>\w+), memory_order_\w+\);",
    ),
    ("store", r"\*(?P<place>\w+) = (?P<value>\d+);"),
    ("load", r"int (?P<target>\w+) = \*(?P<place>\w+);"),
    ("if", r"if \((?P<target>\w+) == (?P<value>\d+)\) \{"),
]


def _statements(text: str, at: int) -> tuple[tuple[Statement, ...], int]:
    """Read statements up to the closing brace."""
    found: list[Statement] = []
    while True:
        while text[at].isspace():
            at += 1
        if text[at] == "}":
            return tuple(found), at + 1
        matches = ((kind, re.compile(pattern).match(text, at)) for kind, pattern in _PATTERNS)
        kind, match = next(((kind, match) for kind, match in matches if match), ("", None))
        if match is None:
            raise ValueError(f"not understood: {text[at : at + 60]!r}")
        at = match.end()
        said = match.groupdict()
        body: tuple[Statement, ...] = ()
        if kind == "if":
            body, at = _statements(text, at)
        found.append(
            Statement(
                kind,
                said.get("target") or "",
                said.get("place") or "",
                said.get("order") or "plain",
                int(said.get("value") or 0),
                said.get("expected") or "",
                body,
            )
        )


def parse(text: str) -> Litmus:
    """Read one test.

    Raises:
        ValueError: it uses something this reader does not know.
    """
    about = " ".join(" ".join(re.findall(r"\(\*(.*?)\*\)", text, re.DOTALL)).split())
    text = re.sub(r"\(\*.*?\*\)", "", text, flags=re.DOTALL)
    head = re.match(r"\s*C ([\w-]+)\s*\{(.*?)\}", text, re.DOTALL)
    condition = re.search(r"(~?)exists\s*\((.*)\)\s*$", text, re.DOTALL)
    if head is None or condition is None:
        raise ValueError("a test starts with `C name { ... }` and ends with `exists (...)` or `~exists (...)`")
    initial = {place: int(value) for place, value in re.findall(r"(\w+)\s*=\s*(\d+);", head[2])}
    threads = [_statements(text, match.end())[0] for match in re.finditer(r"P\d+\s*\([^)]*\)\s*\{", text)]
    outcome = [(int(t), r, int(v)) for t, r, v in re.findall(r"(\d+):(\w+)=(\d+)", condition[2])]
    return Litmus(head[1], about, initial, threads, outcome, condition[1] == "~")


# ---- executions ----


@dataclass(slots=True)
class Run:
    """One way through a thread: its events in order, its registers."""

    events: list[Event] = field(default_factory=list)
    registers: dict[str, int] = field(default_factory=dict)

    def then(self, event: Event, target: str = "", value: int = 0) -> Run:
        registers = {**self.registers, target: value} if target else self.registers
        return Run([*self.events, event], registers)


def _runs(statements: tuple[Statement, ...], run: Run, test: Litmus, values: dict[str, set[int]]) -> Iterator[Run]:
    """Every way through these statements, whatever the loads return."""
    if not statements:
        yield run
        return
    now, rest = statements[0], statements[1:]
    ways: list[Run] = []
    if now.kind == "store":
        ways = [run.then(Event("W", now.place, now.order, written=now.value))]
    elif now.kind == "fence":
        ways = [run.then(Event("F", "", now.order))]
    elif now.kind == "load":
        ways = [run.then(Event("R", now.place, now.order, read=v), now.target, v) for v in values[now.place]]
    elif now.kind == "exchange":
        for value in values[now.place]:
            done = value == test.initial.get(now.expected, 0)
            event = Event("U" if done else "R", now.place, now.order, value, now.value)
            ways.append(run.then(event, now.target, int(done)))
    else:
        ways = [run]
        if run.registers.get(now.target) == now.value:
            rest = (*now.body, *rest)
    for way in ways:
        yield from _runs(rest, way, test, values)


def _values(statements: tuple[Statement, ...]) -> Iterator[tuple[str, int]]:
    for at in statements:
        if at.kind in ("store", "exchange"):
            yield at.place, at.value
        elif at.kind == "load":
            yield at.place, 0
        yield from _values(at.body)


# ---- relations ----


def _then(a: Pairs, b: Pairs) -> Pairs:
    after: dict[int, list[int]] = {}
    for x, y in b:
        after.setdefault(x, []).append(y)
    return frozenset((x, z) for x, y in a for z in after.get(y, ()))


def _closed(a: Pairs) -> Pairs:
    while True:
        more = a | _then(a, a)
        if more == a:
            return a
        a = more


def _cyclic(a: Pairs) -> bool:
    return any(x == y for x, y in _closed(a))


class Execution:
    """Events with who reads from whom and the order of stores; answers what RC11 says of it."""

    def __init__(self, events: list[Event], sb: Pairs, rf: Pairs, mo: Pairs) -> None:
        self.events = events
        self.sb, self.rf, self.mo = sb, rf, mo
        everything = range(len(events))
        same = self._only(events[x].place == events[y].place != "" for x in everything for y in everything)
        self.rb = frozenset((r, w) for r, w in _then(frozenset((r, w) for w, r in rf), mo) if r != w)
        rmw = frozenset((x, x) for x in everything if events[x].kind == "U")
        self._self = frozenset((x, x) for x in everything)
        # Synchronisation: a release (or a fence before a store), read by an acquire (or before a fence).
        chain = _closed(_then(rf, rmw)) | self._self
        starts = self._where(lambda e: e.writes and e.order != "plain")
        sequence = _then(starts, chain)
        before = self._where(lambda e: e.order in RELEASE and e.writes)
        before |= _then(self._where(lambda e: e.kind == "F" and e.order in RELEASE), sb)
        after = self._where(lambda e: e.order in ACQUIRE and e.reads)
        after |= _then(sb, self._where(lambda e: e.kind == "F" and e.order in ACQUIRE))
        atomic_reads = self._where(lambda e: e.reads and e.order != "plain")
        sw = _then(_then(_then(before, sequence), _then(rf, atomic_reads)), after)
        initial = frozenset((x, y) for x in everything for y in everything if events[x].thread < 0 <= events[y].thread)
        self.hb = _closed(sb | sw | initial)
        self.eco = _closed(rf | mo | self.rb)
        self._same = same

    def _only(self, flags: Iterator[bool]) -> Pairs:
        size = len(self.events)
        return frozenset((at // size, at % size) for at, flag in enumerate(flags) if flag)

    def _where(self, test: object) -> Pairs:
        assert callable(test)
        return frozenset((x, x) for x, event in enumerate(self.events) if test(event))

    def consistent(self) -> bool:
        """Whether the axioms allow it: coherence, atomicity, SC fences and accesses, nothing out of thin air."""
        if any(x == y for x, y in self.hb | _then(self.hb, self.eco)) or _cyclic(self.eco):
            return False
        if any(x == y for x, y in _then(self.rb, self.mo) if self.events[x].kind == "U"):
            return False
        if _cyclic(self.sb | self.rf):
            return False
        hb_or_self = self.hb | self._self
        elsewhere = self.sb - self._same
        scb = self.sb | _then(_then(elsewhere, self.hb), elsewhere) | (self.hb & self._same) | self.mo | self.rb
        fences = self._where(lambda e: e.kind == "F" and e.order == "seq_cst")
        accesses = self._where(lambda e: e.kind != "F" and e.order == "seq_cst")
        base = _then(_then(accesses | _then(fences, hb_or_self), scb), accesses | _then(hb_or_self, fences))
        between = _then(_then(fences, self.hb | _then(_then(self.hb, self.eco), self.hb)), fences)
        return not _cyclic(base | between)

    def races(self) -> bool:
        """Whether a plain access meets another one of another thread with nothing between them."""

        def conflict(a: Event, b: Event) -> bool:
            meet = a.place == b.place != "" and a.thread != b.thread and a.thread >= 0 <= b.thread
            return meet and (a.writes or b.writes) and "plain" in (a.order, b.order)

        numbered = list(enumerate(self.events))
        return any(
            conflict(a, b) and (x, y) not in self.hb and (y, x) not in self.hb for x, a in numbered for y, b in numbered
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found: consistent executions, and whether one has the outcome asked for, or races."""

    executions: int
    possible: bool
    racing: bool


def check(test: Litmus) -> Verdict:
    """Look at every execution of ``test``."""
    values: dict[str, set[int]] = {}
    for thread in test.threads:
        for at, written in _values(thread):
            values.setdefault(at, {test.initial.get(at, 0)}).add(written)
    executions, possible, racing = 0, False, False
    ways = [list(_runs(thread, Run(), test, values)) for thread in test.threads]
    for runs in product(*ways):
        events = [Event("W", place, "plain", written=test.initial.get(place, 0)) for place in sorted(values)]
        sb: set[tuple[int, int]] = set()
        for number, run in enumerate(runs):
            numbers = range(len(events), len(events) + len(run.events))
            sb |= {(x, y) for x in numbers for y in numbers if x < y}
            events += [Event(e.kind, e.place, e.order, e.read, e.written, number) for e in run.events]
        outcome = all(runs[at].registers.get(name, 0) == value for at, name, value in test.outcome)
        for rf, mo in _orders(events, sorted(values)):
            execution = Execution(events, frozenset(sb), rf, mo)
            if execution.consistent():
                executions += 1
                possible |= outcome
                racing |= execution.races()
    return Verdict(executions, possible, racing)


def _orders(events: list[Event], places: list[str]) -> Iterator[tuple[Pairs, Pairs]]:
    """Every choice of whom each load reads from and of the order of stores to each place."""
    loads = [x for x, event in enumerate(events) if event.reads]
    seen = [(r, (events[r].place, events[r].read)) for r in loads]
    sources = [
        [w for w, e in enumerate(events) if e.writes and w != r and (e.place, e.written) == at] for r, at in seen
    ]
    stores = [[x for x, e in enumerate(events) if e.writes and e.place == place] for place in places]
    orders = [[(at[0], *rest) for rest in permutations(at[1:])] for at in stores]
    for chosen in product(*sources):
        rf = frozenset(zip(chosen, loads, strict=True))
        for order in product(*orders):
            yield rf, frozenset((a[i], a[j]) for a in order for i in range(len(a)) for j in range(i + 1, len(a)))


def main(argv: list[str] | None = None) -> int:
    """Check all tests, or those named; 0 as expected, 1 a surprise."""
    parser = argparse.ArgumentParser(description="Check memory orders against the axioms of RC11.")
    parser.add_argument("files", nargs="*", type=Path, help="default: all in model/litmus")
    args = parser.parse_args(argv)
    surprises = 0
    for path in args.files or sorted(FOLDER.glob("*.litmus")):
        test = parse(path.read_text())
        verdict = check(test)
        expected = not (verdict.possible or verdict.racing) if test.forbidden else verdict.possible or verdict.racing
        surprises += not expected
        found = [word for word, flag in (("possible", verdict.possible), ("racing", verdict.racing)) if flag]
        print(
            f"{test.name:<24} {verdict.executions:>6} executions   {' and '.join(found) or 'impossible':<20} "
            f"{'must not be' if test.forbidden else 'mutant'}{'' if expected else '   <-- SURPRISE'}"
        )
    print(f"{surprises or 'no'} surprises")
    return 1 if surprises else 0


if __name__ == "__main__":
    sys.exit(main())
