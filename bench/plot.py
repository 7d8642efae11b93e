"""Plots: bars of medians by placement, and lines where the cases of a scenario count something. Needs matplotlib.

Times are on a logarithmic axis, since peers differ by factors. The same figures make the same file, byte by byte.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from .figures import Figures
from .peers import OURS, PEERS
from .placement import SHOWN
from .run import Row

__all__ = ["Series", "draw", "series_of"]

_COLOURS = {"two": "#3b6ea5", "one": "#e0943a", "free": "#8a8f98"}
#: For lines, in the order of the peers; ours is black.
_LINES = ("#3b6ea5", "#e0943a", "#4d9a5b", "#b04a4a", "#7d5fa8", "#8a6d4f", "#cc79a7", "#6b7280", "#b5b035", "#3aa6b9")
_COUNT = re.compile(r"(\d[\d,]*)(?: ?(B|bytes|KiB|MiB|GiB)\b)?")
_BYTES = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "bytes": 1, "B": 1, "": 1}
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
#: Inches: the width of a panel, what is around its bars, the height of one with lines, of one bar.
_WIDTH, _MARGIN, _LINES_HEIGHT, _BAR = 7.0, 0.75, 3.2, 0.17
_GAP = 0.6  # bars between two peers


class Series(NamedTuple):
    """Rows of one scenario, metric and placement whose cases differ by one number only."""

    scenario: str
    metric: str
    placement: str
    unit: str
    what: str  # that number counts
    rows: dict[str, dict[int, Row]]  # by peer, then by that number

    @property
    def height(self) -> float:
        """In inches."""
        return _LINES_HEIGHT


class _Bars(NamedTuple):
    """Rows of one scenario, case and metric."""

    title: str
    unit: str
    rows: dict[str, list[Row]]  # by peer

    @property
    def bars(self) -> float:
        """How many bars high it is."""
        return sum(map(len, self.rows.values())) + _GAP * (len(self.rows) - 1)

    @property
    def height(self) -> float:
        """In inches."""
        return _MARGIN + _BAR * self.bars


def draw(figures: Figures, path: Path) -> None:
    """Draw all figures into one SVG file.

    Raises:
        OSError: the file cannot be written.
    """
    series = series_of(figures)
    drawn = {row for one in series for rows in one.rows.values() for row in rows.values()}
    bars = _bars([row for row in figures.rows if row not in drawn and row.figure.p50 > 0])
    lines = [*_pairs(bars), *_pairs(series)] or [[]]
    heights = [max((panel.height for panel in line), default=1) for line in lines]
    with style.context(["default", _STYLE]):  # whatever the user's own style is
        canvas = Canvas(figsize=(2 * _WIDTH, sum(heights) + 0.4), layout="constrained")
        FigureCanvasSVG(canvas)
        places = canvas.subplots(len(lines), 2, squeeze=False, height_ratios=heights)
        for line, axes in zip(lines, places, strict=True):
            for ax in axes[len(line) :]:
                ax.set_axis_off()
            for panel, ax in zip(line, axes, strict=False):
                if isinstance(panel, Series):
                    _draw_lines(panel, ax)
                else:
                    _draw_bars(panel, ax, max(one.bars for one in line if isinstance(one, _Bars)))
        facts = figures.machine
        title = f"l4re bench, {facts.get('date')}, {facts.get('cpu')}, {facts.get('cores')} cores, "
        title += f"Linux {facts.get('kernel')}, Python {facts.get('python')}"
        canvas.suptitle(title, x=0.01, ha="left", fontsize=10)
        canvas.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def series_of(figures: Figures) -> list[Series]:
    """Return what can be drawn as cost against a size or a count."""
    found: dict[tuple[str, str, str, str, str], dict[str, dict[int, Row]]] = {}
    for row in figures.rows:
        match = _COUNT.search(row.case)
        if match and row.figure.p50 > 0:
            count = int(match[1].replace(",", "")) * _BYTES[match[2] or ""]
            rest = f"{row.case[: match.start()]} {row.case[match.end() :]}".strip(" ,")
            rest = rest and rest.removesuffix("s") + "s"  # 1 client, 2 clients
            what = ", ".join(filter(None, ("bytes" if match[2] else "", rest))) or row.scenario
            key = (row.scenario, row.metric, row.placement, row.unit, what)
            found.setdefault(key, {}).setdefault(row.peer, {})[count] = row
    return [Series(*key, peers) for key, peers in found.items() if len(set().union(*peers.values())) > 1]


def _bars(rows: list[Row]) -> list[_Bars]:
    found: dict[tuple[str, str, str], _Bars] = {}
    for row in rows:
        key = (row.scenario, row.case, row.metric)
        bars = found.setdefault(key, _Bars(", ".join(filter(None, key)), row.unit, {}))
        bars.rows.setdefault(row.peer, []).append(row)
    return list(found.values())


def _pairs(panels: Sequence[_Bars | Series]) -> list[Sequence[_Bars | Series]]:
    return [panels[at : at + 2] for at in range(0, len(panels), 2)]


def _draw_bars(bars: _Bars, ax: Axes, high: float) -> None:
    """Draw into ``high`` bars' space."""
    at, ticks = 0.0, []
    named = set()
    for rows in bars.rows.values():
        ticks.append(at + (len(rows) - 1) / 2)
        for row in rows:
            value, place = row.figure.p50, row.placement
            label = SHOWN.get(place, place) if place not in named else None
            named.add(place)
            ax.barh(at, value, height=0.88, color=_COLOURS.get(place, "#555555"), label=label)
            ax.annotate(_short(value), (value, at), (3, 0), textcoords="offset points", va="center", fontsize=7)
            at += 1
        at += _GAP
    ax.set_yticks(ticks, list(bars.rows))
    for tick, peer in zip(ax.get_yticklabels(), bars.rows, strict=True):
        tick.set_fontweight("bold" if peer == OURS else "normal")
    ax.set_ylim(high - 0.3, -0.7)
    ax.set_title(bars.title)
    values = [row.figure.p50 for rows in bars.rows.values() for row in rows]
    if bars.unit:
        ax.set_xscale("log")
        ax.set_xlim(10 ** math.floor(math.log10(min(values) / 1.2)), max(values) * 2)
        ax.xaxis.set_major_formatter(FuncFormatter(_tick))
        ax.xaxis.set_minor_locator(NullLocator())
    else:
        ax.set_xlim(0, 1.1 * max(1.0, *values))
    ax.set_xlabel(_unit(bars.unit))
    ax.legend(fontsize=7, frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0)


