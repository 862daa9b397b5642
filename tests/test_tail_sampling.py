"""Tail sampling: what is interesting is kept, and the rest is estimated without bias."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfkit import model, tail_sampling
from perfkit.analysis.vector.percentiles import quantiles
from perfkit.parts import conform
from perfkit.tail_sampling import MIN_PER_ENDPOINT, QUIET_NS, TailPolicy, TailSampler

START_NS = 1_790_000_000_000_000_000
MS = 1_000_000
NOW_NS = START_NS + 10**15
POLICY = TailPolicy(ratio=0.1, slow_ns=500 * MS)


def span_rows(rows: list[dict[str, Any]], segment: int = 1) -> pl.DataFrame:
    plain = {
        "trace_hi": 0,
        "trace_lo": 1,
        "span_id": 1,
        "parent_id": None,
        "service": "shop",
        "name": "work",
        "kind": "server",
        "start_ns": START_NS,
        "duration_ns": MS,
        "status": "unset",
        "adjusted_count": 1.0,
    }
    full = [plain | row for row in rows]
    columns = {name: [row[name] for row in full] for name in (full[0] if full else plain)}
    return conform(model.SPANS, columns).with_columns(segment=pl.lit(segment))


def traffic(rng: np.random.Generator, count: int) -> pl.DataFrame:
    """Return requests of three endpoints, each with a child; some fail, some are slow."""
    endpoint = rng.choice(["GET /often", "GET /seldom", "POST /rare"], count, p=[0.9, 0.099, 0.001])
    duration = (rng.lognormal(3, 1, count) * MS).astype(np.int64)
    start = START_NS + rng.integers(0, 60 * 10**9, count)
    ids = rng.integers(-(2**63), 2**63 - 1, count)
    requests = pl.DataFrame(
        {
            "trace_hi": ids,
            "trace_lo": ids,
            "span_id": np.ones(count, dtype=np.int64),
            "parent_id": pl.Series([None] * count, dtype=pl.Int64),
            "service": ["shop"] * count,
            "name": endpoint,
            "endpoint": endpoint,
            "kind": ["server"] * count,
            "start_ns": start,
            "duration_ns": duration,
            "status": np.where(rng.random(count) < 0.02, "error", "unset"),
            "adjusted_count": np.ones(count),
        }
    )
    children = requests.with_columns(
        span_id=2, parent_id=1, kind=pl.lit("client"), name=pl.lit("SELECT"), status=pl.lit("ok"),
        endpoint=pl.lit(None, dtype=pl.String), duration_ns=pl.col("duration_ns") // 2,
    )  # fmt: skip
    both = pl.concat([requests, children], how="vertical_relaxed").sort("start_ns")
    return conform(model.SPANS, both).with_columns(segment=pl.lit(1))


def sampled(spans: pl.DataFrame, policy: TailPolicy, pieces: int = 6) -> pl.DataFrame:
    """Send spans in several pieces, in the order in which they end."""
    sampler = TailSampler(policy)
    spans = spans.sort(pl.col("start_ns") + pl.col("duration_ns"))
    kept = []
    for number in range(pieces):
        begin, end = (spans.height * n // pieces for n in (number, number + 1))
        sampler.add("spans", spans[begin:end].with_columns(segment=pl.lit(number)))
        kept.append(sampler.decide(NOW_NS).get("spans"))
    kept.append(sampler.decide(NOW_NS, final=True).get("spans"))
    assert not sampler.segments
    result = pl.concat([frame for frame in kept if frame is not None])
    assert sampler.dropped_spans == spans.height - result.height
    return result


def test_counts_are_exact_and_percentiles_near_the_unsampled_truth() -> None:
    spans = traffic(np.random.default_rng(1), 40_000)
    kept = sampled(spans, POLICY)
    assert kept.height < 0.16 * spans.height
    # The rare endpoint is all there.
    assert kept.filter(endpoint="POST /rare").height == spans.filter(endpoint="POST /rare").height
    for (endpoint,), truth in spans.drop_nulls("endpoint").group_by("endpoint"):
        own = kept.filter(endpoint=endpoint)
        assert own["adjusted_count"].sum() == pytest.approx(truth.height)
        for status in ("error", "unset"):
            weight = own.filter(status=status)["adjusted_count"].sum()
            assert weight == pytest.approx(truth.filter(status=status).height)
        if truth.height < 1000:
            continue
        levels = (0.5, 0.9, 0.95, 0.99)
        estimate, exact = (
            quantiles(
                np.zeros(frame.height, dtype=np.int64),
                frame["duration_ns"].to_numpy(),
                frame["adjusted_count"].to_numpy(),
                1,
                levels,
            )[0]
            for frame in (own, truth)
        )
        assert estimate == pytest.approx(exact, rel=0.12)
        assert (own["duration_ns"] * own["adjusted_count"]).sum() == pytest.approx(
            # Four standard errors of the mean of such durations.
            truth["duration_ns"].sum(),
            rel=4 * 1.31 / math.sqrt(own.height),
        )
    slow = (spans["duration_ns"] >= POLICY.slow_ns) & spans["endpoint"].is_not_null()
    kept_slow = kept.filter(pl.col("duration_ns") >= POLICY.slow_ns, kind="server")
    assert kept_slow.height == slow.sum()
    assert set(kept_slow["adjusted_count"]) == {1.0}


@pytest.mark.slow
def test_sums_have_no_bias() -> None:
    """The mean error over many drawings is within what chance allows."""
    errors = []
    for seed in range(40):
        spans = traffic(np.random.default_rng(seed), 1500)
        kept = sampled(spans, TailPolicy(0.05, 10**12))
        for part in ("server", "client"):
            truth = spans.filter(kind=part)["duration_ns"].sum()
            own = kept.filter(kind=part)
            errors.append((own["duration_ns"] * own["adjusted_count"]).sum() / truth - 1)
    standard_error = np.std(errors) / math.sqrt(len(errors) / 2)
    assert abs(np.mean(errors)) < 3.5 * standard_error
    assert standard_error < 0.03


TRACE = st.fixed_dictionaries(
    {
        "trace_lo": st.integers(1, 30),
        "kind": st.sampled_from(["server", "client"]),
        "parent_id": st.sampled_from([None, 7]),
        "endpoint": st.sampled_from([None, "GET /a", "GET /b"]),
        "duration_ns": st.sampled_from([0, MS, 600 * MS, None]),
        "start_ns": st.sampled_from([START_NS, START_NS + 2 * QUIET_NS]),
        "status": st.sampled_from(["unset", "unset", "unset", "error"]),
        "adjusted_count": st.sampled_from([1.0, 4.0]),
    }
)


@settings(max_examples=100)
@given(st.lists(TRACE, min_size=1, max_size=120), st.integers(1, 3), st.booleans())
def test_traces_are_kept_whole_and_stand_for_those_that_are_not(
    rows: list[dict[str, Any]], at_least: int, held: bool
) -> None:
    spans = span_rows([{**row, "span_id": number} for number, row in enumerate(rows, 1)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tail_sampling, "MIN_PER_ENDPOINT", at_least)
        sampler = TailSampler(POLICY)
        sampler.add("spans", spans)
        sampler.add("span_events", spans.select("trace_hi", "trace_lo", "span_id", "segment"))
        first = {} if held else sampler.decide(NOW_NS)
        rest = sampler.decide(NOW_NS, final=True)
    parts = [part["spans"] for part in (first, rest) if "spans" in part]
    kept = pl.concat(parts) if parts else spans.clear()
    events = [part["span_events"] for part in (first, rest) if "span_events" in part]
    assert sorted(kept["span_id"]) == sorted(pl.concat(events)["span_id"] if events else [])
    weight_of = dict(zip(kept["span_id"], kept["adjusted_count"], strict=True))
    whole: dict[int, list[dict[str, Any]]] = {}
    for number, row in enumerate(rows, 1):
        whole.setdefault(row["trace_lo"], []).append({**row, "span_id": number})
    weights = {}
    for trace, own in whole.items():
        ratios = {
            weight_of[row["span_id"]] / row["adjusted_count"]
            for row in own
            if row["span_id"] in weight_of
        }
        if ratios:
            assert all(row["span_id"] in weight_of for row in own)
            assert len(ratios) == 1
            weights[trace] = ratios.pop()
        if any(_interesting(row) for row in own):
            assert weights[trace] == 1.0
    assert sum(weights.values()) == pytest.approx(len(whole))


def _interesting(span: dict[str, Any]) -> bool:
    request = span["kind"] == "server" or span["parent_id"] is None
    slow = (span["duration_ns"] or 0) >= POLICY.slow_ns
    return (request and slow) or span["status"] == "error"


def test_what_comes_late_follows_the_decision_but_failures_are_kept() -> None:
    sampler = TailSampler(TailPolicy(0.001, 500 * MS))
    sampler.add("spans", span_rows([{"trace_lo": n, "span_id": n} for n in range(1, 200)]))
    kept = sampler.decide(NOW_NS, final=True)["spans"]
    assert kept.height == MIN_PER_ENDPOINT
    [weight] = set(kept["adjusted_count"])
    assert weight == pytest.approx(199 / MIN_PER_ENDPOINT)
    inside = kept["trace_lo"][0]
    outside = next(n for n in range(1, 200) if n not in set(kept["trace_lo"]))
    late = [
        {"trace_lo": trace, "span_id": 500 + trace, "parent_id": 1, "kind": "client"}
        for trace in (inside, outside)
    ]
    failed = next(n for n in range(1, 200) if n not in {*kept["trace_lo"], outside})
    late.append({"trace_lo": failed, "span_id": 999, "status": "error"})
    sampler.add("spans", span_rows(late, 2))
    after = sampler.decide(NOW_NS)["spans"].sort("span_id")
    assert after["span_id"].to_list() == sorted([500 + inside, 999])
    assert dict(zip(after["span_id"], after["adjusted_count"], strict=True)) == {
        500 + inside: pytest.approx(weight),
        999: 1.0,
    }


def test_a_trace_waits_for_its_request() -> None:
    sampler = TailSampler(TailPolicy(0.001, 500 * MS))
    child = {"parent_id": 5, "kind": "client"}
    children = [{**child, "trace_lo": n, "span_id": n} for n in range(1, 200)]
    late = START_NS + 30 * 10**9
    sampler.add("spans", span_rows([*children, {"trace_lo": 999, "start_ns": late}]))
    assert sampler.decide(NOW_NS) == {}
    assert sampler.segments == {1}
    slow = {"span_id": 5, "duration_ns": 30 * 10**9}
    sampler.add("spans", span_rows([{**slow, "trace_lo": n} for n in range(1, 200)], 2))
    kept = sampler.decide(NOW_NS, final=True)["spans"]
    assert kept.filter(pl.col("trace_lo") < 999).height == 2 * 199
    assert sampler.segments == set()


def test_memory_is_bounded() -> None:
    sampler = TailSampler(POLICY, max_held_spans=100)
    now = [{"trace_lo": n, "span_id": n} for n in range(99)]
    sampler.add("spans", span_rows(now))
    assert sampler.decide(NOW_NS) == {}
    sampler.add("spans", span_rows([{"trace_lo": 100, "span_id": 100}]))
    assert sampler.decide(NOW_NS)["spans"]["adjusted_count"].sum() == pytest.approx(100)
    assert sampler.early_traces == 100
    assert sampler.segments == set()


def test_a_clock_in_the_future_does_not_hurry_the_others() -> None:
    sampler = TailSampler(POLICY)
    future = {"trace_lo": 2, "start_ns": START_NS + 10**17}
    sampler.add("spans", span_rows([{"trace_lo": 1}, future]))
    assert sampler.decide(START_NS + 2 * MS) == {}
