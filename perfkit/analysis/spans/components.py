"""The tables `components`, `operations` and `edges`: which part of the system the time is in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from perfkit.analysis.session import Derived, Frames, Tables
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
from perfkit.model import STATUSES

_READ = (
    *("row", "subtree", "start_ns", "end_ns", "duration_ns", "status"),
    *("adjusted_count", "duplicate"),
)
_TIMES = ("self_ns", "gap_ns", "critical_ns")
_STATUS = pl.Enum(STATUSES)
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
    nothing = [None] * (len(tables.cuts()) - 1)
    parts = tables.each_piece({"tree": (*_COMPONENT, *_SERVING)}, _served, nothing)
    served = pl.concat(parts).group_by(_COMPONENT).agg(pl.col(list(_SERVED)).sum())
    served = served.with_columns(whole(served[name].to_numpy()).alias(name) for name in _SERVED)
    return (
        edges.join(served, on=_COMPONENT, how="left", maintain_order="left")
        .with_columns(pl.col("served").fill_null(0))
        .select(*_COMPONENT, *_EDGE_COLUMNS)
    )


def _served(frames: Frames, _: None) -> pl.DataFrame:
    """Return for each dependency the calls whose server was seen, and what it took for them."""
    tree = frames["tree"]
    serving = pl.col("kind").is_in(["server", "consumer"])
    callees = tree.filter(
        serving,
        ~pl.col("duplicate"),
        pl.col("parent_row").is_not_null(),
        pl.col("entry_row").is_not_null(),
    )
    call = tree.select(*_COMPONENT, "adjusted_count", "entry_row")[callees["parent_row"]]
    weight = pl.col("adjusted_count")
    return (
        call.with_columns(callees["duration_ns"], call_row=callees["parent_row"])
        .filter(pl.col("category").is_in(CALLING), pl.col("entry_row").is_not_null())
        .group_by(_COMPONENT)
        .agg(
            served=weight.filter(pl.col("call_row").is_first_distinct()).sum(),
            server_ns=(weight * pl.col("duration_ns")).sum(),
        )
    )


def _parts(tables: Tables, keys: Sequence[str]) -> pl.DataFrame:
    window = max(window_ns(tables["tree"]), 1)
    share = ratio_of(pl.col("critical_ns"), request_time(tables["tree"]))
    parts = [_summed(*batch, window) for batch in _batches(tables, keys)]
    return (
        pl.concat(parts)
        .with_columns(critical_ratio=share)
        .select(*keys, *_COLUMNS)
        .sort("critical_ns", "total_ns", descending=True, maintain_order=True)
    )


def _batches(
    tables: Tables, keys: Sequence[str]
) -> Iterator[tuple[pl.DataFrame, Ints, pl.DataFrame]]:
    """Yield spans, the group of each, and the groups; all spans of a group come together."""
    columns = {"tree": (*keys, *_READ, "entry_row"), "span_times": _TIMES}
    if tables.most_at_once is None or not tables.has_rows("requests"):
        for piece in tables.pieces(columns):
            inside = piece["entry_row"].is_not_null()
            spans = piece if inside.all() else piece.filter(inside)
            yield spans, *codes(spans, keys)
        return
    groups = (
        tables["tree"]
        .filter(pl.col("entry_row").is_not_null())
        .group_by(keys)
        .agg(pl.len().cast(pl.Int64), pl.col("row").min())
        .sort("row")
        .with_columns(batch=pl.col("len").cum_sum() // tables.most_at_once)
        .collect(engine="streaming")
    )
    for _, chosen in groups.group_by("batch", maintain_order=True):
        numbered = chosen.select(*keys, code=pl.int_range(pl.len(), dtype=pl.Int32))
        # Numbers instead of texts, or they would take most of the memory.
        spans = pl.concat(
            piece.lazy()
            .filter(pl.col("entry_row").is_not_null())
            .with_columns(pl.col("status").cast(_STATUS, strict=False))
            .join(numbered.lazy(), on=keys, nulls_equal=True, maintain_order="left")
            .drop(keys)
            .collect()
            for piece in tables.pieces(columns)
        )
        yield spans, spans["code"].cast(pl.Int64).to_numpy(), chosen.select(keys)


def _summed(spans: pl.DataFrame, code: Ints, distinct: pl.DataFrame, window: int) -> pl.DataFrame:
    """Return one row a group of spans, with all columns but `critical_ratio`."""
    groups = distinct.height
    weight = spans["adjusted_count"].to_numpy()
    outer = outermost(code, spans)
    duration = spans["duration_ns"].to_numpy()

    def total(name: str) -> pl.Series:
        return whole(sums(code, weight * spans[name].to_numpy(), groups))

    busy = sums(code, weight * duration * outer, groups)
    start, end = spans["start_ns"].to_numpy(), spans["end_ns"].to_numpy()
    at_once = concurrency(code[outer], start[outer], end[outer], groups)
    # A second report of a request is no second call; its own time stays where it was spent.
    single = ~spans["duplicate"].to_numpy()
    counted = spans.select("duration_ns", "status", "adjusted_count").filter(pl.Series(single))
    counts = summarise_groups(counted, code[single], groups)
    return distinct.hstack(counts).with_columns(
        total_ns=whole(busy),
        self_ns=total("self_ns"),
        gap_ns=total("gap_ns"),
        critical_ns=total("critical_ns"),
        mean_concurrency=pl.Series(busy / window),
        max_concurrency=pl.Series(at_once.most),
        busy_ratio=pl.Series(at_once.busy_ns / window),
        saturated_ratio=pl.Series(at_once.most_ns / np.maximum(at_once.busy_ns, 1)),
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
    "category": "kind of work, as in `tree`",
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
