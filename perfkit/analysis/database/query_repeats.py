"""The table `query_repeats`: one query several times under one span, as N+1 queries are."""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.spans.tree import parents_of
from perfkit.analysis.vector.forest import Ints
from perfkit.analysis.vector.overlaps import covered, runs


def compute(tables: Tables) -> pl.DataFrame:
    """Return one row a parent and query that ran at least twice under it."""
    tree = tables.frame("tree")
    calls = _under_one_parent(tables)
    group = calls.select(pl.struct("parent_row", "query").rle_id())["parent_row"].to_numpy()
    start, end = calls["start_ns"].to_numpy(), calls["end_ns"].to_numpy()
    groups = int(group[-1]) + 1 if len(group) else 0
    union = covered(group, start, end, groups)
    repeats = (
        calls.with_columns(group=pl.Series(group))
        .group_by("group", maintain_order=True)
        .agg(
            pl.col("entry_row", "parent_row", "query_id").first(),
            calls=pl.len().cast(pl.Int64),
            distinct_statements=pl.col("statement_hash").n_unique().cast(pl.Int64),
            total_ns=(pl.col("end_ns") - pl.col("start_ns")).sum(),
            first_row=pl.col("row").first(),
            last_row=pl.col("row").last(),
            source_row=pl.col("before").first(),
        )
        .with_columns(union_ns=pl.Series(union))
        .filter(pl.col("calls") > 1)
    )
    return repeats.with_columns(
        sequential=pl.col("union_ns") == pl.col("total_ns"),
        interleaved=_interleaved(parents_of(tree), repeats),
        caller=tree["name"].gather(repeats["parent_row"]),
        entry_endpoint=tree["entry_endpoint"].gather(repeats["entry_row"]),
        entry_tool=tree["entry_tool"].gather(repeats["entry_row"]),
    ).select(*_COLUMNS)


def _under_one_parent(tables: Tables) -> pl.DataFrame:
    """Return calls by parent, query and start, each with the sibling call just before it."""
    times = tables.frame("tree").select("start_ns", "end_ns")
    calls = tables.frame("query_calls").drop("statement")
    calls = calls.with_columns(
        times[calls["row"]], query=calls["query_id"].rank("dense")
    ).drop_nulls("parent_row")
    by_start = calls.sort("parent_row", "start_ns", "row")
    parent = by_start["parent_row"].to_numpy()
    first = np.zeros(len(parent), dtype=np.bool_)
    if len(parent):
        first[runs(parent)[0]] = True
    before = by_start["row"].shift(1).set(pl.Series(first), None)
    return by_start.with_columns(before=before).sort("parent_row", "query", maintain_order=True)


def _interleaved(parent: Ints, repeats: pl.DataFrame) -> pl.Series:
    """Return which groups have another span of their parent's between the first and the last."""
    repeating = np.zeros(len(parent), dtype=np.bool_)
    repeating[repeats["parent_row"].to_numpy()] = True
    child = np.flatnonzero(repeating[parent] & (parent >= 0)) if len(parent) else parent
    child = child[np.argsort(parent[child], kind="stable")]  # siblings are in order of start
    place = np.zeros(len(parent), dtype=np.int64)
    place[child] = np.arange(len(child))
    first, last = (place[repeats[name].to_numpy()] for name in ("first_row", "last_row"))
    return pl.Series(last - first + 1 > repeats["calls"].to_numpy())


_COLUMNS = {
    "entry_row": "the entry, a row of `tree`",
    "parent_row": "the span under which it ran",
    "caller": "name of that span: where the loop is",
    "query_id": "the query, see `queries`",
    "calls": "how often",
    "distinct_statements": "how many different texts, as recorded",
    "sequential": "no two of the calls overlap",
    "interleaved": "some other span under the same parent began between the first and the last",
    "union_ns": "time in which at least one ran",
    "total_ns": "sum of their durations",
    "first_row": "the first call",
    "source_row": "the sibling call right before the first one, of another query; null if none",
    "entry_endpoint": "endpoint of the entry",
    "entry_tool": "tool of the entry",
}

DERIVED = Derived(
    "query_repeats",
    "one query that ran several times under one span",
    ("query_calls", "tree"),
    compute,
    _COLUMNS,
)
