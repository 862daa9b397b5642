"""Other rankings of services on the same windows: what perfkit's is to be seen beside.

Each is written anew from its paper, on spans alone, and returns the services in order:

- *robust scores*, after BARO (Pham et al., FSE '24): series of each service's rate and latency; the
  farthest a bucket during the fault is from the normal median, in interquartile ranges;
- *spectrum with PageRank*, after MicroRank (Yu et al., WWW '21): traces slower than their
  operations let expect against the others; operations weighted by PageRank; Ochiai's coefficient;
- *support and confidence*, after TraceRCA (Li et al., IWQoS '21): traces with an abnormal call, and
  services that are in these, and in few others;
- *smallest p*: the clearest difference in a service's own spans (`rca_signal`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench import rca_signal

Floats = NDArray[np.float64]
Ranker = Callable[[pl.DataFrame, pl.DataFrame], list[str]]
_BUCKET_NS = 5 * 10**9
_DAMPING, _ALONG_CALLS, _ROUNDS = 0.85, 0.01, 25
_FAR = 3.0
"""Standard deviations beyond which a call is abnormal (TraceRCA); MicroRank allows 1.5."""
_SLOW = 1.5


def robust_scores(before: pl.DataFrame, during: pl.DataFrame) -> list[str]:
    """Rank by how far a service's rate or latency is from normal."""
    series = [_series(spans) for spans in (before, during)]
    place = ["service", "measure"]
    normal = (
        series[0]
        .group_by(place)
        .agg(
            middle=pl.col("value").median(),
            spread=pl.col("value").quantile(0.75) - pl.col("value").quantile(0.25),
        )
    )
    far = (pl.col("value") - pl.col("middle")).abs() / pl.col("spread").replace(0.0, 1.0)
    return _ordered(series[1].join(normal, on=place).group_by("service").agg(score=far.max()))


def _series(spans: pl.DataFrame) -> pl.DataFrame:
    buckets = spans.group_by("service", bucket=pl.col("start_ns") // _BUCKET_NS).agg(
        rate=pl.len().cast(pl.Float64),
        latency=(pl.col("end_ns") - pl.col("start_ns")).quantile(0.9).cast(pl.Float64) / 1e6,
    )
    return buckets.unpivot(
        ["rate", "latency"], index=["service", "bucket"], variable_name="measure"
    )


def support_and_confidence(before: pl.DataFrame, during: pl.DataFrame) -> list[str]:
    """Rank by how many abnormal traces have an abnormal call of a service, and how surely."""
    spans = _against(before, during).with_columns(
        abnormal=pl.col("duration") > pl.col("mean") + _FAR * pl.col("std").fill_null(0.0)
    )
    traces = spans.group_by("trace_id").agg(bad=pl.col("abnormal").any())
    bad = max(int(traces["bad"].sum()), 1)
    seen = (
        spans.join(traces, on="trace_id")
        .group_by("service", "trace_id", "bad")
        .agg(mine=pl.col("abnormal").any())
    )
    found = seen.group_by("service").agg(
        support=pl.col("mine").sum() / bad, confidence=pl.col("mine").sum() / pl.len()
    )
    support, confidence = pl.col("support"), pl.col("confidence")
    score = 2 * support * confidence / (support + confidence)
    return _ordered(found.with_columns(score=score.fill_nan(0.0)))


def spectrum(before: pl.DataFrame, during: pl.DataFrame) -> list[str]:
    """Rank by Ochiai's coefficient of operations, weighted by PageRank, in slow traces."""
    spans = _against(before, during, own=True)
    # The spans' own times add up to the length of the trace.
    allowed = pl.col("mean") + _SLOW * pl.col("std").fill_null(0.0)
    traces = spans.group_by("trace_id").agg(
        slow=pl.col("duration").sum() > allowed.sum().fill_null(0.0)
    )
    spans = spans.join(traces, on="trace_id")
    ranks = [_page_rank(spans.filter(slow=slow)) for slow in (True, False)]
    all_slow = spans.filter("slow")["trace_id"].n_unique()
    score: dict[str, float] = {}
    for operation, (rank, covered) in ranks[0].items():
        usual, passed = ranks[1].get(operation, (0.0, 0))
        ef, nf, ep = rank * covered, rank * (all_slow - covered), usual * passed
        value = ef / np.sqrt(max((ef + nf) * (ef + ep), 1e-300))
        score[operation[0]] = max(score.get(operation[0], 0.0), float(value))
    return sorted(score, key=lambda service: (-score[service], service))


def _page_rank(spans: pl.DataFrame) -> dict[tuple[Any, ...], tuple[float, int]]:
    """Return each operation's rank (their mean is 1), and how many traces cover it."""
    if spans.is_empty():
        return {}
    names = spans.select("service", "name").unique(maintain_order=True)
    numbered = spans.join(names.with_row_index("operation"), on=["service", "name"])
    operations, size = numbered["operation"].to_numpy().astype(np.int64), names.height
    _, trace = np.unique(numbered["trace_id"].to_numpy(), return_inverse=True)
    cover = np.zeros((size, int(trace.max()) + 1))
    cover[operations, trace] = 1.0
    above = numbered.select("trace_id", parent_id="span_id", above="operation")
    calls = np.zeros((size, size))
    pairs = numbered.join(above, on=["trace_id", "parent_id"]).select("operation", "above")
    calls[pairs["operation"].to_numpy(), pairs["above"].to_numpy()] = 1.0
    calls /= np.maximum(calls.sum(axis=0), 1.0)
    to_operations = cover / cover.sum(axis=0)
    to_traces = (cover / cover.sum(axis=1, keepdims=True)).T
    start = 1 / cover.sum(axis=0)
    start /= start.sum()
    rank, of_trace = np.full(size, 1 / size), start.copy()
    for _ in range(_ROUNDS):
        rank, of_trace = (
            _DAMPING * (to_operations @ of_trace + _ALONG_CALLS * calls @ rank),
            _DAMPING * (to_traces @ rank) + (1 - _DAMPING) * start,
        )
        rank, of_trace = rank / rank.max(), of_trace / of_trace.max()
    rank = rank / rank.mean()
    counts = cover.sum(axis=1)
    return {row: (float(rank[i]), int(counts[i])) for i, row in enumerate(names.iter_rows())}


def smallest_p(before: pl.DataFrame, during: pl.DataFrame) -> list[str]:
    """Rank by the clearest difference of any operation, corrected for a service's tests."""
    services = sorted({*before["service"], *during["service"]})
    p = {service: rca_signal.visible(service, before, during) for service in services}
    return sorted(services, key=lambda service: (p[service], service))


def _against(before: pl.DataFrame, during: pl.DataFrame, *, own: bool = False) -> pl.DataFrame:
    """Return the spans during the fault, with mean and deviation of their operation's length."""
    length = "own" if own else "duration"
    sides = [
        rca_signal.described(spans).with_columns(duration=pl.col(length).clip(0) / 1e6)
        for spans in (before, during)
    ]
    duration = pl.col("duration")
    normal = sides[0].group_by("service", "name").agg(mean=duration.mean(), std=duration.std())
    return sides[1].join(normal, on=["service", "name"], how="left")


def _ordered(scored: pl.DataFrame) -> list[str]:
    ordered = scored.sort("score", "service", descending=[True, False], nulls_last=True)
    return ordered["service"].to_list()


PEERS: dict[str, Ranker] = {
    "robust scores": robust_scores,
    "spectrum with PageRank": spectrum,
    "support and confidence": support_and_confidence,
    "smallest p": smallest_p,
}
