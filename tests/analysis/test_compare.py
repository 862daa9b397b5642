from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfkit.analysis.comparison import contrast, differences, path_differences, words
from perfkit.analysis.comparison.compare import compare
from perfkit.analysis.comparison.contrast import Contrast
from perfkit.analysis.filters import Filters
from perfkit.analysis.session import Tables
from perfkit.analysis.statistics.significance import compare_runs
from perfkit.errors import UsageError
from tests.analysis import shop
from tests.analysis.build import Memory, S, span_columns, traces
from tests.analysis.sampled import Sample, sample_lists
from tests.analysis.sampled import tables as sampled_tables
from tests.analysis.test_code_tree import slow_wakeups

Row = dict[str, Any]
SECOND = 1_000_000_000


def memory(spans: list[S]) -> Memory:
    return Memory({"spans": span_columns(spans)})


@dataclass
class Analysed:
    """A run, and its tables: what is computed to choose it is not computed again to compare it."""

    spans: list[S]
    tables: Tables = field(repr=False)

    @classmethod
    def of(cls, spans: list[S]) -> Analysed:
        return cls(spans, Tables(memory(spans)))

    def has_requests(self) -> bool:
        return not self.tables.frame("requests").filter("entry").is_empty()


# To analyse a run takes as long whether it has one trace or five.
analysed_runs = traces(max_size=12).map(Analysed.of).filter(Analysed.has_requests)
four_runs = st.lists(analysed_runs, min_size=4, max_size=4)


def compared_halves(runs: list[Analysed]) -> Contrast:
    """Return the contrast of the first half of the runs with the second."""
    tables = [run.tables for run in runs]
    middle = len(tables) // 2
    return contrast.of_tables(tables[:middle], tables[middle:])


def rows_of_run(compared: Contrast, run: int, name: str) -> list[Row]:
    rows: list[Row] = compared.parts[run].tables.frame(name).to_dicts()
    return rows


def expected(values: list[float], compared: Contrast, *, relative: bool = True) -> Row:
    grid = np.array(values)
    one, other = compared.split(grid)
    change = compare_runs(one, other, relative=relative)
    return {name: None if math.isnan(v) else v for name, v in change._asdict().items()}


def check(
    found: pl.DataFrame, key: Row, values: list[float], compared: Contrast, *, tested: bool = True
) -> None:
    row = found
    for name, value in key.items():
        row = row.filter(pl.col(name).eq_missing(pl.lit(value)))
    assert row.height == 1, key
    slow = expected(values, compared, relative=key["measure"] != "error_ratio")
    if not tested:
        slow |= {"low": None, "high": None, "p": None}
    got = row.row(0, named=True)
    for name, value in slow.items():
        assert got[name] == (value if value is None else pytest.approx(value)), (key, name)


@settings(max_examples=8)
@given(four_runs)
def test_components_are_the_slow_sums_per_request(runs: list[Analysed]) -> None:
    compared = compared_halves(runs)
    found = differences.components(compared)
    time: dict[Any, list[float]] = defaultdict(lambda: [0.0] * 4)
    calls: dict[Any, list[float]] = defaultdict(lambda: [0.0] * 4)
    for run in range(4):
        tree, times = (rows_of_run(compared, run, name) for name in ("tree", "span_times"))
        entries = [row for row in tree if row["row"] == row["entry_row"]]
        weight = sum(row["adjusted_count"] for row in entries)
        for row, spent in zip(tree, times, strict=True):
            if row["entry_row"] is None:
                continue
            key = (row["service"], row["component"], row["category"])
            time[key][run] += spent["critical_ns"] * row["adjusted_count"] / weight
            calls[key][run] += (not row["duplicate"]) * row["adjusted_count"] / weight
    everything = sum(sum(values) for values in time.values())
    for key in time:
        share = sum(time[key]) / everything if everything else 1.0
        if share == pytest.approx(0.01):
            continue  # on the border of what is tested
        names = dict(zip(("service", "name", "detail"), key, strict=True))
        for measure, values in (("critical_ns", time[key]), ("calls", calls[key])):
            check(found, {**names, "measure": measure}, values, compared, tested=share > 0.01)
    assert found.height == 3 * len(time)


