"""The report: a plain table for people, JSON for programs."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .peers import OURS
from .run import Plan, Row
from .scenarios import SCENARIOS

__all__ = ["Report", "machine"]

_HEAD = ("case", "cores", "peer", "p50", "p99", "mean", "p50 of repetitions", "x ours")


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    model = "unknown"
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


class Report:
    """Rows as they come, and what they amount to."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.rows: list[Row] = []
        self.machine = machine()

    def ratio(self, row: Row) -> float | None:
        """How many times worse than ours, in the same group of the same run; None without ours."""
        for other in self.rows:
            same = (other.scenario, other.case, other.metric, other.placement)
            if other.peer == OURS and same == (row.scenario, row.case, row.metric, row.placement):
                ours, theirs = other.figure.p50, row.figure.p50
                if row.metric.endswith(("/s", "share")):
                    ours, theirs = theirs, ours
                return theirs / ours if ours > 0 and theirs > 0 else None
        return None

    def head(self) -> str:
        """Return what stands above all tables."""
        facts, effort = self.machine, self.plan.effort
        return (
            f"{facts['date']}  {facts['cpu']}, {facts['cores']} cores, Linux {facts['kernel']}, "
            f"Python {facts['python']}, load {facts['load'][0]}\n"
            f"Medians over {effort.repetitions} repetitions of {effort.seconds:g} s, in turns between the peers, fresh "
            f"processes each; microseconds unless it says otherwise.\n"
            f"two: a core for each side; one: all on one core; free: the scheduler decides."
        )

    def table(self, scenario: str) -> str:
        """Return the table of one scenario."""
        lines: list[tuple[str, ...]] = [_HEAD]
        for row in self.rows:
            if row.scenario != scenario:
                continue
            figure, ratio = row.figure, self.ratio(row)
            lines.append(
                (
                    ", ".join(
                        part for part in (row.case, row.metric, SCENARIOS[scenario].units.get(row.metric)) if part
                    )
                    or "-",
                    row.placement,
                    row.peer,
                    _number(figure.p50),
                    _number(figure.p99),
                    _number(figure.mean),
                    f"{_number(figure.low)}..{_number(figure.high)}",
                    "-" if ratio is None or row.peer == OURS else f"{ratio:.2f}",
                )
            )
        widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
        shown = [f"\n{scenario}: {SCENARIOS[scenario].about}"]
        group = None
        for number, line in enumerate(lines):
            if number and line[:2] != group:
                group = line[:2]
                shown.append("  " + "  ".join("-" * width for width in widths))
            cells = [text.ljust(width) if column < 3 else text.rjust(width)
                     for column, (text, width) in enumerate(zip(line, widths, strict=True))]  # fmt: skip
            shown.append(("  " + "  ".join(cells)).rstrip())
        return "\n".join(shown)

    def as_dict(self, others: float) -> dict[str, Any]:
        """Return everything, for programs; ``others`` is the share of the machine that was not ours."""
        return {
            "machine": {**self.machine, "used_by_others": round(others, 3)},
            "effort": {"seconds": self.plan.effort.seconds, "repetitions": self.plan.effort.repetitions},
            "rows": [
                {
                    "scenario": row.scenario,
                    "case": row.case,
                    "metric": row.metric,
                    "unit": SCENARIOS[row.scenario].unit(row.metric),
                    "placement": row.placement,
                    "peer": row.peer,
                    **{name: round(value, 3) for name, value in row.figure._asdict().items()},
                    "ratio": None if (ratio := self.ratio(row)) is None else round(ratio, 3),
                }
                for row in self.rows
            ],
        }

    def scenarios(self) -> Sequence[str]:
        """Return the scenarios that have rows."""
        return list(dict.fromkeys(row.scenario for row in self.rows))
