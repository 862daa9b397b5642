"""On which sampled thread each span ran, so that stacks can be laid beside spans."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from perfkit.analysis import population
from perfkit.analysis.filters import Filters
from perfkit.analysis.session import Tables
from perfkit.analysis.vector.intervals import Ints
from perfkit.analysis.vector.rows import rows_or_null

NOWHERE = -1
_MAX_CLIMB = 64
"""How many ancestors on other threads are passed to find the one on the same thread."""


@dataclass(frozen=True)
class Matched:
    """The spans that ran on sampled threads, as columns."""

    place: Ints
    """Position among the spans."""
    row: Ints
    entry: Ints
    thread: Ints
    above: Ints
    """Position in these columns of the nearest ancestor on the same thread, or NOWHERE."""
    start_ns: Ints
    end_ns: Ints


@dataclass(frozen=True)
class SpanThreads:
    """All spans with the number of their sampled thread, NOWHERE where that is not known."""

    threads: pl.DataFrame
    """`pid`, `tid`, `thread`: the threads that were sampled with times."""
    spans: pl.DataFrame
    """One row a span, filtered out or not: `row`, `parent_row`, `entry` (negative when it was not
    captured), `service`, `start_ns`, `end_ns`, `thread`, `request` (whether it is one), and `named`
    (whether it says its thread)."""
    whole: pl.DataFrame
    """The tree that the rows number, filtered out or not."""
    rows: pl.Series
    """Row in `tree` of each row here and of each entry; null for those that are filtered out."""

    @property
    def thread_count(self) -> int:
        """How many thread numbers there may be; at least one."""
        return int(self.threads["thread"].to_numpy().max(initial=0)) + 1

    def matched(self) -> Matched:
        """Return the spans on sampled threads, each with its nearest ancestor on its thread."""
        thread = self.spans["thread"].to_numpy()
        chosen = np.flatnonzero(thread != NOWHERE)
        place = np.full(self.spans.height, NOWHERE, dtype=np.int64)
        place[chosen] = np.arange(len(chosen))
        parent = self.spans["parent_row"].fill_null(NOWHERE).to_numpy()
        above = parent[chosen]
        for _ in range(_MAX_CLIMB):
            elsewhere = np.flatnonzero((above != NOWHERE) & (thread[above] != thread[chosen]))
            if not len(elsewhere):
                break
            above[elsewhere] = parent[above[elsewhere]]
        above = np.where((above != NOWHERE) & (thread[above] == thread[chosen]), above, NOWHERE)
        columns = self.spans.select("row", "entry", "start_ns", "end_ns")[chosen]
        return Matched(
            chosen,
            columns["row"].to_numpy(),
            columns["entry"].to_numpy(),
            thread[chosen],
            np.where(above != NOWHERE, place[above], NOWHERE),
            columns["start_ns"].to_numpy(),
            columns["end_ns"].to_numpy(),
        )


def span_threads(tables: Tables) -> SpanThreads:
    """Match spans with sampled threads.

    By process and thread; by thread alone where a span does not name its process and no two
    sampled processes have such a thread; by process alone where a span does not name its thread and
    the process was sampled on a single one.
    """
    threads = (
        tables["ordered_samples"]
        .filter(pl.col("ts_ns").is_not_null())
        .select("pid", "tid", "thread")
        .unique()
        .collect()
    )
    named = threads.drop_nulls("tid")
    alone = pl.len().over("pid") == 1
    by_process = named.filter(alone).drop_nulls("pid").select("pid", by_process="thread")
    alone = pl.len().over("tid") == 1
    by_thread = named.filter(alone).select("tid", by_thread="thread")
    tree, rows = _whole_tree(tables)
    entry = pl.col("entry_row")
    if tree["entry_row"].null_count():
        # Spans without their entry still keep their thread busy, for a request of their own.
        lost = pl.struct("trace_hi", "trace_lo").rank("dense").cast(pl.Int64)
        entry = pl.coalesce(entry, -1 - lost)
    spans = (
        tree.lazy()
        .select(
            "row",
            "parent_row",
            "duplicate",
            "pid",
            "service",
            entry=entry,
            request=(pl.col("row") == pl.col("request_row")) & ~pl.col("duplicate"),
            tid="thread_id",
            named=pl.col("thread_id").is_not_null(),
            # Samples are on the clock of the span's own host.
            start_ns=pl.col("start_ns") - pl.col("skew_ns"),
            end_ns=pl.col("end_ns") - pl.col("skew_ns"),
        )
        .join(threads.lazy(), on=["pid", "tid"], how="left", maintain_order="left")
        .join(by_process.lazy(), on="pid", how="left", maintain_order="left")
        .join(by_thread.lazy(), on="tid", how="left", maintain_order="left")
        .with_columns(
            # The second report of a request would stand beside the first.
            thread=pl.when(pl.col("duplicate"))
            .then(NOWHERE)
            .when(pl.col("named") & pl.col("pid").is_not_null())
            .then("thread")
            .when(pl.col("named"))
            .then("by_thread")
            .otherwise("by_process")
            .fill_null(NOWHERE)
        )
        .drop("pid", "tid", "by_process", "by_thread")
        .collect()
    )
    return SpanThreads(threads, spans, tree, rows)


def join_reason(tables: Tables) -> str:
    """Say how samples were laid beside spans, or why they could not be."""
    parts = tables.frame("sample_spans")
    if parts.is_empty():
        return "no samples with times"
    threads = tables.columns("tree", "thread_id")["thread_id"]
    if threads.is_empty():
        return "no spans"
    named = threads.is_not_null().any()
    if parts["row"].is_not_null().any() or parts["ambiguous"].any():
        return "by thread" if named else "by process, which had one thread"
    if named:
        return "the threads that spans name were not sampled while the spans were open"
    return "spans do not say on which thread they ran"


def _whole_tree(tables: Tables) -> tuple[pl.DataFrame, pl.Series]:
    """Return the tree without filters, and for each of its rows the row in `tree` or null.

    What is filtered out was on the threads all the same.
    """
    if tables.filters == Filters():
        tree = tables.frame("tree")
        return tree, tree["row"]
    whole = tables.whole()
    kept = population.passing(whole, tables.filters)
    return whole.frame("tree"), rows_or_null(np.where(kept, np.cumsum(kept) - 1, NOWHERE))
