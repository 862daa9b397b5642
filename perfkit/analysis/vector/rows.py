"""Row numbers: null in a column where there is none, -1 in an array of indices."""

from __future__ import annotations

import polars as pl

from perfkit.analysis.vector.forest import Ints


def indices(rows: pl.Series) -> Ints:
    """Return a column of row numbers as indices, -1 where it is null."""
    return (rows.fill_null(-1) if rows.null_count() else rows).to_numpy()


def rows_or_null(rows: Ints) -> pl.Series:
    """Return indices as a column of row numbers, null where they are negative."""
    series = pl.Series(rows, dtype=pl.Int64)
    return series.set(series < 0, None)
