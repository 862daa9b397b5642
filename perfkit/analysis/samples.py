"""Samples in the order of time, and the threads they were taken on, numbered."""

from __future__ import annotations

import polars as pl

from perfkit.analysis.session import Derived, Tables

_MAX_GAP_NS = 1_000_000
"""Rows of one thread that are further apart have something unseen between them (our own limit)."""


def compute(tables: Tables) -> pl.DataFrame:
    """Return the table `ordered_samples`; samples without a time come last."""
    samples = tables["samples"].collect()
    if not samples["ts_ns"].is_sorted(nulls_last=True):
        samples = samples.sort("ts_ns", nulls_last=True, maintain_order=True)
    threads = _numbered(samples.select("pid", "tid").unique().sort("pid", "tid"), "thread")
    paths = _numbered(tables.frame("call_paths").select("stack_id"), "path")
    return (
        samples.join(
            threads, on=["pid", "tid"], how="left", nulls_equal=True, maintain_order="left"
        )
        .join(paths, on="stack_id", how="left", maintain_order="left")
        .pipe(_numbered, "sample_row")
        .select(list(COLUMNS))
    )


def _numbered(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    return frame.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias(name))


def number_runs(rows: pl.DataFrame, *keys: str) -> pl.DataFrame:
    """Number, as `run`, the rows that follow one another with equal keys, one of them the thread.

    The rows must be in the order of thread and time.
    """
    ended = (pl.col("ts_ns") + pl.col("duration_ns")).shift(1)
    same = pl.all_horizontal(pl.col(name) == pl.col(name).shift(1) for name in keys)
    follows = (same & (pl.col("ts_ns") - ended <= _MAX_GAP_NS)).fill_null(False)
    return rows.with_columns(run=(~follows).cum_sum())


COLUMNS = {
    "sample_row": "number of the sample, in the order of time",
    "ts_ns": "when the stack was first seen; null when the source has no times",
    "duration_ns": "how long it stayed; null when the source has only counts",
    "count": "how many observations it stands for",
    "pid": "process",
    "tid": "thread",
    "thread": "number of the thread in the capture, from 0",
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
