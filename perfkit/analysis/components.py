"""The tables `components`, `operations` and `edges`: which part of the system the time is in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from perfkit.analysis.forest import Bools, Ints
from perfkit.analysis.overlaps import most_at_once
from perfkit.analysis.percentiles import codes
from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.summary import (
    DOCS,
    ratio_of,
    request_time,
    summarise_groups,
    sums,
    whole,
    window_ns,
)

_READ = (
    *("row", "subtree", "start_ns", "end_ns", "duration_ns", "status"),
    *("adjusted_count", "duplicate"),
)
_COMPONENT = ("service", "category", "component")


def compute_components(tables: Tables) -> pl.DataFrame:
    """Return one row a component: a kind of work that a service does or has done for it."""
    return _parts(tables, _COMPONENT)


def compute_operations(tables: Tables) -> pl.DataFrame:
    """Return one row an operation: components divided by span name."""
    return _parts(tables, (*_COMPONENT, "name"))


def compute_edges(tables: Tables) -> pl.DataFrame:
    """Return one row a dependency: what one service calls, and what that costs."""
    calling = pl.col("category").is_in(["client", "database", "messaging", "tool"])
    return (
        tables.frame("components")
        .filter(calling)
        .select(*_COMPONENT, "count", "errors", "total_ns", "gap_ns", "critical_ns")
    )


def _parts(tables: Tables, keys: Sequence[str]) -> pl.DataFrame:
    tree = tables.frame("tree")
    times = tables.frame("span_times")
    inside = tree["entry_row"].is_not_null()
    spans = tree.select(*keys, *_READ).filter(inside)
    spans = spans.with_columns(times.drop("row").filter(inside))
    code, distinct = codes(spans, keys)
    groups = distinct.height
    weight = spans["adjusted_count"].to_numpy()
    outer = outermost(code, spans)
    duration = spans["duration_ns"].to_numpy()

    def total(name: str) -> pl.Series:
        return whole(sums(code, weight * spans[name].to_numpy(), groups))

    busy = sums(code, weight * duration * outer, groups)
    window = max(window_ns(tree), 1)
    start, end = spans["start_ns"].to_numpy(), spans["end_ns"].to_numpy()
    # A second report of a request is no second call; its own time stays where it was spent.
    single = ~spans["duplicate"].to_numpy()
    counted = spans.select("duration_ns", "status", "adjusted_count").filter(pl.Series(single))
    counts = summarise_groups(counted, code[single], groups)
    parts = (
        distinct.hstack(counts)
        .with_columns(
            total_ns=whole(busy),
            self_ns=total("self_ns"),
            gap_ns=total("gap_ns"),
            critical_ns=total("critical_ns"),
            mean_concurrency=pl.Series(busy / window),
            max_concurrency=pl.Series(most_at_once(code[outer], start[outer], end[outer], groups)),
        )
        .with_columns(critical_ratio=ratio_of(pl.col("critical_ns"), request_time(tree)))
    )
    return parts.select(*keys, *_COLUMNS).sort(
        "critical_ns", "total_ns", descending=True, maintain_order=True
    )


def outermost(code: Ints, spans: pl.DataFrame) -> Bools:
    """Return which spans are not below another span of their group."""
    row, subtree = spans["row"].to_numpy(), spans["subtree"].to_numpy()
    if not len(row):
        return np.zeros(0, dtype=np.bool_)
    order = np.argsort(code, kind="stable")
    # Subtrees are ranges of rows, one inside another or apart; groups are laid end to end.
    axis = int(row[-1]) + int(subtree.max()) + 1
    begin = code[order] * axis + row[order]
    reach = np.maximum.accumulate(begin + subtree[order])
    outer = np.empty(len(row), dtype=np.bool_)
    outer[order] = np.append(True, begin[1:] >= reach[:-1])
    return outer


_COLUMNS = {
    "count": "how many spans",
    **{name: DOCS[name] for name in ("errors", "error_ratio")},
    "total_ns": "time from start to end, of spans that are not below another of the same kind",
    "self_ns": "self time",
    "gap_ns": "network and queueing between client and server spans",
    "critical_ns": "time on the critical path of entries",
    "critical_ratio": "that by request time (the sum over entries)",
    **{name: DOCS[name] for name in ("p50_ns", "p95_ns", "p99_ns", "max_ns")},
    "mean_concurrency": "how many of them run at once on average",
    "max_concurrency": "how many ran at once at most, among the spans that were kept",
}
_KEYS = {
    "service": "service whose spans they are: the caller",
    "category": "`server`, `client`, `database`, `messaging`, `tool` or `internal`",
    "component": "the service itself, or the peer, tool or database that it calls",
}
_NEEDS = ("tree", "span_times")

COMPONENTS = Derived("components", "one component", _NEEDS, compute_components, _KEYS | _COLUMNS)
OPERATIONS = Derived(
    "operations",
    "one operation of a component",
    _NEEDS,
    compute_operations,
    {**_KEYS, "name": "span name", **_COLUMNS},
)
EDGES = Derived(
    "edges",
    "one dependency: a service and what it calls",
    ("components",),
    compute_edges,
    _KEYS
    | {name: _COLUMNS[name] for name in ("count", "errors", "total_ns", "gap_ns", "critical_ns")},
)
