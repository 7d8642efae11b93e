"""What ``l4re bench`` does; its options stand in `l4re.cli.bench`, so that asking for help loads nothing here."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from l4re.log.console import wants_colour

from .bars import Verdict, judged
from .figures import Figures, NotFigures, load
from .machine import Disturbance, machine
from .packages import INSTALL, how_to_get, versions
from .peers import PEERS, Peer, peer_named
from .placement import PLACEMENTS
from .progress import progress_of
from .report import Report
from .run import Effort, Failed, Plan, Row, run
from .scenarios import SCENARIOS

__all__ = ["Misused", "main"]

_FULL = Effort(0.5, 9)
_QUICK = Effort(0.1, 3)


class Misused(Exception):
    """What was asked for cannot be done; nothing was measured."""


def main(options: argparse.Namespace) -> int:
    """Do what was asked for: 0; 1 if a measurement failed; 130 if it was stopped.

    Raises:
        Misused: the options make no sense, or name what there is not.
    """
    if options.list:
        _say(_list())
        return 0
    for chosen in ("scenario", "peer", "placement"):  # naming one twice changes nothing
        setattr(options, chosen, list(dict.fromkeys(getattr(options, chosen) or ())))
    for words, known in ((options.scenario, SCENARIOS), (options.peer, PEERS)):
        for word in words:
            if word not in known and not options.saved:
                raise Misused(f"there is no {word!r}; there are: {', '.join(known)}")
    plot = _plot(options)
    if options.json and options.json != "-":
        _writable(Path(options.json))
    figures = _saved(options) if options.saved else _measured(options)
    if options.json:
        text = json.dumps({**figures.as_dict(), "promises": list(map(Verdict.as_dict, judged(figures)))}, indent=1)
        if options.json == "-":
            print(text)
        else:
            Path(options.json).write_text(text + "\n")
    if plot:
        plot(figures, Path(options.plot))
    return 130 if figures.interrupted and not options.saved else 1 if figures.failed else 0


def _say(text: str) -> None:
    """Print; a sign that standard output does not know must not cost the figures."""
    encoding = sys.stdout.encoding or "ascii"
    print(text.encode(encoding, "replace").decode(encoding), flush=True)


def _list() -> str:
    lines = ["scenarios:"]
    lines += [f"  {scenario.name:<12}{scenario.about}" for scenario in SCENARIOS.values()]
    lines.append("peers:")
    width = max(map(len, PEERS))
    for name in PEERS:
        peer, why = _peer(name)
        about = (peer.__doc__ or "").splitlines()[0] if peer else f"Missing: {why}."
        lines.append(f"  {name:<{width}}  {about}")
    lines.append("placements:")
    lines += [
        "  two         a core for each side",
        "  one         all on one core",
        "  free        the scheduler decides",
    ]
    return "\n".join(lines)


def _peer(name: str) -> tuple[Peer | None, str | None]:
    """Return the peer, or why there is none."""
    try:
        peer = peer_named(name)
    except ImportError as error:
        return None, how_to_get(error)
    why = peer.missing()
    return (None if why else peer), why


def _plot(options: argparse.Namespace) -> Any:
    """Return what draws, before anything is measured that could not be drawn."""
    if not options.plot:
        return None
    path = Path(options.plot)
    if path.suffix != ".svg":
        raise Misused(f"a plot is an SVG file, and {options.plot} does not end in .svg")
    _writable(path)
    try:
        from .plot import draw
    except ImportError as error:
        raise Misused(f"--plot needs {error.name}: {INSTALL}") from None
    return draw


def _writable(path: Path) -> None:
    """Ask now, not after minutes of measuring."""
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise Misused(f"cannot write {path}")


def _saved(options: argparse.Namespace) -> Figures:
    """Read and print a saved run."""
    if options.quick or options.repetitions or options.seconds:
        raise Misused("--from measures nothing: leave out --quick, --repetitions and --seconds")

    def wanted(row: Row | Failed) -> bool:
        chosen = ((options.scenario, row.scenario), (options.peer, row.peer), (options.placement, row.placement))
        return all(not words or word in words for words, word in chosen)

    try:
        figures = load(Path(options.saved)).only(wanted)
    except OSError as error:
        raise Misused(f"{options.saved}: {error.strerror}") from None
    except NotFigures as error:
        raise Misused(str(error)) from None
    if not figures.rows:
        raise Misused(f"{options.saved} has no such rows")
    out = _Output(options, figures)
    out.begin()
    for scenario in figures.scenarios():
        out.table(scenario)
    out.end()
    return figures


def _measured(options: argparse.Namespace) -> Figures:
    """Measure and print."""
    effort = _QUICK if options.quick else _FULL
    effort = Effort(options.seconds or effort.seconds, options.repetitions or effort.repetitions)
    found = {name: _peer(name) for name in options.peer or PEERS}
    missing = {name: why for name, (_, why) in found.items() if why}
    if options.peer and missing:
        raise Misused("; ".join(f"{name} is missing: {why}" for name, why in missing.items()))
    plan = Plan(
        [SCENARIOS[name] for name in options.scenario or SCENARIOS],
        [peer for peer, _ in found.values() if peer],
        options.placement or PLACEMENTS,
        effort,
        fixed_only=options.quick and not options.placement,
    )
    if not plan.total():
        why = "no such peer takes part in such a scenario at such a placement"
        raise Misused(f"nothing to measure: {why if plan.cpus.offers('two') else why + ', with one core'}")
    figures = Figures(machine(), versions(), effort, missing)
    out = _Output(options, figures)
    progress = progress_of(plan.total())
    out.begin()
    others = Disturbance()
    try:
        for part in plan.parts():
            try:
                for result in run(part, progress):
                    if isinstance(result, Row):
                        figures.rows.append(result)
                    else:
                        figures.failed.append(result)
                        progress.clear()
                        out.failure(result)
            finally:
                progress.clear()
                out.table(part.scenarios[0].name)
    except KeyboardInterrupt:
        figures.interrupted = True
    figures.machine["used_by_others"] = round(others.share(), 3)
    out.end()
    return figures


class _Output:
    """Where tables go: standard output, unless that is for JSON."""

    def __init__(self, options: argparse.Namespace, figures: Figures) -> None:
        self._figures = figures
        self._shown = options.json != "-"
        self._report = Report(figures, coloured=wants_colour(sys.stdout))

    def _print(self, text: str) -> None:
        if self._shown and text:
            _say(text)

    def begin(self) -> None:
        self._print(self._report.head())

    def table(self, scenario: str) -> None:
        if scenario in self._figures.scenarios():
            self._print(self._report.table(scenario))

    def failure(self, failed: Failed) -> None:
        print(self._report.failure(failed), file=sys.stderr, flush=True)

    def end(self) -> None:
        self._print(self._report.promises())
        self._print(self._report.foot())
