"""``l4re doctor``: what this machine can do, and what to do about the rest."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Final

from l4re.cli.broken import leave_broken_output
from l4re.cli.style import Style

if TYPE_CHECKING:
    from l4re.linux.machine import Finding

__all__ = ["Doctor"]

_WHAT: Final = 21
_VERDICT: Final = 8
#: What an optional package brings.
_PACKAGES: Final = {"lupa": "boot scripts (l4re run)", "numpy": "arrays (Region.ndarray, typed arguments)"}


class Doctor:
    """Say what this machine can do for l4re.

    Each line is one thing, and how it is: "ok", "limited" (all works, within what is said), or "missing" (l4re does
    not work). Behind an arrow stands what can be done about it. Nothing is changed.

    The exit status is 1 if something is missing.
    """

    name: ClassVar[str] = "doctor"
    usage: ClassVar[str] = "l4re doctor [--json] [--no-color]"

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        """Say which arguments it takes."""
        parser.add_argument("--json", action="store_true", help="a list of objects: what, verdict, seen, advice")
        parser.add_argument(
            "--no-color", dest="color", action="store_false", help="no colours, also on a terminal (as NO_COLOR does)"
        )

    @staticmethod
    def run(options: argparse.Namespace, words: Sequence[str]) -> int:
        """Look, and tell."""
        if words:
            options.parser.error(f"what is {words[0]!r}?")
        from l4re.linux.machine import Verdict, examine

        found = [*examine(), *_packages()]
        try:
            if options.json:
                import json

                print(json.dumps([{**each._asdict(), "verdict": each.verdict.value} for each in found], indent=2))
            else:
                style = Style.of(sys.stdout, wanted=options.color)
                print("\n".join(_line(each, style) for each in found))
            sys.stdout.flush()
        except OSError as error:
            return leave_broken_output(error)
        return int(any(each.verdict is Verdict.MISSING for each in found))


def _packages() -> list[Finding]:
    from importlib.metadata import PackageNotFoundError, version

    from l4re.linux.machine import Finding, Verdict

    found: list[Finding] = []
    for name, use in _PACKAGES.items():
        try:
            found.append(Finding(name, Verdict.OK, f"{version(name)}: {use}"))
        except PackageNotFoundError:
            found.append(Finding(name, Verdict.LIMITED, f"not installed: no {use}", f"pip install {name}"))
    return found


def _line(finding: Finding, style: Style) -> str:
    colour = {"ok": style.green, "limited": style.yellow, "missing": style.red}[finding.verdict.value]
    line = f"{finding.what:<{_WHAT}} {colour(f'{finding.verdict.value:<{_VERDICT}}')} {finding.seen}"
    return f"{line}\n{'':<{_WHAT + _VERDICT + 2}}{style.dim('-> ' + finding.advice)}" if finding.advice else line
