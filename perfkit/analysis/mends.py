"""The edits that common mends make: a cache, calls side by side, a larger pool, freed threads."""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.analysis.cache_replay import hits
from perfkit.analysis.call_paths import CallPaths
from perfkit.analysis.edits import Edits, Queue, Spared, scaled
from perfkit.analysis.forest import Ints
from perfkit.analysis.intervals import Intervals
from perfkit.analysis.overlaps import most_at_once
from perfkit.analysis.percentiles import codes
from perfkit.analysis.session import Tables
from perfkit.analysis.span_threads import NOWHERE, SpanThreads, span_threads
from perfkit.analysis.tree import indices

TIMES = ("pid", "tid", "start_ns", "duration_ns")
"""Columns of times on threads, as the functions here take them."""


def below(tables: Tables, rows: Ints) -> Ints:
    """Return the rows and everything below them: `tree` lists a subtree right after its top."""
    tree = tables.frame("tree")
    opened = np.zeros(tree.height + 1, np.int64)
    np.add.at(opened, rows, 1)
    np.add.at(opened, rows + tree["subtree"].to_numpy()[rows], -1)
    return np.flatnonzero(np.cumsum(opened[:-1]) > 0)


def between(tables: Tables, rows: Ints, stays: float) -> Edits:
    """Scale the parents' own time between the first and the last of their rows."""
    groups = (
        tables.frame("tree")[rows]
        .filter(pl.col("parent_row").is_not_null())
        .group_by("parent_row", maintain_order=True)
        .agg(
            extent=pl.col("end_ns").max() - pl.col("start_ns").min(),
            inside=pl.col("duration_ns").sum(),
        )
    )
    parents = groups["parent_row"].to_numpy()
    own_ns = tables.frame("span_times")["self_ns"].gather(parents).cast(pl.Float64).to_numpy()
    free = np.maximum(0.0, (groups["extent"] - groups["inside"]).to_numpy())
    share = np.divide(free, own_ns, out=np.zeros(len(parents)), where=own_ns > 0)
    return scaled(parents, 1.0 - np.minimum(1.0, share) * (1.0 - stays))


