from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.series import timeline
from perfkit.analysis.series.timeline import MAX_BUCKETS, bucket_width_ns
from tests.analysis.sampled import tables
from tests.analysis.test_facts import request

SECOND = 10**9


def metric(name: str, second: float, value: float, **more: Any) -> dict[str, Any]:
    row = {"name": name, "ts_ns": int(second * SECOND), "value": value, "kind": "gauge"}
    return row | more


@given(st.integers(0, 10**16), st.integers(0, 10**16))
def test_there_are_never_too_many_buckets_and_never_wider_than_needed(
    start: int, length: int
) -> None:
    def buckets(width: int) -> int:
        return (start + length) // width - start // width + 1

    width = bucket_width_ns(start, start + length)
    assert width % SECOND == 0
    assert buckets(width) <= MAX_BUCKETS
    if width > SECOND:
        assert buckets(width - SECOND) > MAX_BUCKETS


requests = st.lists(
    st.tuples(
        st.integers(0, 8 * SECOND),
        st.integers(0, 5 * SECOND),
        st.sampled_from([1, 3]),
        st.sampled_from(["ok", "error"]),
    ),
    min_size=1,
    max_size=15,
)


@given(requests)
def test_requests_equal_a_loop_over_buckets(drawn: list[tuple[int, int, int, str]]) -> None:
    spans = [
        request(n, start, start + length, adjusted_count=float(weight), status=status)
        for n, (start, length, weight, status) in enumerate(drawn, 1)
    ]
    table = tables(spans=spans).frame("timeline")
    assert table.columns == list(timeline.COLUMNS)
    first = min(start for start, *_ in drawn) // SECOND
    last = max(start + length for start, length, *_ in drawn) // SECOND
    assert table["bucket_ns"].to_list() == [n * SECOND for n in range(first, last + 1)]
    for row in table.iter_rows(named=True):
        mine = [each for each in drawn if each[0] // SECOND == row["bucket_ns"] // SECOND]
        assert row["requests"] == sum(weight for _, _, weight, _ in mine)
        assert row["errors"] == sum(weight for *_, weight, status in mine if status == "error")
        lengths = [length for _, length, weight, _ in mine for _ in range(weight)]
        assert row["max_ns"] == max(lengths, default=None)
        for name, level in (("p50_ns", 50), ("p95_ns", 95)):
            if lengths:
                assert math.isclose(row[name], np.percentile(lengths, level), abs_tol=1)
            else:
                assert row[name] is None


def test_resources_are_means_added_up_over_processes() -> None:
    metrics = [
        metric("process.cpu.utilization", 1.0, 1.0, instance="pid 1"),
        metric("process.cpu.utilization", 1.5, 2.0, instance="pid 1"),
        metric("process.cpu.utilization", 1.2, 0.5, instance="pid 2"),
        metric("process.memory.usage", 1.0, 100, instance="pid 1"),
        metric("process.memory.usage", 1.9, 200, instance="pid 2"),
        metric("process.memory.usage", 3.0, 50, instance="pid 1"),
        metric("system.cpu.utilization", 1.0, 0.4),
        metric("system.cpu.utilization", 1.0, 0.8, attributes='{"cpu.logical_number":0}'),
        metric("system.cpu.utilization", 3.0, 0.2, attributes='{"cpu.logical_number":0}'),
        metric("system.cpu.utilization", 3.0, 0.4, attributes='{"cpu.logical_number":1}'),
    ]
    table = tables(metrics=metrics, cores=4).frame("timeline")
    columns = ("bucket_ns", "requests", "cpu_ratio", "host_cpu_ratio", "rss_bytes")
    assert table.select(columns).rows() == [
        (SECOND, 0, pytest.approx(2 / 4), pytest.approx(0.4), 300),
        (2 * SECOND, 0, None, None, None),
        (3 * SECOND, 0, None, pytest.approx(0.3), 50),
    ]


def test_a_share_of_cores_needs_the_number_of_cores() -> None:
    metrics = [metric("process.cpu.utilization", 1.0, 1.0, instance="pid 1")]
    assert tables(metrics=metrics, cores=0).frame("timeline")["cpu_ratio"].to_list() == [None]


def test_nothing_gives_the_columns() -> None:
    table = tables().frame("timeline")
    assert table.columns == list(timeline.COLUMNS)
    assert table.is_empty()
