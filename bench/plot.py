"""Plots: bars of medians by placement, and lines where the cases of a scenario count something. Needs matplotlib.

Times are on a logarithmic axis, since peers differ by factors. The same figures make the same file, byte by byte.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas

from .figures import Figures
from .peers import OURS, PEERS
from .run import Row

__all__ = ["Series", "draw", "series_of"]

_PLACES = {"two": "two cores", "one": "one core", "free": "free"}
_COLOURS = {"two": "#3b6ea5", "one": "#e0943a", "free": "#8a8f98"}
#: For lines, in the order of the peers; ours is black.
_LINES = ("#3b6ea5", "#e0943a", "#4d9a5b", "#b04a4a", "#7d5fa8", "#8a6d4f", "#cc79a7", "#6b7280", "#b5b035", "#3aa6b9")
_COUNT = re.compile(r"(\d[\d,]*)(?: ?(B|bytes|KiB|MiB|GiB)\b)?")
_BYTES = {"": 1, "B": 1, "bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_STYLE = {
    "svg.hashsalt": "l4re",
    "svg.fonttype": "none",  # text stays text
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
}
_WIDE = 7.0  # inches of a panel


class Series(NamedTuple):
    """Rows of one scenario, metric and placement whose cases differ by one number only."""

    scenario: str
    metric: str
    placement: str
    unit: str
    what: str  # that number counts
    points: dict[str, list[tuple[float, float]]]  # by peer


class _Bars(NamedTuple):
    """Rows of one case and metric."""

    title: str
    unit: str
    peers: tuple[str, ...]
    rows: tuple[Row, ...]


def draw(figures: Figures, path: Path) -> None:
    """Draw all figures into one SVG file."""
    series = series_of(figures)
    bars = list(_bars(figures))
    heights = [*(0.9 + 0.22 * len(each.rows) for each in bars), *(3.0 for _ in series)]
    with style.context(["default", _STYLE]):  # whatever the user's own style is
        columns = 2 if len(heights) > 1 else 1
        grid = [heights[n : n + columns] for n in range(0, len(heights), columns)]
        tallest = [max(row) for row in grid]
        canvas = Canvas(figsize=(_WIDE * columns, sum(tallest) + 0.5), layout="constrained")
        FigureCanvasSVG(canvas)
        axes = canvas.subplots(len(grid), columns, squeeze=False, height_ratios=tallest)
        places: list[Axes] = list(axes.flat)
        for one, ax in zip(bars, places, strict=False):
            _draw_bars(one, ax)
        for line, ax in zip(series, places[len(bars) :], strict=False):
            _draw_lines(line, ax)
        for ax in places[len(heights) :]:
            ax.set_axis_off()
        facts = figures.machine
        canvas.suptitle(
            f"l4re bench, {facts.get('date')}, {facts.get('cpu')}, {facts.get('cores')} cores, "
            f"Python {facts.get('python')}",
            x=0.01,
            ha="left",
            fontsize=10,
        )
        canvas.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def series_of(figures: Figures) -> list[Series]:
    """Return what can be drawn as cost against a size or a count."""
    found: dict[tuple[str, str, str, str, str], dict[str, list[tuple[float, float]]]] = {}
    for row in figures.rows:
        match = _COUNT.search(row.case)
        if match and row.figure.p50 > 0:
            count = int(match[1].replace(",", "")) * _BYTES[match[2] or ""]
            rest = f"{row.case[: match.start()]} {row.case[match.end() :]}".strip(" ,").removesuffix("s")
            what = "bytes" if match[2] else ""
            what = ", ".join(filter(None, (what, rest))) or row.scenario
            peers = found.setdefault((row.scenario, row.metric, row.placement, row.unit, what), {})
            peers.setdefault(row.peer, []).append((count, row.figure.p50))
    return [
        Series(*key, {peer: sorted(points) for peer, points in peers.items() if len(points) > 1})
        for key, peers in found.items()
        if max(len({count for count, _ in points}) for points in peers.values()) > 1
    ]


def _bars(figures: Figures) -> Sequence[_Bars]:
    def case(row: Row) -> tuple[str, str, str]:
        return row.scenario, row.case, row.metric

    found = []
    for (scenario, name, metric), group in groupby(sorted(figures.rows, key=case), case):
        rows = tuple(row for row in group if row.figure.p50 > 0)
        if rows:
            peers = tuple(dict.fromkeys(row.peer for row in rows))
            found.append(_Bars(", ".join(filter(None, (scenario, name, metric))), rows[0].unit, peers, rows))
    order = {name: place for place, name in enumerate(figures.scenarios())}
    return sorted(found, key=lambda bars: order[bars.rows[0].scenario])


def _draw_bars(bars: _Bars, ax: Axes) -> None:
    at, ticks = 0.0, []
    shown = set()
    for peer in bars.peers:
        rows = [row for row in bars.rows if row.peer == peer]
        ticks.append(at + (len(rows) - 1) / 2)
        for row in rows:
            value, place = row.figure.p50, row.placement
            label = _PLACES.get(place, place) if place not in shown else None
            shown.add(place)
            ax.barh(at, value, height=0.9, color=_COLOURS.get(place, "#555555"), label=label)
            ax.annotate(_short(value), (value, at), (3, 0), textcoords="offset points", va="center", fontsize=7)
            at += 1
        at += 0.6
    ax.set_yticks(ticks, bars.peers)
    for tick, peer in zip(ax.get_yticklabels(), bars.peers, strict=True):
        tick.set_fontweight("bold" if peer == OURS else "normal")
    ax.invert_yaxis()
    ax.set_title(bars.title)
    values = [row.figure.p50 for row in bars.rows]
    if bars.unit:
        ax.set_xscale("log")
        ax.set_xlim(min(values) / 3, max(values) * 3)
    else:
        ax.set_xlim(0, 1.1 * max(1.0, *values))
    ax.set_xlabel(_unit(bars.unit))
    ax.legend(fontsize=7, frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0)


def _draw_lines(series: Series, ax: Axes) -> None:
    order = list(PEERS)
    for peer, points in series.points.items():
        place = order.index(peer) if peer in order else len(order)
        ax.plot(
            *zip(*points, strict=True),
            color="black" if peer == OURS else _LINES[place % len(_LINES)],
            linestyle=("-", "--", ":")[place // len(_LINES) % 3],
            linewidth=2.2 if peer == OURS else 1.3,
            marker="o",
            markersize=3.5,
            label=peer,
        )
    counts = sorted({count for points in series.points.values() for count, _ in points})
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(counts, [_count(count) if series.what.startswith("bytes") else f"{count:g}" for count in counts])
    ax.minorticks_off()
    ax.set_xlabel(series.what)
    ax.set_ylabel(_unit(series.unit))
    ax.set_title(", ".join(filter(None, (series.scenario, series.metric, _PLACES.get(series.placement)))))
    ax.grid(alpha=0.25)
    ax.legend(fontsize=7, frameon=False)


def _unit(unit: str) -> str:
    return {"us": "µs, median", "1/s": "per second"}.get(unit, unit)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _count(size: float) -> str:
    for unit in ("GiB", "MiB", "KiB"):
        if size >= _BYTES[unit]:
            return f"{size / _BYTES[unit]:g} {unit}"
    return f"{size:g}"
