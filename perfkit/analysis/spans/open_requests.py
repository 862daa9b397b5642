"""The table `open_requests`: requests that had not ended when the capture did, by endpoint.

In percentiles such a request counts with the time that it surely took, up to the last thing seen in
its trace. How long it really took is not known, so whatever it may move is a lower bound.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.vector.forest import Bools, Ints
from perfkit.analysis.vector.percentiles import Floats, codes, quantiles
from perfkit.analysis.vector.summary import LEVELS

_FOR_EVER = 1 << 61
_TOLERANCE = 1.01
"""House limit: a percentile that open requests can move by less than a hundredth is sure."""

COLUMNS = {
    "service": "service that serves the endpoint",
    "endpoint": "endpoint, or span name",
    "open": "requests to it that had not ended (of what was recorded)",
    "requests": "all recorded requests to it",
    "oldest_ns": "the longest time from the start of one of them to the end of the capture: so "
    "long it has been running, unless its end was lost",
    "sure_level": "percentiles of the endpoint up to this level (0.5, 0.9, 0.95, 0.99, or 0) stay "
    "as they are, within a hundredth, however long the open requests turn out; others are lower "
    "bounds",
}
_SCHEMA: dict[str, pl.DataType] = {
    **dict.fromkeys(("service", "endpoint"), pl.String()),
    **dict.fromkeys(("open", "requests", "oldest_ns"), pl.Int64()),
    "sure_level": pl.Float64(),
}
_KEYS = ("service", "endpoint")


def compute(tables: Tables) -> pl.DataFrame:
    """Return one row an endpoint with requests that had not ended, that of the oldest first."""
    found = tables.where("requests", pl.col("open"), *_KEYS, "start_ns")
    if found.is_empty():
        return pl.DataFrame(schema=_SCHEMA)
    end_ns = tables.frame("facts")["end_ns"][0]
    counted = found.group_by(_KEYS).agg(
        open=pl.len().cast(pl.Int64), oldest_ns=(end_ns - pl.col("start_ns").min()).clip(0)
    )
    requests = tables.columns("requests", *_KEYS, "duration_ns", "adjusted_count", "open").join(
        counted.select(_KEYS), on=_KEYS, how="semi", nulls_equal=True
    )
    code, distinct = codes(requests, _KEYS)
    weight = requests["adjusted_count"].to_numpy()
    level = sure_levels(
        code, requests["duration_ns"].to_numpy(), weight, requests["open"].to_numpy(), len(distinct)
    )
    return (
        distinct.with_columns(
            requests=pl.Series(np.bincount(code, minlength=len(distinct))).cast(pl.Int64),
            sure_level=pl.Series(level),
        )
        .join(counted, on=_KEYS, nulls_equal=True)
        .sort("oldest_ns", "endpoint", "service", descending=[True, False, False])
        .select(*COLUMNS)
    )


def sure_levels(
    group: Ints, duration_ns: Ints, weight: Floats, still_open: Bools, groups: int
) -> Floats:
    """Return of each group, 0 to `groups` - 1, up to which level percentiles are sure."""
    levels = list(LEVELS.values())
    least = quantiles(group, duration_ns, weight, groups, levels)
    endless = np.where(still_open, _FOR_EVER, duration_ns)
    moved = quantiles(group, endless, weight, groups, levels) > _TOLERANCE * least
    first = np.where(moved.any(axis=1), moved.argmax(axis=1), len(levels))
    sure: Floats = np.array([0.0, *levels])[first]
    return sure


DERIVED = Derived(
    "open_requests",
    "one endpoint with requests that had not ended when the capture did",
    ("requests", "facts"),
    compute,
    COLUMNS,
)
