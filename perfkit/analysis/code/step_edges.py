"""Where the steps of an event loop change so near a stack that it may be of another step.

What py-spy saw stands until it looks again, and the stamp of a look is late, more so on a busy
machine, so that a stack near the end of a step may be of that step or of the one before. How late
py-spy was is not known, but a stack that stood across an edge shows it: until the next one was seen
py-spy may not have looked at all.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from perfkit.analysis.code.samples import MAX_GAP_NS
from perfkit.analysis.vector.intervals import Changes, Ints
from perfkit.capture import CaptureInfo

PERIODS = 3
"""Sampling periods that a stack may be from where its stamp says: one because it stands until the
next look, one because half of the stamps are that late (measured at 100 looks a second), one for a
busy machine. Measured at 100 looks a second, 2 cores and a load of 6, with steps of 20 and 200 ms:
with two periods up to 4.0 % of the running time went to a wrong entry, with three up to 2.3 %."""
_USUAL_RATE = 100
"""py-spy's own, where the capture does not say how often it looked."""
_BRIEF = 0.03
"""What the loop does between two steps of one entry counts as no edge up to this share of what is
uncertain: as rarely does a stack that is taken for the entry's belong to it."""
NOBODY = np.iinfo(np.int64).min
SEVERAL = NOBODY + 1


class Blurred(NamedTuple):
    """States that are cut where what is uncertain begins and ends."""

    changes: Changes
    state: Ints
    """For each of them which one of the given it is part of."""
    uncertain: npt.NDArray[np.bool_]


def blur(
    changes: Changes,
    owner: Ints,
    said: npt.NDArray[np.bool_],
    loop: npt.NDArray[np.bool_],
    kind: Ints,
    seen: Changes,
    info: CaptureInfo,
) -> Blurred:
    """Find the times at which a stack may be of another entry's step, or of none.

    `owner` is the entry at work in each state, NOBODY or SEVERAL; `said` whether a step says so;
    `loop` for each thread whether it runs a loop; `kind` says which owners are of one endpoint;
    `seen` when the stacks of threads changed. An edge is where the owner changes and at least one
    side is said by a step; what lies less than `PERIODS` sampling periods from it is uncertain.
    Where the kind changes too, so is the rest of the stack that stood across the edge, and of the
    next one, which may be stamped late, what lies as near to its begin. Threads that only get work
    from a loop have no edges: they serve one entry at a time, from its begin to its end, like those
    of a threaded server, which are not blurred either.
    """
    moments = len(changes.moments)
    begins = changes.begins()
    first = begins.copy()
    first[1:] |= owner[1:] != owner[:-1]
    run = np.flatnonzero(first)
    thread, whose = changes.key[run] // moments, owner[run]
    at = changes.moments[changes.key[run] % moments]
    edge = loop[thread] & ~begins[run] & (said[run] | said[run - 1])
    reach = PERIODS * periods_ns(info, at)
    # What a loop does between two steps of one entry.
    gap = 1 + np.flatnonzero(edge[1:-1] & edge[2:] & (whose[1:-1] == NOBODY))
    gap = gap[whose[gap - 1] == whose[gap + 1]]
    gap = gap[at[gap + 1] - at[gap] <= _BRIEF * reach[gap]]
    edge[gap] = edge[gap + 1] = False
    edges = np.flatnonzero(edge)
    if not len(edges) + len(gap):
        return Blurred(changes, np.arange(len(owner)), np.zeros(len(owner), dtype=np.bool_))
    group = np.concatenate([thread[edges], thread[gap]])
    start = np.concatenate([at[edges] - reach[edges], at[gap]])
    until = at[edges] + reach[edges]
    other = np.flatnonzero(kind[run[edges]] != kind[run[edges] - 1])
    settled = _settled(seen, thread[edges[other]], at[edges[other]], reach[edges[other]])
    until[other] = np.maximum(until[other], settled)
    end = np.concatenate([until, at[gap + 1]])
    old = np.flatnonzero(~begins)
    cut = Changes.of(
        len(loop),
        np.concatenate([changes.key[old] // moments, group, group]),
        np.concatenate([changes.moments[changes.key[old] % moments], start, end]),
    )
    (uncertain,) = cut.sums(group, cut.rank(start), cut.rank(end))
    began = cut.moments[cut.key % len(cut.moments)]
    state = changes.state(cut.key // len(cut.moments), changes.rank(began))
    return Blurred(cut, state, uncertain > 0)


def stack_changes(samples: pl.DataFrame, threads: int) -> Changes:
    """Return when the stack of each thread began to be another, or was not seen any more.

    `samples` are ordered samples with times.
    """
    rows = (
        samples.lazy()
        .select("thread", "ts_ns", "stack_id", end_ns=pl.col("ts_ns") + pl.col("duration_ns"))
        .with_columns(pl.col("end_ns").fill_null(pl.col("ts_ns")))
        .sort("thread", "ts_ns", maintain_order=True)
        .with_columns(
            same=(pl.struct("thread", "stack_id") == pl.struct("thread", "stack_id").shift())
            & (pl.col("ts_ns") - pl.col("end_ns").shift() <= MAX_GAP_NS)
        )
        .with_columns(pl.col("same").fill_null(False))
        .collect()
    )
    begins = rows.filter(~pl.col("same"))
    ends = rows.filter(~pl.col("same").shift(-1, fill_value=False))
    return Changes.of(
        threads,
        np.concatenate([begins["thread"].to_numpy(), ends["thread"].to_numpy()]),
        np.concatenate([begins["ts_ns"].to_numpy(), ends["end_ns"].to_numpy()]),
    )


def _settled(seen: Changes, thread: Ints, edge_ns: Ints, reach_ns: Ints) -> Ints:
    """Return until when stacks may be from before an edge, as far as they themselves show."""
    none = np.append(seen.begins(), True)
    when = np.append(seen.moments[seen.key % len(seen.moments)], 0)
    first = 1 + seen.state(thread, seen.rank(edge_ns - 1))
    second = np.minimum(first + 1, len(when) - 1)
    since = np.where(none[first], edge_ns, when[first])
    ends = np.where(none[first] | none[second], since, when[second])
    settled: Ints = np.minimum(since + reach_ns, ends)
    return settled


def periods_ns(info: CaptureInfo, at_ns: Ints) -> Ints:
    """Return the time from one look of py-spy to the next at the given times, by its settings."""
    known = sorted(
        (setting["since_ns"], setting["rate"])
        for source in info.sources
        for setting in source.get("settings", ())
        if source.get("name") == "py-spy" and setting.get("rate", 0) > 0
    )
    if not known:
        return np.full(len(at_ns), 10**9 // _USUAL_RATE)
    since = np.array([since_ns for since_ns, _ in known])
    periods = np.array([round(10**9 / rate) for _, rate in known])
    place = np.searchsorted(since, at_ns, side="right") - 1
    return periods[np.maximum(place, 0)]
