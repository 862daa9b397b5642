"""The figures of a comparison against slow sums: endpoints, tools, queries and resources."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfkit.analysis.comparison import contrast, differences
from perfkit.analysis.comparison.contrast import Contrast
from tests.analysis.build import Memory, S, span_columns
from tests.analysis.test_compare import check

RUNS = 4
SECOND = 1_000_000_000
MS = 1_000_000

call = st.tuples(
    st.sampled_from(["SELECT a FROM t WHERE b = 1", "SELECT c FROM u"]), st.integers(1, 9)
)
request = st.fixed_dictionaries(
    {
        "endpoint": st.sampled_from(["GET /a", "GET /b"]),
        "tool": st.sampled_from([None, "search"]),
        "ms": st.integers(1, 50),
        "status": st.sampled_from(["ok", "error"]),
        "weight": st.sampled_from([1, 1, 3]),
        "calls": st.lists(call, max_size=3),
    }
)
run = st.lists(request, min_size=1, max_size=40)


def spans(requests: list[dict[str, Any]]) -> list[S]:
    made: list[S] = []
    for number, one in enumerate(requests):
        top = 10 * number + 1
        start = number * SECOND
        end = start + one["ms"] * MS
        shared = {"trace": number + 1, "adjusted_count": float(one["weight"])}
        named = {"kind": "server", "endpoint": one["endpoint"], "tool": one["tool"]}
        made.append(S(top, start, end, status=one["status"], **named, **shared))
        for place, (statement, length) in enumerate(one["calls"]):
            query = {"kind": "client", "db_system": "sqlite", "db_statement": statement}
            made.append(S(top + 1 + place, start, start + length * 1000, top, **query, **shared))
    return made


def compared(runs: list[list[dict[str, Any]]]) -> Contrast:
    captures = [Memory({"spans": span_columns(spans(one))}) for one in runs]
    return contrast.of_captures(captures[: RUNS // 2], captures[RUNS // 2 :])


def latencies(requests: list[dict[str, Any]]) -> dict[str, float]:
    """Return the figures of the requests of one run; NaN where there are too few."""
    each = [one["ms"] * MS for one in requests for _ in range(one["weight"])]
    failed = [one["status"] == "error" for one in requests for _ in range(one["weight"])]
    figures = {"p50_ns": math.nan, "p95_ns": math.nan, "mean_ns": math.nan, "error_ratio": math.nan}
    if len(requests) >= 5:
        figures["p50_ns"] = float(np.percentile(each, 50))
        figures["mean_ns"] = sum(each) / len(each)
        figures["error_ratio"] = sum(failed) / len(failed)
    if len(requests) >= 20:
        figures["p95_ns"] = float(np.percentile(each, 95))
    return figures


@settings(max_examples=8)
@given(st.lists(run, min_size=RUNS, max_size=RUNS), st.sampled_from(["endpoint", "tool"]))
def test_latencies_are_those_of_each_run(runs: list[list[dict[str, Any]]], kind: str) -> None:
    sides = compared(runs)
    found = differences.endpoints(sides) if kind == "endpoint" else differences.tools(sides)
    names = {one[kind] for requests in runs for one in requests} - {None}
    for name in names:
        of_run = [latencies([one for one in requests if one[kind] == name]) for requests in runs]
        for measure in of_run[0]:
            key = {"kind": kind, "name": name, "measure": measure}
            check(found, key, [figures[measure] for figures in of_run], sides)
    assert found.height == 4 * len(names)


@settings(max_examples=8)
@given(st.lists(run, min_size=RUNS, max_size=RUNS))
def test_queries_are_the_slow_sums_per_request(runs: list[list[dict[str, Any]]]) -> None:
    sides = compared(runs)
    found = differences.queries(sides)
    calls: dict[str, list[float]] = defaultdict(lambda: [0.0] * RUNS)
    total: dict[str, list[float]] = defaultdict(lambda: [0.0] * RUNS)
    requests = [float(sum(one["weight"] for one in made)) for made in runs]
    for number, made in enumerate(runs):
        for one in made:
            for statement, length in one["calls"]:
                text = statement.replace("1", "?")
                calls[text][number] += one["weight"]
                total[text][number] += one["weight"] * min(length * 1000, one["ms"] * MS)
    everything = sum(sum(np.divide(times, requests)) for times in total.values())
    for text in calls:
        share = float(sum(np.divide(total[text], requests))) / everything
        if share == pytest.approx(differences.FEWEST_SHARE):
            continue  # on the border of what is tested
        tested = share > differences.FEWEST_SHARE
        slow = {
            "total_ns": np.divide(total[text], requests),
            "calls": np.divide(calls[text], requests),
            "mean_ns": [
                spent / times if times else math.nan
                for spent, times in zip(total[text], calls[text], strict=True)
            ],
        }
        for measure, values in slow.items():
            key = {"name": text, "measure": measure}
            check(found, key, [float(value) for value in values], sides, tested=tested)
    assert found.height == 3 * len(calls)


points = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 100)), min_size=1, max_size=8)


@given(st.lists(st.tuples(points, points), min_size=RUNS, max_size=RUNS))
def test_resources_are_the_means_of_each_run(
    runs: list[tuple[list[tuple[int, int]], list[tuple[int, int]]]],
) -> None:
    captures = [
        Memory({"spans": span_columns(spans([REQUEST])), "metrics": metrics(*one)}) for one in runs
    ]
    sides = contrast.of_captures(captures[: RUNS // 2], captures[RUNS // 2 :])
    found = differences.resources(sides)
    levels = [sum(value for _, value in gauge) / len(gauge) for gauge, _ in runs]
    check(found, {"name": "level", "measure": "value"}, levels, sides)
    # A counter says something from its second point on: by how much it grew a second.
    rates = []
    for _, counter in runs:
        grown = [value / seconds for seconds, value in counter[1:]]
        rates.append(sum(grown) / len(grown) if grown else math.nan)
    rows = found.filter(pl.col("name") == "count")
    if all(math.isnan(rate) for rate in rates):
        assert rows.is_empty()
    else:
        check(found, {"name": "count", "measure": "value"}, rates, sides)


REQUEST = {
    "endpoint": "GET /a",
    "tool": None,
    "ms": 5,
    "status": "ok",
    "weight": 1,
    "calls": [],
}


def metrics(gauge: list[tuple[int, int]], counter: list[tuple[int, int]]) -> dict[str, list[Any]]:
    """Return points so many seconds apart: a level as it is, a counter that grows by its values."""
    columns: dict[str, list[Any]] = {name: [] for name in ("ts_ns", "name", "kind", "value")}
    for name, kind, steps in (("level", "gauge", gauge), ("count", "counter", counter)):
        at = counted = 0
        for seconds, value in steps:
            at += seconds
            counted += value
            row = (at * SECOND, name, kind, float(value if kind == "gauge" else counted))
            for column, cell in zip(columns.values(), row, strict=True):
                column.append(cell)
    return columns
