"""Whether slow requests may be slow because other programs had the cores."""

from __future__ import annotations

import polars as pl

from perfkit.analysis.comparison.contrast import Contrast

_ENDPOINT = ["service", "endpoint"]


def core_share(contrast: Contrast) -> float | None:
    """Return how much of what slow requests take longer may be waiting for a core, as a ratio.

    Of slow against typical requests: each slow one is held against the mean typical one of its
    endpoint, in its length and in its part of `core_waits` (the most that others took from it).
    None where it is not known of both sides how long they waited, or for another comparison.
    """
    if contrast.about != "tail":
        return None
    waits = contrast.parts[0].tables.frame("core_waits")
    entries = contrast.entries().join(waits, left_on="request_row", right_on="entry_row")
    weight = pl.col("adjusted_count")

    def mean(name: str) -> pl.Expr:
        return (pl.col(name) * weight).sum() / weight.sum()

    lengths = ("duration_ns", "core_wait_ns")
    typical = entries.filter(side=0).group_by(_ENDPOINT).agg(*map(mean, lengths))
    slow = entries.filter(side=1).join(typical, on=_ENDPOINT, suffix="_typical", nulls_equal=True)
    longer, waited = slow.select(
        ((pl.col(name) - pl.col(f"{name}_typical")) * weight).sum() for name in lengths
    ).row(0)
    return min(1.0, max(0.0, waited / longer)) if longer > 0 else None
