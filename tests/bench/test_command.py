"""``l4re bench``: what it prints, writes and draws, how it is stopped, and what it says to nonsense."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from l4re.testing import wait_until
from support.programs import PATIENCE, l4re, on_a_terminal, running

pytestmark = pytest.mark.processes

SHORT = ("--repetitions", "1", "--seconds", "0.01")
CALL = ("bench", "--scenario", "call", "--placement", "one", "--peer", "l4re", "--peer", "seqpacket", *SHORT)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run, with cases that can be counted and one that fails."""
    path = tmp_path_factory.mktemp("saved") / "figures.json"
    run = l4re(
        "bench", "--scenario", "call", "--scenario", "sessions", "--placement", "one", *SHORT, "--json", path,
        "--peer", "l4re", "--peer", "mp.Pipe", "--peer", "page+eventfd", "--peer", "C futex", env={"CC": "false"},
    )  # fmt: skip
    assert run.status == 1
    return path


def test_it_works_in_an_empty_folder_and_leaves_nothing_there(tmp_path: Path) -> None:
    run = l4re(*CALL, cwd=tmp_path)
    assert (run.status, run.err) == (0, "")
    assert re.search(r"^    seqpacket( +[\d.,]+){3} +[\d.,]+\.\.[\d.,]+ +[\d.]+$", run.out, re.MULTILINE)
    assert max(map(len, run.out.splitlines())) <= 100
    assert list(tmp_path.iterdir()) == []


def test_json_to_standard_output_stands_alone() -> None:
    run = l4re(*CALL, "--json", "-")
    figures = json.loads(run.out)
    assert {row["peer"] for row in figures["rows"]} == {"l4re", "seqpacket"}
    assert figures["versions"]["pyl4re"]
    assert 0 <= figures["machine"]["used_by_others"] <= 1
    assert (figures["failed"], figures["interrupted"]) == ([], False)
    (promise,) = figures["promises"]
    assert promise["what"] == "raw call, one core"
    assert promise["verdict"] in ("goal", "met", "missed")
    assert run.err == ""


def test_a_peer_that_fails_is_named_and_the_others_go_on(saved: Path) -> None:
    figures = json.loads(saved.read_text())
    (failed,) = figures["failed"]
    assert (failed["scenario"], failed["placement"], failed["peer"]) == ("call", "one", "C futex")
    assert re.search("^RuntimeError: .*floor.c: status 1$", failed["why"])
    assert {row["peer"] for row in figures["rows"]} == {"l4re", "mp.Pipe", "page+eventfd"}
    assert {row["scenario"] for row in figures["rows"]} == {"call", "sessions"}
    shown = l4re("bench", "--from", saved)
    assert shown.status == 1
    assert "1 failed:\n  call one: C futex: RuntimeError" in shown.out


def test_a_peer_that_is_missing_is_named_with_the_reason(tmp_path: Path) -> None:
    run = l4re("bench", "--scenario", "call", "--placement", "one", *SHORT, env={"CC": "/nonexistent"})
    assert run.status == 0
    assert re.search(r"^  C futex +no C compiler$", run.out, re.MULTILINE)
    run = l4re("bench", "--peer", "C futex", env={"CC": "/nonexistent"})
    assert (run.status, run.out) == (2, "")
    assert "C futex is missing: no C compiler" in run.err


def test_a_saved_run_is_shown_again(saved: Path, tmp_path: Path) -> None:
    shown = l4re("bench", "--from", saved)
    assert "\ncall: round trip" in shown.out
    assert "\nsessions: " in shown.out
    assert "raw call, one core" in shown.out
    part = l4re("bench", "--from", saved, "--scenario", "sessions", "--peer", "mp.Pipe", "--json", "-")
    assert {(row["scenario"], row["peer"]) for row in json.loads(part.out)["rows"]} == {("sessions", "mp.Pipe")}
    copy = tmp_path / "copy.json"
    l4re("bench", "--from", saved, "--json", copy)
    assert json.loads(copy.read_text()) == json.loads(saved.read_text())


def test_naming_one_twice_changes_nothing() -> None:
    run = l4re(*CALL, *CALL[1:], "--json", "-")
    assert [row["peer"] for row in json.loads(run.out)["rows"]] == ["l4re", "seqpacket"]


