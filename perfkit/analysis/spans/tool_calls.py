"""The table `tool_calls`: how often tools are called, and how often with arguments seen before."""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.spans.components import outermost
from perfkit.analysis.vector.percentiles import codes
from perfkit.analysis.vector.summary import summarise, sums, whole, window_ns

_READ = (
    *("row", "subtree", "tool", "tool_arguments", "start_ns"),
    *("duration_ns", "status", "adjusted_count"),
)


def compute(tables: Tables) -> pl.DataFrame:
    """Return one row a tool. A call inside a call of the same tool is part of it."""
    called = pl.col("tool").is_not_null() & pl.col("entry_row").is_not_null() & ~pl.col("duplicate")
    spans = tables.where("tree", called, *_READ)
    code, _ = codes(spans, ["tool"])
    calls = spans.filter(pl.Series(outermost(code, spans)))
    code, distinct = codes(calls, ["tool"])
    repeated = _repeated(calls)
    weight = calls["adjusted_count"].to_numpy()
    duration = calls["duration_ns"].to_numpy()
    known = calls.group_by("tool").agg(
        distinct_arguments=pl.col("tool_arguments").drop_nulls().n_unique().cast(pl.Int64),
        known=pl.col("tool_arguments").is_not_null().any(),
    )
    hours = window_ns(tables["tree"]) / 3.6e12
    return (
        summarise(calls, ["tool"])
        .rename({"count": "calls", "duration_sum_ns": "total_ns"})
        .with_columns(
            repeated_calls=whole(sums(code, weight * repeated, distinct.height)),
            repeat_ns=whole(sums(code, weight * repeated * duration, distinct.height)),
            rate_per_h=pl.col("calls") / hours if hours > 0 else pl.lit(None, dtype=pl.Float64),
        )
        .join(known, on="tool", how="left", maintain_order="left")
        .with_columns(
            pl.when("known").then(name).alias(name)
            for name in ("distinct_arguments", "repeated_calls", "repeat_ns")
        )
        .select(*_COLUMNS)
        .sort("total_ns", descending=True, maintain_order=True)
    )


def _repeated(calls: pl.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return which calls have arguments with which their tool was called before, in any entry."""
    ordered = calls.with_row_index("place").sort("start_ns", maintain_order=True)
    again = ~ordered.select(pl.struct("tool", "tool_arguments").is_first_distinct()).to_series()
    result = np.zeros(calls.height, dtype=np.bool_)
    result[ordered["place"].to_numpy()] = (
        again & ordered["tool_arguments"].is_not_null()
    ).to_numpy()
    return result


_COLUMNS = {
    "tool": "the tool",
    "calls": "how often it was called",
    "errors": "how many calls failed",
    "distinct_arguments": "how many different arguments; null when arguments are not recorded",
    "repeated_calls": "calls with arguments that the tool was called with before; null likewise",
    "mean_ns": "mean duration",
    "p95_ns": "95% last no longer",
    "total_ns": "sum of durations",
    "repeat_ns": "the part of it in repeated calls; null likewise",
    "rate_per_h": "calls an hour over the time of the capture",
}

DERIVED = Derived("tool_calls", "one tool", ("tree",), compute, _COLUMNS)
