"""The table `open_requests`: requests that had not ended when the capture did, by endpoint.

In percentiles such a request counts with the time that it surely took, up to the last thing seen in
its trace. How long it really took is not known, so whatever it may move is a lower bound.

`perfkit record --instrument` sends a span that does not end after ten seconds, with the place where
its task waits then: of what hangs on an event loop no thread has a stack.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit import semconv
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
    "kind": "span kind of the oldest of them",
    "open": "requests to it that had not ended (of what was recorded)",
    "unanswered": "those of them that have no HTTP status, so had not begun to answer",
    "unanswered_ns": "the longest time from the start of one of those to the end of the capture",
    "requests": "all recorded requests to it",
    "oldest_ns": "the longest time from the start of one of them to the end of the capture: so "
    "long it has been running, unless its end was lost",
    "sure_level": "percentiles of the endpoint up to this level (0.5, 0.9, 0.95, 0.99, or 0) stay "
    "as they are, within a hundredth, however long the open requests turn out; others are lower "
    "bounds",
    "waiting": "how many of those waited in the place that follows, the most frequent one, when "
    "they were last seen; 0 where no place is known",
    "function": "function of the program that awaits there",
    "file": "its file",
    "line": "line in it",
    "waits_in": "function that is awaited in the end; null where it is that one",
    "call": "name of the call under them that had not ended either",
}
_SCHEMA: dict[str, pl.DataType] = {
    **dict.fromkeys(COLUMNS, pl.String()),
    **dict.fromkeys(("open", "unanswered", "unanswered_ns"), pl.Int64()),
    **dict.fromkeys(("requests", "oldest_ns", "waiting"), pl.Int64()),
    "sure_level": pl.Float64(),
    "line": pl.Int32(),
}
_KEYS = ("service", "endpoint")
_PLACE = ("function", "file", "line", "waits_in", "call")
_IDS = ("trace_hi", "trace_lo", "span_id")


def compute(tables: Tables) -> pl.DataFrame:
    """Return one row an endpoint with requests that had not ended, that of the oldest first."""
    found = tables.where(
        "requests", pl.col("open"), *_KEYS, "request_row", "start_ns", "http_status"
    )
    if found.is_empty():
        return pl.DataFrame(schema=_SCHEMA)
    end_ns = tables.frame("facts")["end_ns"][0]
    kinds = tables.where("tree", pl.col("open"), "row", "kind")
    unanswered = pl.col("http_status").is_null()
    counted = (
        found.join(kinds, left_on="request_row", right_on="row")
        # Of several that began at once, whatever the order of rows, which shards change.
        .sort("start_ns", "kind")
        .group_by(_KEYS)
        .agg(
            pl.col("kind").first(),
            open=pl.len(),
            unanswered=unanswered.sum(),
            unanswered_ns=(end_ns - pl.col("start_ns").filter(unanswered).min()).clip(0),
            oldest_ns=(end_ns - pl.col("start_ns").min()).clip(0),
        )
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
        .join(_places(tables, found.filter(unanswered)), on=_KEYS, how="left", nulls_equal=True)
        .with_columns(pl.col("waiting").fill_null(0))
        .sort("oldest_ns", "endpoint", "service", descending=[True, False, False])
        .select(pl.col(name).cast(_SCHEMA[name]) for name in COLUMNS)
    )


def _places(tables: Tables, requests: pl.DataFrame) -> pl.DataFrame:
    """Return where most of these requests to each endpoint wait."""
    said = pl.col("attributes").str.json_path_match
    sent = (
        tables["spans"]
        .filter(pl.col("duration_ns").is_null(), pl.col("attributes").is_not_null())
        .select(
            *_IDS,
            function=said(f"$['{semconv.AWAITS}function']"),
            file=said(f"$['{semconv.AWAITS}file']"),
            line=said(f"$['{semconv.AWAITS}line']").cast(pl.Int32, strict=False),
            waits_in=said(f"$['{semconv.AWAITS}call']"),
        )
        .filter(pl.col("function").is_not_null())
        .unique(_IDS)
        .collect()
    )
    request = pl.col("request_row")
    unended = tables.where(
        "tree",
        pl.col("open") & request.is_not_null(),
        *_IDS,
        "row",
        "request_row",
        "name",
        "start_ns",
    ).join(sent, on=_IDS, how="left")
    # What began last is what the others wait for.
    innermost = (
        unended.sort("start_ns", "row")
        .group_by("request_row")
        .agg(
            *(pl.col(name).drop_nulls().last() for name in ("function", "file", "line")),
            pl.col("waits_in").filter(pl.col("function").is_not_null()).last(),
            call=pl.col("name").filter(pl.col("row") != request).last(),
        )
        .filter(pl.col("function").is_not_null())
    )
    return (
        requests.join(innermost, on="request_row")
        .group_by(*_KEYS, *_PLACE)
        .agg(waiting=pl.len())
        .sort("waiting", *_PLACE, descending=[True, *[False] * len(_PLACE)], nulls_last=True)
        .unique(_KEYS, keep="first", maintain_order=True)
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
    ("requests", "facts", "tree", "spans"),
    compute,
    COLUMNS,
)