@settings(max_examples=8)
@given(four_runs)
def test_paths_are_the_slow_sums_per_request(runs: list[Analysed]) -> None:
    compared = compared_halves(runs)
    found = path_differences.request_paths(compared)
    sums: dict[tuple[Any, ...], list[list[float]]] = defaultdict(
        lambda: [[0.0] * 4 for _ in range(3)]
    )
    for run in range(4):
        tree, times = (rows_of_run(compared, run, name) for name in ("tree", "span_times"))
        weight = sum(row["adjusted_count"] for row in tree if row["row"] == row["entry_row"])
        for row, spent in zip(tree, times, strict=True):
            if row["entry_row"] is None:
                continue
            path, at = [], row
            while True:
                top = at["row"] == at["request_row"]
                label = (at["endpoint"] or at["name"]) if top else at["name"]
                path.append((label, at["service"], at["category"]))
                if at["row"] == at["entry_row"]:
                    break
                at = tree[at["parent_row"]]
            values = (spent["self_ns"] + spent["gap_ns"], row["duration_ns"], 1)
            for sums_of, value in zip(sums[tuple(path)], values, strict=True):
                sums_of[run] += value * row["adjusted_count"] / weight
    rows = {row["path_id"]: row for row in found.to_dicts()}
    assert len(rows) == len(sums)
    for row in rows.values():
        path, at = [], row
        while at is not None:
            path.append((at["label"], at["group"], at["category"]))
            at = rows.get(at["parent_id"])
        for name, values in zip(("self", "total", "count"), sums[tuple(path)], strict=True):
            assert row[f"{name}_before"] == pytest.approx(sum(values[:2]) / 2)
            assert row[f"{name}_after"] == pytest.approx(sum(values[2:]) / 2)
        counts = sums[tuple(path)][2]
        state = "new" if not any(counts[:2]) else "both" if any(counts[2:]) else "vanished"
        assert row["state"] == state


def weights(samples: list[Sample]) -> dict[tuple[str, ...], float]:
    """Return the share of each path of functions, of running time where there is any."""
    woken = slow_wakeups(samples)
    for of in (
        lambda one: (one.duration_ns or 0) * (one.state == "running" and one.frames not in woken),
        lambda one: one.duration_ns or 0,
        lambda one: 1 if one.count is None else one.count,
    ):
        own: dict[tuple[str, ...], float] = defaultdict(float)
        for one in samples:
            own[tuple(frame.function for frame in one.frames)] += of(one)
        if sum(own.values()) > 0:
            return {path: value / sum(own.values()) for path, value in own.items()}
    return {}


@settings(max_examples=8)
@given(st.lists(sample_lists().filter(bool), min_size=4, max_size=4))
def test_code_paths_without_requests_are_shares(samples: list[list[Sample]]) -> None:
    captures = [sampled_tables(one).capture for one in samples]
    compared = contrast.of_captures(captures[:2], captures[2:])
    rows = {row["path_id"]: row for row in path_differences.code_paths(compared).to_dicts()}
    shares = [weights(one) for one in samples]
    seen = set()
    for row in rows.values():
        names, at = [], row
        while at is not None:
            names.append(at["label"])
            at = rows.get(at["parent_id"])
        path = tuple(reversed(names))
        seen.add(path)
        for side, of in (("before", shares[:2]), ("after", shares[2:])):
            of = [one for one in of if one]
            own = [one.get(path, 0.0) for one in of]
            total = [
                sum(value for other, value in one.items() if other[: len(path)] == path)
                for one in of
            ]
            assert row[f"self_{side}"] == pytest.approx(sum(own) / max(len(of), 1))
            assert row[f"total_{side}"] == pytest.approx(sum(total) / max(len(of), 1))
    assert seen >= {path for one in shares for path in one}


def endpoint_spans(durations: list[int], *, first: int = 1, gap: int = SECOND) -> list[S]:
    return [
        S(1, start, start + duration, trace=first + number, kind="server", endpoint="GET /a")
        for number, duration in enumerate(durations)
        for start in [number * gap]
    ]


def test_percentiles_of_each_run_are_compared() -> None:
    runs = [[100 + run + n for n in range(40)] for run in range(3)]
    other = [[150 + run + n for n in range(40)] for run in range(3)]
    captures = [memory(endpoint_spans(run)) for run in [*runs, *other]]
    compared = contrast.of_captures(captures[:3], captures[3:])
    assert compared.unit == "run"
    found = differences.endpoints(compared)
    for measure, level in (("p50_ns", 0.5), ("p95_ns", 0.95)):
        values = [float(np.quantile(run, level)) for run in [*runs, *other]]
        check(found, {"name": "GET /a", "measure": measure}, values, compared)
    verdicts = dict(zip(found["measure"], found["verdict"], strict=True))
    assert verdicts["p50_ns"] == "grew"
    assert verdicts["error_ratio"] == "no evidence"


