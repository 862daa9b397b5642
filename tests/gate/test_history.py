from __future__ import annotations

import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result

from perfkit.analysis.session import Tables
from perfkit.capture import Capture
from perfkit.cli.main import main
from perfkit.errors import CaptureError, UsageError
from perfkit.gate import history, trend
from perfkit.gate.figures import SCHEMA
from perfkit.gate.outputs import trend as outputs_trend
from perfkit.gate.result import Source
from perfkit.gate.runs import Run
from tests.gate.build import record, runs

NO_CI = dict.fromkeys((*history._COMMITS, *history._BRANCHES), "")


def run(*arguments: str) -> Result:
    done = CliRunner().invoke(main, arguments, env=NO_CI)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def made(values: list[float], measure: str = "p95_ns", kind: str = "endpoint") -> list[Run]:
    """A history in memory, a run a value."""
    found = []
    for number, value in enumerate(values):
        row = (kind, "app", "GET /a", measure, value, 100)
        frame = pl.DataFrame([row], schema=SCHEMA, orient="row")
        source = Source(f"{number}.parquet", str(number), f"c{number}", "main", number)
        found.append(Run(source, "host", 2, "{}", frame=frame))
    return found


def test_a_run_is_kept_whole_and_read_back(tmp_path: Path) -> None:
    capture = record(tmp_path / "a.perfkit", {"GET /a": 100.0})
    folder = tmp_path / "history"
    done = run(
        "history",
        "add",
        str(capture),
        str(folder),
        "--commit",
        "abc",
        "--branch",
        "main",
        "--label",
        "load=nightly",
    )
    assert done.exit_code == 0
    (one,) = history.load(folder)
    tables = Tables(Capture.open(capture))
    of_capture = Run.of(tables, "a")
    keys = ["kind", "service", "name", "measure"]
    assert one.figures.sort(keys).equals(of_capture.figures.sort(keys))
    assert (one.source.commit, one.source.branch, one.labels) == ("abc", "main", ("load=nightly",))
    assert one.source.started_ns == tables.frame("facts")["start_ns"][0]
    assert "abc" in run("history", "list", str(folder)).stdout
    assert json.loads(run("history", "list", str(folder), "--json").stdout)[0]["branch"] == "main"


def test_a_large_run_is_added_shard_by_shard_with_the_same_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = record(tmp_path / "a.perfkit", {"GET /a": 100.0, "GET /b": 30.0}, errors=0.1)
    run("history", "add", str(capture), str(tmp_path / "whole"))
    monkeypatch.setattr("perfkit.analysis.sharded.WHOLE_SPANS", 1)
    done = run("history", "add", str(capture), str(tmp_path / "divided"))
    assert "shards by trace" in done.stderr
    (whole,), (divided,) = (history.load(tmp_path / name) for name in ("whole", "divided"))
    keys = ["kind", "service", "name", "measure"]
    assert divided.figures.sort(keys).equals(whole.figures.sort(keys))


def test_adding_again_changes_nothing_and_other_labels_are_refused(tmp_path: Path) -> None:
    capture = record(tmp_path / "a.perfkit", {"GET /a": 100.0})
    add = ["history", "add", str(capture), str(tmp_path / "h"), "--commit", "abc", "--branch", "m"]
    run(*add)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "h").iterdir()}
    assert "was there already" in run(*add).stdout
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "h").iterdir()} == before
    with pytest.raises(UsageError, match="in the history already"):
        run(*add, "--label", "x=y")


def test_two_jobs_add_at_once_and_copies_merge(tmp_path: Path) -> None:
    captures = [Path(path) for path in runs(tmp_path, "r", 4, {"GET /a": 50.0})]
    one, other = tmp_path / "one", tmp_path / "other"

    def add(job: tuple[Path, Path]) -> None:
        history.add(job[1], Tables(Capture.open(job[0])), "abc", "main")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, [(capture, one) for capture in [*captures[:3], *captures[:3]]]))
    history.add(other, Tables(Capture.open(captures[2])), "abc", "main")
    history.add(other, Tables(Capture.open(captures[3])), "abc", "main")
    shutil.copytree(other, one, dirs_exist_ok=True)
    assert len(history.load(one)) == 4
    assert len(list(one.iterdir())) == 4


