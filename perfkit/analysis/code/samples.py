"""Samples in the order of time, and the threads they were taken on, numbered."""

from __future__ import annotations

import polars as pl

from perfkit.analysis import population
from perfkit.analysis.filters import Filters
from perfkit.analysis.session import Derived, Tables

MAX_GAP_NS = 1_000_000
"""Rows of one thread that are further apart have something unseen between them (our own limit)."""


def compute(tables: Tables) -> pl.DataFrame:
    """Return the table `ordered_samples`; samples without a time come last."""
    if tables.filters.by_request:
        samples = _of_population(tables)
    else:
        samples = tables["samples"].with_columns(unseen_ns=unseen_ns(tables["samples"])).collect()
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


def _of_population(tables: Tables) -> pl.DataFrame:
    """Return the parts of samples in which only an entry that passes the filters was at work."""
    whole = tables.whole()
    entries = population.passing(whole, tables.filters)
    kept = pl.Series(entries).gather(whole.frame("sample_spans")["entry_row"]).fill_null(False)
    pieces = whole.frame("sample_spans").filter(kept)
    samples = whole.frame("ordered_samples")[pieces["sample_row"]]
    first = pieces["sample_row"].is_first_distinct()
    return samples.with_columns(
        pieces["start_ns"].alias("ts_ns"),
        pieces["duration_ns"],
        unseen_ns=(pl.col("unseen_ns") * (pieces["duration_ns"] / pl.col("duration_ns")))
        .round()
        .cast(pl.Int64),
        # An observation is one, into however many parts it is cut.
        count=pl.when(first).then(pl.col("count").fill_null(1)).otherwise(0),
    ).drop("thread", "path", "sample_row")


def unseen_ns(samples: pl.LazyFrame) -> pl.Expr:
    """Return the samples' `unseen_ns`: older captures and other tools' have no such column."""
    if "unseen_ns" in samples.collect_schema():
        return pl.col("unseen_ns")
    return pl.lit(None, dtype=pl.Int64)


def all_requests(tables: Tables) -> Tables:
    """Return the capture with the filters of time alone.

    Threads wait for whoever is in their way, whether or not that request passes the filters.
    """
    filters = Filters(since_ns=tables.filters.since_ns, until_ns=tables.filters.until_ns)
    return tables.narrowed(filters)


def _numbered(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    return frame.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias(name))


def by_thread(samples: pl.LazyFrame) -> pl.LazyFrame:
    """Return ordered samples that have a length by thread, numbered as `place`."""
    timed = samples.filter(pl.col("duration_ns") > 0, pl.col("ts_ns").is_not_null())
    return timed.sort("thread", maintain_order=True).with_row_index("place")


def number_runs(rows: pl.DataFrame, *keys: str) -> pl.DataFrame:
    """Number, as `run`, the rows that follow one another with equal keys, one of them the thread.

    The rows are some of those of `by_thread`, in its order; with others between them, two rows do
    not follow one another.
    """
    ended = (pl.col("ts_ns") + pl.col("duration_ns")).shift(1)
    near = (pl.col("ts_ns") - ended <= MAX_GAP_NS) & (pl.col("place").cast(pl.Int64).diff() <= 1)
    same = pl.all_horizontal(pl.col(name) == pl.col(name).shift(1) for name in keys)
    return rows.with_columns(run=(~(near & same).fill_null(False)).cum_sum())


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
    "unseen_ns": "CPU time that the thread used meanwhile in code that no look saw",
}

DERIVED = Derived(
    "ordered_samples",
    "one sample, numbered in the order of time; when requests are filtered, one part of a sample "
    "in which only an entry that passes was at work",
    ("samples", "call_paths"),
    compute,
    COLUMNS,
)
