"""``l4re run``: a boot script and the system it starts."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from typing import ClassVar

from l4re.cli.broken import leave_broken_output

__all__ = ["Run"]

_MISUSED = 2
_UNITS = {unit: 1 << 10 * step for step, unit in enumerate(("", "K", "M", "G", "T"))}


class Run:
    """Run a boot script and everything it starts, until all of it has ended.

    SCRIPT is written in Lua, in the language of L4Re's loader ned. The programs it names as rom/NAME are looked
    for in the rom folders: a file NAME, or NAME.py, which is run with this Python.

    What the programs print comes out line by line under their tags. Ctrl-C ends all of them. The exit status is
    that of the first program that failed; 2 if the script could not be run.
    """

    name: ClassVar[str] = "run"
    usage: ClassVar[str] = "l4re run SCRIPT [--rom DIR ...] [--quota SIZE] [--memory-max SIZE] [--no-color] [-- ARGS]"

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        """Say which arguments it takes."""
        parser.add_argument("script", metavar="SCRIPT", nargs="?", help="the boot script")
        parser.add_argument(
            "--rom",
            metavar="DIR",
            nargs="+",
            action="extend",
            default=[],
            help="where programs and modules are looked for, in this order (default: the script's own folder)",
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
        parser.add_argument("words", metavar="-- ARGS", nargs="*", help="arg[1], arg[2], ... in the script")

    @staticmethod
    def run(options: argparse.Namespace, words: Sequence[str]) -> int:
        """Run the script."""
        script, rom = options.script, options.rom
        if script is None and len(rom) > 1:
            script = rom.pop()  # `l4re run --rom DIR SCRIPT`: the last word is the script
        if script is None:
            options.parser.error("SCRIPT is missing")
        if options.words:
            options.parser.error(f"what is {options.words[0]!r}? Arguments for the script come behind --")
        from l4re.errors import L4Error
        from l4re.log import Console
        from l4re.moe import Root
        from l4re.ned import ScriptError
        from l4re.ned import run as run_script

        console = Console(colours=None if options.color else False, on_broken=lambda: root.stop(signal.SIGPIPE))
        try:
            root = Root(console, quota=options.quota, memory_max=options.memory_max)
        except L4Error as error:
            print(f"l4re: {error}", file=sys.stderr)
            return _MISUSED
        try:
            status = run_script(script, rom=rom, arguments=words, root=root)
        except (ScriptError, L4Error) as error:
            print(f"l4re: {error}", file=sys.stderr)
            status = _MISUSED
        except OSError as error:
            print(f"l4re: {error.filename or script}: {error.strerror}", file=sys.stderr)
            status = _MISUSED
        finally:
            root.close()
        return status if console.error is None else leave_broken_output(console.error)


def _size(text: str) -> int:
    number, unit = (text[:-1], text[-1:].upper()) if text[-1:].isalpha() else (text, "")
    if not (number.isascii() and number.isdecimal()) or unit not in _UNITS or not int(number):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: a number of bytes, or of K, M, G, T as in 512M")
    return int(number) * _UNITS[unit]
