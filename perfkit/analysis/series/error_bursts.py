"""When far more requests failed than else, and of which endpoint: `error_bursts`."""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.statistics import bursts


def compute(tables: Tables) -> pl.DataFrame:
    """Return the table `error_bursts`, the surest burst first."""
    timeline = tables.frame("timeline").select("bucket_ns", "bucket_width_ns", "requests", "errors")
    failed = (
        tables["requests"]
        .filter("entry", pl.col("status") == "error")
        .select("service", "endpoint", "start_ns", "adjusted_count")
        .collect()
    )
    requests = timeline["requests"].cast(pl.Float64).to_numpy()
    errors = timeline["errors"].cast(pl.Float64).to_numpy()
    weight = float(failed["adjusted_count"].mean() or 1.0)  # type: ignore[arg-type]
    found = bursts.find_bursts(requests, errors, weight)
    inside = np.zeros(len(requests), dtype=np.bool_)
    for burst in found:
        inside[burst.first : burst.last + 1] = True
    others, usual = requests[~inside].sum(), errors[~inside].sum()
    rows = []
    begin, width = timeline["bucket_ns"], timeline["bucket_width_ns"]
    for burst in found:
        buckets = slice(burst.first, burst.last + 1)
        start_ns, end_ns = int(begin[burst.first]), int(begin[burst.last] + width[burst.last])
        asked, lost = float(requests[buckets].sum()), float(errors[buckets].sum())
        rows.append(
            {
                "start_ns": start_ns,
                "end_ns": end_ns,
                "duration_ns": end_ns - start_ns,
                "requests": int(asked),
                "errors": int(lost),
                "error_ratio": lost / asked,
                "usual_ratio": float(usual / others) if others else None,
                "evidence": burst.evidence,
                "errors_at_once": burst.uneven,
                **_worst(failed, start_ns, end_ns),
            }
        )
    return pl.DataFrame(rows, schema=_SCHEMA)


def _worst(failed: pl.DataFrame, start_ns: int, end_ns: int) -> dict[str, str | int | None]:
    """Return the endpoint of which most requests failed in some time, and how many."""
    counted = (
        failed.filter(pl.col("start_ns").is_between(start_ns, end_ns, closed="left"))
        .group_by("service", "endpoint")
        .agg(pl.col("adjusted_count").sum().round().cast(pl.Int64))
        .sort("adjusted_count", "service", "endpoint", descending=[True, False, False])
    )
    service, endpoint, count = counted.row(0) if counted.height else (None, None, None)
    return {"worst_service": service, "worst_endpoint": endpoint, "worst_errors": count}


_SCHEMA: dict[str, pl.DataType] = {
    **dict.fromkeys(("start_ns", "end_ns", "duration_ns", "requests", "errors"), pl.Int64()),
    **dict.fromkeys(("error_ratio", "usual_ratio", "evidence", "errors_at_once"), pl.Float64()),
    **dict.fromkeys(("worst_service", "worst_endpoint"), pl.String()),
    "worst_errors": pl.Int64(),
}

COLUMNS = {
    "start_ns": "start of its first bucket of `timeline`",
    "end_ns": "end of its last",
    "duration_ns": "time between the two",
    "requests": "entries that began in it",
    "errors": "those of them that failed",
    "error_ratio": f"their share: {bursts.MIN_SHARE * 100:g} % or more, and {bursts.TIMES:g} "
    "times the share of the rest or more",
    "usual_ratio": "share of entries that failed outside of all bursts; null when there are none",
    "evidence": "logarithm of 1 by the chance that it is none, divided by how many failures come "
    f"at once; {bursts.CERTAIN:g} or more, and the more the more buckets there are",
    "errors_at_once": "how many times more the failures of buckets vary than independent ones "
    "would: of failures in batches as many are one event",
    "worst_service": "service of that endpoint",
    "worst_endpoint": "the endpoint with most of the failures",
    "worst_errors": "its failures in it",
}

DERIVED = Derived(
    "error_bursts",
    "one time in which far more requests failed than else",
    ("timeline", "requests"),
    compute,
    COLUMNS,
)
