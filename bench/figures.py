"""Figures: what a run found, as a value; a saved run is read back as the same one.

Everything that is shown, drawn or judged is made from figures, so a run of last year and the one that is going on
look alike.
"""

from __future__ import annotations

import json
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


def _figure(row: dict[str, Any]) -> Figure:
    values = [row[name] for name in Figure._fields]
    if not all(isinstance(value, int | float) for value in values):
        raise TypeError(f"{values} are not all numbers")
    return Figure._make(values)


def load(path: Path) -> Figures:
    """Read what ``as_dict`` once gave.

    Raises:
        OSError: the file cannot be read.
        NotFigures: it holds something else.
    """
    try:
        saved = json.loads(path.read_text())
        return Figures(
            saved["machine"],
            saved.get("versions", {}),
            Effort(**saved["effort"]),
            saved.get("missing", {}),
            [Row._make((*(str(row[name]) for name in _KEY), _figure(row))) for row in saved["rows"]],
            [Failed(**failed) for failed in saved.get("failed", [])],
            saved.get("interrupted", False),
        )
    except (UnicodeDecodeError, json.JSONDecodeError, LookupError, TypeError, AttributeError) as error:
        raise NotFigures(f"{path} holds no figures of a run: {type(error).__name__}: {error}") from error