def test_one_capture_a_side_is_cut_into_blocks_of_time() -> None:
    before = memory(endpoint_spans([100] * 50))
    after = memory(endpoint_spans([100] * 50))
    compared = contrast.of_captures([before], [after])
    assert compared.unit == "block of time"
    assert [int((compared.side_of_run == side).sum()) for side in (0, 1)] == [10, 10]
    entries = compared.entries()
    assert entries.group_by("run").len()["len"].to_list() == [5] * 20
    assert entries.filter(side=0).height == 50


def test_several_captures_against_one_are_blocks_too() -> None:
    captures = [memory(endpoint_spans([100] * 50)) for _ in range(3)]
    assert contrast.of_captures(captures[:2], captures[2:]).unit == "block of time"


def test_before_and_after_a_moment() -> None:
    capture = memory(endpoint_spans([100] * 20 + [200] * 20))
    compared = contrast.of_moment(Tables(capture), 20 * SECOND)
    entries = compared.entries()
    assert entries.filter(side=0)["duration_ns"].unique().to_list() == [100]
    assert entries.filter(side=1)["duration_ns"].unique().to_list() == [200]
    with pytest.raises(UsageError, match="there is no request"):
        contrast.of_moment(Tables(capture), 10**15)


def test_two_predicates_may_not_share_requests() -> None:
    capture = memory(endpoint_spans([100, 200, 300, 400]))
    compared = contrast.of_predicates(Tables(capture), ("duration_ns <= 200", "duration_ns > 300"))
    assert sorted(compared.entries()["side"]) == [0, 0, 1]
    with pytest.raises(UsageError, match="requests that are on both sides: 1, of"):
        contrast.of_predicates(Tables(capture), ("duration_ns <= 200", "duration_ns >= 200"))


def test_two_endpoints() -> None:
    other = [S(1, 5, 9, trace=99, kind="server", endpoint="GET /b")]
    capture = memory([*endpoint_spans([100, 200]), *other])
    compared = contrast.of_endpoints(Tables(capture), ("/a", "GET /b"))
    assert sorted(compared.entries()["side"]) == [0, 0, 1]
    with pytest.raises(UsageError, match="no request to endpoint '/c'") as error:
        contrast.of_endpoints(Tables(capture), ("/a", "/c"))
    assert "GET /a" in (error.value.hint or "")


def test_the_tail_is_beyond_each_endpoints_own_percentile() -> None:
    slow_endpoint = [
        S(1, n * SECOND, n * SECOND + 5000 + n, trace=500 + n, kind="server", endpoint="GET /b")
        for n in range(100)
    ]
    capture = memory([*endpoint_spans(list(range(100, 200))), *slow_endpoint])
    entries = contrast.of_tail(Tables(capture)).entries()
    slow = entries.filter(side=1)
    assert slow.group_by("endpoint").len().sort("endpoint")["len"].to_list() == [5, 5]
    assert slow.filter(endpoint="GET /a")["duration_ns"].min() == 195
    assert entries.filter(side=0).height == 150


def test_endpoints_with_few_requests_are_left_out_of_the_tail_and_counted() -> None:
    few = [S(1, 0, 9, trace=900 + n, kind="server", endpoint="GET /few") for n in range(3)]
    compared = contrast.of_tail(Tables(memory([*endpoint_spans(list(range(100))), *few])))
    assert compared.notes == ("left out: 3 requests to endpoints with fewer than 20",)
    with pytest.raises(UsageError, match="nothing to compare: no endpoint has 20 requests"):
        contrast.of_tail(Tables(memory(few)))


def test_an_empty_side_is_refused() -> None:
    full = memory(endpoint_spans([100] * 5))
    for before, after in ((full, memory([])), (memory([]), full), (memory([]), memory([]))):
        with pytest.raises(UsageError, match="nothing to compare"):
            contrast.of_captures([before], [after])
    with pytest.raises(UsageError, match="nothing to compare"):
        contrast.of_tables(*[[Tables(full, Filters(endpoint="/none"))] for _ in range(2)])


def test_other_endpoints_on_both_sides_are_new_and_vanished_paths() -> None:
    other = [S(1, 0, 50, trace=n, kind="server", endpoint="GET /b") for n in range(1, 9)]
    found = compare(contrast.of_captures([memory(endpoint_spans([100] * 8))], [memory(other)]))
    states = dict(zip(found.request_paths["label"], found.request_paths["state"], strict=True))
    assert states == {"GET /a": "vanished", "GET /b": "new"}


