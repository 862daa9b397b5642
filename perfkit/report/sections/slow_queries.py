"""Database statements by fingerprint: what they cost, who calls them, which repeat."""

from __future__ import annotations

from typing import Any

import polars as pl

from perfkit.report.columns import Column
from perfkit.report.context import Context

TITLE = "Slow queries"
NEEDS = ("queries",)
EMPTY = {
    "what": "There are no database spans in this capture.",
    "how": "If the service uses a database, instrument its driver, for SQLAlchemy say with:",
    "command": "pip install opentelemetry-instrumentation-sqlalchemy",
}

_QUERIES = 50
_EXACT_CALLS = 300_000
COLUMNS = 120
"""Stretches of time that the heatmap of query latency has."""
_REPEATS = 5
"""Calls of one statement under one parent that are marked as repeated: as in the rule db.n-plus-one
(Sentry's count for N+1 queries)."""

_COLUMNS = (
    Column("share_ratio", "Share", "share", hint="Its time by all request time"),
    Column("total_ns", "Total"),
    Column("calls", "Calls"),
    Column("mean_ns", "Mean"),
    Column("p95_ns", "p95"),
    Column("p99_ns", "p99"),
    Column("max_ns", "Max"),
    Column("max_repeats", "Repeats", hint="Most calls by one piece of code in one request"),
    Column("error_ratio", "Errors"),
)


def build(context: Context) -> dict[str, Any]:
    """Return the most expensive statements and, for the filter, their calls."""
    queries = context.tables.frame("queries").sort(
        ["total_ns", "query_id"], descending=[True, False]
    )
    shown = queries.head(_QUERIES)
    calls = _calls(context, shown)
    return {
        "columns": _COLUMNS,
        "queries": shown.to_dicts(),
        "repeats": _REPEATS,
        "left_out": queries.height - shown.height,
        "left_out_ratio": float(queries["share_ratio"][_QUERIES:].sum()),
        **({"data": {"calls": calls}} if calls is not None else {}),
    }


def _calls(context: Context, shown: pl.DataFrame) -> dict[str, Any] | None:
    """Return one row a call, so that the table follows the filter; null when they are too many."""
    population = context.population
    if (shown["calls"].sum() or 0) > _EXACT_CALLS:
        return None
    calls = (
        context.tables["query_calls"]
        .join(shown.lazy().select("query_id").with_row_index("query"), on="query_id")
        .join(context.tables["tree"].select("row", "duration_ns", "start_ns"), on="row")
        .join(
            population.page_rows.lazy().select("request_row", request="page_row"),
            left_on="entry_row",
            right_on="request_row",
        )
        .sort("request", "row")
        .with_columns(
            column=((pl.col("start_ns") - population.origin_ns) * COLUMNS) // population.duration_ns
        )
        .with_columns(pl.col("column").clip(0, COLUMNS - 1))
        .collect()
    )
    return {name: calls[name].to_numpy() for name in ("query", "request", "duration_ns", "column")}
