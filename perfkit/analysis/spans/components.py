"""The tables `components`, `operations` and `edges`: which part of the system the time is in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.vector.forest import Bools, Ints
from perfkit.analysis.vector.overlaps import concurrency
from perfkit.analysis.vector.percentiles import codes
from perfkit.analysis.vector.summary import (
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
_SERVING = ("kind", "duplicate", "parent_row", "entry_row", "duration_ns", "adjusted_count")


def compute_components(tables: Tables) -> pl.DataFrame:
    """Return one row a component: a kind of work that a service does or has done for it."""
    return _parts(tables, _COMPONENT)


def compute_operations(tables: Tables) -> pl.DataFrame:
    """Return one row an operation: components divided by span name."""
    return _parts(tables, (*_COMPONENT, "name"))


def compute_edges(tables: Tables) -> pl.DataFrame:
    """Return one row a dependency: what one service calls, and what that costs."""
    calling = pl.col("category").is_in(CALLING)
    names = [name for name in _EDGE_COLUMNS if name not in _SERVED]
    edges = tables.frame("components").filter(calling).select(*_COMPONENT, *names)
    served = _served(tables.columns("tree", *_COMPONENT, *_SERVING))
    return (
        edges.join(served, on=_COMPONENT, how="left", maintain_order="left")
        .with_columns(pl.col("served").fill_null(0))
        .select(*_COMPONENT, *_EDGE_COLUMNS)
    )


def _served(tree: pl.DataFrame) -> pl.DataFrame:
    """Return for each dependency the calls whose server was seen, and what it took for them."""
    serving = pl.col("kind").is_in(["server", "consumer"])
    callees = tree.filter(
        serving,
        ~pl.col("duplicate"),
        pl.col("parent_row").is_not_null(),
        pl.col("entry_row").is_not_null(),
    )
    call = tree.select(*_COMPONENT, "adjusted_count", "entry_row")[callees["parent_row"]]
    weight = pl.col("adjusted_count")
    found = (
        call.with_columns(callees["duration_ns"], call_row=callees["parent_row"])
        .filter(pl.col("category").is_in(CALLING), pl.col("entry_row").is_not_null())
        .group_by(_COMPONENT)
        .agg(
            served=weight.filter(pl.col("call_row").is_first_distinct()).sum(),
            server_ns=(weight * pl.col("duration_ns")).sum(),
        )
    )
    return found.with_columns(
        whole(found[name].to_numpy()).alias(name) for name in ("served", "server_ns")
    )


def _parts(tables: Tables, keys: Sequence[str]) -> pl.DataFrame:
    spans = tables.columns("tree", *keys, *_READ, "entry_row")
    inside = spans["entry_row"].is_not_null()
    times = tables.columns("span_times", "self_ns", "gap_ns", "critical_ns")
    if not inside.all():
        spans, times = spans.filter(inside), times.filter(inside)
    spans = spans.hstack(times)
    code, distinct = codes(spans, keys)
    groups = distinct.height
    weight = spans["adjusted_count"].to_numpy()
    outer = outermost(code, spans)
    duration = spans["duration_ns"].to_numpy()

    def total(name: str) -> pl.Series:
        return whole(sums(code, weight * spans[name].to_numpy(), groups))

    busy = sums(code, weight * duration * outer, groups)
    window = max(window_ns(tables["tree"]), 1)
    start, end = spans["start_ns"].to_numpy(), spans["end_ns"].to_numpy()
    at_once = concurrency(code[outer], start[outer], end[outer], groups)
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
            max_concurrency=pl.Series(at_once.most),
            busy_ratio=pl.Series(at_once.busy_ns / window),
            saturated_ratio=pl.Series(at_once.most_ns / np.maximum(at_once.busy_ns, 1)),
        )
        .with_columns(critical_ratio=ratio_of(pl.col("critical_ns"), request_time(tables["tree"])))
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
    "busy_ratio": "share of the capture's time in which at least one of them ran",
    "saturated_ratio": "share of that in which as many ran as ever did: near 1 with several at "
    "once speaks of a limit, such as a pool's size",
}
_KEYS = {
    "service": "service whose spans they are: the caller",
    "category": "`server`, `client`, `database`, `messaging`, `tool` or `internal`",
    "component": "the service itself, or the peer, tool or database that it calls",
}
_NEEDS = ("tree", "span_times")

CALLING = ("client", "database", "messaging", "tool")
"""Categories of spans that call something else."""
_SERVED = {
    "served": "how many of the calls have a span of their server in the capture",
    "server_ns": "time that the servers took for those; null where there are none",
}
_EDGE_COLUMNS = {
    **{name: _COLUMNS[name] for name in ("count", "errors", "error_ratio")},
    "total_ns": "time that the caller waited: from start to end of its calls",
    **_SERVED,
    "gap_ns": "network and queueing: time of served calls in which no server ran; calls whose "
    "server was not seen add nothing",
    **{name: _COLUMNS[name] for name in ("critical_ns", "critical_ratio")},
    **{name: DOCS[name] for name in ("p50_ns", "p95_ns", "p99_ns", "max_ns")},
    **{name: _COLUMNS[name] for name in ("mean_concurrency", "max_concurrency")},
    **{name: _COLUMNS[name] for name in ("busy_ratio", "saturated_ratio")},
}

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
    ("components", "tree"),
    compute_edges,
    _KEYS | _EDGE_COLUMNS,
)