def test_endpoints_on_one_side_only_are_told_unless_by_chance() -> None:
    def side(name: str, first: int) -> list[S]:
        rare = S(1, 5, 9, trace=first + 50, kind="server", endpoint=f"GET /{name}/rare")
        return [rare] + [
            S(1, n, n + 5, trace=first + n, kind="server", endpoint=f"GET /{path}")
            for n in range(20)
            for path in (name, "both")[n % 2 :: 2]
        ]

    pair = contrast.of_captures([memory(side("old", 0))], [memory(side("new", 100))])
    answer = words.answer(compare(pair))
    assert answer[1:3] == [
        "Only before: GET /old (10 requests).",
        "Only after: GET /new (10 requests).",
    ]
    assert not any("rare" in line for line in answer)


def beside_others(tasks: float, cpu: float, lasts: int = 50) -> Memory:
    spans = [
        S(1, n * 100, n * 100 + lasts + n % 3, trace=n + 1, kind="server", endpoint="GET /a")
        for n in range(100)
    ]
    names = ["system.linux.tasks.running", "process.cpu.utilization"]
    rows = [
        (n * 100, name, value * (1 + n % 7 / 100))
        for n in range(100)
        for name, value in zip(names, (tasks, cpu), strict=True)
    ]
    metrics = {
        "ts_ns": [row[0] for row in rows],
        "name": [row[1] for row in rows],
        "value": [row[2] for row in rows],
        "kind": ["gauge"] * len(rows),
    }
    return Memory({"spans": span_columns(spans), "metrics": metrics})


@pytest.mark.parametrize(
    ("running", "own", "said"),
    [
        ((4, 16), (0.3, 0.1), "busier, not by the recorded processes: system.linux.tasks.running"),
        ((16, 4), (0.1, 0.1), "less busy, not by"),
        ((4, 16), (0.1, 0.9), None),
        ((4, 4), (0.1, 0.1), None),
    ],
)
def test_a_machine_that_others_keep_busy_is_told(
    running: tuple[float, float], own: tuple[float, float], said: str | None
) -> None:
    before, after = (beside_others(*each) for each in zip(running, own, strict=True))
    answer = words.answer(compare(contrast.of_captures([before], [after])))
    told = [line for line in answer if line.startswith("The machine was")]
    assert len(told) == (said is not None)
    assert said is None or said in told[0]


@pytest.mark.parametrize(
    ("running", "said"),
    [
        (4, "Most likely cause: app"),
        (16, "Most unusual beside that, and perhaps because of it: app"),
    ],
)
def test_what_is_slower_beside_others_is_not_told_as_the_cause(running: int, said: str) -> None:
    before, after = beside_others(4, 0.1), beside_others(running, 0.1, lasts=90)
    answer = words.answer(compare(contrast.of_captures([before], [after])))
    assert any(line.startswith(said) for line in answer)


def test_one_request_a_side_is_not_tested() -> None:
    found = compare(
        contrast.of_captures([memory(endpoint_spans([100]))], [memory(endpoint_spans([900]))])
    )
    assert set(found.differences["verdict"]) == {"not tested"}
    assert found.request_paths["self_after"].to_list() == [900.0]


def test_a_slower_service_is_seen_in_everything() -> None:
    before = [shop.capture(60, seed=seed) for seed in range(5)]
    after = [
        shop.capture(60, seed=seed, change=shop.slower("GET /stock", 3)) for seed in range(10, 15)
    ]
    found = compare(contrast.of_captures(before, after))
    changed = found.differences.filter(pl.col("verdict") == "grew")
    assert {("endpoint", "GET /cart", "p95_ns"), ("component", "stock", "critical_ns")} <= set(
        changed.select("kind", "name", "measure").rows()
    )
    assert found.differences.filter(verdict="shrank").is_empty()
    grown = found.request_paths.filter(verdict="grew")
    assert grown["label"].to_list() == ["GET /stock"]
    assert grown["change"][0] == pytest.approx(2.0, rel=0.1)


@pytest.mark.slow
def test_noise_alone_is_no_evidence_of_change() -> None:
    quiet = 0
    for seed in range(4):
        captures = [shop.capture(40, seed=100 * seed + run) for run in range(10)]
        found = compare(contrast.of_captures(captures[:5], captures[5:]))
        quiet += not found.differences["verdict"].is_in(["grew", "shrank"]).any()
    assert quiet == 4
