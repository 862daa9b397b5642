"""Samples in the order of time, numbered: what tables that look at time start from."""

from __future__ import annotations

import polars as pl

from perfkit.analysis.session import Derived, Tables


def compute(tables: Tables) -> pl.DataFrame:
    """Return the table `ordered_samples`; samples without a time come last."""
    samples = tables["samples"].collect()
    if not samples["ts_ns"].is_sorted(nulls_last=True):
        samples = samples.sort("ts_ns", nulls_last=True, maintain_order=True)
    path = (
        tables.frame("call_paths")
        .select("stack_id")
        .with_row_index("path")
        .with_columns(pl.col("path").cast(pl.Int64))
    )
    return (
        samples.join(path, on="stack_id", how="left", maintain_order="left")
        .with_row_index("sample_row")
        .with_columns(pl.col("sample_row").cast(pl.Int64))
        .select(list(COLUMNS))
    )


COLUMNS = {
    "sample_row": "number of the sample, in the order of time",
    "ts_ns": "when the stack was first seen; null when the source has no times",
    "duration_ns": "how long it stayed; null when the source has only counts",
    "count": "how many observations it stands for",
    "pid": "process",
    "tid": "thread",
    "thread_name": "name of the thread",
    "stack_id": "the stack",
    "path": "the stack's row in `call_paths`, counted from 0; null when the capture lost the stack",
    "state": "`running`, `idle`, or null when not known",
}

DERIVED = Derived(
    "ordered_samples",
    "one sample, numbered in the order of time",
    ("samples", "call_paths"),
    compute,
    COLUMNS,
)
