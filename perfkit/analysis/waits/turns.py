"""Calls of an event loop's requests that wait for each other's turn: `turns`.

A lock of an event loop (`asyncio.Lock`, a semaphore, a pool of one) leaves neither a span nor a
stack: who waits for it is on no thread. But its callers show it. They reach the call and make it
not before another request's is done, and then at once:

    request 1  [call------]
    request 2  [..........[call------]
    request 3   [....................[call------]

Stacks tell of a loop that stood still meanwhile, for which the same may be seen; it is left out.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.vector.overlaps import most_at_once
from perfkit.analysis.vector.percentiles import codes

MIN_WAIT_NS = 10_000_000
"""What begins sooner did not wait for anybody (our own choice)."""
HANDOVER_NS = 3_000_000
"""Who had waited goes on so soon after the one before; a free loop takes microseconds (ours)."""

_SCOPE = ("service", "pid", "thread_id", "entry_endpoint", "entry_tool")
_KEY = (*_SCOPE, "component", "name")
_READ = (*_KEY, "parent_row", "entry_row", "start_ns", "end_ns", "skew_ns", "adjusted_count")


def compute(tables: Tables) -> pl.DataFrame:
    """Return the table `turns`, most waiting first."""
    tree = tables.columns("tree", "category", "entry_row", "thread_id", "detached")
    called = pl.col("category").is_in(["client", "database"]) & ~pl.col("detached")
    known = pl.col("entry_row").is_not_null() & pl.col("thread_id").is_not_null()
    rows = np.flatnonzero(tree.select(called & known).to_series().to_numpy())
    threads = tables.picked("tree", rows, "entry_row", "thread_id")
    entry_thread = tables.looked_up("tree", threads["entry_row"], "thread_id")
    # A thread to which the loop gave work makes one call at a time in any case.
    rows = rows[(threads["thread_id"] == entry_thread).fill_null(False).to_numpy()]
    calls = tables.picked("tree", rows, *_READ)
    before = tables.picked("span_waits", rows, "before_row")["before_row"]
    calls = calls.with_columns(
        from_ns=pl.coalesce(
            tables.looked_up("tree", before, "end_ns"),
            tables.looked_up("tree", calls["parent_row"], "start_ns"),
        ),
        entry_end_ns=tables.looked_up("tree", calls["entry_row"], "end_ns"),
    )
    late = pl.col("start_ns") - pl.col("from_ns") >= MIN_WAIT_NS
    if not calls.select(late.any()).item():
        return pl.DataFrame(schema=_SCHEMA)
    kind, scope = codes(calls, _KEY)[0], codes(calls, _SCOPE)[0]
    calls = calls.with_columns(kind=pl.Series(kind), scope=pl.Series(scope))
    waited = _handed_over(_free(calls.filter(late), tables), calls)
    return _table(calls, waited)


def _free(waited: pl.DataFrame, tables: Tables) -> pl.DataFrame:
    """Leave out what waited, or called, while the loop stood still for half of that time."""
    blocked = tables.frame("loop_blocking").select(
        "pid", "start_ns", "duration_ns", thread_id="tid"
    )
    if waited.is_empty() or blocked.is_empty():
        return waited
    blocked = blocked.sort("start_ns").with_columns(
        before_ns=(pl.col("duration_ns").cum_sum() - pl.col("duration_ns")).over("pid", "thread_id")
    )
    sums = [
        waited.select("pid", "thread_id", at_ns=pl.col(time) - pl.col("skew_ns"))
        .with_row_index("place")
        .sort("at_ns")
        .join_asof(
            blocked,
            left_on="at_ns",
            right_on="start_ns",
            by=["pid", "thread_id"],
            check_sortedness=False,
        )
        .sort("place")
        .select(
            pl.col("before_ns")
            + pl.min_horizontal("duration_ns", pl.col("at_ns") - pl.col("start_ns"))
        )
        .to_series()
        .fill_null(0)
        for time in ("from_ns", "end_ns")
    ]
    stood = sums[1] - sums[0]
    return waited.filter(2 * stood < waited["end_ns"] - waited["from_ns"])


def _handed_over(waited: pl.DataFrame, calls: pl.DataFrame) -> pl.DataFrame:
    """Add whether each began right after another request on its loop had ended a call, or ended."""
    released = (
        pl.concat(
            calls.select("scope", released_ns=time, by="entry_row")
            for time in ("end_ns", "entry_end_ns")
        )
        .drop_nulls()
        .sort("released_ns")
    )
    return (
        waited.sort("start_ns")
        .join_asof(
            released,
            left_on="start_ns",
            right_on="released_ns",
            by="scope",
            check_sortedness=False,
        )
        .with_columns(
            handed=(
                (pl.col("by") != pl.col("entry_row"))
                & (pl.col("released_ns") > pl.col("from_ns"))
                & (pl.col("start_ns") - pl.col("released_ns") <= HANDOVER_NS)
            ).fill_null(False)
        )
    )


def _table(calls: pl.DataFrame, waited: pl.DataFrame) -> pl.DataFrame:
    ordered = calls.sort("kind", "start_ns")
    kind = ordered["kind"].to_numpy()
    start, end = ordered["start_ns"].to_numpy(), ordered["end_ns"].to_numpy()
    groups = int(kind[-1]) + 1
    wait = pl.col("start_ns") - pl.col("from_ns")
    of_waiting = waited.group_by("kind").agg(
        waits=pl.len().cast(pl.Int64),
        handed_over=pl.col("handed").sum().cast(pl.Int64),
        wait_ns=(wait * pl.col("adjusted_count")).filter("handed").sum().round().cast(pl.Int64),
        max_wait_ns=wait.filter("handed").max(),
    )
    return (
        ordered.group_by("kind", maintain_order=True)
        .agg(
            pl.col(_KEY).first(),
            calls=pl.len().cast(pl.Int64),
            requests=pl.col("entry_row").n_unique().cast(pl.Int64),
            mean_call_ns=(pl.col("end_ns") - pl.col("start_ns")).mean().round().cast(pl.Int64),
        )
        .with_columns(most_at_once=pl.Series(most_at_once(kind, start, end, groups)))
        .join(of_waiting, on="kind", how="inner")
        .sort("wait_ns", "kind", descending=[True, False])
        .select(pl.col(name).cast(dtype) for name, dtype in _SCHEMA.items())
    )


_SCHEMA: dict[str, pl.DataType] = {
    "service": pl.String(),
    **dict.fromkeys(("pid", "thread_id"), pl.Int64()),
    **dict.fromkeys(("entry_endpoint", "entry_tool", "component", "name"), pl.String()),
    **dict.fromkeys(("calls", "requests", "most_at_once", "mean_call_ns"), pl.Int64()),
    **dict.fromkeys(("waits", "handed_over", "wait_ns", "max_wait_ns"), pl.Int64()),
}

COLUMNS = {
    "service": "service.name",
    "pid": "process",
    "thread_id": "thread of the event loop",
    "entry_endpoint": "endpoint of the requests",
    "entry_tool": "tool of the requests",
    "component": "whom they call",
    "name": "name of the call's span",
    "calls": "how many calls, by requests on one thread",
    "requests": "in how many requests",
    "most_at_once": "most of these calls at once",
    "mean_call_ns": "mean duration of the calls",
    "waits": "calls before which their request had done nothing for "
    f"{MIN_WAIT_NS // 1_000_000} ms or more, in most of which the loop did not stand still",
    "handed_over": "those that began right after another such request's call, or all of it, had "
    "ended",
    "wait_ns": "how long those that were handed over had waited, together",
    "max_wait_ns": "the longest of that",
}

DERIVED = Derived(
    "turns",
    "one kind of call of requests on one event loop that some waited to make",
    ("tree", "span_waits", "loop_blocking"),
    compute,
    COLUMNS,
)
