"""``l4re run``: a boot script and the system it starts."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, TypedDict

from l4re.cli.broken import leave_broken_output
from l4re.cli.scripts import add_script, add_words, script_of

if TYPE_CHECKING:
    from l4re.moe import Root

__all__ = ["Run"]

_MISUSED = 2


class _More(TypedDict):
    rom: Sequence[str]
    arguments: Sequence[str]
    environment: dict[str, str]
    leave: bool
    timeout: float | None
    root: Root


_UNITS = {unit: 1 << 10 * step for step, unit in enumerate(("", "K", "M", "G", "T"))}


class Run:
    """Run a boot script and everything it starts, until all of it has ended.

    SCRIPT is written in Lua, in the language of L4Re's loader ned; or it is a *.py that uses l4re.Loader. The
    programs it names as rom/NAME are looked for in the rom folders: a file NAME, or NAME.py, which is run with this
    Python.

    What the programs print comes out line by line under their tags. Ctrl-C ends all of them. The exit status is
    that of the first program that failed; 2 if the script could not be run, 124 if the time was up.
    """

    name: ClassVar[str] = "run"
    usage: ClassVar[str] = "l4re run [OPTIONS] SCRIPT [--rom DIR ...] [-- ARGS]"

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        """Say which arguments it takes."""
        add_script(parser, "the boot script")
        parser.add_argument(
            "-e",
            "--execute",
            metavar="STMT",
            dest="statements",
            action="append",
            default=[],
            help="run this statement before the script, or without one; several are run in order",
        )
        parser.add_argument(
            "--env",
            metavar="NAME=VALUE",
            dest="variables",
            type=_variable,
            action="append",
            default=[],
            help="a variable in the environment of every program; what the script says comes first",
        )
        parser.add_argument(
            "--timeout",
            metavar="SECONDS",
            type=_seconds,
            help="end everything after so many seconds, with the exit status 124",
        )
        parser.add_argument("--dry-run", action="store_true", help="show what would be started, as `l4re check` does")
        stay = parser.add_mutually_exclusive_group()
        stay.add_argument(
            "--exit",
            dest="leave",
            action="store_true",
            help="be done with the script at its end: programs go on, exit handlers do not run",
        )
        stay.add_argument(
            "--wait-and-exit", action="store_true", help="end once no program runs any more (this is what happens)"
        )
        parser.add_argument(
            "--quota",
            metavar="SIZE",
            type=_size,
            help="bytes of dataspaces that all programs have together, as in 512M (default: what the machine has)",
        )
        parser.add_argument(
            "--memory-max",
            metavar="SIZE",
            type=_size,
            help="bytes of memory of any kind, which the kernel enforces (needs a cgroup of ours: see l4re doctor)",
        )
        parser.add_argument(
            "--no-color", dest="color", action="store_false", help="no colours, also on a terminal (as NO_COLOR does)"
        )
        add_words(parser)

    @staticmethod
    def run(options: argparse.Namespace, words: Sequence[str]) -> int:
        """Run the script."""
        script, rom = script_of(options), options.rom
        if script is None and not options.statements:
            options.parser.error("SCRIPT is missing")
        if options.dry_run:
            return _check(script, rom, words, options)
        from l4re.errors import L4Error
        from l4re.log import Console
        from l4re.moe import Root
        from l4re.ned.errors import ScriptError

        console = Console(colours=None if options.color else False, on_broken=lambda: root.stop(signal.SIGPIPE))
        try:
            root = Root(console, quota=options.quota, memory_max=options.memory_max)
        except L4Error as error:
            print(f"l4re: {error}", file=sys.stderr)
            return _MISUSED
        try:
            status = _run(script, rom, words, options, root)
        except (ScriptError, L4Error) as error:
            print(f"l4re: {error}", file=sys.stderr)
            status = _MISUSED
        except OSError as error:
            print(f"l4re: {error.filename or script}: {error.strerror}", file=sys.stderr)
            status = _MISUSED
        finally:
            root.close()
        return status if console.error is None else leave_broken_output(console.error)


def _check(script: str | None, rom: Sequence[str], words: Sequence[str], options: argparse.Namespace) -> int:
    from l4re.cli.check import Check

    if script is None or script.endswith(".py") or options.statements:
        options.parser.error("--dry-run takes a script in Lua, and no statements")
    parser = argparse.ArgumentParser()
    Check.arguments(parser)
    folders = [word for folder in rom for word in ("--rom", folder)]
    wanted = parser.parse_args([str(script), *folders])
    wanted.parser, wanted.color = options.parser, options.color
    return Check.run(wanted, words)


def _run(script: str | None, rom: Sequence[str], words: Sequence[str], options: argparse.Namespace, root: Root) -> int:
    more: _More = {
        "rom": rom,
        "arguments": words,
        "environment": dict(options.variables),
        "leave": options.leave,
        "timeout": options.timeout,
        "root": root,
    }
    if script is not None and script.endswith(".py"):
        from l4re.ned.python_script import run_python

        if options.statements:
            options.parser.error(f"-e takes Lua, and {script} is Python")
        return run_python(script, **more)
    from l4re.ned import run

    return run(script, statements=options.statements, **more)


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is no variable, as in NAME=VALUE")
    return name, value


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: a number of seconds, as in 2.5")
    return seconds


def _size(text: str) -> int:
    number, unit = (text[:-1], text[-1:].upper()) if text[-1:].isalpha() else (text, "")
    if not (number.isascii() and number.isdecimal()) or unit not in _UNITS or not int(number):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: a number of bytes, or of K, M, G, T as in 512M")
    return int(number) * _UNITS[unit]
