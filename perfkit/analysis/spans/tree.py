"""The table `tree`: every span in its place, the backbone of all that is derived from spans.

Spans come depth-first: a span's subtree is the rows right after it, siblings in order of start.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from perfkit.analysis import population
from perfkit.analysis.filters import Filters
from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.spans import duplicates, parents, skew
from perfkit.analysis.vector.forest import Bools, Ints, depths, nearest_marked, preorder
from perfkit.analysis.vector.plausible import FIRST_NS, LAST_NS

COLUMNS = {
    "row": "number of the span here; a span's subtree is the `subtree` rows that begin with it",
    "parent_row": "row of the parent; null at roots",
    "request_row": "row of the nearest request at or above it; null when there is none",
    "entry_row": "row of the entry that it belongs to: the request with no request above it",
    "depth": "number of spans above it in its entry",
    "subtree": "number of spans in its subtree, itself included",
    "trace_hi": "upper half of the trace id",
    "trace_lo": "lower half of the trace id",
    "span_id": "id of the span",
    "service": "service that ran it",
    "instance": "replica that ran it",
    "name": "span name",
    "scope": "instrumentation scope",
    "kind": "span kind, see `spans`",
    "category": "`server`, `client`, `database`, `messaging`, `tool` or `internal`",
    "peer": "whom it calls, as recorded",
    "component": "where its time belongs: its service, or the peer, tool or database it calls",
    "start_ns": "start, corrected for clock skew",
    "end_ns": "end; for an open span the latest time seen in its trace",
    "duration_ns": "end minus start, never negative",
    "open": "had not ended when the capture did",
    "negative": "ended before it started, as recorded; counted as of no length",
    "cut": "its recorded parent is missing or impossible, so it stands as a root",
    "detached": "its parent does not wait for it: it is not part of the parent's time",
    "duplicate": "another instrumentation's report of a request that is here already",
    "skew_ns": "by how much the span was moved to correct clock skew",
    "status": "`unset`, `ok` or `error`",
    "endpoint": "endpoint that it serves",
    "http_status": "HTTP status",
    "tool": "tool that it invokes",
    "tool_arguments": "arguments of that call",
    "db_system": "database product",
    "db_statement": "text of the query",
    "db_rows": "rows returned",
    "thread_id": "OS thread",
    "pid": "process",
    "adjusted_count": "how many spans it stands for",
    "entry_endpoint": "endpoint of its entry, or the entry's name",
    "entry_tool": "first tool that its entry invokes",
}

_TAKEN = (
    *("trace_hi", "trace_lo", "span_id", "service", "instance", "name", "scope", "kind", "peer"),
    *("status", "endpoint", "http_status", "tool", "tool_arguments"),
    *("db_system", "db_statement", "db_rows", "thread_id", "pid", "adjusted_count"),
)
_READ = (*_TAKEN, "parent_id", "start_ns", "duration_ns", "http_method")

_CATEGORIES = ("internal", "client", "tool", "messaging", "server", "database")


def compute(tables: Tables) -> pl.DataFrame:
    """Build the tree of the spans whose entries pass the filters."""
    if tables.filters == Filters():
        spans = _in_one_piece(tables["spans"].select(_READ).collect())
        links = tables["span_links"].collect()
        return build(spans, links, roots_stand_in=tables.roots_stand_in)
    whole = tables.whole()
    return narrow(whole.frame("tree"), population.passing(whole, tables.filters))


def build(spans: pl.DataFrame, links: pl.DataFrame, *, roots_stand_in: bool = True) -> pl.DataFrame:
    """Build the tree of all spans. `spans` is used up.

    With `roots_stand_in` roots of any kind are requests where there are no others.
    """
    spans, places = parents.drop_repeats(spans)
    parent, cut, missing = parents.link(spans, places)
    start, end, negative = _times(spans)
    reports = duplicates.find(spans, parent, start, end)
    parent = duplicates.drivers(spans, reports.parent, start, end)
    detached = parents.detached(spans, links, parent)
    moved = skew.shifts(spans, parent, start, end - start, detached)
    start, end = (np.clip(time + moved, FIRST_NS, LAST_NS) for time in (start, end))
    requests = _requests(spans, parent, missing, reports.duplicate)
    if roots_stand_in and not requests.any():
        requests = (parent < 0) & ~reports.duplicate
    entries = requests & ((nearest_marked(parent, requests)[parent] < 0) | (parent < 0) | detached)

    order, sizes = _depth_first(parent, start)
    parent = _renumbered(parent, order)
    requests, entries = requests[order], entries[order]
    still_open = spans["duration_ns"].is_null()
    tree = _in_order(spans, order).with_columns(
        row=pl.Series(np.arange(len(order))),
        parent_row=rows_or_null(parent),
        request_row=rows_or_null(nearest_marked(parent, requests)),
        entry_row=rows_or_null(nearest_marked(parent, entries)),
        depth=pl.Series(depths(np.where(entries, -1, parent))),
        subtree=pl.Series(sizes),
        start_ns=pl.Series(start[order]),
        end_ns=pl.Series(end[order]),
        duration_ns=pl.Series((end - start)[order]),
        open=still_open[order],
        negative=pl.Series(negative[order]),
        cut=pl.Series((cut | reports.cut)[order]),
        detached=pl.Series(detached[order]),
        duplicate=pl.Series(reports.duplicate[order]),
        skew_ns=pl.Series(moved[order]),
    )
    return _with_entry(_with_component(tree)).select(*COLUMNS)


def narrow(tree: pl.DataFrame, keep: Bools) -> pl.DataFrame:
    """Return the rows to keep, numbered anew. Whole entries are kept or left out."""
    before = np.append(0, np.cumsum(keep))
    kept = tree.filter(pl.Series(keep))

    def renumbered(name: str) -> pl.Series:
        old = kept[name].fill_null(-1).to_numpy()
        # A detached entry may be kept without the span that it follows from.
        return rows_or_null(np.where((old >= 0) & keep[old], before[old], -1))

    old_rows = kept["row"].to_numpy()
    return kept.with_columns(
        row=pl.Series(np.arange(kept.height)),
        subtree=pl.Series(before[old_rows + kept["subtree"].to_numpy()] - before[old_rows]),
        **{name: renumbered(name) for name in ("parent_row", "request_row", "entry_row")},
    )


def parents_of(tree: pl.DataFrame) -> Ints:
    """Return `parent_row` as indices, -1 at roots."""
    return indices(tree["parent_row"])


def waiting_parents_of(tree: pl.DataFrame) -> Ints:
    """Return the parents that wait for their child: -1 at roots and at detached spans."""
    return np.where(tree["detached"].to_numpy(), -1, parents_of(tree))


def indices(rows: pl.Series) -> Ints:
    """Return a column of row numbers as indices, -1 where it is null."""
    return rows.fill_null(-1).to_numpy()


def rows_or_null(rows: Ints) -> pl.Series:
    """Return indices as a column of row numbers, null where they are negative."""
    series = pl.Series(rows, dtype=pl.Int64)
    return series.set(series < 0, None)


def _times(spans: pl.DataFrame) -> tuple[Ints, Ints, Bools]:
    """Return start, end, and where the recorded length was negative. Open spans get an end."""
    start = spans["start_ns"].clip(0, LAST_NS).to_numpy()
    recorded = spans["duration_ns"].fill_null(0).clip(-1, LAST_NS).to_numpy()
    end = np.minimum(start + np.maximum(recorded, 0), LAST_NS)
    still_open = spans["duration_ns"].is_null()
    if still_open.any():
        trace = ["trace_hi", "trace_lo"]
        latest = (
            spans.select(trace)
            .with_columns(end=pl.Series(end), open=still_open)
            .select(pl.when("open").then(pl.col("end").max().over(trace)).otherwise("end"))
        )
        end = latest["end"].to_numpy()
    return start, end, recorded < 0


def _requests(spans: pl.DataFrame, parent: Ints, missing: Bools, duplicate: Bools) -> Bools:
    """Return which spans are requests: server and consumer spans, and roots.

    A server span right inside its own service, with no call in between, is a layer of the request
    around it and not another one: so MCP's `tools/call` within `POST /mcp`.

    A span inside a service whose parent never arrived (often because the capture began or ended in
    the middle of its request) is part of a request that we do not know, not a request.
    """
    kinds = spans["kind"].fill_null("unspecified")
    root = (parent < 0) & ~duplicate
    inside = missing & (kinds != "unspecified").to_numpy()
    requests: Bools = (_serving(spans, parent, kinds) & ~duplicate) | (root & ~inside)
    return requests


def _serving(spans: pl.DataFrame, parent: Ints, kinds: pl.Series) -> Bools:
    """Return the server and consumer spans that are no layer of a request around them."""
    result: Bools = kinds.is_in(["server", "consumer"]).to_numpy().copy()
    child = np.flatnonzero(result & (parent >= 0))
    above = parent[child]
    layer = ~kinds.gather(above).is_in(["client", "producer"]).to_numpy()
    for name in ("service", "instance", "pid"):
        layer &= spans[name].gather(child).eq_missing(spans[name].gather(above)).to_numpy()
    result[child] = ~layer
    return result


def _depth_first(parent: Ints, start: Ints) -> tuple[Ints, Ints]:
    """Return the order of rows in the table, and the size of each row's subtree."""
    by_start = np.argsort(start, kind="stable")
    position, sizes = preorder(_renumbered(parent, by_start))
    order = np.empty_like(by_start)
    order[position] = by_start
    return order, _permuted(sizes, position)


