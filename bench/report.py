"""The report: plain tables, readable at 100 columns; colours are for terminals."""

from __future__ import annotations

from collections.abc import Sequence

from .bars import judged
from .figures import Figures
from .peers import OURS
from .placement import SHOWN
from .run import Failed, Row
from .scenarios import SCENARIOS

__all__ = ["Report"]

_HEAD = ("peer", "p50", "p99", "mean", "p50 of repetitions", "x ours")
_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


class Report:
    """Texts made of the figures there are at that moment."""

    def __init__(self, figures: Figures, *, coloured: bool = False) -> None:
        self._figures = figures
        self._coloured = coloured

    def head(self) -> str:
        """Return what stands above all tables."""
        facts, effort = self._figures.machine, self._figures.effort
        lines = [
            f"{facts.get('date')}  {facts.get('cpu')}, {facts.get('cores')} cores, Linux {facts.get('kernel')}, "
            f"Python {facts.get('python')}",
            f"Medians over {effort.repetitions} repetitions of {effort.seconds:g} s, in turns between the peers, "
            "fresh processes each.",
            "two cores: one for each side; one core: all on the same; free: the scheduler decides.",
            "x ours: how many times worse than l4re, in the same turns.",
        ]
        if self._figures.missing:
            lines.append("Missing:")
            width = max(map(len, self._figures.missing))
            lines += [f"  {peer:<{width}}  {why}" for peer, why in self._figures.missing.items()]
        return "\n".join(lines)

    def table(self, scenario: str) -> str:
        """Return the table of one scenario."""
        rows = [row for row in self._figures.rows if row.scenario == scenario]
        lines = [self._line(row) for row in rows]
        widths = [max(len(line[column]) for line in (_HEAD, *lines)) for column in range(len(_HEAD))]
        about = SCENARIOS[scenario].about if scenario in SCENARIOS else ""
        shown = ["", f"{self._styled(scenario, 'bold')}: {about}", self._styled("  " + _aligned(_HEAD, widths), "dim")]
        group: object = None
        for row, line in zip(rows, lines, strict=True):
            if (row.case, row.metric, row.placement) != group:
                group = (row.case, row.metric, row.placement)
                words = (row.case, row.metric, SHOWN.get(row.placement, row.placement), _shown_unit(row))
                shown.append("  " + ", ".join(filter(None, words)))
            text = "  " + _aligned(line, widths)
            shown.append(self._styled(text, "bold") if row.peer == OURS else text)
        return "\n".join(shown)

    def _line(self, row: Row) -> tuple[str, ...]:
        figure, ratio = row.figure, self._figures.ratio(row)
        one = row.unit != "us"  # a repetition gives one number
        return (
            row.peer,
            _number(figure.p50),
            "" if one else _number(figure.p99),
            "" if one else _number(figure.mean),
            f"{_number(figure.low)}..{_number(figure.high)}",
            "" if ratio is None or row.peer == OURS else _number(ratio),
        )

    def failure(self, failed: Failed) -> str:
        """Return what to say about a peer that failed."""
        where = ", ".join(filter(None, (failed.scenario, failed.case, SHOWN.get(failed.placement))))
        return f"{self._styled('failed', 'red')}: {where}: {failed.peer}: {failed.why}"

    def promises(self) -> str:
        """Return what was promised beside what was measured; empty if no promise was measured."""
        verdicts = judged(self._figures)
        if not verdicts:
            return ""
        lines = [("what is promised", "measured", "bar", "goal", "")]
        lines += [
            (
                verdict.promise.what,
                verdict.shown(verdict.measured),
                verdict.bound(verdict.promise.bar),
                "" if verdict.promise.goal is None else verdict.bound(verdict.promise.goal),
                verdict.word,
            )
            for verdict in verdicts
        ]
        widths = [max(len(line[column]) for line in lines) for column in range(5)]
        shown = ["", self._styled(_aligned(lines[0], widths), "dim")]
        for line, verdict in zip(lines[1:], verdicts, strict=True):
            done = verdict.word == "goal" or verdict.promise.goal is None
            colour = "red" if verdict.word == "missed" else "green" if done else "yellow"
            shown.append(f"{_aligned(line[:-1], widths)}  {self._styled(verdict.word, colour)}")
        met = sum(verdict.word != "missed" for verdict in verdicts)
        shown.append(f"{met} of {len(verdicts)} bars met.")
        return "\n".join(shown)

    def foot(self) -> str:
        """Return what stands below all tables."""
        share = self._figures.machine.get("used_by_others")
        lines = [] if share is None else [f"Others used {share:.0%} of the machine meanwhile."]
        if self._figures.failed:
            lines.append(self._styled(f"{len(self._figures.failed)} failed:", "red"))
            lines += [
                f"  {' '.join(filter(None, failed[:3]))}: {failed.peer}: {(failed.why.splitlines() or [''])[-1]}"
                for failed in self._figures.failed
            ]
        if self._figures.interrupted:
            lines.append("Stopped before its end.")
        return "\n".join(("", *lines))

    def _styled(self, text: str, style: str) -> str:
        return f"\033[{_STYLES[style]}m{text}\033[0m" if self._coloured and text else text


def _shown_unit(row: Row) -> str:
    """Return what the name of the metric does not say."""
    return "" if row.metric.endswith("/s") else row.unit.replace("us", "µs")


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = (cell.rjust(width) if column else cell.ljust(width)
                    for column, (cell, width) in enumerate(zip(cells, widths, strict=False)))  # fmt: skip
    return ("  " + "  ".join((first, *rest))).rstrip()
