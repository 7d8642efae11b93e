"""``l4re check``: what a boot script would start, without starting it."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from l4re.cli.broken import leave_broken_output
from l4re.cli.scripts import add_script, add_words, script_of

if TYPE_CHECKING:
    from l4re.ned.plan import Plan
    from l4re.ned.plan_rules import Rule

__all__ = ["Check"]

_REFUSED, _MISUSED = 1, 2


class Check:
    """Show what a boot script would start and who could reach whom, without starting anything.

    SCRIPT is evaluated as `l4re run` does it, but nothing is started and no file is written: every object answers
    as if it were there, programs end at once with success and need not exist, what the script prints goes to
    standard error. The plan that comes out has the tasks, the capabilities each would start with and their rights,
    its log, and which task could call which over which channel. SCRIPT may also be a plan that --json has written.

    Remarks tell what the script cannot know or what looks wrong: a channel that nobody serves, a program that is
    in no rom folder, a field that does not exist.

    The exit status is 1 if something is possible that --never forbids, and 2 if the script has a mistake or the
    question makes no sense.
    """

    name: ClassVar[str] = "check"
    usage: ClassVar[str] = (
        "l4re check SCRIPT [--rom DIR ...] [--never RULE ...] [--diff OLD] [--json | --dot] [-- ARGS]"
    )

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        """Say which arguments it takes."""
        add_script(parser, "the boot script, or a plan as JSON")
        parser.add_argument(
            "--with",
            dest="given",
            metavar="NAME",
            action="append",
            default=[],
            help="one more name in L4.Env, such as vesa",
        )
        parser.add_argument("--arch", metavar="ARCH", help="what L4.Info.arch() tells (default: this machine's)")
        rules = parser.add_argument_group("rules")
        rules.add_argument(
            "--never",
            metavar="RULE",
            action="append",
            default=[],
            help="'A calls B': A starts with a capability of a channel that B serves; 'A writes NAME': A starts with "
            "w on the dataspace that some task knows as NAME. Exit status 1, and through what, if that is so",
        )
        rules.add_argument(
            "--delegation",
            action="store_true",
            help="count also what could be handed on: whoever can talk to each other can hand on what they hold",
        )
        output = parser.add_argument_group("output")
        output.add_argument("--json", action="store_true", help="the plan as JSON")
        output.add_argument("--dot", action="store_true", help="the picture, in the language of Graphviz")
        output.add_argument("--svg", metavar="FILE", help="write the picture to FILE")
        output.add_argument(
            "--diff", metavar="OLD", help="only what is different from OLD, a script or a plan that --json has written"
        )
        output.add_argument(
            "--no-color", dest="color", action="store_false", help="no colours, also on a terminal (as NO_COLOR does)"
        )
        add_words(parser)

    @staticmethod
    def run(options: argparse.Namespace, words: Sequence[str]) -> int:
        """Make the plan, show it, and judge it."""
        script = script_of(options)
        if script is None:
            options.parser.error("SCRIPT is missing")
        assert script is not None  # the parser does not come back
        if script.endswith(".py"):
            options.parser.error(
                f"{script} is Python; only scripts in Lua can be evaluated without doing what they say"
            )
        if sum((options.json, options.dot, options.diff is not None)) > 1:
            options.parser.error("--json, --dot and --diff each have standard output for themselves")
        if options.delegation and not options.never:
            options.parser.error("--delegation says how --never counts, and there is no --never")
        from l4re.errors import L4Error
        from l4re.ned import ScriptError
        from l4re.ned.plan_rules import Rule, breaches

        # There is nothing to clean up; a script that does not end is ended by Ctrl-C wherever it is.
        before = signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            rules = tuple(map(Rule.parse, options.never))
            old = None if options.diff is None else _plan(options.diff, options, words)
            plan = _plan(script, options, words)
            broken = [(rule, ways) for rule in rules if (ways := breaches(plan, rule, delegation=options.delegation))]
            if options.svg is not None:
                from l4re.ned.plan_picture import svg

                Path(options.svg).write_text(svg(plan))
        except ScriptError as error:
            print(f"l4re: {error}", file=sys.stderr)
            for line in error.stack.splitlines():
                print(f"    {line}", file=sys.stderr)
            return _MISUSED
        except L4Error as error:
            print(f"l4re: {error}", file=sys.stderr)
            return _MISUSED
        except OSError as error:
            print(f"l4re: {error.filename or script}: {error.strerror}", file=sys.stderr)
            return _MISUSED
        finally:
            signal.signal(signal.SIGINT, before)
        try:
            _show(plan, old, options)
            sys.stdout.flush()
        except OSError as error:
            return leave_broken_output(error)
        return _judge(rules, broken, options)


def _plan(path: str, options: argparse.Namespace, words: Sequence[str]) -> Plan:
    from l4re.ned.machine import Machine
    from l4re.ned.plan import Plan
    from l4re.ned.planner import plan_of
    from l4re.ned.script import read_script

    text = read_script(path)
    if text.lstrip().startswith(b"{"):
        from l4re.errors import InvalidArgument

        try:
            return Plan.read(json.loads(text))
        except ValueError as error:
            raise InvalidArgument(f"{path}: {error}") from error
    machine = None if options.arch is None else Machine.of(options.arch)
    return plan_of(path, rom=options.rom, arguments=words, given=options.given, machine=machine)


def _coloured(options: argparse.Namespace, number: int) -> bool:
    return bool(options.color) and not os.environ.get("NO_COLOR") and os.isatty(number)


def _show(plan: Plan, old: Plan | None, options: argparse.Namespace) -> None:
    from l4re.ned.plan_text import Paint, differences, plan_text

    paint = Paint(coloured=_coloured(options, 1))
    if options.json:
        print(json.dumps(plan.as_dict(), indent=2, ensure_ascii=False))
    elif options.dot:
        from l4re.ned.plan_picture import dot

        print(dot(plan), end="")
    elif old is not None:
        for line in differences(old, plan, paint):
            print(line)
    else:
        print(plan_text(plan, paint), end="")


def _judge(rules: Sequence[Rule], broken: Sequence[tuple[Rule, Sequence[str]]], options: argparse.Namespace) -> int:
    from l4re.ned.plan_text import Paint

    paint = Paint(coloured=_coloured(options, 2))
    for rule, ways in broken:
        print(paint.bad(f"l4re: never {rule}: but it can"), file=sys.stderr)
        for way in ways:
            print(f"    {way}", file=sys.stderr)
    return _REFUSED if broken else 0