def _in_one_piece(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a frame of columns of one chunk each, from which rows are gathered several times as
    fast; column by column, so that not all are in memory twice.
    """
    return pl.DataFrame([frame.drop_in_place(name).rechunk() for name in frame.columns])


def _in_order(spans: pl.DataFrame, order: Ints) -> pl.DataFrame:
    """Return the columns that are taken over, in another order; those of nulls stay as they are.

    They are taken out of `spans`, so that not all are in memory twice.
    """
    rows = pl.Series(order)
    columns = []
    for name in _TAKEN:
        column = spans.drop_in_place(name)
        columns.append(column if column.null_count() == len(column) else column.gather(rows))
    return pl.DataFrame(columns)


def _renumbered(parent: Ints, order: Ints) -> Ints:
    """Return the parents of the nodes in another order, as positions in that order."""
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    ordered = parent[order]
    return np.where(ordered < 0, -1, place[ordered]) if len(order) else ordered


def _permuted(values: Ints, position: Ints) -> Ints:
    moved = np.empty_like(values)
    moved[position] = values
    return moved


def _with_component(tree: pl.DataFrame) -> pl.DataFrame:
    """Add what kind of time a span is, and where its time belongs."""
    kind = tree["kind"].fill_null("unspecified")
    serves = kind.is_in(["server", "consumer"])
    category = pl.Series(np.full(tree.height, _CATEGORIES.index("internal")))
    # The last that applies wins.
    for name, applies in (
        ("client", kind == "client"),
        ("tool", tree["tool"].is_not_null()),
        ("messaging", kind.is_in(["producer", "consumer"])),
        ("server", kind == "server"),
        ("database", tree["db_system"].is_not_null() & ~serves),
    ):
        category = category.set(applies, _CATEGORIES.index(name))
    tree = tree.with_columns(
        pl.col("service").fill_null("unknown"),
        pl.col("adjusted_count").fill_null(1.0).fill_nan(1.0).clip(1.0, 1e9),
        category=pl.Series(_CATEGORIES).gather(category),
    )
    return tree.with_columns(component=component(only_callees(callees(tree))))


def component(callee_of: Mapping[str, str]) -> pl.Expr:
    """Return where the time of a span of `tree` belongs, given the services behind its peers."""
    peer = pl.col("peer").replace(callee_of) if callee_of else pl.col("peer")
    return (
        pl.when(pl.col("category").is_in(["server", "internal"]) | (pl.col("kind") == "consumer"))
        .then("service")
        .when(pl.col("category") == "tool")
        .then("tool")
        .when(pl.col("category") == "database")
        .then(pl.coalesce("peer", "db_system"))
        .otherwise(pl.coalesce(peer, pl.lit("unknown")))
    )


def callees(tree: pl.DataFrame) -> pl.DataFrame:
    """Return the pairs of `peer` and `callee`: as whom a service is called that has spans."""
    if tree["peer"].null_count() == tree.height:
        return pl.DataFrame(schema={"peer": pl.String, "callee": pl.String})
    served = tree.select("kind", "parent_row", "service").filter(
        pl.col("kind") == "server", pl.col("parent_row").is_not_null()
    )
    above: pl.DataFrame = tree.select("peer", "kind")[served["parent_row"]]
    return (
        above.with_columns(callee=served["service"])
        .filter(pl.col("kind").is_in(["client", "producer"]), pl.col("peer").is_not_null())
        .select("peer", "callee")
        .unique()
    )


def only_callees(pairs: pl.DataFrame) -> dict[str, str]:
    """Return the service behind each peer (`host:port`) that no two services are called by."""
    single = pairs.unique().filter(~pl.col("peer").is_duplicated())
    return dict(zip(single["peer"], single["callee"], strict=True))


def _with_entry(tree: pl.DataFrame) -> pl.DataFrame:
    """Add endpoint and tool of the entry."""
    entry_row = tree["entry_row"]
    endpoint = tree.select(pl.coalesce("endpoint", "name")).to_series()
    calls = tree.select("tool", "entry_row").drop_nulls()
    tool = tree.select("tool").clear(n=tree.height)["tool"]
    if calls.height:
        first = calls.unique("entry_row", keep="first", maintain_order=True)
        tool = tool.scatter(first["entry_row"], first["tool"]).gather(entry_row)
    return tree.with_columns(entry_endpoint=endpoint.gather(entry_row), entry_tool=tool)


DERIVED = Derived(
    "tree", "one span, in its place among the others", ("spans", "span_links"), compute, COLUMNS
)
