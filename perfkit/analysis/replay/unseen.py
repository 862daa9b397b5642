"""What of a thread's time no stack shows, judged by what was seen of spans of the same name.

A stack stands for the time until the next one. Where a profiler misses some, as it does while a
thread computes, one from before a span began stands for part of the span too: such time, and time
without any stack, is unseen. It is taken to be spent as the time that was seen (a ratio estimator:
Cochran, Sampling Techniques, 1977, chapter 6).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from perfkit.analysis.code.call_paths import CallPaths
from perfkit.analysis.code.frame_roles import LOOP_ROLES
from perfkit.analysis.code.span_threads import SpanThreads
from perfkit.analysis.code.waiting import waits
from perfkit.analysis.replay.edits import Edits, Spared, SparedTime, scaled
from perfkit.analysis.session import Tables
from perfkit.analysis.vector.forest import Ints
from perfkit.analysis.vector.intervals import Intervals

_MIN_OBSERVATIONS = 10
"""Of what is looked for, in spans of one name: fewer say too little about what was not seen."""
_CALLS = ("io", "condition", "queue")
"""How a thread waits for a call that has a span of its own (see `waits`)."""
_MOST_UNSEEN = 4.0
"""How many times as long as what was seen the whole may be taken to be."""


def unseen(
    tables: Tables, spans: SpanThreads, seen: Intervals, spared: Intervals, stays: Sequence[float]
) -> list[Edits]:
    """Return how much more of own time goes than the `spared` times, so that unseen time does too.

    One element for each of `stays`: how much of the spared times is left.
    Both are times on threads: `seen` as stacks show them, `spared` as they are taken out of spans
    already. Threads of event loops are left out: there a stack from before a request may well be
    one that waits during it.
    """
    each = _own_times(tables, spans, spared)
    parts = _fresh(tables)
    if not len(seen.group) or each.is_empty() or parts.is_empty():
        return [Edits()] * len(stays)
    own = each.group_by(row="into").agg(pl.col("own_ns", "gone_ns", "self_ns").sum())
    into = each.select("row", "into").unique("row")
    number = np.arange(parts.height)
    start = parts["start_ns"].to_numpy()
    found = SparedTime(Spared(number, parts["thread"].to_numpy(), seen), parts.height).within(
        number, start, start + parts["duration_ns"].to_numpy()
    )
    by_row = (
        parts.with_columns(found_ns=pl.Series(found))
        .join(into, on="row")
        .group_by(row="into")
        .agg(
            fresh_ns=pl.col("duration_ns").sum(),
            found_ns=pl.col("found_ns").sum(),
            waited_ns=pl.col("duration_ns").filter("waits").sum(),
            waiting_looks=pl.col("waits").sum(),
            found_waiting_ns=pl.col("found_ns").filter("waits").sum(),
            observations=(pl.col("found_ns") > 0).sum(),
        )
    )
    name = ("service", "name")
    self_ns = pl.min_horizontal("own_ns", "self_ns")
    more = (pl.min_horizontal(_whole(self_ns), self_ns) - pl.col("gone_ns")).clip(0.0)
    gone = pl.min_horizontal("gone_ns", self_ns)
    edited = (
        own.with_columns(tables.picked("tree", own["row"].to_numpy(), *name))
        .join(by_row, on="row", how="left")
        .group_by(name)
        .agg(pl.col("row"), pl.col(*own.columns[1:], *by_row.columns[1:]).sum())
        .filter(pl.col("observations") >= _MIN_OBSERVATIONS)
        .select("row", more_ns=more, own_ns=self_ns, gone_ns=gone)
        .filter(pl.col("more_ns") > 0)
        .explode("row")
    )
    rows = edited["row"].to_numpy()
    shares = [1.0 - one for one in stays]
    left = [pl.col("own_ns") - share * pl.col("gone_ns") for share in shares]
    kept = [1.0 - share * pl.col("more_ns") / one for share, one in zip(shares, left, strict=True)]
    return [scaled(rows, edited.select(one).to_series().to_numpy()) for one in kept]


def _whole(self_ns: pl.Expr) -> pl.Expr:
    """Return how much of the self time of spans of a name is what was found.

    A thread that calls another service waits for it, which is nobody's self time here. Spans say
    how long that was, so it is a stratum of its own (Cochran, chapter 5A): self time is divided by
    the looks that are left. Only where more is seen to wait than calls and chance explain, two
    standard errors beyond, waiting is self time too, and then so much of it counts. All in sum:
    stacks that stand some milliseconds off the spans do not say whether it was in the call.
    """
    times = (pl.col("own_ns") / pl.col("fresh_ns")).clip(1.0, _MOST_UNSEEN)
    waited_ns = pl.col("waited_ns") * times
    called_ns = pl.col("own_ns") - self_ns
    explained = waited_ns <= called_ns * (1.0 + 2.0 / pl.col("waiting_looks").sqrt())
    computing_ns = pl.col("found_ns") - pl.col("found_waiting_ns")
    rest = (self_ns / (pl.col("fresh_ns") - pl.col("waited_ns"))).clip(1.0, _MOST_UNSEEN)
    counts = 1.0 - called_ns / waited_ns
    beyond = times * (computing_ns + counts * pl.col("found_waiting_ns"))
    return (
        pl.when(pl.col("waited_ns") == 0)
        .then(times * computing_ns)
        .otherwise(pl.when(explained).then(rest * computing_ns).otherwise(beyond))
    )


def _own_times(tables: Tables, spans: SpanThreads, spared: Intervals) -> pl.DataFrame:
    """Return own times of the spans on threads.

    Columns: `row`; `own_ns`; `gone_ns`, what is spared of it; `self_ns`; `into`, the row with which
    it is judged: of a call all of whose time is another service's, that of who calls.
    """
    matched = spans.matched()
    place = np.arange(len(matched.row))
    own = (matched.end_ns - matched.start_ns).astype(np.float64)
    times = SparedTime(Spared(place, matched.thread, spared), len(place))
    gone = times.within(place, matched.start_ns, matched.end_ns)
    below = np.flatnonzero(matched.above >= 0)
    for values in (own, gone):
        np.subtract.at(values, matched.above[below], values[below])
    row = spans.rows.gather(matched.row)
    known = row.is_not_null().to_numpy()
    self_ns = np.zeros(len(place))
    of_known = tables.picked("span_times", row.drop_nulls().to_numpy(), "self_ns")
    self_ns[known] = of_known["self_ns"].to_numpy()
    elsewhere = known & (self_ns == 0) & (matched.above >= 0)
    elsewhere[elsewhere] = known[matched.above[elsewhere]]
    into = _outermost(np.where(elsewhere, matched.above, place))
    return pl.DataFrame(
        {
            "row": row,
            "own_ns": own.clip(0),
            "gone_ns": np.where(elsewhere, 0.0, gone.clip(0)),
            "self_ns": self_ns,
            "into": row.gather(into),
        }
    ).drop_nulls("row")


def _outermost(above: Ints) -> Ints:
    """Follow each place to the one that is its own; `above` goes towards the root."""
    while True:
        further = above[above]
        if np.array_equal(further, above):
            return above
        above = further


def _fresh(tables: Tables) -> pl.DataFrame:
    """Return the parts of samples that say what a span was doing on its thread.

    A stack says so when it is taken: where a span began or ended since, its thread has moved on.
    A worker that has nothing to do serves no span: it was taken just before it went on.
    """
    paths = tables.frame("call_paths")
    in_loop = paths["role"].is_in(LOOP_ROLES).fill_null(False).to_numpy()
    loop_paths = np.flatnonzero(CallPaths.of(paths).under(in_loop))
    kind = waits(paths)["kind"]
    idle = np.flatnonzero(kind.eq("idle").fill_null(False).to_numpy())
    waiting = np.flatnonzero(kind.is_in(_CALLS).fill_null(False).to_numpy())
    samples = tables.frame("ordered_samples")
    loops = samples.filter(pl.col("path").is_in(loop_paths))["thread"].unique()
    parts = tables.frame("sample_spans").drop_nulls(["row", "duration_ns"])
    taken = samples.select("ts_ns", "path", "thread")[parts["sample_row"]]
    fresh = (
        (parts["start_ns"] == taken["ts_ns"])
        & taken["path"].is_not_null()
        & ~taken["path"].is_in(idle)
        & ~taken["thread"].is_in(loops.implode())
    )
    return (
        parts.select("row", "start_ns", "duration_ns")
        .with_columns(taken["thread"], waits=taken["path"].is_in(waiting))
        .filter(fresh.fill_null(False))
    )
