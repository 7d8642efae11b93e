"""Statistics: what remains of many samples, and what the name of a metric says about it.

Each repetition leaves its own median and 99th percentile; a figure is the median of those over the repetitions.
A lucky or a disturbed repetition moves neither much, and how far they lie apart is shown beside them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, median
from typing import NamedTuple

__all__ = ["Figure", "Summary", "figure_of", "more_is_better", "scalar", "summary_of"]


class Summary(NamedTuple):
    """One repetition: microseconds, or whatever the metric's unit is."""

    p50: float
    p99: float
    mean: float
    samples: int


class Figure(NamedTuple):
    """All repetitions of one peer, case and placement."""

    p50: float
    p99: float
    mean: float
    low: float  # the lowest and the highest median of a repetition
    high: float
    repetitions: int
    samples: int


def summary_of(nanoseconds: Sequence[int]) -> Summary:
    """Return the summary of time samples, in microseconds."""
    ordered = sorted(nanoseconds)
    last = len(ordered) - 1
    at = min(last, math.ceil(0.99 * len(ordered)))
    return Summary(ordered[last // 2] / 1e3, ordered[at] / 1e3, fmean(ordered) / 1e3, len(ordered))


def scalar(value: float, count: int = 1) -> Summary:
    """Return the summary of a repetition that gives one number."""
    return Summary(value, value, value, count)


def figure_of(repetitions: Sequence[Summary]) -> Figure:
    """Return medians over repetitions."""
    p50s = [each.p50 for each in repetitions]
    return Figure(
        median(p50s),
        median(each.p99 for each in repetitions),
        median(each.mean for each in repetitions),
        min(p50s),
        max(p50s),
        len(repetitions),
        sum(each.samples for each in repetitions),
    )


def more_is_better(metric: str) -> bool:
    """Whether a larger figure of this metric is the better one."""
    return metric.endswith(("/s", "share"))
