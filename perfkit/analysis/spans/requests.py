"""The table `requests`: what each request did, what went wrong in it, and what was worst."""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.spans.request_resources import with_resources
from perfkit.analysis.spans.tree import parents_of
from perfkit.analysis.vector.forest import Bools, Ints, preorder, subtree_maxima
from perfkit.analysis.vector.overlaps import covered, order_by
from perfkit.analysis.vector.rows import indices, rows_or_null

_NESTED_REQUESTS = 64
"""Database time is added up through so many requests inside each other."""

COLUMNS = {
    "request_row": "the request's span, a row of `tree`",
    "entry": "whether no request is above it; sums over entries count nothing twice",
    "trace_hi": "upper half of the trace id",
    "trace_lo": "lower half of the trace id",
    "span_id": "id of its span",
    "service": "service that served it",
    "instance": "replica that served it",
    "endpoint": "endpoint, or the name of its span",
    "tool": "first tool that it invokes",
    "http_status": "HTTP status",
    "status": "`ok` or `error`",
    "hidden_error": "it is ok, but something under it failed",
    "start_ns": "start",
    "end_ns": "end",
    "duration_ns": "length",
    "open": "had not ended when the capture did: it is at least this long",
    "adjusted_count": "how many requests it stands for",
    "span_count": "spans of it, its own included",
    "db_count": "database calls under it (one inside another counts once)",
    "db_ns": "time in which at least one of them ran; null when requests nest too deep",
    "self_ns": "time of its own span in which nothing under it ran",
    "worst_name": "name of the span under it with the largest self time (or gap)",
    "worst_self_ns": "that time",
    "cpu_ratio": "CPU of its process when it began, as a share of all cores",
    "rss_bytes": "resident memory of its process when it began",
}

_OF_SPAN = (
    *("trace_hi", "trace_lo", "span_id", "service", "instance", "http_status"),
    *("start_ns", "end_ns", "duration_ns", "open", "adjusted_count"),
)


def compute(tables: Tables) -> pl.DataFrame:
    """Return one row a request."""
    tree, times = tables.frame("tree"), tables.frame("span_times")
    rows = np.flatnonzero((tree["row"] == tree["request_row"]).fill_null(False).to_numpy())
    entry = indices(tree["entry_row"])
    # Cut at entries, so that what a request does not wait for is not counted as its own.
    parent = np.where(entry == np.arange(tree.height), -1, parents_of(tree))
    below = _Below(parent, tree, rows)
    failed = (tree["status"] == "error").fill_null(False).to_numpy()
    database = top_database_calls(tree)
    spent = (times["self_ns"] + times["gap_ns"]).to_numpy()
    worst = rows_or_null(_worst_below(parent, spent)[rows])
    own = tree.select(*_OF_SPAN, "row", "endpoint", "name", "pid")[rows]
    own_failed = failed[rows]
    result = own.select(
        *_OF_SPAN,
        request_row="row",
        entry=pl.Series(entry[rows] == rows),
        endpoint=pl.coalesce("endpoint", "name"),
        tool=tree["tool"].gather(below.first(tree["tool"].is_not_null().to_numpy())),
        hidden_error=pl.Series(~own_failed & (below.count(failed) > 0)),
        span_count=pl.Series(below.sizes),
        db_count=pl.Series(below.count(database)),
        db_ns=_database_times(tree, entry, database, rows),
        self_ns=times["self_ns"][rows],
        worst_name=tree["name"].gather(worst),
        worst_self_ns=pl.Series(spent).gather(worst),
        pid="pid",
    ).with_columns(
        status=pl.when(pl.Series(own_failed)).then(pl.lit("error")).otherwise(pl.lit("ok"))
    )
    return with_resources(result, tables).select(*COLUMNS)


def top_database_calls(tree: pl.DataFrame) -> Bools:
    """Return which spans are database calls that are not part of another one."""
    database = (tree["category"] == "database").to_numpy()
    parent = parents_of(tree)
    nested = np.zeros(tree.height, dtype=np.bool_)
    has_parent = parent >= 0
    nested[has_parent] = database[parent[has_parent]]
    return database & ~nested


class _Below:
    """Sums over everything that belongs to a request, by its place in depth-first order."""

    def __init__(self, parent: Ints, tree: pl.DataFrame, rows: Ints) -> None:
        self.position, sizes = np.arange(tree.height), tree["subtree"].to_numpy()
        self.order = self.position
        if (parent != parents_of(tree)).any():  # some entry is below another one
            self.position, sizes = preorder(parent)
            self.order = np.empty_like(self.position)
            self.order[self.position] = np.arange(tree.height)
        self.rows = rows
        self.sizes = sizes[rows]

    def count(self, flags: Bools) -> Ints:
        """Return how many spans of each request have the flag."""
        before = np.append(0, np.cumsum(flags[self.order]))
        first = self.position[self.rows]
        counts: Ints = before[first + self.sizes] - before[first]
        return counts

    def first(self, flags: Bools) -> pl.Series:
        """Return the first span of each request that has the flag; null where there is none."""
        flagged = np.append(np.flatnonzero(flags[self.order]), len(flags))
        begin = self.position[self.rows]
        found = flagged[np.searchsorted(flagged, begin)]
        rows = np.append(self.order, -1)[found]
        return rows_or_null(np.where(found < begin + self.sizes, rows, -1))


def _worst_below(parent: Ints, spent: Ints) -> Ints:
    """Return the span below each span with the largest own time; -1 where nothing is below."""
    count = len(parent)
    rows = np.arange(count)
    # One number orders spans by time, of equal ones the first row last.
    packs = count > 0 and int(spent.max()) < (1 << 62) // count
    order = rows if packs else np.lexsort((-rows, spent))
    if packs:
        rank = spent * count + (count - 1 - rows)
    else:
        rank = np.empty_like(rows)
        rank[order] = rows
    best = subtree_maxima(parent, rank)
    below = np.full(count, -1)
    child = np.flatnonzero(parent >= 0)
    np.maximum.at(below, parent[child], best[child])
    found = count - 1 - below % count if packs else order[below]
    return np.where(below < 0, -1, found)


def _database_times(tree: pl.DataFrame, entry: Ints, database: Bools, rows: Ints) -> pl.Series:
    """Return for each request the union of the database calls under it."""
    request, parent = indices(tree["request_row"]), parents_of(tree)
    start, end = tree["start_ns"].to_numpy(), tree["end_ns"].to_numpy()
    call = np.flatnonzero(database & (entry >= 0))
    owners, calls = [entry[call]], [call]
    above = request[call]
    for _ in range(_NESTED_REQUESTS):
        inner = above != entry[call]
        call, above = call[inner], above[inner]
        if not call.size:
            break
        owners.append(above)
        calls.append(call)
        above = request[parent[above]]
    owner, every = np.concatenate(owners), np.concatenate(calls)
    order = order_by(owner, start[every], tree.height)
    owner, every = owner[order], every[order]
    union = pl.Series(covered(owner, start[every], end[every], tree.height)[rows])
    unfinished = np.isin(entry[rows], entry[call]) & (entry[rows] != rows)
    return union.set(pl.Series(unfinished), None)


DERIVED = Derived("requests", "one request", ("tree", "span_times", "metrics"), compute, COLUMNS)
