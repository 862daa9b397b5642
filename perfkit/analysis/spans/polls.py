"""The table `polls`: one thing asked again and again under one span, with even pauses: polling.

A loop over rows asks as fast as it can. Who asks whether something is done sleeps in between:

    request  [ask]......[ask]......[ask]......[ask]

So the pauses are even, nothing else happens in them, and the thread does not compute meanwhile.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.analysis.session import Derived, Frames, Tables

MIN_CALLS = 5
"""Fewer show no rhythm (our own choice)."""
_MIN_PAUSE_NS = 1_000_000
"""Shorter pauses are the program's own work between two calls (ours)."""
_EVEN = 0.7
"""Of the usual pause, for the shortest tenth: a sleep is never shorter than it says (ours)."""
_COMPUTING = 0.3
"""Who computes for so much of the pauses does not sleep in them (ours)."""

_READ = {
    "query_calls": ("row", "parent_row", "query_id", "statement_hash"),
    "http_calls": ("row", "parent_row", "kind", "method", "address", "url_hash"),
    "tree": ("parent_row", "entry_row", "start_ns", "end_ns", "entry_endpoint", "entry_tool"),
}
_ROWS = ("entry_row", "parent_row", "first_row", "last_row")


def compute(tables: Tables) -> pl.DataFrame:
    """Return the table `polls`."""
    cuts = tables.cuts()[:-1].tolist()
    runs = pl.concat(tables.each_piece(_READ, _runs, cuts))
    computes = pl.col("running_ns") > _COMPUTING * pl.col("pause_ns")
    return (
        runs.with_columns(_running(tables, runs["entry_row"]))
        .filter(computes.not_().fill_null(True))
        .select(*COLUMNS)
    )


def _runs(frames: Frames, cut: int) -> pl.DataFrame:
    """Return what some whole traces ask in even rhythm; their rows are numbered from `cut` on."""
    tree = frames["tree"]
    asked = _asked(frames)
    often = asked.group_by("parent_row", "target").len().filter(pl.col("len") >= MIN_CALLS)
    children = tree["parent_row"].is_in(often["parent_row"].unique().implode())
    rows = np.flatnonzero(children.fill_null(False).to_numpy())
    spans = (
        tree[rows]
        .with_columns(row=pl.Series(rows))
        .join(asked.drop("parent_row"), on="row", how="left")
        .sort("parent_row", "start_ns", "row")
    )
    start, end = pl.col("start_ns"), pl.col("end_ns")
    pause = pl.when(pl.col("run") == pl.col("run").shift()).then(start - end.shift())
    by_run = spans.with_columns(run=pl.struct("parent_row", "kind", "target").rle_id())
    text = pl.col("text_hash")
    runs = (
        by_run.with_columns(pause_ns=pause)
        .filter(pl.col("kind").is_not_null())
        .group_by("run", maintain_order=True)
        .agg(
            pl.col("entry_row", "parent_row", "kind", "target").first(),
            calls=pl.len().cast(pl.Int64),
            distinct_texts=pl.when(text.null_count() == 0).then(text.n_unique()).cast(pl.Int64),
            call_ns=(end - start).sum(),
            pause_ns=pl.col("pause_ns").sum(),
            usual_pause_ns=pl.col("pause_ns").median().round().cast(pl.Int64),
            low_pause_ns=pl.col("pause_ns").quantile(0.1, "lower").round().cast(pl.Int64),
            first_row=pl.col("row").first(),
            last_row=pl.col("row").last(),
        )
        .filter(
            pl.col("calls") >= MIN_CALLS,
            pl.col("entry_row").is_not_null(),
            pl.col("usual_pause_ns") >= _MIN_PAUSE_NS,
            pl.col("low_pause_ns") >= _EVEN * pl.col("usual_pause_ns"),
            pl.col("pause_ns") >= pl.col("call_ns"),
        )
    )
    entries = tree.select("entry_endpoint", "entry_tool")[runs["entry_row"]]
    return runs.hstack(entries).with_columns(pl.col(*_ROWS) + cut)


def _asked(frames: Frames) -> pl.DataFrame:
    """Return `row` and `parent_row` of queries and HTTP requests, what they ask (`kind`, `target`)
    and the hash of its text."""
    queries = frames["query_calls"].select(
        "row",
        "parent_row",
        target="query_id",
        kind=pl.lit("query"),
        text_hash="statement_hash",
    )
    fetched = (
        frames["http_calls"]
        .filter(pl.col("kind") == "client", pl.col("address").is_not_null())
        .select(
            "row",
            "parent_row",
            target=pl.concat_str("method", pl.lit(" "), "address"),
            kind=pl.lit("http"),
            text_hash="url_hash",
        )
    )
    return pl.concat([queries, fetched]).drop_nulls("parent_row")


def _running(tables: Tables, entries: pl.Series) -> pl.Series:
    """Return how long each request was seen to compute; null where no code was laid beside any."""
    parts = tables.frame("sample_spans")
    if parts["entry_row"].null_count() == parts.height:
        return pl.Series("running_ns", [None] * len(entries), dtype=pl.Int64)
    state = tables.frame("ordered_samples")["state"]
    sums = (
        parts.lazy()
        .with_columns(state=state.gather(parts["sample_row"]))
        .filter(pl.col("entry_row").is_in(entries.unique().implode()))
        .filter(pl.col("state") == "running")
        .group_by("entry_row")
        .agg(running_ns=pl.col("duration_ns").sum())
    )
    found = (
        entries.to_frame("entry_row")
        .lazy()
        .join(sums, on="entry_row", how="left", maintain_order="left")
    )
    return found.collect()["running_ns"].fill_null(0)


COLUMNS = {
    "entry_row": "the entry, a row of `tree`",
    "parent_row": "the span under which it is asked",
    "entry_endpoint": "endpoint of the entry",
    "entry_tool": "tool of the entry",
    "kind": "`query`, or `http`",
    "target": "the query, see `queries`, or method and address as in `http_calls`",
    "calls": "how often it was asked in one go, with no other child of that span in between",
    "distinct_texts": "how many different texts, as recorded; null where a text is not known",
    "call_ns": "sum of the calls",
    "pause_ns": "sum of the pauses between them, in which the program does nothing",
    "usual_pause_ns": "median of the pauses",
    "running_ns": "time in which the whole request was seen to compute; null without stacks of it",
    "first_row": "the first call",
    "last_row": "the last call",
}

DERIVED = Derived(
    "polls",
    f"one thing asked {MIN_CALLS} times or more under one span, with even pauses in between",
    ("tree", "query_calls", "http_calls", "sample_spans", "ordered_samples"),
    compute,
    COLUMNS,
)
