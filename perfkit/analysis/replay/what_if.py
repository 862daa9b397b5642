"""What would be, if things were changed: every entry replayed with a set of edits.

A replay keeps the order of things in `span_waits`: a child begins when the sibling that it waited
for is done and the parent has done the same own work in between; the parent ends after all of its
children and the same own work after them. Durations are never subtracted from each other, so
what is hidden behind something parallel saves nothing, and what two edits save counts once.

Idea: Lighthouse's simulated savings, and CRISP's what-if, over happens-before order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from perfkit.analysis.replay.edits import Edits, Queue, SparedTime, scaled
from perfkit.analysis.replay.queue_replay import waits
from perfkit.analysis.session import Tables
from perfkit.analysis.vector.forest import Bools, Ints, along_path
from perfkit.analysis.vector.overlaps import runs
from perfkit.analysis.vector.percentiles import Floats, codes, quantiles
from perfkit.analysis.vector.rows import indices

LEVELS = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True)
class Change:
    """A change whose effect is not known exactly: the edits at worst and at best."""

    worst: Edits
    best: Edits

    def __add__(self, other: Change) -> Change:
        """Return both changes, made together."""
        return Change(self.worst + other.worst, self.best + other.best)


def saved_ratio(tables: Tables, edits: Edits) -> float:
    """Return the share of request time that edits take away."""
    replayed = replay(tables, edits)
    weight = tables.frame("tree")["adjusted_count"].gather(replayed["entry_row"]).to_numpy()
    before, after = (replayed[name].to_numpy() for name in ("before_ns", "after_ns"))
    total = float((before * weight).sum())
    return float(((before - after) * weight).sum()) / total if total > 0 else 0.0


def saved_range(tables: Tables, change: Change) -> tuple[float, float]:
    """Return the share of request time that a change takes away, at least and at most."""
    low, high = (saved_ratio(tables, edits) for edits in (change.worst, change.best))
    return min(low, high), max(low, high)


def forecast(tables: Tables, change: Change, by: Sequence[str] = ()) -> pl.DataFrame:
    """Return latencies now and after a change: in all, or one row each of the columns `by`.

    `by` names columns of `tree`, as they are at the entries. The columns are `requests`, and for
    `mean`, `p50`, `p95` and `p99` each `X_now_ns`, `X_low_ns` (at best) and `X_high_ns`; a row
    each, the most request time first. Requests count as what they stand for.
    """
    best = replay(tables, change.best)
    worst = replay(tables, change.worst)
    tree = tables.frame("tree")[best["entry_row"]]
    # Without keys all entries, if there are any, are one group.
    group, keys = codes(tree.with_columns(all=pl.lit(0)), by or ["all"])
    count = keys.height
    weight = tree["adjusted_count"].to_numpy()
    both = [one["after_ns"].to_numpy() for one in (best, worst)]
    columns: dict[str, Ints] = {"now": best["before_ns"].to_numpy()}
    columns |= {"low": np.minimum(*both), "high": np.maximum(*both)}
    requests = np.asarray(np.bincount(group, weight, count), dtype=np.float64)
    result: dict[str, Floats] = {"requests": requests}
    for when, values in columns.items():
        result[f"mean_{when}_ns"] = np.bincount(group, values * weight, count) / requests
    for when, values in columns.items():
        marks = quantiles(group, values, weight, count, list(LEVELS.values()))
        result |= {f"{name}_{when}_ns": marks[:, at] for at, name in enumerate(LEVELS)}
    total = pl.col("mean_now_ns") * pl.col("requests")
    order = [True, *[False] * len(by)]
    found = keys.select(by).hstack(pl.DataFrame(result)) if by else pl.DataFrame(result)
    return found.sort(total, *by, descending=order)


def replay(tables: Tables, edits: Edits) -> pl.DataFrame:
    """Return `entry_row`, `before_ns` and `after_ns` of every entry."""
    tree = tables.frame("tree")
    entry = indices(tree["entry_row"])
    entries = np.flatnonzero(entry == np.arange(tree.height))
    before = tree["duration_ns"].to_numpy()[entries]
    touched = _touched(edits, entry)
    if not touched.any():
        return pl.DataFrame({"entry_row": entries, "before_ns": before, "after_ns": before})
    rows = np.flatnonzero(touched[entry])
    if edits.queues:
        plain = Edits(edits.scaled, edits.parallel, edits.spared)
        played = _Replay(tables, rows, plain).run()
        edits = plain + _emptied(edits.queues, tables, played)
    length = _Replay(tables, rows, edits).run().length
    after = np.where(touched[entries], np.rint(length[entries]).astype(np.int64), before)
    return pl.DataFrame({"entry_row": entries, "before_ns": before, "after_ns": after})


def _touched(edits: Edits, entry: Ints) -> Bools:
    """Return which entries are edited, by row, and one behind for spans of no entry."""
    touched = np.zeros(len(entry) + 1, dtype=np.bool_)
    touched[entry[np.flatnonzero(edits.factors(len(entry)) != 1.0)]] = True
    for rows in (
        *edits.groups(),
        *(one.rows for one in edits.spared),
        *(one.rows for one in edits.queues),
        *(one.holders for one in edits.queues),
    ):
        touched[entry[rows]] = True
    touched[-1] = False
    return touched


@dataclass(frozen=True)
class _Played:
    """Where the spans are after a replay, one element a row of `tree` and one behind."""

    length: Floats
    reached: Floats
    """When a span ends, counted from the start of the span that waits for it."""


def _emptied(queues: Sequence[Queue], tables: Tables, played: _Played) -> Edits:
    """Return the edits that let the spans of queues wait for as long as they then would."""
    waits_of = tables.frame("span_waits")
    end = waits_of["end_ns"].to_numpy()
    begin, then = _absolute(tables, played)
    own_ns = tables.frame("span_times")["self_ns"].to_numpy()
    edits = Edits()
    for queue in queues:
        own = own_ns[queue.rows].astype(np.float64)
        now = np.maximum(0.0, own - queue.idle_ns)
        # From when a place was got to when it was given back, now and then.
        held_now = np.maximum(0, end[queue.holders] - end[queue.rows]).astype(np.float64)
        held = np.maximum(0.0, (begin + then)[queue.holders] - (begin + then)[queue.rows])
        origin = begin[queue.rows].min(initial=0)
        waiting = waits(begin[queue.rows] - origin, held, queue.places_then)
        if queue.relative:
            came = waits_of["start_ns"].to_numpy()[queue.rows]
            explained = waits((came - came.min()).astype(np.float64), held_now, queue.places_now)
            waiting = now - np.maximum(0.0, explained - waiting)
        left = np.clip(waiting, 0.0, now) + (own - now)
        edits += scaled(queue.rows, np.divide(left, own, out=np.ones(len(own)), where=own > 0))
    return edits


def _absolute(tables: Tables, played: _Played) -> tuple[Floats, Floats]:
    """Return when each span would start, as Unix ns, and how long it would last."""
    waits_of = tables.frame("span_waits")
    parent = indices(waits_of["parent_row"])
    start = waits_of["start_ns"].to_numpy()
    length = played.length[:-1]
    inside = parent >= 0
    offset = np.where(inside, np.rint(played.reached[:-1] - length).astype(np.int64), start)
    return along_path(parent, offset, np.add, 0).astype(np.float64), length


class _Replay:
    """One replay of some rows; all arrays have one element a row of `tree`, and one behind."""

    def __init__(self, tables: Tables, rows: Ints, edits: Edits) -> None:
        waits_of, tree = tables.frame("span_waits"), tables.frame("tree")
        self.depth = tree["depth"].to_numpy()
        self.rows = rows
        self.above = tree.height
        self.parent, self.before, last = (
            np.append(indices(waits_of[name]), -1)
            for name in ("parent_row", "before_row", "last_row")
        )
        start, end = (np.append(waits_of[name].to_numpy(), 0) for name in ("start_ns", "end_ns"))
        self.waited: Bools = (self.parent >= 0) & (end > start)
        ready = np.where(self.before >= 0, end[self.before], start[self.parent])
        done = np.where(last >= 0, end[last], start)
        lag, tail = (start - ready).astype(np.float64), (end - done).astype(np.float64)
        if edits.spared:
            waited = rows[self.waited[rows]]
            skew = tree["skew_ns"].to_numpy()
            lag[waited] -= _spared(edits, self.parent[waited], ready[waited], start[waited], skew)
            tail[rows] -= _spared(edits, rows, done[rows], end[rows], skew)
        factor = np.append(edits.factors(tree.height), 1.0)
        self.lag, self.tail = lag * factor[self.parent], tail * factor
        self.members, first, final = _members(
            edits.groups(), self.parent, start, self.waited, self.depth
        )
        self.sizes, self.leaders = final - first + 1, self.members[first]
        self.height = -self.depth[self.members], -self.depth[self.leaders]

    def run(self) -> _Played:
        """Replay; of rows that are not replayed the result means nothing."""
        length: Floats = self.tail.copy()
        inside = np.zeros(self.above + 1)
        reached = np.zeros(self.above + 1)
        jump = np.where(self.before >= 0, self.before, self.above)
        jump[self.members] = np.repeat(jump[self.leaders], self.sizes)
        order = self.rows[np.argsort(-self.depth[self.rows], kind="stable")]
        for level in np.split(order, np.flatnonzero(np.diff(self.depth[order])) + 1):
            length[level] += inside[level]
            waited = level[self.waited[level]]
            reached[waited] = length[waited] + self.lag[waited]
            self._join(int(self.depth[level[0]]), length, reached)
            _along_chains(waited, jump, reached)
            np.maximum.at(inside, self.parent[waited], reached[waited])
        return _Played(length, reached)

    def _join(self, depth: int, length: Floats, reached: Floats) -> None:
        """Let all calls of a group end with its longest, and own work between them come after it.

        Groups are in order of depth, the deepest first.
        """
        members, sizes = (
            values[slice(*np.searchsorted(height, [-depth, 1 - depth]))]
            for values, height in zip((self.members, self.sizes), self.height, strict=True)
        )
        if len(members):
            first = np.cumsum(sizes) - sizes
            # The sum of all lags is that before the first call and those between the others.
            own = np.add.reduceat(self.lag[members], first)
            reached[members] = np.repeat(own + np.maximum.reduceat(length[members], first), sizes)


def _spared(edits: Edits, rows: Ints, start: Ints, end: Ints, skew: Ints) -> Floats:
    """Return how much of pieces of own time is spared, on the clock of their spans' hosts."""
    moved = skew[rows]
    total = np.zeros(len(rows))
    for one in edits.spared:
        total += SparedTime(one, len(skew)).within(rows, start - moved, end - moved)
    return np.clip(total, 0.0, (end - start).astype(np.float64))


