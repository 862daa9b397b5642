"""Which labelled faults can be seen in spans at all: an upper bound for any root cause from traces.

Of the service that has the fault, every operation (by its caller's) is tested before against during
the fault: self time and duration (Mann and Whitney 1947, normal approximation), and how often each
set of children is seen (Fisher's exact test). A fault is visible where the smallest p, times the
number of tests of that service (Bonferroni), is below a level.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl

_KEY = ("service", "name", "caller")
_FEWEST = 3
"""Fewer spans on a side show no difference in length."""


def visible(service: str, before: pl.DataFrame, during: pl.DataFrame) -> float:
    """Return the corrected p of the clearest difference in a service's own spans."""
    sides = [described(spans).filter(service=service) for spans in (before, during)]
    groups = [side.partition_by(_KEY, as_dict=True) for side in sides]
    found = [
        p
        for key in groups[0].keys() & groups[1].keys()
        for p in _differences(groups[0][key], groups[1][key])
    ]
    return min(1.0, min(found, default=1.0) * len(found))


def described(spans: pl.DataFrame) -> pl.DataFrame:
    """Add `duration`, `own` (less that of children), `children` (their names) and `caller`."""
    spans = spans.with_columns(duration=pl.col("end_ns") - pl.col("start_ns"))
    below = spans.group_by("trace_id", "parent_id").agg(
        below=pl.col("duration").sum(), children=pl.col("name").unique().sort().str.join("\n")
    )
    callers = spans.select("trace_id", parent_id="span_id", caller="name")
    place = ["trace_id", "span_id"]
    return (
        spans.join(below, left_on=place, right_on=["trace_id", "parent_id"], how="left")
        .join(callers, on=["trace_id", "parent_id"], how="left")
        .with_columns(
            own=pl.col("duration") - pl.col("below").fill_null(0),
            children=pl.col("children").fill_null(""),
        )
    )


def _differences(one: pl.DataFrame, other: pl.DataFrame) -> list[float]:
    found = []
    if min(one.height, other.height) >= _FEWEST:
        found += [
            _mann_whitney(one[name].to_numpy(), other[name].to_numpy())
            for name in ("own", "duration")
        ]
    for children in {*one["children"], *other["children"]}:
        seen = [int((side["children"] == children).sum()) for side in (one, other)]
        found.append(_fisher(seen[0], one.height, seen[1], other.height))
    return found


def _mann_whitney(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    n, m = len(one), len(other)
    rank = np.concatenate([one, other]).argsort().argsort() + 1.0
    u = rank[n:].sum() - m * (m + 1) / 2
    return math.erfc(abs(u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12) / math.sqrt(2))


def _fisher(one: int, of_one: int, other: int, of_other: int) -> float:
    """Return the two-sided p of one in so many against other in so many."""
    seen = one + other
    possible = range(max(0, seen - of_other), min(seen, of_one) + 1)
    chance = [
        math.comb(of_one, k) * math.comb(of_other, seen - k) / math.comb(of_one + of_other, seen)
        for k in possible
    ]
    observed = chance[one - possible.start]
    return sum(p for p in chance if p <= observed * (1 + 1e-9))
