"""Bars and plots: what is judged is what there is, and cases that count something make lines."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from l4re_bench.bars import PROMISES, Key, Promise, judged
from l4re_bench.figures import Figures
from l4re_bench.packages import EXTRA, INSTALL, how_to_get
from l4re_bench.peers import PEERS
from l4re_bench.report import Report
from l4re_bench.run import Effort, Row
from l4re_bench.scenarios import SCENARIOS
from l4re_bench.statistics import Figure

PROJECT = tomllib.loads((Path(__file__).parent.parent.parent / "pyproject.toml").read_text())["project"]


def row(scenario: str, case: str, peer: str, p50: float, metric: str = "", placement: str = "two") -> Row:
    return Row(scenario, case, metric, placement, peer, "us", Figure(p50, p50, p50, p50, p50, 1, 1))


def figures(*rows: Row) -> Figures:
    return Figures({}, {}, Effort(1, 1), rows=list(rows))


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.what)
def test_a_promise_names_what_the_bench_measures(promise: Promise) -> None:
    for key in filter(None, (promise.figure, promise.base)):
        scenario = SCENARIOS[key.scenario]
        assert key.case in scenario.cases
        assert key.placement in scenario.placements
        assert key.peer in PEERS
    if promise.goal is not None:
        assert promise.goal >= promise.bar if promise.at_least else promise.goal <= promise.bar


@pytest.mark.parametrize(("p50", "word"), [(0.9, "goal"), (1.0, "goal"), (2.5, "met"), (2.6, "missed")])
def test_a_promise_is_judged_by_its_bar_and_its_goal(p50: float, word: str) -> None:
    verdicts = {verdict.promise.what: verdict for verdict in judged(figures(row("call", "", "l4re", p50)))}
    assert list(verdicts) == ["raw call, two cores"], "what was not measured is not judged"
    assert verdicts["raw call, two cores"].word == word


def test_a_ratio_is_judged_within_one_run() -> None:
    found = judged(figures(row("call", "", "l4re", 2), row("call", "", "mp.Pipe", 80)))
    (faster,) = (verdict for verdict in found if "mp.Pipe" in verdict.promise.what)
    assert (faster.measured, faster.word, faster.shown(faster.measured), faster.bound(25)) == (
        40,
        "met",
        "40x",
        "≥ 25x",
    )
    assert faster.promise.figure == Key("call", "", "", "two", "mp.Pipe")


def test_tables_are_readable_at_100_columns() -> None:
    keys = {key for promise in PROMISES for key in (promise.figure, promise.base) if key}
    found = figures(*(Row(*key, "us", Figure._make([123_456.789] * 7)) for key in sorted(keys)))
    report = Report(found)
    text = "\n".join((report.promises(), *map(report.table, found.scenarios())))
    assert text.count("\n") > len(PROMISES) + len(keys)
    assert [line for line in text.splitlines() if len(line) > 100] == []


def test_cases_that_differ_by_a_number_make_a_line() -> None:
    plot = pytest.importorskip("l4re_bench.plot")
    found = plot.series_of(
        figures(
            *(row("size", case, "l4re", 1) for case in ("64 bytes", "4 KiB", "1 MiB")),
            *(row("clients", case, peer, 1) for case in ("1 client", "4 clients") for peer in ("l4re", "zmq")),
            *(row("memory", case, "l4re", 1) for case in ("16 KiB", "64 MiB, all touched")),
            row("call", "", "l4re", 1),
        )
    )
    assert [(one.scenario, one.what, {peer: list(rows) for peer, rows in one.rows.items()}) for one in found] == [
        ("size", "bytes", {"l4re": [64, 4096, 1 << 20]}),
        ("clients", "clients", {"l4re": [1, 4], "zmq": [1, 4]}),
    ]


def test_the_extra_brings_what_peers_are_made_of() -> None:
    brought = {re.split("[><=]", text)[0] for text in PROJECT["optional-dependencies"]["bench"]}
    assert brought == {*EXTRA.values(), "rich", "matplotlib"}


@pytest.mark.parametrize(
    ("module", "way"),
    [("zmq", INSTALL), ("zmq.utils", INSTALL), ("torch", "pip install torch"), ("other", "No module named 'other'")],
)
def test_a_missing_package_is_named_with_what_brings_it(module: str, way: str) -> None:
    assert how_to_get(ModuleNotFoundError(f"No module named {module!r}", name=module)) == way
