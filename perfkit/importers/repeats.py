"""What was imported more than once: in two files, or in one file and its compressed copy.

Analyses tell spans that repeat, so that these are only counted. Samples and metrics have no ids;
those that can be no others are dropped.
"""

from __future__ import annotations

import polars as pl

from perfkit.capture import CaptureWriter

IDENTITY = ("trace_hi", "trace_lo", "span_id", "service", "kind", "start_ns")
"""What the analysis takes for the same span, of which it keeps one."""


def count(spans: pl.LazyFrame) -> int:
    """Return how many rows repeat a span that another row has already."""
    key = pl.col("trace_lo").hash() ^ pl.col("span_id").hash(seed=1)
    # Nearly always nothing repeats; a key of 8 bytes a span shows it without the others.
    keys = spans.select(key).collect().to_series()
    if keys.n_unique() == len(keys):
        return 0
    repeated = keys.filter(keys.is_duplicated()).unique()
    rows = spans.filter(key.is_in(repeated.implode())).select(IDENTITY).collect()
    return rows.height - rows.unique().height


SURE = {
    "samples": ("ts_ns", "pid", "tid", "stack_id"),
    "metrics": ("ts_ns", "name", "kind", "service", "instance", "attributes", "value", "count"),
}
"""What no two rows have in common: a thread is nowhere twice at a time, nor has a series two values
that are the same. Nothing is sure of samples without time or thread, and of increments and points
of a load test, of which several may be equal at one time."""


def drop(writer: CaptureWriter, table: str) -> int:
    """Drop the rows that repeat one that came before; returns how many there were."""
    rows = writer.written(table)
    key = pl.struct(SURE[table]).hash()
    sure = pl.col("ts_ns").is_not_null()
    if table == "samples":
        sure &= pl.col("tid").is_not_null()
    else:
        sure &= (pl.col("kind") != "delta") & ~pl.col("name").str.starts_with("k6.")
    keys = rows.filter(sure).select(key).collect().to_series()
    if keys.n_unique() == len(keys):
        return 0
    whole = rows.with_columns(sure.alias("@sure")).collect()
    kept = pl.concat(
        [
            whole.filter(~pl.col("@sure")),
            whole.filter(pl.col("@sure")).unique(SURE[table], keep="first", maintain_order=True),
        ]
    ).drop("@sure")
    if kept.height < whole.height:
        writer.replace(table, kept)
    return whole.height - kept.height