def _members(
    groups: Sequence[Ints], parent: Ints, start: Ints, waited: Bools, depth: Ints
) -> tuple[Ints, Ints, Ints]:
    """Return the calls of all groups, and at which places groups begin and end.

    The deepest groups come first, and in a group the earliest call. A group is divided by parent;
    parts of one call are left out.
    """
    rows = np.concatenate([*groups, np.zeros(0, dtype=np.int64)])
    number = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    rows, number = rows[waited[rows]], number[waited[rows]]
    order = np.lexsort((rows, start[rows], parent[rows], number, -depth[rows]))
    rows, number = rows[order], number[order]
    part = np.cumsum(np.append(False, (np.diff(number) != 0) | (np.diff(parent[rows]) != 0)))
    part = part[: len(rows)]
    several = np.bincount(part, minlength=1)[part] > 1
    rows = rows[several]
    return rows, *runs(part[several])


def _along_chains(nodes: Ints, jump: Ints, reached: Floats) -> None:
    """Add to each node what the siblings that it waited for took; `jump` is used up."""
    above = len(reached) - 1
    active = nodes[jump[nodes] != above]
    while active.size:
        ahead = jump[active]
        total, further = reached[active] + reached[ahead], jump[ahead]
        reached[active] = total
        jump[active] = further
        active = active[further != above]
