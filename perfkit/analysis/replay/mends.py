"""The edits that common mends make: a cache, calls side by side, a larger pool, freed threads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from perfkit.analysis.code.call_paths import CallPaths
from perfkit.analysis.code.span_threads import NOWHERE, SpanThreads, span_threads
from perfkit.analysis.replay.cache_replay import hits
from perfkit.analysis.replay.edits import Edits, Queue, Spared, scaled
from perfkit.analysis.replay.unseen import unseen
from perfkit.analysis.session import Frames, Tables
from perfkit.analysis.vector.forest import Ints, nearest_marked
from perfkit.analysis.vector.intervals import Intervals, distinct
from perfkit.analysis.vector.overlaps import most_at_once
from perfkit.analysis.vector.parting import parted
from perfkit.analysis.vector.percentiles import Floats, codes
from perfkit.analysis.vector.rows import indices

TIMES = ("pid", "tid", "start_ns", "duration_ns")
"""Columns of times on threads, as the functions here take them."""


def below(tables: Tables, rows: Ints) -> Ints:
    """Return the rows and everything below them: `tree` lists a subtree right after its top."""
    rows = distinct(rows)
    sizes = tables.picked("tree", rows, "subtree")["subtree"].to_numpy()
    reach = np.maximum.accumulate(rows + sizes)
    outer = np.append(True, rows[1:] >= reach[:-1])[: len(rows)]
    rows, sizes = rows[outer], sizes[outer]
    # Ranges end to end: a step of one, but at the beginning of each.
    result = np.ones(int(sizes.sum()), dtype=np.int64)
    result[np.cumsum(sizes) - sizes] = (
        np.diff(rows, prepend=0) - np.append(0, sizes[:-1] - 1)[: len(rows)]
    )
    return np.cumsum(result)


def with_drivers(tables: Tables, rows: Ints) -> Ints:
    """Return the rows, and below database calls those of the drivers that carry them out."""
    cuts = tables.cuts()
    mine = [rows[at] - first for at, first in zip(parted(rows, cuts), cuts, strict=False)]
    found = tables.each_piece({"tree": ("parent_row", "db_system")}, _with_drivers, mine)
    return np.concatenate([part + first for part, first in zip(found, cuts, strict=False)])


def _with_drivers(frames: Frames, rows: Ints) -> Ints:
    tree = frames["tree"]
    called = tree["db_system"].is_not_null().to_numpy()
    parent = indices(tree["parent_row"])
    chosen = np.zeros(tree.height, dtype=np.bool_)
    chosen[rows] = True
    reached = rows[called[rows]]
    while reached.size:
        fresh = np.zeros(tree.height, dtype=np.bool_)
        fresh[reached] = True
        found = called & (parent >= 0) & fresh[parent] & ~chosen
        chosen |= found
        reached = np.flatnonzero(found)
    return np.flatnonzero(chosen)


def between(tables: Tables, rows: Ints, stays: float) -> Edits:
    """Scale the parents' own time between the first and the last of their rows."""
    groups = (
        tables.picked("tree", rows, "parent_row", "start_ns", "end_ns", "duration_ns")
        .filter(pl.col("parent_row").is_not_null())
        .group_by("parent_row", maintain_order=True)
        .agg(
            extent=pl.col("end_ns").max() - pl.col("start_ns").min(),
            inside=pl.col("duration_ns").sum(),
        )
    )
    parents = groups["parent_row"].to_numpy()
    own_ns = tables.picked("span_times", parents, "self_ns")["self_ns"].cast(pl.Float64).to_numpy()
    free = np.maximum(0.0, (groups["extent"] - groups["inside"]).to_numpy())
    share = np.divide(free, own_ns, out=np.zeros(len(parents)), where=own_ns > 0)
    return scaled(parents, 1.0 - np.minimum(1.0, share) * (1.0 - stays))


