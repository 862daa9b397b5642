"""The tables `components`, `operations` and `edges`: which part of the system the time is in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from perfkit.analysis.session import Derived, Frames, Tables
from perfkit.analysis.spans.grouped_times import (
    LEVELS,
    OUTER,
    OUTERMOST,
    SINGLE,
    Times,
    times_of,
)
from perfkit.analysis.spans.spilled import Spilled
from perfkit.analysis.vector.forest import Bools, Ints
from perfkit.analysis.vector.order import stable_order
from perfkit.analysis.vector.percentiles import codes, sorted_codes
from perfkit.analysis.vector.summary import DOCS, ratio_of, request_time, sums, whole, window_ns

_TIMES = ("self_ns", "gap_ns", "critical_ns")
_COMPONENT = ("service", "category", "component")
_OPERATION = (*_COMPONENT, "name")
_READ = (
    *("kind", "parent_row", "row", "entry_row", "subtree", "start_ns", "duration_ns", "status"),
    *("adjusted_count", "duplicate"),
)
_SUMS = ("count", "errors", *_TIMES, "total_ns", "component_ns")
"""What is added up of the spans of an operation: `total_ns` of those that are not below another of
it, `component_ns` of those that are not below another of its component."""


def compute_components(tables: Tables) -> pl.DataFrame:
    """Return one row a component: a kind of work that a service does or has done for it."""
    return tables.once(_added_up).components


def compute_operations(tables: Tables) -> pl.DataFrame:
    """Return one row an operation: components divided by span name."""
    return tables.once(_added_up).operations


def compute_edges(tables: Tables) -> pl.DataFrame:
    """Return one row a dependency: what one service calls, and what that costs."""
    calling = pl.col("category").is_in(CALLING)
    names = [name for name in _EDGE_COLUMNS if name not in _SERVED]
    edges = tables.frame("components").filter(calling).select(*_COMPONENT, *names)
    served = tables.once(_added_up).served
    served = served.group_by(_COMPONENT).agg(pl.col(list(_SERVED)).sum())
    served = served.with_columns(whole(served[name].to_numpy()).alias(name) for name in _SERVED)
    return (
        edges.join(served, on=_COMPONENT, how="left", maintain_order="left")
        .with_columns(pl.col("served").fill_null(0))
        .select(*_COMPONENT, *_EDGE_COLUMNS)
    )


class _Piece(NamedTuple):
    """What some whole traces say, beside the times of their spans."""

    operations: pl.DataFrame
    """One row an operation, in order of its key, with how many `spans` it has and sums."""
    served: pl.DataFrame


class _AddedUp(NamedTuple):
    components: pl.DataFrame
    operations: pl.DataFrame
    served: pl.DataFrame
    """One row a component and piece."""


def _added_up(tables: Tables) -> _AddedUp:
    """Read all spans once, for all three tables."""
    columns = {"tree": (*_OPERATION, *_READ), "span_times": _TIMES}
    found = tables.each_spilled("operation_spans", columns, _piece)
    every = pl.concat(piece.operations for piece, _ in found)
    code, operations = sorted_codes(every, _OPERATION)
    for name in _SUMS:
        total = sums(code, every[name].to_numpy(), operations.height)
        operations = operations.with_columns(pl.Series(name, total))
    longest = np.zeros(operations.height, dtype=np.int64)
    np.maximum.at(longest, code, every["max_ns"].to_numpy())
    operations = operations.with_columns(max_ns=pl.Series(longest))
    cuts = np.cumsum([piece.operations.height for piece, _ in found])[:-1]
    spilled = [
        Spilled(spans, units, piece.operations["spans"].to_numpy())
        for (piece, spans), units in zip(found, np.split(code, cuts), strict=True)
    ]
    of_operations, of_components = _times(tables, spilled, operations)
    return _AddedUp(
        _described(tables, _of_components(operations), _COMPONENT, of_components),
        _described(tables, operations, _OPERATION, of_operations),
        pl.concat(piece.served for piece, _ in found),
    )


def _piece(frames: Frames) -> tuple[_Piece, pl.DataFrame]:
    """Add up what can be added up; beside it, the times of all spans in order of operation."""
    tree = frames["tree"]
    spans = tree.hstack(frames["span_times"]).filter(pl.col("entry_row").is_not_null())
    code, operations = sorted_codes(spans, _OPERATION)
    component, components = sorted_codes(operations, _COMPONENT)
    alone = components.height == operations.height
    outer = outermost(code, spans)
    above = outer if alone else outermost(component[code], spans)
    weight = spans["adjusted_count"].to_numpy()
    duration = spans["duration_ns"].to_numpy()
    # A second report of a request is no second call; its own time stays where it was spent.
    single = ~spans["duplicate"].to_numpy()
    failed = (spans["status"] == "error").fill_null(False).to_numpy()
    longest = np.zeros(operations.height, dtype=np.int64)
    np.maximum.at(longest, code, duration * single)
    added = {
        "count": weight * single,
        "errors": weight * (single & failed),
        **{name: weight * spans[name].to_numpy() for name in _TIMES},
        "total_ns": weight * duration * outer,
        "component_ns": weight * duration * above,
    }
    groups = operations.height
    operations = operations.with_columns(
        **{name: pl.Series(sums(code, values, groups)) for name, values in added.items()},
        max_ns=pl.Series(longest),
        spans=pl.Series(np.bincount(code, minlength=groups)),
    )
    order = stable_order(code)
    flags = (single * SINGLE + outer * OUTER + above * OUTERMOST).astype(np.uint8)
    times = {
        "start_ns": spans["start_ns"].to_numpy(),
        "duration_ns": duration,
        "weight": weight,
        "flags": flags,
    }
    ordered = pl.DataFrame({name: values[order] for name, values in times.items()})
    return _Piece(operations, _served(tree)), ordered


def _of_components(operations: pl.DataFrame) -> pl.DataFrame:
    """Return the sums of components from those of their operations."""
    added = [name for name in _SUMS if name not in ("total_ns", "component_ns")]
    return operations.group_by(_COMPONENT, maintain_order=True).agg(
        pl.col(added).sum(), pl.col("max_ns").max(), total_ns=pl.col("component_ns").sum()
    )


def _times(
    tables: Tables, spilled: Sequence[Spilled], operations: pl.DataFrame
) -> tuple[Times, Times]:
    """Return percentiles and concurrency of operations and of components."""
    units, most = np.arange(operations.height), tables.most_at_once
    mine = times_of(spilled, units, operations.height, OUTER, most)
    component, components = codes(operations, _COMPONENT)
    size = np.bincount(component, minlength=components.height)
    # One of a single operation has its times.
    several = np.flatnonzero(size > 1)
    number = np.full(components.height, -1)
    number[several] = np.arange(len(several))
    found = times_of(spilled, number[component], len(several), OUTERMOST, most)
    theirs = mine.of((np.cumsum(size) - size).astype(np.int64))
    theirs.put(several, found)
    return mine, theirs


def _described(
    tables: Tables, rows: pl.DataFrame, keys: Sequence[str], times: Times
) -> pl.DataFrame:
    """Return a table from sums and times."""
    window = max(window_ns(tables["tree"]), 1)
    count, busy = rows["count"].to_numpy(), rows["total_ns"].to_numpy()
    at_once = times.at_once
    share = ratio_of(pl.col("critical_ns"), request_time(tables["tree"]))
    return (
        rows.with_columns(
            error_ratio=pl.Series(rows["errors"].to_numpy() / np.maximum(count, 1.0)),
            mean_concurrency=pl.Series(busy / window),
            max_concurrency=pl.Series(at_once.most),
            busy_ratio=pl.Series(at_once.busy_ns / window),
            saturated_ratio=pl.Series(at_once.most_ns / np.maximum(at_once.busy_ns, 1)),
            **{name: whole(times.marks[:, place]) for place, name in enumerate(LEVELS)},
            **{
                name: whole(rows[name].to_numpy())
                for name in ("count", "errors", "total_ns", *_TIMES)
            },
        )
        .with_columns(critical_ratio=share)
        .select(*keys, *_COLUMNS)
        .sort("critical_ns", "total_ns", descending=True, maintain_order=True)
    )


def _served(tree: pl.DataFrame) -> pl.DataFrame:
    """Return for each dependency the calls whose server was seen, and what it took for them."""
    serving = pl.col("kind").is_in(["server", "consumer"])
    callees = tree.select("kind", "duplicate", "parent_row", "entry_row", "duration_ns").filter(
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


def outermost(code: Ints, spans: pl.DataFrame) -> Bools:
    """Return which spans are not below another span of their group."""
    row, subtree = spans["row"].to_numpy(), spans["subtree"].to_numpy()
    if not len(row):
        return np.zeros(0, dtype=np.bool_)
    order = stable_order(code)
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
