from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.series.sufferers import MIN_COMPARED, of_process, suffering

Row = dict[str, Any]


@st.composite
def request_lists(draw: st.DrawFn) -> list[Row]:
    rows = []
    for _ in range(draw(st.integers(0, 40))):
        start = draw(st.integers(0, 60))
        length = draw(st.integers(0, 30))
        rows.append(
            {
                "service": draw(st.sampled_from(["a", "b"])),
                "endpoint": draw(st.sampled_from(["x", "y", None])),
                "start_ns": start,
                "end_ns": start + length,
                "duration_ns": length,
                "adjusted_count": draw(st.sampled_from([1.0, 1.0, 2.0])),
            }
        )
    return rows


@st.composite
def interval_lists(draw: st.DrawFn) -> list[Row]:
    """Draw intervals in two groups; those of one group lie apart."""
    rows = []
    for group in (0, 1):
        at = draw(st.integers(0, 20))
        for _ in range(draw(st.integers(0, 3))):
            end = at + draw(st.integers(1, 30))
            rows.append({"interval": len(rows), "group": group, "start_ns": at, "end_ns": end})
            at = end + draw(st.integers(0, 10))
    return rows


REQUESTS = {
    "service": pl.String,
    "endpoint": pl.String,
    **dict.fromkeys(("start_ns", "end_ns", "duration_ns"), pl.Int64),
    "adjusted_count": pl.Float64,
}
INTERVALS = dict.fromkeys(("interval", "group", "start_ns", "end_ns"), pl.Int64)


def slow(intervals: list[Row], requests: list[Row]) -> dict[tuple[Any, ...], Row]:
    found = {}
    for interval in intervals:
        start, end = interval["start_ns"], interval["end_ns"]
        mine = [one for one in intervals if one["group"] == interval["group"]]
        for key in {(row["service"], row["endpoint"]) for row in requests}:
            own = [row for row in requests if (row["service"], row["endpoint"]) == key]
            flight = [row for row in own if row["start_ns"] < end and row["end_ns"] > start]
            began = [row for row in own if start <= row["start_ns"] < end]
            outside = [
                row
                for row in own
                if not any(one["start_ns"] <= row["start_ns"] < one["end_ns"] for one in mine)
            ]
            if not flight:
                continue
            enough = len(began) >= MIN_COMPARED <= len(outside)

            def mean(rows: list[Row]) -> float:
                weight = sum(row["adjusted_count"] for row in rows)
                return sum(row["duration_ns"] * row["adjusted_count"] for row in rows) / weight

            count = sum(row["adjusted_count"] for row in began)
            overlaps = [
                (min(row["end_ns"], end) - max(row["start_ns"], start)) * row["adjusted_count"]
                for row in flight
            ]
            found[interval["interval"], *key] = {
                "requests": sum(row["adjusted_count"] for row in flight),
                "began": count,
                "in_flight_ns": sum(overlaps),
                "mean_ns": mean(began) if enough else None,
                "normal_ns": mean(outside) if enough else None,
                "extra_ns": (mean(began) - mean(outside)) * count if enough else None,
            }
    return found


@given(interval_lists(), request_lists())
def test_suffering_equals_loops_over_requests(intervals: list[Row], requests: list[Row]) -> None:
    found = suffering(
        pl.DataFrame(intervals, schema=INTERVALS), pl.DataFrame(requests, schema=REQUESTS)
    )
    expected = slow(intervals, requests)
    rows = {(row["interval"], row["service"], row["endpoint"]): row for row in found.to_dicts()}
    # A request of no length that begins as the interval does is not in flight in it.
    assert set(rows) == set(expected)
    for key, values in expected.items():
        for name, value in values.items():
            if value is None:
                assert rows[key][name] is None
            else:
                assert rows[key][name] == pytest.approx(value, abs=0.51)


def test_long_requests_do_not_seem_to_suffer_because_they_overlap_more() -> None:
    rows = [
        {"start_ns": at, "end_ns": at + length, "duration_ns": length}
        for number, at in enumerate(range(0, 100_000, 10))
        for length in ([5] if number % 2 else [500],)
        for length in length
    ]
    requests = pl.DataFrame(rows).with_columns(
        service=pl.lit("a"), endpoint=pl.lit("x"), adjusted_count=pl.lit(1.0)
    )
    intervals = pl.DataFrame(
        {"interval": [0], "group": [0], "start_ns": [50_000], "end_ns": [51_000]}
    )
    (row,) = suffering(intervals, requests).to_dicts()
    assert row["requests"] > row["began"] == 100
    assert row["extra_ns"] == 0


def test_requests_of_a_process_or_else_of_a_service_or_else_entries() -> None:
    requests = pl.DataFrame(
        {"entry": [True, False, False], "pid": [1, 2, None], "service": ["a", "b", "b"]}
    )
    assert of_process(requests, 2, None).height == 1
    assert of_process(requests, None, "b").height == 2
    assert of_process(requests, 99, None)["service"].to_list() == ["a"]
    assert of_process(requests, None, None)["service"].to_list() == ["a"]
