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
from perfkit.analysis.spans import backbone
from perfkit.analysis.spans.recorded import Recorded
from perfkit.analysis.vector.forest import Bools, Ints
from perfkit.analysis.vector.rows import indices, rows_or_null

COLUMNS = {
    **backbone.COLUMNS,
    "trace_hi": "upper half of the trace id",
    "trace_lo": "lower half of the trace id",
    "span_id": "id of the span",
    "service": "service that ran it",
    "instance": "replica that ran it",
    "name": "span name",
    "scope": "instrumentation scope",
    "kind": "span kind, see `spans`",
    "category": "`server` (a request, or a message that is processed), `client`, `database`, "
    "`messaging` (a message that is sent), `tool` or `internal`",
    "peer": "whom it calls, as recorded",
    "component": "where its time belongs: its service, or the peer, tool or database it calls",
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
_READ_AT_ONCE = 5
"""So many columns are in memory twice, as they were captured and in the order of the table."""

_CATEGORIES = ("internal", "client", "tool", "messaging", "server", "database")


def compute(tables: Tables) -> pl.DataFrame:
    """Build the tree of the spans whose entries pass the filters."""
    if tables.filters == Filters():
        placed = tables.backbone("tree")
        tree = placed.drop(backbone.SOURCE).hstack(_taken(tables, placed[backbone.SOURCE]))
        return _with_entry(_with_component(tree)).select(*COLUMNS)
    whole = tables.whole()
    return narrow(whole.frame("tree"), population.passing(whole, tables.filters))


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


def _taken(tables: Tables, source: pl.Series) -> list[pl.Series]:
    """Return the captured columns that are taken over; those of nulls stay as they are."""
    columns = []
    for first in range(0, len(_TAKEN), _READ_AT_ONCE):
        spans = Recorded(tables.snapshot("spans"))
        names = _TAKEN[first : first + _READ_AT_ONCE]
        spans.read(*names)
        for name in names:
            column = spans.pop(name)
            empty = column.null_count() == len(column)
            columns.append(column.head(len(source)) if empty else column.gather(source))
    return columns


def _with_component(tree: pl.DataFrame) -> pl.DataFrame:
    """Add what kind of time a span is, and where its time belongs."""
    kind = pl.col("kind")
    serves = kind.is_in(["server", "consumer"]).fill_null(False)
    # The last that applies wins.
    applies = tree.select(
        client=kind.eq_missing("client"),
        tool=pl.col("tool").is_not_null(),
        messaging=kind.eq_missing("producer"),
        server=serves,
        database=pl.col("db_system").is_not_null() & ~serves,
    )
    category = np.full(tree.height, _CATEGORIES.index("internal"), dtype=np.int8)
    for name in applies.columns:
        category[applies[name].to_numpy()] = _CATEGORIES.index(name)
    tree = tree.with_columns(
        pl.col("service").fill_null("unknown"),
        pl.col("adjusted_count").fill_null(1.0).fill_nan(1.0).clip(1.0, 1e9),
        category=pl.Series(_CATEGORIES).gather(pl.Series(category)),
    )
    return tree.with_columns(component=component(only_callees(callees(tree))))


def component(callee_of: Mapping[str, str]) -> pl.Expr:
    """Return where the time of a span of `tree` belongs, given the services behind its peers."""
    peer = pl.col("peer").replace(callee_of) if callee_of else pl.col("peer")
    category = pl.col("category")
    return (
        pl.when((category == "server") | (category == "internal"))
        .then("service")
        .when(category == "tool")
        .then("tool")
        .when(category == "database")
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
    # Not by Series.scatter, of whose texts group_by counts equal ones as different (Polars 2.1).
    calls = tree.select("entry_row", "tool").drop_nulls()
    first = calls.unique("entry_row", keep="first", maintain_order=True)
    tool = tree.select("entry_row").join(first, "entry_row", how="left", maintain_order="left")
    return tree.with_columns(entry_endpoint=endpoint.gather(entry_row), entry_tool=tool["tool"])


DERIVED = Derived(
    "tree",
    "one span, in its place among the others",
    ("spans", "span_links"),
    compute,
    COLUMNS,
    backbone.BACKBONE,
)
