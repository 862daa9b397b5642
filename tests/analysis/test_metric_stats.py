from __future__ import annotations

import itertools
import statistics
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.series import metric_stats
from perfkit.analysis.statistics import drift
from perfkit.analysis.statistics.trend import MAX_POINTS, slope_per_s, thin
from tests.analysis.sampled import tables

SECOND = 10**9


def slow_slope(times: list[int], values: list[float]) -> float | None:
    slopes = [
        (values[j] - values[i]) / ((times[j] - times[i]) / SECOND)
        for i, j in itertools.combinations(range(len(values)), 2)
        if times[j] > times[i]
    ]
    return statistics.median(slopes) if slopes else None


series = st.lists(
    st.tuples(st.integers(0, 30), st.integers(-5, 5).map(lambda v: v / 2)), max_size=30
).map(lambda points: sorted(points, key=lambda point: point[0]))


@given(series)
def test_the_slope_equals_its_definition(points: list[tuple[int, float]]) -> None:
    times, values = [t * SECOND for t, _ in points], [v for _, v in points]
    expected = slow_slope(times, values)
    found = slope_per_s(np.array(times, np.int64), np.array(values, np.float64))
    assert found == (expected if expected is None else pytest.approx(expected))


def test_a_case_worked_by_hand() -> None:
    found = slope_per_s(np.arange(4) * SECOND, np.array([10.0, 15.0, 14.0, 20.0]))
    assert found == pytest.approx(statistics.median([5, 2, 10 / 3, -1, 2.5, 6]))


def test_long_series_are_thinned_evenly_and_keep_their_ends() -> None:
    values = np.arange(12_345, dtype=np.int64)
    thinned = thin(values)
    assert len(thinned) == MAX_POINTS
    assert (thinned[0], thinned[-1]) == (0, 12_344)
    assert set(np.diff(thinned)) <= {12, 13}
    assert slope_per_s(values * SECOND, values * 3.0) == pytest.approx(3)


def point(second: float, value: float, **more: Any) -> dict[str, Any]:
    row = {"ts_ns": int(second * SECOND), "value": value, "name": "m", "kind": "gauge"}
    return row | more


def only_row(*points: dict[str, Any]) -> dict[str, Any]:
    table = tables(metrics=points).frame("metric_stats")
    assert table.columns == list(metric_stats.COLUMNS)
    assert table.height == 1
    return table.row(0, named=True)


gauges = st.lists(
    st.tuples(
        st.integers(0, 20),
        st.floats(-1e6, 1e6),
        st.sampled_from(["a", None]),
        st.sampled_from(['{"k":1}', None]),
    ),
    max_size=25,
)


@given(gauges)
def test_gauges_equal_a_loop(drawn: list[tuple[int, float, str | None, str | None]]) -> None:
    made = tables(metrics=[point(t, v, service=s, attributes=a, unit="By") for t, v, s, a in drawn])
    table = made.frame("metric_stats")
    groups: dict[tuple[str | None, str | None], list[tuple[int, float]]] = {}
    for t, v, s, a in sorted(drawn, key=lambda row: row[0]):
        groups.setdefault((s, a), []).append((t, v))
    assert table.height == len(groups)
    for row in table.iter_rows(named=True):
        points = groups[row["service"], row["attributes"]]
        values = [v for _, v in points]
        assert (row["measure"], row["increase"]) == ("value", None)
        assert row["points"] == len(values)
        assert (row["first_ns"], row["last_ns"]) == (points[0][0] * SECOND, points[-1][0] * SECOND)
        assert (row["min"], row["max"], row["last"]) == (min(values), max(values), values[-1])
        assert row["mean"] == pytest.approx(statistics.fmean(values), abs=1e-6)
        assert row["p95"] == pytest.approx(float(np.percentile(values, 95)), abs=1e-6)
        quarter = len(values) // 4
        late, before = (
            values[len(values) - quarter :],
            values[len(values) - 2 * quarter :][:quarter],
        )
        growth = statistics.median(late) - statistics.median(before) if quarter else None
        assert row["late_growth"] == (growth if growth is None else pytest.approx(growth, abs=1e-6))
        slope = slow_slope([t * SECOND for t, _ in points], values)
        assert row["slope_per_s"] == (slope if slope is None else pytest.approx(slope, abs=1e-6))
        assert (row["trend_p"] is None) == (len(values) < drift.MIN_POINTS)


def test_a_counter_becomes_a_rate_and_a_restart_is_no_fall() -> None:
    row = only_row(
        *(point(t, v, kind="counter") for t, v in [(0, 100), (2, 110), (4, 130), (6, 5), (8, 7)])
    )
    assert row["measure"] == "rate"
    assert (row["points"], row["min"], row["max"], row["last"]) == (3, 1, 10, 1)
    assert row["mean"] == pytest.approx((5 + 10 + 1) / 3)
    assert row["increase"] == 32
    assert (row["first_ns"], row["last_ns"]) == (2 * SECOND, 8 * SECOND)


def test_a_delta_is_a_rate_since_the_point_before() -> None:
    row = only_row(*(point(t, v, kind="delta") for t, v in [(0, 9), (2, 10), (3, 4)]))
    assert (row["measure"], row["min"], row["max"], row["increase"]) == ("rate", 4, 5, 14)


def test_a_histogram_gives_the_mean_of_what_was_observed_between_two_points() -> None:
    row = only_row(
        *(
            point(t, v, count=c, kind="histogram")
            for t, v, c in [(0, 10.0, 5), (1, 12.0, 6), (2, 12.0, 6), (3, 20.0, 8)]
        )
    )
    assert (row["measure"], row["points"], row["min"], row["max"]) == ("mean", 2, 2, 4)
    assert row["increase"] == 3


def test_points_that_are_no_numbers_do_not_count() -> None:
    row = only_row(point(0, 1), point(1, float("nan")), point(2, float("inf")), point(3, 2))
    assert (row["points"], row["max"]) == (2, 2)


def test_no_metrics_give_the_columns() -> None:
    table = tables().frame("metric_stats")
    assert table.columns == list(metric_stats.COLUMNS)
    assert table.height == 0


def test_what_a_histogram_observed_and_a_counter_grew_by_in_all() -> None:
    observed = [point(0, 1.0, count=2), point(1, 4.0, count=5), point(3, 4.5, count=6)]
    made = tables(
        metrics=[
            *({**row, "name": "pause", "kind": "histogram"} for row in observed),
            *(point(at, value, name="grown", kind="counter") for at, value in ((0, 5), (2, 9))),
            point(0, 7.0),
        ]
    )
    found = dict(made.frame("metric_stats").select("name", "total").iter_rows())
    assert found == {"grown": 4, "m": None, "pause": 3.5}
