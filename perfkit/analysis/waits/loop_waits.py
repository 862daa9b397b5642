"""How much of a time an event loop was kept by code of others: `loop_waits`.

Whoever awaits an answer gets it when the loop turns again. So while the code of another request
keeps the loop everything takes long, whatever it is called: a query, a transaction, a call. Spans
say for how long their code kept it (`long_steps`).
"""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.vector.forest import Ints

_LOOP = ("pid", "thread_id")
_SPAN = ("row", "entry_row", *_LOOP, "start_ns", "end_ns", "skew_ns")


def compute(tables: Tables) -> pl.DataFrame:
    """Return the table `loop_waits`, in the order of `tree`; empty where no loop was kept."""
    spans = _on_loops(tables, pl.col("row") == pl.col("entry_row"))
    return spans.select("entry_row", "duration_ns", "loop_wait_ns").sort("entry_row")


def compute_queries(tables: Tables) -> pl.DataFrame:
    """Return the table `query_loop_waits`, by query; empty where no loop was kept."""
    spans = _on_loops(tables, pl.col("category") == "database")
    calls = tables["query_calls"].select("row", "query_id").collect()
    weight = pl.col("adjusted_count")
    return (
        calls.join(spans, on="row")
        .group_by("query_id")
        .agg((pl.col(name) * weight).sum().round().cast(pl.Int64) for name in QUERY_SUMS)
        .sort("query_id")
    )


QUERY_SUMS = ("total_ns", "loop_wait_ns")


def _on_loops(tables: Tables, which: pl.Expr) -> pl.DataFrame:
    """Return spans on loops that were kept, and for how long by code of another entry."""
    kept = (
        tables.frame("long_steps")
        .select("pid", "entry_row", thread_id="tid", from_ns="start_ns", length_ns="duration_ns")
        .with_columns(until_ns=pl.col("from_ns") + pl.col("length_ns"))
    )
    loops = kept.select(_LOOP).unique().with_row_index("loop")
    spans = (
        tables.where("tree", which & pl.col("pid").is_in(loops["pid"].to_list()), *_SPAN, *_MORE)
        .join(loops, on=_LOOP)
        .with_columns(
            start_ns=pl.col("start_ns") - pl.col("skew_ns"),
            end_ns=pl.col("end_ns") - pl.col("skew_ns"),
            duration_ns=pl.col("end_ns") - pl.col("start_ns"),
        )
    )
    whole = np.zeros(spans.height, dtype=np.int64)
    loop = spans["loop"].to_numpy()
    for (number,), steps in kept.join(loops, on=_LOOP).group_by("loop"):
        mine = np.flatnonzero(loop == number)
        start, end = (spans[name].to_numpy()[mine] for name in ("start_ns", "end_ns"))
        whole[mine] = _kept_until(steps, end) - _kept_until(steps, start)
    own = _own_ns(spans, kept)
    waited = pl.Series(np.maximum(0, whole - own))
    return spans.with_columns(loop_wait_ns=waited, total_ns="duration_ns")


_MORE = ("adjusted_count", "category")


def _kept_until(steps: pl.DataFrame, at_ns: Ints) -> Ints:
    """Return for how long a loop was kept before some moments; its steps do not overlap."""
    ordered = steps.sort("from_ns")
    start, end = ordered["from_ns"].to_numpy(), ordered["until_ns"].to_numpy()
    before = np.concatenate([[0], np.cumsum(end - start)])
    place = np.searchsorted(start, at_ns, side="right")
    last = np.maximum(place - 1, 0)
    kept: Ints = before[place] - np.where(place > 0, np.maximum(0, end[last] - at_ns), 0)
    return kept


def _own_ns(spans: pl.DataFrame, kept: pl.DataFrame) -> Ints:
    """Return how much of spans is of steps of their own entry."""
    common = pl.min_horizontal("end_ns", "until_ns") - pl.max_horizontal("start_ns", "from_ns")
    own = (
        spans.select("row", "entry_row", *_LOOP, "start_ns", "end_ns")
        .join(kept, on=("entry_row", *_LOOP))
        .group_by("row")
        .agg(own_ns=common.clip(0).sum())
    )
    return (
        spans.select("row")
        .join(own, on="row", how="left", maintain_order="left")["own_ns"]
        .fill_null(0)
        .to_numpy()
    )


COLUMNS = {
    "entry_row": "the entry, as in `tree`",
    "duration_ns": "its length",
    "loop_wait_ns": "for how much of it code of other entries kept its event loop",
}

DERIVED = Derived(
    "loop_waits",
    "one entry on an event loop that some span kept for long",
    ("tree", "long_steps"),
    compute,
    COLUMNS,
)

QUERY_COLUMNS = {
    "query_id": "the query, as in `queries`",
    "total_ns": "sum of the durations of its calls on such loops",
    "loop_wait_ns": "for how much of that code of other entries kept the loop that awaits it",
}

QUERIES = Derived(
    "query_loop_waits",
    "one query that an event loop awaits which some span kept for long",
    ("query_calls", "tree", "long_steps"),
    compute_queries,
    QUERY_COLUMNS,
)