def _draw_lines(series: Series, ax: Axes) -> None:
    order = list(PEERS)
    for peer, rows in series.rows.items():
        place = order.index(peer) if peer in order else len(order)
        ax.plot(
            sorted(rows),
            [rows[count].figure.p50 for count in sorted(rows)],
            color="black" if peer == OURS else _LINES[place % len(_LINES)],
            linestyle=("-", "--", ":")[place // len(_LINES) % 3],
            linewidth=2.2 if peer == OURS else 1.3,
            marker="o",
            markersize=3.5,
            label=peer,
        )
    counts = sorted(set().union(*series.rows.values()))
    ax.set_xscale("symlog", base=2, linthresh=min(filter(None, counts)))  # there may be a 0
    ax.set_yscale("log" if series.unit else "linear")
    ax.set_xticks(counts, [_size(count) if series.what.startswith("bytes") else f"{count:,}" for count in counts])
    ax.xaxis.set_minor_locator(NullLocator())
    if series.unit:
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_minor_locator(NullLocator())
    else:
        ax.set_ylim(0)
    ax.yaxis.set_major_formatter(FuncFormatter(_tick))
    ax.set_xlabel(series.what)
    ax.set_ylabel(_unit(series.unit))
    ax.set_title(", ".join(filter(None, (series.scenario, series.metric, SHOWN.get(series.placement)))))
    ax.grid(alpha=0.25)
    ax.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


def _unit(unit: str) -> str:
    return {"us": "µs, median", "1/s": "per second"}.get(unit, unit)


def _tick(value: float, _: int | None) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _size(count: int) -> str:
    unit = next((unit for unit, size in _BYTES.items() if size > 1 and count >= size), "")
    return f"{count / _BYTES[unit]:g} {unit}".rstrip()
