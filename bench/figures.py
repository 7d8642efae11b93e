"""Figures: what a run found, as a value; a saved run is read back as the same one.

Everything that is shown, drawn or judged is made from figures, so a run of last year and the one that is going on
look alike.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .peers import OURS
from .run import Effort, Failed, Row
from .statistics import Figure, more_is_better

__all__ = ["Figures", "NotFigures", "load"]


class NotFigures(ValueError):
    """A file holds something else."""


@dataclass(slots=True)
class Figures:
    """The rows of one run, and what they depend on."""

    machine: dict[str, Any]
    versions: dict[str, str]
    effort: Effort
    #: Peers that are not on this machine, and why or how to get them.
    missing: dict[str, str] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    #: The run was stopped before its end.
    interrupted: bool = False

    def find(self, scenario: str, case: str, metric: str, placement: str, peer: str) -> Row | None:
        """Return the row, or None if that was not measured."""
        wanted = (scenario, case, metric, placement, peer)
        return next((row for row in self.rows if row[:5] == wanted), None)

    def ratio(self, row: Row) -> float | None:
        """How many times worse than ours, in the same group of the same run; None if that cannot be said."""
        other = self.find(row.scenario, row.case, row.metric, row.placement, OURS)
        if other is None:
            return None
        ours, theirs = other.figure.p50, row.figure.p50
        if more_is_better(row.metric):
            ours, theirs = theirs, ours
        return theirs / ours if ours > 0 and theirs > 0 else None

    def scenarios(self) -> list[str]:
        """Return the scenarios that have rows."""
        return list(dict.fromkeys(row.scenario for row in self.rows))

    def only(self, wanted: Callable[[Row | Failed], bool]) -> Figures:
        """Return the part whose rows are wanted."""
        rows, failed = list(filter(wanted, self.rows)), list(filter(wanted, self.failed))
        return Figures(self.machine, self.versions, self.effort, self.missing, rows, failed, self.interrupted)

    def as_dict(self) -> dict[str, Any]:
        """Return everything, for programs."""
        return {
            "machine": self.machine,
            "versions": self.versions,
            "effort": {"seconds": self.effort.seconds, "repetitions": self.effort.repetitions},
            "interrupted": self.interrupted,
            "missing": self.missing,
            "failed": [failed._asdict() for failed in self.failed],
            "rows": list(self._rows_as_dicts()),
        }

    def _rows_as_dicts(self) -> Iterator[dict[str, Any]]:
        for row in self.rows:
            ratio = self.ratio(row)
            yield {
                "scenario": row.scenario,
                "case": row.case,
                "metric": row.metric,
                "unit": row.unit,
                "placement": row.placement,
                "peer": row.peer,
                **{name: round(value, 3) for name, value in row.figure._asdict().items()},
                "ratio": None if ratio is None else round(ratio, 3),
            }


_KEY = ("scenario", "case", "metric", "placement", "peer", "unit")


def _number(value: Any) -> Any:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{value!r} is not a number")
    return value


def _words(value: Any) -> dict[str, str]:
    return {str(key): str(word) for key, word in value.items()}


def _figures(saved: Any) -> Figures:
    machine = dict(saved["machine"])
    if "used_by_others" in machine:
        _number(machine["used_by_others"])
    rows = [
        Row._make((*(str(row[name]) for name in _KEY), Figure._make(_number(row[name]) for name in Figure._fields)))
        for row in saved["rows"]
    ]
    return Figures(
        machine,
        _words(saved.get("versions", {})),
        Effort(**{name: _number(value) for name, value in saved["effort"].items()}),
        _words(saved.get("missing", {})),
        rows,
        [Failed(**_words(failed)) for failed in saved.get("failed", [])],
        bool(saved.get("interrupted", False)),
    )


def load(path: Path) -> Figures:
    """Read what ``as_dict`` once gave.

    Raises:
        OSError: the file cannot be read.
        NotFigures: it holds something else.
    """
    try:
        return _figures(json.loads(path.read_text("utf-8")))
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise NotFigures(f"{path} holds no figures of a run: {type(error).__name__}: {error}") from error
