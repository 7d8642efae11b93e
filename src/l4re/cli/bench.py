"""``l4re bench``: how fast this package is on this machine, beside what one would use instead."""

from __future__ import annotations

import argparse
import importlib
import math
import sys
from collections.abc import Sequence
from typing import Any, ClassVar

from l4re.cli.broken import leave_broken_output

__all__ = ["Bench"]

_MISUSED = 2


class Bench:
    """Measure calls, notifications and memory beside pipes, sockets, and other packages.

    Everything is measured in one run and in turns, each repetition in fresh processes, every answer checked. What
    other users of the machine disturb, they disturb for all; compare the ratios. Without options it takes an hour
    or more; --quick is there for a first look. Peers that are not installed are named, with the command that
    brings them: pip install 'pyl4re[bench]'.

    At the end stands what this package promises about its speed, beside what was measured. Ctrl-C stops, and keeps
    what was measured so far. The exit status is 1 if something could not be measured.
    """

    name: ClassVar[str] = "bench"
    usage: ClassVar[str] = "l4re bench [--quick] [--scenario NAME] [--peer NAME] [--placement P] ..."

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        """Say which arguments it takes."""
        what = parser.add_argument_group("what to measure (each may be given several times)")
        what.add_argument("--list", action="store_true", help="print the names there are, and exit")
        what.add_argument("--scenario", metavar="NAME", action="append", help="only this scenario")
        what.add_argument("--peer", metavar="NAME", action="append", help="only this peer; l4re is one, too")
        what.add_argument(
            "--placement",
            choices=("two", "one", "free"),
            action="append",
            help="only a core for each side (two), all on one core (one), or where the scheduler wants (free)",
        )
        effort = parser.add_argument_group("how long")
        effort.add_argument("--quick", action="store_true", help="3 repetitions of 0.1 s, fixed placements only")
        effort.add_argument("--repetitions", metavar="N", type=_count, help="how often each is measured (default: 9)")
        effort.add_argument("--seconds", metavar="S", type=_seconds, help="how long a repetition takes (default: 0.5)")
        output = parser.add_argument_group("output")
        output.add_argument("--json", metavar="FILE", help="write all figures to FILE; -: to standard output, alone")
        output.add_argument("--plot", metavar="FILE.svg", help="draw the figures")
        output.add_argument("--from", metavar="FILE", dest="saved", help="show what --json wrote; measure nothing")

    @staticmethod
    def run(options: argparse.Namespace, words: Sequence[str]) -> int:
        """Measure, or show what was measured."""
        if words:
            options.parser.error(f"what is {words[0]!r}?")
        try:
            bench: Any = importlib.import_module("l4re_bench.command")
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "l4re_bench":
                raise
            print("l4re: the bench is not installed beside this package: pip install 'pyl4re[bench]'", file=sys.stderr)
            return _MISUSED
        try:
            status: int = bench.main(options)
            sys.stdout.flush()
        except bench.Misused as error:
            options.parser.error(str(error))
        except OSError as error:
            return leave_broken_output(error)
        return status


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return value
