"""What the commands about boot scripts have in common: the script, the rom folders, the script's own words."""

from __future__ import annotations

import argparse

__all__ = ["add_script", "add_words", "script_of"]


def add_script(parser: argparse.ArgumentParser, about: str) -> None:
    """Take SCRIPT and --rom."""
    parser.add_argument("script", metavar="SCRIPT", nargs="?", help=about)
    parser.add_argument(
        "--rom",
        metavar="DIR",
        nargs="+",
        action="extend",
        default=[],
        help="where programs and modules are looked for, in this order (default: the script's own folder)",
    )


def add_words(parser: argparse.ArgumentParser) -> None:
    """Show that words may come behind ``--``, which `main` has taken out."""
    parser.add_argument("words", metavar="-- ARGS", nargs="*", help="arg[1], arg[2], ... in the script")


def script_of(options: argparse.Namespace) -> str | None:
    """Return the script, None if there is none; ends the program if there are words that mean nothing."""
    if options.script is None and len(options.rom) > 1:
        options.script = options.rom.pop()  # `l4re run --rom DIR SCRIPT`: the last word is the script
    if options.words:
        options.parser.error(f"what is {options.words[0]!r}? Arguments for the script come behind --")
    script: str | None = options.script
    return script