def test_the_origin_is_what_the_ci_system_says(tmp_path: Path) -> None:
    tables = Tables(Capture.open(record(tmp_path / "a.perfkit", {"GET /a": 1.0}, requests=1)))
    github = {"GITHUB_SHA": "abc", "GITHUB_REF_NAME": "7/merge", "GITHUB_HEAD_REF": "fix"}
    assert history.origin(tables, github) == ("abc", "fix")
    gitlab = {"CI_COMMIT_SHA": "abc", "CI_COMMIT_REF_NAME": "main"}
    assert history.origin(tables, gitlab) == ("abc", "main")
    tables.capture.info.git_commit = "of-capture"
    assert history.origin(tables, {})[0] == "of-capture"


def test_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"no parquet")
    with pytest.raises(CaptureError, match=r"x\.parquet: damaged"):
        history.load(tmp_path)
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(CaptureError, match="history version None"):
        history.load(tmp_path)
    with pytest.raises(UsageError, match="no such directory"):
        history.load(tmp_path / "none")


def test_the_latest_comparable_runs_are_the_baseline() -> None:
    known = made([1.0] * 6)
    odd = Run(Source("o", "o", None, "main", 9), "host", 8, "{}", frame=known[0].frame)
    chosen = history.latest([*known, odd], [known[5]], last=3)
    assert [one.source.id for one in chosen] == ["2", "3", "4"]
    with pytest.raises(UsageError, match="no run of branch dev"):
        history.latest(known, [known[0]], last=3, branch="dev")
    with pytest.raises(UsageError, match="same sampling and number of cores"):
        history.latest([odd], [known[0]], last=3)


def test_check_compares_with_the_history(tmp_path: Path) -> None:
    folder = str(tmp_path / "h")
    before = runs(tmp_path, "before", 4, {"GET /a": 100.0}, seed=10)
    run("history", "add", *before, folder, "--commit", "abc", "--branch", "main")
    slower = runs(tmp_path, "slower", 4, {"GET /a": 150.0}, seed=30)
    same = runs(tmp_path, "same", 4, {"GET /a": 100.0}, seed=20)
    assert run("check", *slower, "--history", folder).exit_code == 3
    assert run("check", *same, "--history", folder, "--branch", "main").exit_code == 0
    with pytest.raises(UsageError, match="cannot be filtered"):
        run("check", *same, "--history", folder, "--endpoint", "/a")


def noisy(levels: list[tuple[float, int]], seed: int) -> list[float]:
    random = np.random.default_rng(seed)
    return [
        float(level * (1 + random.normal(0, 0.05))) for level, count in levels for _ in range(count)
    ]


def test_a_change_for_good_is_found_where_it_is() -> None:
    places: list[int] = []
    for seed in range(50):
        values = noisy([(1e8, 20), (1.2e8, 15)], seed)
        found = trend.shifts(trend.series(made(values), ["p95_ns"]))
        places += [shift.place for shift in found]
        assert all(shift.worse for shift in found)
    assert len(places) >= 48
    assert np.mean([abs(place - 20) <= 1 for place in places]) >= 0.9


def test_the_commits_around_a_change_are_named() -> None:
    values = noisy([(1e8, 10), (2e8, 10), (1e8, 10)], 1)
    first, second = sorted(
        trend.shifts(trend.series(made(values), ["p95_ns"])), key=lambda shift: shift.place
    )
    assert (first.good.source.commit, first.bad.source.commit, first.worse) == ("c9", "c10", True)
    assert (second.good.source.commit, second.bad.source.commit) == ("c19", "c20")
    assert not second.worse


@pytest.mark.slow
def test_noise_and_single_outliers_are_no_change() -> None:
    alarms = 0
    for seed in range(150):
        values = noisy([(1e8, 30)], seed)
        values[seed % 30] *= 2
        alarms += bool(trend.shifts(trend.series(made(values), ["p95_ns"])))
    assert alarms <= 3  # 2 %


def test_a_rate_that_falls_is_worse_and_constant_figures_are_quiet() -> None:
    (shift,) = trend.shifts(
        trend.series(made(noisy([(100, 10), (50, 10)], 2), "rate_per_s"), ["rate_per_s"])
    )
    assert shift.worse
    assert trend.shifts(trend.series(made([0.0] * 12, "error_ratio"), ["error_ratio"])) == []
    assert trend.series(made([1.0] * 5), ["p95_ns"]) == []


