"""The table `query_repeats`: one query several times under one span, as N+1 queries are."""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.analysis.database.loops import branches
from perfkit.analysis.database.rounds import Siblings, rounds_of
from perfkit.analysis.database.statements import CHECKOUT
from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.spans.tree import parents_of
from perfkit.analysis.vector.overlaps import covered
from perfkit.analysis.vector.rows import indices, rows_or_null

_CONTROLS = r"(?i)^\s*(BEGIN|START\s+TRANSACTION|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|SET)\b"
"""Statements that fetch nothing: a driver may begin the transaction after the ORM's query began."""
_TICK_NS = 1_000_000
"""OpenTelemetry's SDK of JavaScript begins a span at a whole millisecond (Date.now())."""


def compute(tables: Tables) -> pl.DataFrame:
    """Return one row a span and query that ran at least twice under it."""
    tree = tables.frame("tree")
    calls = _under_one_span(tables)
    group = calls.select(pl.struct("loop_row", "query").rle_id())["loop_row"].to_numpy()
    start, end = calls["start_ns"].to_numpy(), calls["end_ns"].to_numpy()
    groups = int(group[-1]) + 1 if len(group) else 0
    union = covered(group, start, end, groups)
    repeats = (
        calls.with_columns(group=pl.Series(group))
        .group_by("group", maintain_order=True)
        .agg(
            pl.col("entry_row", "query_id").first(),
            parent_row=pl.col("loop_row").first(),
            calls=pl.len().cast(pl.Int64),
            distinct_statements=pl.col("statement_hash").n_unique().cast(pl.Int64),
            total_ns=(pl.col("end_ns") - pl.col("start_ns")).sum(),
            first_row=pl.col("row").first(),
            last_row=pl.col("row").last(),
            source_row=pl.col("before").first(),
            first_branch=pl.col("branch").min(),
            last_branch=pl.col("branch").max(),
            branches=pl.col("branch").n_unique().cast(pl.Int64),
        )
        .with_columns(union_ns=pl.Series(union))
        .filter(pl.col("calls") > 1)
    )
    timed = calls.select("start_ns", "end_ns", group=pl.Series(group))
    in_turn = (pl.col("union_ns") == pl.col("total_ns")) | _in_turn(timed, repeats)
    children = Siblings.of(tree, tables.frame("query_calls"), indices(repeats["parent_row"]))
    rounds = rounds_of(
        children,
        repeats["first_branch"].to_numpy(),
        repeats["last_branch"].to_numpy(),
        repeats["branches"].to_numpy(),
        (repeats["first_branch"] != repeats["first_row"]).to_numpy().astype(np.int64),
    )
    first, last = (children.place[repeats[f"{name}_branch"]] for name in ("first", "last"))
    return repeats.with_columns(
        rounds=pl.Series(rounds.times),
        rounds_ns=pl.Series(rounds.total_ns),
        sequential=in_turn,
        interleaved=pl.Series(last - first + 1) > pl.col("branches"),
        caller=tree["name"].gather(repeats["parent_row"]),
        entry_endpoint=tree["entry_endpoint"].gather(repeats["entry_row"]),
        entry_tool=tree["entry_tool"].gather(repeats["entry_row"]),
    ).select(*_COLUMNS)


def _in_turn(timed: pl.DataFrame, repeats: pl.DataFrame) -> pl.Series:
    """Return which groups overlap only because their clock is coarse.

    A call that begins at a whole millisecond began within it: so it overlaps one that ended earlier
    in that millisecond. Calls that really ran together also last longer, added up, than from the
    first to the last.
    """
    coarse = (pl.col("start_ns") % _TICK_NS == 0).all()
    start, end = pl.col("start_ns"), pl.col("end_ns")
    overlap = (end.cum_max().shift(1) - start).max().fill_null(0) < _TICK_NS
    added_up = (end - start).sum() < end.max() - start.min() + _TICK_NS
    unclear = repeats.filter(pl.col("union_ns") < pl.col("total_ns")).select("group")
    found = (
        timed.join(unclear, on="group", how="semi", maintain_order="left")
        .group_by("group", maintain_order=True)
        .agg(in_turn=coarse & overlap & added_up)
        .filter("in_turn")
    )
    return repeats["group"].is_in(found["group"].implode())


def _under_one_span(tables: Tables) -> pl.DataFrame:
    """Return calls by span, query and start, each with the call just before it under that span.

    What only controls the transaction, or takes a connection, does not count as the one before.
    """
    tree = tables.frame("tree")
    calls = tables.frame("query_calls").drop("parent_row")
    fetches_nothing = pl.col("statement").str.contains(f"{_CONTROLS}|{CHECKOUT}")
    calls = calls.with_columns(asks=~fetches_nothing.fill_null(False))
    calls = calls.drop("statement")
    calls = calls.with_columns(
        tree.select("start_ns", "end_ns")[calls["row"]], query=calls["query_id"].rank("dense")
    ).drop_nulls("loop_row")
    row, loop = calls["row"].to_numpy(), calls["loop_row"].to_numpy()
    calls = calls.with_columns(branch=pl.Series(branches(parents_of(tree), row, loop)))
    by_start = calls.sort("loop_row", "start_ns", "row")
    # Positions instead of groups: the last that asks, unless that is under another span.
    place = np.arange(by_start.height)
    last = np.maximum.accumulate(np.where(by_start["asks"].to_numpy(), place, -1))
    last = np.append(-1, last)[:-1]
    loop = by_start["loop_row"].to_numpy()
    same = (last >= 0) & (loop[last] == loop)
    before = by_start["row"].gather(rows_or_null(np.where(same, last, -1)))
    by_start = by_start.with_columns(before=before)
    return by_start.sort("loop_row", "query", maintain_order=True)


_COLUMNS = {
    "entry_row": "the entry, a row of `tree`",
    "parent_row": "the span under which it ran: `loop_row` of `query_calls`",
    "caller": "name of that span: where the loop is",
    "query_id": "the query, see `queries`",
    "calls": "how often",
    "distinct_statements": "how many different texts, as recorded",
    "sequential": "no two of the calls overlap, by more than their clock can tell",
    "interleaved": "some other child of that span began between the first and the last",
    "rounds": "how often it comes, each time with the same other children of that span between, or "
    "in a span of its own; 0 if not so",
    "rounds_ns": "sum of the durations of those children, the calls' own included",
    "union_ns": "time in which at least one ran",
    "total_ns": "sum of their durations",
    "first_row": "the first call",
    "source_row": "the call under that span right before the first, of another query, that does "
    "more than begin or end a transaction or take a connection; null if none",
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
