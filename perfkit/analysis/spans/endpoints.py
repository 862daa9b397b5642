"""The tables `endpoints` and `tools`: rate, errors and percentiles of requests and tool calls."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.vector.summary import DOCS, ratio_of, request_time, summarise, window_ns

_READ = ("duration_ns", "status", "adjusted_count")


def compute_endpoints(tables: Tables) -> pl.DataFrame:
    """Return one row an endpoint of a service."""
    keys = ("service", "endpoint")
    return _rates(tables, tables.columns("requests", *keys, *_READ), keys)


def compute_tools(tables: Tables) -> pl.DataFrame:
    """Return one row a tool: the requests (entries) that invoke it."""
    calling = pl.col("entry") & pl.col("tool").is_not_null()
    return _rates(tables, tables.where("requests", calling, "tool", *_READ), ["tool"])


def _rates(tables: Tables, requests: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    tree = tables["tree"]
    seconds = window_ns(tree) / 1e9
    rate = pl.col("requests") / seconds if seconds > 0 else pl.lit(None, dtype=pl.Float64)
    return (
        summarise(requests, keys)
        .rename({"count": "requests", "duration_sum_ns": "total_ns"})
        .with_columns(rate_per_s=rate, share_ratio=ratio_of(pl.col("total_ns"), request_time(tree)))
        .select(*keys, *_COLUMNS)
        .sort("total_ns", descending=True, maintain_order=True)
    )


_COLUMNS = {
    "requests": "how many requests",
    "rate_per_s": "requests a second over the time of the capture; null when that is no time",
    **DOCS,
    "total_ns": "sum of their durations",
    "share_ratio": "that sum by request time (the sum over entries); requests within others count "
    "too, so shares may add up to more than 1",
}

ENDPOINTS = Derived(
    "endpoints",
    "one endpoint of one service",
    ("requests", "tree"),
    compute_endpoints,
    {"service": "service that serves it", "endpoint": "endpoint, or span name", **_COLUMNS},
)
TOOLS = Derived(
    "tools",
    "one tool: the requests whose first tool it is",
    ("requests", "tree"),
    compute_tools,
    {"tool": "the tool", **_COLUMNS},
)