def store(folder: Path, values: list[float]) -> None:
    """Write a history in memory as its files."""
    folder.mkdir()
    for one in made(values):
        about: dict[str, Any] = {
            "run": one.source.id,
            "started_ns": 1_795_416_395_000_000_000 + int(one.source.id) * 3600 * 10**9,
            "commit": f"<b>{one.source.commit}" if one.source.id == "0" else one.source.commit,
            "branch": "main",
            "labels": [],
            "host": "h",
            "cores": 2,
            "sampling": "{}",
            "perfkit_version": "x",
        }
        row = pl.DataFrame([about], schema=history._OF_RUN)
        row.join(one.figures, how="cross").write_parquet(
            folder / f"{one.source.id}.parquet", metadata={history._VERSION_KEY: history.VERSION}
        )


def test_the_trend_in_the_terminal_as_json_and_as_a_page(tmp_path: Path) -> None:
    store(tmp_path / "h", noisy([(1e8, 10), (2e8, 10)], 3))
    page = tmp_path / "trend.html"
    done = run("history", "trend", str(tmp_path / "h"), "-o", str(page))
    assert "Worse: app GET /a: p95" in done.stdout
    assert "git log c9..c10" in done.stdout
    html = page.read_text()
    assert html.count("<circle") == 20
    assert "git log c9..c10" in html
    assert "<b>c0" not in html
    data = json.loads(run("history", "trend", str(tmp_path / "h"), "--json").stdout)
    assert data["shifts"][0]["last_before"]["commit"] == "c9"
    with pytest.raises(UsageError, match="no runs of branch dev"):
        run("history", "trend", str(tmp_path / "h"), "--branch", "dev")


def test_the_trend_in_markdown(tmp_path: Path) -> None:
    store(tmp_path / "h", noisy([(1e8, 10), (2e8, 10)], 3))
    trend_of = ("history", "trend", str(tmp_path / "h"))
    printed = run(*trend_of, "--format", "markdown").stdout
    lines = printed.splitlines()
    assert lines[0] == "## ❌ Trend of h: 1 change for good"
    (row,) = [line for line in lines if line.startswith("| ❌")]
    assert "Worse: app GET /a: p95" in row
    assert row.count("|") == 5
    assert "- git log c9..c10" in lines
    page = tmp_path / "trend.md"
    done = run(*trend_of, "-o", str(page))
    assert page.read_text() == printed
    assert "Worse: app GET /a: p95" in done.stdout  # as with a page
    run(*trend_of, "-o", str(tmp_path / "x"), "--format", "html")
    assert "<circle" in (tmp_path / "x").read_text()
    for wrong in (("--format", "markdown", "--json"), ("--format", "text", "-o", str(page))):
        with pytest.raises(UsageError):
            run(*trend_of, *wrong)


def test_a_trend_without_change_in_markdown(tmp_path: Path) -> None:
    store(tmp_path / "h", noisy([(1e8, 20)], 3))
    text = run("history", "trend", str(tmp_path / "h"), "--format", "markdown").stdout
    assert text.startswith("## ✅ Trend of h: no changes for good\n")
    assert "<summary>1 without change</summary>" in text
    assert "| app GET /a: p95 | 20 |" in text


def test_markdown_shows_names_as_they_are() -> None:
    point = {"label": "1 ms", "moment": "2026-01-01 00:00", "commit": "<b>`c`|@me", "value": 1.0}
    shift = {"place": 1, "worse": True, "words": "<i>|\n# x", "good": "<b>", "bad": "[x](y)"}
    figure = {"title": "a|b", "points": [point, point], "shifts": [shift]}
    steady = {**figure, "shifts": []}
    text = outputs_trend.write("h\n# <u>", 2, [figure, steady]).decode()
    assert not re.search(r"(?<!\\)<(?!/?(details|summary)>|!-- -->)", text)
    assert "\\@<!-- -->me" in text
    assert all(
        len(re.findall(r"(?<!\\)\|", line)) == 5
        for line in text.splitlines()
        if line.startswith("| ")
    )
