"""Counts, errors and percentiles of spans by some key: one way of adding up for all tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from perfkit.analysis.vector.forest import Ints
from perfkit.analysis.vector.percentiles import Floats, codes, quantiles

_LIMIT = float(2**63 - 2**10)

LEVELS = {"p50_ns": 0.5, "p90_ns": 0.9, "p95_ns": 0.95, "p99_ns": 0.99}

DOCS = {
    "errors": "how many of them failed",
    "error_ratio": "errors by count",
    "mean_ns": "mean duration",
    **{name: f"{level:.0%} last no longer" for name, level in LEVELS.items()},
    "max_ns": "longest duration",
}


def summarise(spans: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Return one row a key, in order of first appearance, with what `summarise_groups` says."""
    code, distinct = codes(spans, keys)
    return distinct.hstack(summarise_groups(spans, code, distinct.height))


def summed(rows: pl.DataFrame, keys: Sequence[str], columns: Sequence[str]) -> pl.DataFrame:
    """Return one row a key, in order of first appearance, with the sums of some columns."""
    code, distinct = codes(rows, keys)
    return distinct.with_columns(
        pl.Series(name, sums(code, rows[name].cast(pl.Float64).to_numpy(), distinct.height))
        for name in columns
    )


def summarise_groups(spans: pl.DataFrame, code: Ints, groups: int) -> pl.DataFrame:
    """Return count, errors and durations of each group of spans, 0 to `groups` - 1.

    `spans` has `duration_ns`, `status` and `adjusted_count`. The sum of durations is the column
    `duration_sum_ns`; counts are of what the spans stand for. Groups may be empty.
    """
    weight = spans["adjusted_count"].to_numpy()
    duration = spans["duration_ns"].to_numpy()
    failed = (spans["status"] == "error").fill_null(False).to_numpy()
    count = sums(code, weight, groups)
    errors = sums(code, weight * failed, groups)
    total = sums(code, weight * duration, groups)
    longest = np.zeros(groups, dtype=np.int64)
    np.maximum.at(longest, code, duration)
    marks = quantiles(code, duration, weight, groups, list(LEVELS.values()))
    safe = np.maximum(count, 1.0)
    return pl.DataFrame(
        {
            "count": whole(count),
            "errors": whole(errors),
            "error_ratio": errors / safe,
            "duration_sum_ns": whole(total),
            "mean_ns": whole(total / safe),
            **{name: whole(marks[:, column]) for column, name in enumerate(LEVELS)},
            "max_ns": longest,
        }
    )


def sums(code: Ints, values: Floats, groups: int) -> Floats:
    """Return the sum of the values of each group, 0 to `groups` - 1."""
    return np.bincount(code, values, groups).astype(np.float64, copy=False)


def whole(values: Floats) -> pl.Series:
    """Return values as a column of integers, at the limit where they are beyond it."""
    limited = np.clip(np.nan_to_num(values), -_LIMIT, _LIMIT)
    return pl.Series(np.rint(limited).astype(np.int64))


def ratio_of(part: pl.Expr, total: float) -> pl.Expr:
    """Return a part of a total; 0 when the total is."""
    return part / total if total > 0 else pl.lit(0.0)


def request_time(tree: pl.LazyFrame) -> float:
    """Return the sum over entries of duration × adjusted_count, in ns."""
    entries = tree.filter(pl.col("row") == pl.col("entry_row"))
    total = entries.select((pl.col("duration_ns") * pl.col("adjusted_count")).sum()).collect()
    return float(total.item())


def window_ns(tree: pl.LazyFrame) -> int:
    """Return the time from the first start to the last end of what belongs to an entry."""
    inside = tree.filter(pl.col("entry_row").is_not_null())
    extent = inside.select(pl.col("end_ns").max() - pl.col("start_ns").min()).collect()
    return int(extent.item() or 0)
