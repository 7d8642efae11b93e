"""``python -m bench``: measure and print."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from .peers import PEERS, Peer, peer_named
from .placement import PLACEMENTS
from .report import Report
from .run import Disturbance, Effort, Failure, Plan, run
from .scenarios import SCENARIOS

__all__ = ["main"]

FULL = Effort(0.5, 9)
QUICK = Effort(0.1, 3)


def _arguments(args: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure l4re beside what else there is.")
    parser.add_argument("--quick", action="store_true", help="short and few repetitions, fixed placements only")
    parser.add_argument(
        "--scenario", action="append", choices=list(SCENARIOS), metavar="NAME", help="only this one (again for more)"
    )
    parser.add_argument(
        "--peer", action="append", choices=list(PEERS), metavar="NAME", help="only this one (again for more)"
    )
    parser.add_argument("--placement", action="append", choices=PLACEMENTS, help="only this one (again for more)")
    parser.add_argument("--repetitions", type=int, metavar="N", help="how often each is measured")
    parser.add_argument("--seconds", type=float, metavar="S", help="how long each repetition measures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    parser.add_argument("--list", action="store_true", help="say what there is")
    return parser.parse_args(args)


def _list() -> None:
    print("scenarios:")
    for scenario in SCENARIOS.values():
        print(f"  {scenario.name:<12}{scenario.about}")
    print("peers:")
    for name in PEERS:
        peer, why = _load(name)
        about = (peer.__doc__ or "").splitlines()[0] if peer else ""
        print(f"  {name:<16}{about}{f' Missing: {why}.' if why else ''}")


def _load(name: str) -> tuple[Peer | None, str | None]:
    """Return the peer, or why there is none."""
    try:
        peer = peer_named(name)
    except ImportError as error:
        return None, str(error)
    why = peer.missing()
    return (None if why else peer), why


class _Progress:
    """One line on stderr, when somebody watches."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._shown = sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        if self._shown:
            print(f"\r\033[K[{self._done}/{self._total}] {text}", end="", file=sys.stderr, flush=True)
        self._done += 1

    def clear(self) -> None:
        if self._shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def main(args: list[str] | None = None) -> int:
    """Run what was asked for; 0, or 1 if a measurement failed."""
    options = _arguments(args)
    if options.list:
        _list()
        return 0
    effort = QUICK if options.quick else FULL
    effort = Effort(options.seconds or effort.seconds, options.repetitions or effort.repetitions)
    wanted = options.placement or PLACEMENTS
    plan = Plan(
        [SCENARIOS[name] for name in options.scenario or SCENARIOS],
        [peer for name in options.peer or PEERS if (peer := _load(name)[0]) is not None],
        wanted,
        effort,
        fixed_only=options.quick and not options.placement,
    )
    report = Report(plan)
    progress = _Progress(plan.size())
    print(report.head(), flush=True)
    others = Disturbance()
    shown = ""
    try:
        for row in run(plan, progress):
            if shown and row.scenario != shown:
                progress.clear()
                print(report.table(shown), flush=True)
            shown = row.scenario
            report.rows.append(row)
    except Failure as failure:
        progress.clear()
        print(failure, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        progress.clear()
        return 130
    progress.clear()
    if shown:
        print(report.table(shown))
    share = others.share()
    print(f"\nOthers used {share:.0%} of the machine meanwhile.")
    if options.json:
        options.json.write_text(json.dumps(report.as_dict(share), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
