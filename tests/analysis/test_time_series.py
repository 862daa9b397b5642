from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.session import Tables
from tests.analysis.build import S, analyse

SECOND = 10**9
EPOCH = 1_700_000_000 * SECOND


def served(times: list[float], **more: Any) -> list[S]:
    """Return requests that begin at these seconds and take 10 ms each."""
    return [
        S(number + 1, EPOCH + round(at * SECOND), EPOCH + round(at * SECOND) + 10**7, trace=number,
          kind="server", endpoint="GET /a", **more)
        for number, at in enumerate(times)
    ]  # fmt: skip


def by_measure(tables: Tables, endpoint: str | None) -> dict[str, list[dict[str, Any]]]:
    rows = tables.frame("series").to_dicts()
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["kind"] != "resource" and row["endpoint"] == endpoint:
            found.setdefault(row["measure"], []).append(row)
    return found


@st.composite
def loads(draw: st.DrawFn) -> list[S]:
    rng = random.Random(draw(st.integers(0, 10**6)))
    seconds = draw(st.sampled_from([30, 60, 100]))
    spans = []
    for number in range(draw(st.sampled_from([60, 400, 900]))):
        start = EPOCH + round(rng.random() * seconds * SECOND)
        spans.append(
            S(
                number + 1,
                start,
                start + rng.randrange(1, SECOND),
                trace=number,
                kind="server",
                endpoint=rng.choice(["GET /a", "GET /a", "GET /b"]),
                status=rng.choice(["ok", "ok", "error"]),
                adjusted_count=rng.choice([1.0, 1.0, 4.0]),
            )
        )
    return spans


@given(loads())
def test_buckets_equal_loops_over_requests(spans: list[S]) -> None:
    tables = analyse(spans)
    for endpoint in (None, "GET /a", "GET /b"):
        own = [one for one in spans if endpoint in (None, one.columns["endpoint"])]
        for measure, buckets in by_measure(tables, endpoint).items():
            assert len(buckets) >= 24 - 2
            width = buckets[0]["bucket_width_ns"]
            starts = [bucket["bucket_ns"] for bucket in buckets]
            assert starts == list(range(starts[0], starts[-1] + 1, width))
            assert all(start % width == 0 for start in starts)
            # The first and the last bucket are not whole.
            first, last = min(one.start for one in spans), max(one.start for one in spans)
            assert starts[0] == first // width * width + width
            assert starts[-1] == last // width * width - width
            for bucket in buckets:
                inside = [
                    one
                    for one in own
                    if bucket["bucket_ns"] <= one.start < bucket["bucket_ns"] + width
                ]
                check(measure, bucket, inside, width)


def check(measure: str, bucket: dict[str, Any], inside: list[S], width: int) -> None:
    weights = [one.columns["adjusted_count"] for one in inside]
    total = sum(weights)
    if inside:
        effective = total**2 / sum(weight**2 for weight in weights)
        assert bucket["observations"] == pytest.approx(effective)
    if measure == "requests_per_s":
        assert bucket["value"] == pytest.approx(total / (width / SECOND))
    elif measure == "error_ratio":
        failed = sum(
            weight
            for weight, one in zip(weights, inside, strict=True)
            if one.columns["status"] == "error"
        )
        assert bucket["value"] == (pytest.approx(failed / total) if inside else None)
    elif len(inside) < (3 if measure == "p50_ns" else 10):
        assert bucket["value"] is None
    else:
        every = [one.end - one.start for one in inside for _ in range(int(one.columns["adjusted_count"]))]  # fmt: skip  # noqa: E501
        level = {"p50_ns": 0.5, "p95_ns": 0.95}[measure]
        assert bucket["value"] == pytest.approx(float(np.quantile(every, level)))


def test_sparse_endpoints_have_wider_buckets() -> None:
    rng = random.Random(1)
    busy = served(sorted(rng.random() * 600 for _ in range(6000)))
    rare = served(sorted(rng.random() * 600 for _ in range(300)))
    for number, one in enumerate(rare):
        one.trace, one.columns["endpoint"] = 10**6 + number, "GET /rare"
    tables = analyse(busy + rare)
    assert by_measure(tables, "GET /a")["p95_ns"][0]["bucket_width_ns"] == 3 * SECOND
    assert by_measure(tables, "GET /rare")["p95_ns"][0]["bucket_width_ns"] == 13 * SECOND


def test_a_short_capture_has_no_series() -> None:
    assert analyse(served([0, 1, 2, 3])).frame("series").is_empty()
    assert analyse([]).frame("series").is_empty()


def test_metrics_are_means_of_buckets_and_those_that_never_move_are_left_out() -> None:
    points = [(at, 0.5 + 0.1 * (at % 3)) for at in range(120)]
    times = [EPOCH + at * SECOND // 2 for at, _ in points]
    metrics = {
        "ts_ns": times * 2,
        "name": ["process.cpu.utilization"] * 120 + ["system.memory.limit"] * 120,
        "unit": ["1"] * 240,
        "value": [value for _, value in points] + [8.0] * 120,
        "kind": ["gauge"] * 240,
        "instance": ["pid 1"] * 240,
    }
    rows = analyse([], metrics=metrics).frame("series").to_dicts()
    assert {row["measure"] for row in rows} == {"process.cpu.utilization"}
    assert len(rows) == 60
    for row, pair in zip(rows, zip(points[::2], points[1::2], strict=True), strict=True):
        assert row["observations"] == 2
        assert row["value"] == pytest.approx(math.fsum(value for _, value in pair) / 2)
        assert (row["kind"], row["instance"], row["endpoint"]) == ("resource", "pid 1", None)
