"""Benchmarks: each has its place in the page on performance; how savings are measured in turns."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import crisp, jaeger, noise
from bench.__main__ import BENCHMARKS, HEAD, PAGE, line, written
from bench.measure import Row
from bench.truth import ratio_and_margin
from bench.turns import Turns, plan_rate
from perfkit.demo.load import SCENARIOS, plan


def test_every_benchmark_has_its_place_in_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in BENCHMARKS:
        made = written(page, name, [line(Row("this", "1 s", "that 2 s", "0.5×", "< 1×", True))])
        assert made.count("| this | 1 s | that 2 s | 0.5× | < 1× | yes |") == 1
        others = [one for one in BENCHMARKS if one != name]
        assert all(table(made, one) == table(page, one) for one in others)


def table(page: str, name: str) -> str:
    return page.partition(f"<!-- bench {name} -->")[2].partition("<!-- end -->")[0]


def test_a_page_without_the_place_is_refused() -> None:
    with pytest.raises(ValueError, match="0 places for the benchmark spans"):
        written("\n".join(HEAD), "spans", [])


def test_alarms_of_captures_are_counted_each_by_itself() -> None:
    random = np.random.default_rng(20261130)
    flat = noise.gauge(2e8 + random.normal(0, 1e6, 60))
    drifts = noise.gauge(2e8 + 1e6 * np.arange(60) + random.normal(0, 1e6, 60))
    rises = noise.gauge(2e8 + 1e8 * (np.arange(60) >= 30) + random.normal(0, 1e6, 60))
    assert noise.seen([flat]) == {}
    counted = noise.seen([drifts, flat, rises, drifts])
    assert counted == {"drift resource": 2, "shift resource": 1}


@pytest.mark.parametrize(("seconds", "outage_s"), [(60, 10), (3600, 60)])
def test_a_burst_is_counted_in_the_buckets_of_the_timeline(seconds: int, outage_s: int) -> None:
    random = np.random.default_rng(20261201)
    fails = noise.served(
        random,
        seconds,
        failing=lambda at: np.where(abs(at - seconds / 2) < outage_s / 2, 0.5, 0.0),
        per_s=10,
    )
    calm = noise.served(random, seconds, per_s=10)
    assert noise.seen([calm])["burst"] == 0
    assert noise.seen([calm, fails])["burst"] == 1


def test_a_saving_that_is_the_same_in_every_slice_is_certain() -> None:
    saved, margin = ratio_and_margin([100, 200, 50], [25, 50, 12.5])
    assert saved == pytest.approx(0.75)
    assert margin == pytest.approx(0)


def test_the_interval_of_a_saving_is_that_of_equal_slices_means() -> None:
    # With equal slices before, the jackknife is Student's interval of the mean of the savings.
    saved, margin = ratio_and_margin([100, 100, 100, 100], [40, 60, 55, 45])
    assert saved == pytest.approx(0.5)
    assert margin == pytest.approx(3.182 * statistics.stdev([0.6, 0.4, 0.45, 0.55]) / 2)


def test_turns_draw_only_the_calls_that_are_asked_for() -> None:
    chosen = [one for one in SCENARIOS if one.calls(random.Random(0))[0].label == "plan-trip"]
    turns = Turns(chosen, rate=5)
    assert plan_rate(turns) == 5
    calls = [call for _, call in plan(20, plan_rate(turns), 1, chosen)]
    assert {call.label for call in calls} == {"plan-trip"}
    assert 60 < len(calls) < 140


@pytest.mark.parametrize("number", [1, 3, 5, 7, 9, 11, 13, 15])
def test_the_peer_answers_the_cases_of_crisp(shared_data: Path, number: int) -> None:
    case = json.loads((shared_data / "jaeger_json" / f"crisp-case-{number}.json").read_text())
    expected = case["testing"]
    expected = expected[0] if isinstance(expected, list) else expected["opTimeExclusive"]
    graph, sums = crisp.Graph(case["data"][0]), crisp.Sums()
    for root in graph.roots:
        sums.add(graph, root)
    assert {name: sums.exclusive[name] for name in expected} == expected


@pytest.mark.parametrize("size", [8, 100, 1000])
def test_the_peers_from_jaegers_files_agree(tmp_path: Path, size: int) -> None:
    files = tmp_path / "jaeger"
    files.mkdir()
    document = {"data": [jaeger.large_trace(number, size) for number in range(2)]}
    (files / "all.json").write_text(json.dumps(document))
    ours = jaeger.from_file_to_path(str(files), str(tmp_path / "a.perfkit"))
    assert ours == jaeger.by_objects(str(files)) == jaeger.by_crisp(str(files))


AFTER_ANOTHER = """
import polars as pl
from bench import noise

if __name__ == "__main__":
    pl.DataFrame({"a": range(100_000)}).lazy().group_by("a").len().collect()
    noise.NOISE, noise.CHANGES, noise._FEWEST, noise.CAPTURES = noise.NOISE[:1], (), 4, 2
    print(len(noise.rows(hours=0.01)))
"""


@pytest.mark.slow
def test_noise_is_measured_after_what_uses_the_threads_of_polars(tmp_path: Path) -> None:
    program = tmp_path / "after_another.py"
    program.write_text(AFTER_ANOTHER)
    # Children that were forked hung for ever.
    done = subprocess.run(
        [sys.executable, str(program)],
        env={"PYTHONPATH": str(PAGE.parent.parent), "POLARS_MAX_THREADS": "2"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
