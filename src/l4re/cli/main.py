"""Reading the command line."""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Sequence
from typing import ClassVar, Protocol

from l4re.cli.bench import Bench
from l4re.cli.broken import leave_broken_output
from l4re.cli.check import Check
from l4re.cli.doctor import Doctor
from l4re.cli.env import ShowEnv
from l4re.cli.prompt import NedPrompt
from l4re.cli.run import Run

__all__ = ["COMMANDS", "Command", "main"]


class Command(Protocol):
    """A sub-command: its docstring is its help."""

    name: ClassVar[str]
    usage: ClassVar[str]

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        """Say which arguments it takes."""

    @staticmethod
    def run(options: argparse.Namespace, words: Sequence[str]) -> int:
        """Do it; ``words`` are those behind ``--``. Returns the exit status."""


COMMANDS: tuple[type[Command], ...] = (Run, Check, NedPrompt, ShowEnv, Doctor, Bench)


class _Version(argparse.Action):
    """Looked up when asked for: reading the metadata of a distribution takes a while."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            number = version("pyl4re")
        except PackageNotFoundError:
            number = "(not installed)"
        print(f"l4re {number}")
        parser.exit()


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``l4re ARGUMENTS`` and return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    rest: list[str] = []
    if "--" in words:
        at = words.index("--")
        words, rest = words[:at], words[at + 1 :]
    parser = argparse.ArgumentParser(
        prog="l4re",
        description="L4Re's application model for ordinary Linux processes.",
        epilog="`l4re COMMAND --help` tells more.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, dest="command")
    for command in COMMANDS:
        about = inspect.getdoc(command) or ""
        one = commands.add_parser(
            command.name,
            help=about.split("\n", 1)[0].rstrip("."),
            description=about,
            usage=command.usage,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.arguments(one)
        one.set_defaults(do=command.run, parser=one)
    options = parser.parse_args(words)
    try:
        status: int = options.do(options, rest)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError as error:
        return leave_broken_output(error)
    return status
