"""What would be, if some spans were faster or ran side by side: every entry replayed.

A replay keeps the order of things in `span_waits`: a child begins when the sibling that it waited
for is done and the parent has done the same own work in between; the parent ends after all of its
children and the same own work after them. Durations are never subtracted from each other, so
what is hidden behind something parallel saves nothing.

Idea: Lighthouse's simulated savings, and CRISP's what-if, over happens-before order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from perfkit.analysis.forest import Bools, Ints
from perfkit.analysis.overlaps import runs
from perfkit.analysis.percentiles import Floats, quantiles
from perfkit.analysis.session import Tables
from perfkit.analysis.tree import indices


@dataclass(frozen=True)
class Savings:
    """What a change would bring over all entries, each counted as what it stands for."""

    saved_ratio: float
    """Share of request time that would go away."""
    p50_before_ns: float
    p50_after_ns: float
    p95_before_ns: float
    p95_after_ns: float
    entries: int
    """How many entries would change at all."""


def savings(tables: Tables, factors: Floats, *, parallel: Sequence[Ints] | None = None) -> Savings:
    """Return what `replay` changes, summed up."""
    replayed = replay(tables, factors, parallel=parallel)
    weight = tables.frame("tree")["adjusted_count"].gather(replayed["entry_row"]).to_numpy()
    before, after = replayed["before_ns"].to_numpy(), replayed["after_ns"].to_numpy()
    total = float((before * weight).sum())
    group = np.zeros(len(before), dtype=np.int64)
    marks = [quantiles(group, values, weight, 1, [0.5, 0.95])[0] for values in (before, after)]
    return Savings(
        saved_ratio=float(((before - after) * weight).sum()) / total if total > 0 else 0.0,
        p50_before_ns=float(marks[0][0]),
        p50_after_ns=float(marks[1][0]),
        p95_before_ns=float(marks[0][1]),
        p95_after_ns=float(marks[1][1]),
        entries=int((before != after).sum()),
    )


def replay(
    tables: Tables, factors: Floats, *, parallel: Sequence[Ints] | None = None
) -> pl.DataFrame:
    """Return `entry_row`, `before_ns` and `after_ns` of every entry.

    `factors` has one number a row of `tree`, by which the span's own time is multiplied: 0 takes
    it away, 1 leaves it. Each array in `parallel` names calls, by row, that begin together instead
    of one after the other, where they are under one span; own work of that span between them stays.
    A row is in one array at most.
    """
    tree = tables.frame("tree")
    entry = indices(tree["entry_row"])
    entries = np.flatnonzero(entry == np.arange(tree.height))
    before = tree["duration_ns"].to_numpy()[entries]
    after = before.copy()
    groups = [np.asarray(group, dtype=np.int64) for group in parallel or () if len(group) > 1]
    touched = np.zeros(tree.height + 1, dtype=np.bool_)
    touched[entry[np.flatnonzero(factors != 1.0)]] = True
    for group in groups:
        touched[entry[group]] = True
    touched[-1] = False  # spans of no entry
    if touched.any():
        length = _Replay(tables, np.flatnonzero(touched[entry]), factors, groups).run()
        after = np.where(touched[entries], np.rint(length[entries]).astype(np.int64), before)
    return pl.DataFrame({"entry_row": entries, "before_ns": before, "after_ns": after})


class _Replay:
    """One replay of some rows; all arrays have one element a row of `tree`, and one behind."""

    def __init__(self, tables: Tables, rows: Ints, factors: Floats, groups: Sequence[Ints]) -> None:
        waits = tables.frame("span_waits")
        self.depth = tables.frame("tree")["depth"].to_numpy()
        self.rows = rows
        self.above = len(factors)
        self.parent, self.before, last = (
            np.append(indices(waits[name]), -1) for name in ("parent_row", "before_row", "last_row")
        )
        start, end = (np.append(waits[name].to_numpy(), 0) for name in ("start_ns", "end_ns"))
        factor = np.append(factors, 1.0)
        self.waited: Bools = (self.parent >= 0) & (end > start)
        ready = np.where(self.before >= 0, end[self.before], start[self.parent])
        self.lag = (start - ready) * factor[self.parent]
        self.tail = (end - np.where(last >= 0, end[last], start)) * factor
        self.members, first, last = _members(groups, self.parent, start, self.waited, self.depth)
        self.sizes, self.leaders = last - first + 1, self.members[first]
        self.height = -self.depth[self.members], -self.depth[self.leaders]

    def run(self) -> Floats:
        """Return the new length of each row; of rows that are not replayed it means nothing."""
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
        return length

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
