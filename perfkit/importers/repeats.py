"""Spans that were imported more than once: in two files, or in one file and its compressed copy."""

from __future__ import annotations

import polars as pl

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