def side_by_side(tables: Tables, rows: Ints, *, halves: bool) -> Edits:
    """Let the calls of each parent run at once; with `halves` the later half after the earlier.

    A trace does not show whether a call needs the answer of one before it: so two steps are
    the cautious guess.
    """
    if not halves:
        return Edits(parallel=(rows,))
    place = pl.int_range(pl.len()).over("parent_row")
    late = (
        tables.frame("tree")[rows]
        .select("parent_row", "start_ns", "row")
        .sort("start_ns", "row")
        .select("row", late=place >= (pl.len().over("parent_row") + 1) // 2)
    )
    return Edits(
        parallel=tuple(
            late.filter(pl.col("late") == one)["row"].to_numpy() for one in (False, True)
        )
    )


def cached(tables: Tables, calls: pl.DataFrame, lifetime_ns: int, stays: float) -> Edits:
    """Let repeated calls be answered from a cache, in `stays` of the time that they took.

    `calls` has `row`, and the columns by which calls are equal.
    """
    tree = tables.frame("tree")
    key, _ = codes(calls, [name for name in calls.columns if name != "row"])
    rows = calls["row"].to_numpy()
    start, end = (tree[name].to_numpy()[rows] for name in ("start_ns", "end_ns"))
    return scaled(below(tables, rows[hits(key, start, end, lifetime_ns)]), stays)


def places(
    tables: Tables, rows: Ints, places_now: int | None, places_then: int, *, relative: bool
) -> Edits:
    """Let there be more places in a queue that spans wait in, each held until the parent ends.

    How many there are now is taken from what was held at once, where it is not known.
    """
    tree = tables.frame("tree")
    holders = indices(tree["parent_row"])[rows]
    rows, holders = rows[holders >= 0], holders[holders >= 0]
    if not rows.size:
        return Edits()
    end = tree["end_ns"].to_numpy()
    if places_now is None:
        nobody = np.zeros(len(rows), dtype=np.int64)
        places_now = max(1, int(most_at_once(nobody, end[rows], end[holders], 1)[0]))
    quickest = int(np.quantile(tables.frame("span_times")["self_ns"].to_numpy()[rows], 0.05))
    queue = Queue(rows, holders, places_now, max(places_now, places_then), quickest, relative)
    return Edits(queues=(queue,))


def freed(tables: Tables, times: pl.DataFrame, stays: float) -> Edits:
    """Take times on threads out of the own time of the spans that ran there."""
    return _Lines(span_threads(tables)).edits(times, stays)


def loop_freed(tables: Tables, times: pl.DataFrame, stays: float) -> Edits:
    """Take times in which one request kept an event loop out of the own time of all others on it.

    The request that kept the loop is that of the last span that began or ended there before the
    middle of the time: what runs on without a pause has no others' spans in it.
    """
    lines = _Lines(span_threads(tables))
    return lines.edits(times, stays) + lines.given_back(times, stays)


def code_times(tables: Tables, function: str, file: str | None, *, own: bool) -> pl.DataFrame:
    """Return the times in which a function ran: with what it calls, or only its own."""
    paths = tables.frame("call_paths")
    named = (paths["function"] == function).fill_null(False) & paths["file"].eq_missing(file)
    chosen = named.to_numpy() if own else CallPaths.of(paths).under(named.to_numpy())
    running = tables["ordered_samples"].filter(
        pl.col("path").is_in(np.flatnonzero(chosen)), pl.col("state") == "running"
    )
    return running.select("pid", "tid", "duration_ns", start_ns="ts_ns").drop_nulls().collect()


class _Lines:
    """Spans on sampled threads, and times on those threads."""

    def __init__(self, spans: SpanThreads) -> None:
        on_thread = spans.spans.with_columns(tree_row=spans.rows.gather(spans.spans["row"]))
        self._spans = on_thread.filter(pl.col("thread") != NOWHERE)
        self._threads = spans.threads

    def edits(self, times: pl.DataFrame, stays: float) -> Edits:
        """Spare the times on their threads."""
        placed = self._placed(times)
        spans = self._spans.drop_nulls("tree_row").filter(
            pl.col("thread").is_in(placed.group.tolist())
        )
        rows, line = spans["tree_row"].to_numpy(), spans["thread"].to_numpy()
        return Edits(spared=(Spared(rows, line, placed, stays),)) if len(rows) else Edits()

    def given_back(self, times: pl.DataFrame, stays: float) -> Edits:
        """Give their times back to the entries that kept a thread."""
        placed = self._placed(times)
        events = pl.concat(
            [
                self._spans.select("thread", "entry", at=f"{which}_ns").sort("at")
                for which in ("start", "end")
            ]
        ).sort("at")
        middle = pl.DataFrame({"thread": placed.group, "start": placed.start, "end": placed.end})
        keepers = (
            middle.with_columns(at=(pl.col("start") + pl.col("end")) // 2)
            .sort("at")
            .join_asof(events, on="at", by="thread", strategy="backward", check_sortedness=False)
            .drop_nulls("entry")
        )
        if keepers.is_empty():
            return Edits()
        spans = self._spans.drop_nulls("tree_row").join(
            keepers.select("thread", "entry").unique(), on=["thread", "entry"], how="semi"
        )
        both = pl.concat([one.select("thread", "entry") for one in (spans, keepers)])
        line, _ = codes(both, ["thread", "entry"])
        kept = Intervals(
            line[spans.height :], keepers["start"].to_numpy(), keepers["end"].to_numpy()
        )
        rows = spans["tree_row"].to_numpy()
        return Edits(spared=(Spared(rows, line[: spans.height], kept, 2.0 - stays),))

    def _placed(self, times: pl.DataFrame) -> Intervals:
        """Return times on threads as intervals of the number of the thread."""
        known = times.join(self._threads, on=["pid", "tid"], how="inner", nulls_equal=True)
        start = known["start_ns"].to_numpy()
        return Intervals(known["thread"].to_numpy(), start, start + known["duration_ns"].to_numpy())