def side_by_side(tables: Tables, rows: Ints, *, typical: bool) -> Edits:
    """Let the calls of each parent run at once.

    What holds calls up now and then (a busy loop, a core that is taken) meets all of them together
    for a shorter time than one after the other. So with `typical` none lasts longer than is usual
    for the calls at its place in the order of its parent's.
    """
    together = Edits(parallel=(rows,))
    if not typical:
        return together
    of_call = ("parent_row", "start_ns", "service", "name", "duration_ns")
    calls = tables.picked("tree", rows, *of_call).with_columns(row=pl.Series(rows))
    calls = calls.sort("start_ns", "row")
    usual = pl.col("duration_ns").median().over("above", "service", "name", "place")
    stays = (
        calls.with_columns(
            place=pl.int_range(pl.len()).over("parent_row"),
            above=tables.looked_up("tree", calls["parent_row"], "name"),
        )
        .select((usual / pl.col("duration_ns")).fill_nan(1.0).clip(0.0, 1.0))
        .to_series()
        .to_numpy()
    )
    called, cuts = calls["row"].to_numpy(), tables.cuts()
    items = [
        (called[at] - first, stays[at])
        for at, first in zip(parted(called, cuts), cuts, strict=False)
    ]
    found = tables.each_piece({"tree": ("parent_row",)}, _inside_calls, items)
    inside_calls = [part + first for (part, _), first in zip(found, cuts, strict=False)]
    return together + scaled(
        np.concatenate(inside_calls), np.concatenate([shares for _, shares in found])
    )


def _inside_calls(frames: Frames, item: tuple[Ints, Floats]) -> tuple[Ints, Floats]:
    """Return the rows in calls, themselves included, and what stays of them."""
    rows, shares = item
    parent = indices(frames["tree"]["parent_row"])
    stays = np.ones(len(parent))
    stays[rows] = shares
    called = np.zeros(len(parent), dtype=np.bool_)
    called[rows] = True
    call = nearest_marked(parent, called)
    inside = np.flatnonzero(call >= 0)
    return inside, stays[call[inside]]


def cached(tables: Tables, calls: pl.DataFrame, lifetime_ns: int, stays: float) -> Edits:
    """Let repeated calls be answered from a cache, in `stays` of the time that they took.

    `calls` has `row`, and the columns by which calls are equal.
    """
    key, _ = codes(calls, [name for name in calls.columns if name != "row"])
    rows = calls["row"].to_numpy()
    times = tables.picked("tree", rows, "start_ns", "end_ns")
    start, end = (times[name].to_numpy() for name in times.columns)
    return scaled(below(tables, rows[hits(key, start, end, lifetime_ns)]), stays)


def places(
    tables: Tables, rows: Ints, places_now: int | None, places_then: int, *, relative: bool
) -> Edits:
    """Let there be more places in a queue that spans wait in, each held until the parent ends.

    How many there are now is taken from what was held at once, where it is not known.
    """
    holders = indices(tables.picked("tree", rows, "parent_row")["parent_row"])
    rows, holders = rows[holders >= 0], holders[holders >= 0]
    if not rows.size:
        return Edits()
    if places_now is None:
        nobody = np.zeros(len(rows), dtype=np.int64)
        got, given_back = (
            tables.picked("tree", of, "end_ns")["end_ns"].to_numpy() for of in (rows, holders)
        )
        places_now = max(1, int(most_at_once(nobody, got, given_back, 1)[0]))
    # At best, taking a free place lasts as long as it did for the quickest: where nearly all wait,
    # hardly anybody shows it.
    own_ns = tables.picked("span_times", rows, "self_ns")["self_ns"].to_numpy()
    quickest = int(np.quantile(own_ns, 0.05 if relative else 0.0))
    queue = Queue(rows, holders, places_now, max(places_now, places_then), quickest, relative)
    return Edits(queues=(queue,))


def freed(tables: Tables, times: pl.DataFrame, stays: Sequence[float]) -> list[Edits]:
    """Take times on threads out of the own time of the spans that ran there.

    One element for each of `stays`: how much of them is left.
    """
    lines = _Lines.of(tables)
    both = (lines.edits(times, stays), lines.unseen(tables, times, stays))
    return [spared + unseen for spared, unseen in zip(*both, strict=True)]