def test_an_output_that_knows_few_signs_loses_no_figures(saved: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.json"
    run = l4re("bench", "--from", saved, "--json", copy, env={"PYTHONIOENCODING": "ascii"})
    assert "raw call, one core" in run.out
    assert (run.err, copy.exists()) == ("", True)


def test_a_plot_is_the_same_file_every_time(saved: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    drawn = []
    for name in ("a.svg", "b.svg"):
        run = l4re("bench", "--from", saved, "--plot", tmp_path / name)
        assert run.err == ""
        drawn.append((tmp_path / name).read_text())
    assert drawn[0] == drawn[1]
    for text in ("l4re", "mp.Pipe", ">call<", ">sessions, one core<", ">256<", ">µs, median<"):
        assert text in drawn[0], text


def test_ctrl_c_keeps_what_was_measured_and_leaves_no_process(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    words = ("--placement", "one", "--peer", "l4re", "--repetitions", "1", "--seconds", "1", "--json", path)
    with running("bench", "--scenario", "call", "--scenario", "typed", *words) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("call: "):
            assert process.poll() is None
        groups: list[int] = []

        def measuring() -> bool:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            groups[:] = map(int, children)
            return len(groups) == 2

        wait_until(measuring, PATIENCE)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (130, "")
    assert "Stopped before its end." in out
    figures = json.loads(path.read_text())
    assert figures["interrupted"]
    assert [row["scenario"] for row in figures["rows"]] == ["call"]
    for group in groups:
        with pytest.raises(ProcessLookupError):
            os.killpg(group, 0)


@pytest.mark.parametrize("bar", [True, False], ids=["with rich", "without"])
def test_progress_and_colours_are_for_terminals(bar: bool) -> None:
    if bar:
        assert importlib.util.find_spec("rich")
        text = on_a_terminal(*CALL)
        assert "━" in text
    else:
        text = on_a_terminal(*CALL, without="rich")
        assert "For a progress bar: pip install 'pyl4re[bench]'" in text
        assert re.search(r"50% call one: (l4re|seqpacket)", text)
    assert "\x1b[1mcall\x1b[0m: " in text


def test_a_plot_without_matplotlib_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    run = l4re("bench", "--plot", tmp_path / "plot.svg", without="matplotlib")
    assert (run.status, run.out) == (2, "")
    assert run.err.endswith("--plot needs matplotlib: pip install 'pyl4re[bench]'\n")


def test_a_command_without_the_bench_says_what_to_do() -> None:
    run = l4re("bench", "--list", without="l4re_bench")
    assert (run.status, run.out) == (2, "")
    assert run.err == "l4re: the bench is not installed beside this package: pip install 'pyl4re[bench]'\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--scenario", "nonsense"], "there is no 'nonsense'; there are: call, typed"),
        (["--peer", "nonsense"], "there is no 'nonsense'; there are: l4re, l4re leaf"),
        (["--placement", "three"], "three"),
        (["--repetitions", "0"], "'0' is not a whole number from 1 on"),
        (["--seconds", "-1"], "'-1' is not a number of seconds"),
        (["--seconds", "nan"], "'nan' is not a number of seconds"),
        (["--scenario", "memory", "--placement", "two"], "nothing to measure"),
        (["--json", "/nonexistent/file"], "cannot write /nonexistent/file"),
        (["--json", "/"], "cannot write /"),
        (["--plot", "plot.png"], "plot.png does not end in .svg"),
        (["--from", "/nonexistent"], "/nonexistent: No such file or directory"),
        (["--from", "/dev/null"], "/dev/null holds no figures of a run"),
        (["--from", "/dev/null", "--quick"], "--from measures nothing"),
        (["word"], "word"),
        (["--", "word"], "what is 'word'?"),
    ],
)
def test_misuse_is_told_in_a_line(words: list[str], message: str, tmp_path: Path) -> None:
    run = l4re("bench", *words, cwd=tmp_path)
    assert (run.status, run.out) == (2, "")
    usage, *error = run.err.splitlines()
    assert usage.startswith("usage: l4re")
    assert message in error[-1]
    assert len(error) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda figures: figures.pop("rows"),
        lambda figures: figures["rows"][0].pop("p50"),
        lambda figures: figures["rows"][0].update(p50="fast"),
        lambda figures: figures["rows"][0].update(p50=float("nan")),
        lambda figures: figures["effort"].update(hours=1),
        lambda figures: figures["effort"].update(seconds="long"),
        lambda figures: figures["machine"].update(used_by_others="much"),
        lambda figures: figures.update(missing=["zmq"]),
        lambda figures: figures["failed"].append("all of it"),
    ],
)
def test_a_file_with_something_else_is_refused(change: Any, saved: Path, tmp_path: Path) -> None:
    figures = json.loads(saved.read_text())
    change(figures)
    path = tmp_path / "figures.json"
    path.write_text(json.dumps(figures))
    run = l4re("bench", "--from", path)
    assert (run.status, run.out) == (2, "")
    assert f"{path} holds no figures of a run" in run.err
