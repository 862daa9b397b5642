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
    it away, 1 leaves it. Each array in `parallel` names calls under one span, by row, that begin
    together instead of one after the other; own work of the parent between them stays.
    """
    tree = tables.frame("tree")
    entry = indices(tree["entry_row"])
    entries = np.flatnonzero(entry == np.arange(tree.height))
    before = tree["duration_ns"].to_numpy()[entries]
    after = before.copy()
    groups = [np.sort(group) for group in parallel or () if len(group) > 1]
    touched = np.zeros(tree.height + 1, dtype=np.bool_)
    touched[entry[np.flatnonzero(factors != 1.0)]] = True
    touched[[entry[group[0]] for group in groups]] = True
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
        self.groups = groups
        self.start = start

    def run(self) -> Floats:
        """Return the new length of each row; of rows that are not replayed it means nothing."""
        length: Floats = self.tail.copy()
        inside = np.zeros(self.above + 1)
        reached = np.zeros(self.above + 1)
        jump = np.where(self.before >= 0, self.before, self.above)
        group_level = self._side_by_side(jump)
        order = self.rows[np.argsort(-self.depth[self.rows], kind="stable")]
        for level in np.split(order, np.flatnonzero(np.diff(self.depth[order])) + 1):
            length[level] += inside[level]
            waited = level[self.waited[level]]
            reached[waited] = length[waited] + self.lag[waited]
            for group in group_level.get(int(self.depth[level[0]]), ()):
                self._join(group, length, reached)
            _along_chains(waited, jump, reached)
            np.maximum.at(inside, self.parent[waited], reached[waited])
        return length

    def _side_by_side(self, jump: Ints) -> dict[int, list[Ints]]:
        """Let each group begin where its first call does; returns the groups by depth."""
        levels: dict[int, list[Ints]] = {}
        for rows in self.groups:
            group = rows[self.waited[rows]]
            if len(group) > 1:
                group = group[np.argsort(self.start[group], kind="stable")]
                jump[group[1:]] = jump[group[0]]
                levels.setdefault(int(self.depth[group[0]]), []).append(group)
        return levels

    def _join(self, group: Ints, length: Floats, reached: Floats) -> None:
        """Let all calls of a group end with the longest; own work between them comes after it."""
        between = self.lag[group[1:]].sum()
        reached[group] = self.lag[group[0]] + length[group].max() + between


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