def loop_freed(tables: Tables, times: pl.DataFrame, stays: Sequence[float]) -> list[Edits]:
    """Take times in which one request kept an event loop out of the own time of all others on it.

    The request that kept the loop is that of the last span that began or ended there before the
    middle of the time: what runs on without a pause has no others' spans in it.
    """
    lines = _Lines.of(tables)
    both = (lines.edits(times, stays), lines.given_back(times, stays))
    return [spared + kept for spared, kept in zip(*both, strict=True)]


def code_times(tables: Tables, function: str, file: str | None, *, own: bool) -> pl.DataFrame:
    """Return the times that threads were in a function: with what it calls, or by itself.

    Time in which a thread in it had to wait for a core or the GIL goes away with it too.
    """
    paths = tables.frame("call_paths")
    named = (paths["function"] == function).fill_null(False) & paths["file"].eq_missing(file)
    chosen = named.to_numpy() if own else CallPaths.of(paths).under(named.to_numpy())
    there = tables["ordered_samples"].filter(pl.col("path").is_in(np.flatnonzero(chosen)))
    return there.select("pid", "tid", "duration_ns", start_ns="ts_ns").drop_nulls().collect()


class _Lines:
    """Spans on sampled threads, and times on those threads."""

    def __init__(self, spans: SpanThreads, early_ns: int) -> None:
        self._all = spans
        on_thread = spans.spans.with_columns(tree_row=spans.rows.gather(spans.spans["row"]))
        self._spans = on_thread.filter(pl.col("thread") != NOWHERE)
        self._threads = spans.threads
        self._early_ns = early_ns

    @classmethod
    def of(cls, tables: Tables) -> _Lines:
        """Read spans and threads. What is seen in a sample began up to one interval before."""
        lengths = tables["ordered_samples"].filter(pl.col("duration_ns") > 0)
        # Many stacks are seen once: the short lengths are one interval.
        interval = pl.col("duration_ns").quantile(0.1, "lower")
        interval_ns = lengths.select(interval).collect().item() or 0
        return cls(span_threads(tables), int(interval_ns) // 2)

    def edits(self, times: pl.DataFrame, stays: Sequence[float]) -> list[Edits]:
        """Spare the times on their threads."""
        placed = self._placed(times)
        spans = self._spans.drop_nulls("tree_row").filter(
            pl.col("thread").is_in(placed.group.tolist())
        )
        rows, line = spans["tree_row"].to_numpy(), spans["thread"].to_numpy()
        if not len(rows):
            return [Edits()] * len(stays)
        return [Edits(spared=(Spared(rows, line, placed, one),)) for one in stays]

    def unseen(self, tables: Tables, times: pl.DataFrame, stays: Sequence[float]) -> list[Edits]:
        """Spare what is like the times, and of which no stack was seen."""
        seen = self._placed(times, early_ns=0)
        return unseen(tables, self._all, seen, self._placed(times), stays)

    def given_back(self, times: pl.DataFrame, stays: Sequence[float]) -> list[Edits]:
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
            return [Edits()] * len(stays)
        spans = self._spans.drop_nulls("tree_row").join(
            keepers.select("thread", "entry").unique(), on=["thread", "entry"], how="semi"
        )
        both = pl.concat([one.select("thread", "entry") for one in (spans, keepers)])
        line, _ = codes(both, ["thread", "entry"])
        kept = Intervals(
            line[spans.height :], keepers["start"].to_numpy(), keepers["end"].to_numpy()
        )
        rows = spans["tree_row"].to_numpy()
        line = line[: spans.height]
        return [Edits(spared=(Spared(rows, line, kept, 2.0 - one),)) for one in stays]

    def _placed(self, times: pl.DataFrame, early_ns: int | None = None) -> Intervals:
        """Return times on threads as intervals of the number of the thread."""
        early_ns = self._early_ns if early_ns is None else early_ns
        known = times.join(self._threads, on=["pid", "tid"], how="inner", nulls_equal=True)
        start = known["start_ns"].to_numpy() - early_ns
        return Intervals(known["thread"].to_numpy(), start, start + known["duration_ns"].to_numpy())
