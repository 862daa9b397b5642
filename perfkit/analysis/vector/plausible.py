"""Values that no clock or counter can have measured, mended before anything is computed from them.

One damaged value must not make a sum overflow or a mean infinite. Spans are mended in `tree`, which
says for each what was wrong with it.
"""

from __future__ import annotations

import polars as pl

FIRST_NS, LAST_NS = -(1 << 61), (1 << 62) - 1
"""Moments are cut to the years 1896 to 2116, so that the difference of two is an integer."""

_LONGEST_SAMPLE_NS = 1 << 50
"""13 days, so that thousands of damaged samples still have a sum."""
_LARGEST_VALUE = float(1 << 62)
"""Beyond this a metric's value does not become an integer."""

_MOMENT = pl.col("ts_ns").clip(FIRST_NS, LAST_NS)
_VALUE = pl.col("value")

_MENDED = {
    "samples": (
        _MOMENT,
        pl.col("duration_ns").clip(0, _LONGEST_SAMPLE_NS),
        pl.col("count").clip(0, LAST_NS),
    ),
    "metrics": (
        _MOMENT,
        # Not a number compares as larger than all.
        pl.when(_VALUE.abs() <= _LARGEST_VALUE).then(_VALUE),
        pl.col("count").clip(0, LAST_NS),
    ),
}


def mended(table: str, rows: pl.LazyFrame) -> pl.LazyFrame:
    """Return captured rows: moments in range, no negative lengths, values finite or null."""
    return rows.with_columns(_MENDED[table]) if table in _MENDED else rows
