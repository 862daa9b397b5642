"""The critical path of each entry: the chain of spans that sets its length.

Read from its end backwards, a span waited for its child that ended last; before that child began,
for the child that had ended last by then, and so on; between these the span itself worked. This
is the critical path of Jaeger's UI (jaeger-ui, `CriticalPath`) and of CRISP (Zhang et al., USENIX
ATC '22), with two points of their issue trackers settled: a child that ends exactly when the next
begins is followed (jaeger #9148), and of children that end together the longest is taken.

Children are clipped to their parent; what a span does not wait for (`detached`) is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from perfkit.analysis.forest import Bools, Ints, all_along_path, along_path, marked_chains
from perfkit.analysis.overlaps import runs
from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.tree import indices, waiting_parents_of


@dataclass(frozen=True)
class Path:
    """Spans on the critical paths. Arrays have one element a row of `tree`.

    `start` and `end` are clipped to all spans above; `before` is the child that the parent waited
    for before this one (-1: none), `last` the child that a span waited for last.
    """

    on_path: Bools
    start: Ints
    end: Ints
    parent: Ints
    before: Ints
    last: Ints


def compute(tables: Tables) -> pl.DataFrame:
    """Return the pieces of all critical paths; those of one entry latest first."""
    tree = tables.frame("tree")
    path = find(tree)
    spans = np.flatnonzero(path.on_path)
    # A span's own pieces: after its last child, and before each child that it waited for.
    last = path.last[spans]
    tail_start = np.where(last >= 0, path.end[last], path.start[spans])
    awaited = spans[path.parent[spans] >= 0]
    before, above = path.before[awaited], path.parent[awaited]
    gap_start = np.where(before >= 0, path.end[before], path.start[above])
    row = np.concatenate([spans, above])
    start = np.concatenate([tail_start, gap_start])
    end = np.concatenate([path.end[spans], path.start[awaited]])
    some = end > start
    row, start, end = row[some], start[some], end[some]
    entry = indices(tree["entry_row"])[row]
    pieces = pl.DataFrame({"entry_row": entry, "row": row, "start_ns": start, "end_ns": end})
    return pieces.sort("entry_row", "start_ns", descending=[False, True])


def find(tree: pl.DataFrame) -> Path:
    """Find the spans on the critical paths."""
    count = tree.height
    rows = np.arange(count)
    entry = indices(tree["entry_row"])
    top = entry == rows
    parent = np.where(top, -1, waiting_parents_of(tree))
    start = along_path(parent, tree["start_ns"].to_numpy(), np.maximum, 0)
    end = along_path(parent, tree["end_ns"].to_numpy(), np.minimum, np.iinfo(np.int64).max)

    # What has no length after clipping takes no time, so it cannot set the length of anything.
    child = np.flatnonzero((parent >= 0) & (end > start))
    before, last = np.full(count, -1), np.full(count, -1)
    if child.size:
        child, previous, final = _waits(child, parent, start, end)
        before[child] = previous
        last[parent[final]] = final
    waited_for = marked_chains(before, np.concatenate([last[last >= 0], np.flatnonzero(top)]))
    return Path(all_along_path(parent, waited_for) & (entry >= 0), start, end, parent, before, last)


def _waits(child: Ints, parent: Ints, start: Ints, end: Ints) -> tuple[Ints, Ints, Ints]:
    """Return children in order of parent and end, the sibling before each, and the last ones."""
    # One number orders children by parent and end: parents are laid end to end on one axis.
    above = parent[child]
    waiting = np.unique(above)
    length = np.zeros(len(parent), dtype=np.int64)
    length[waiting] = end[waiting] - start[waiting] + 1
    if np.sum(length, dtype=np.float64) >= float(1 << 62):
        start, end, length = _as_ranks(start, end, waiting)
    origin = np.cumsum(length) - length - start
    key = end[child] + origin[above]
    order = np.argsort(key, kind="stable")
    child, key, above = child[order], key[order], above[order]
    # Of those that end together the longest comes first: the earliest row, or the first to start.
    first, until = runs(key)
    ties = np.flatnonzero(until > first)
    best = first.copy()
    if ties.size:
        run = np.repeat(np.arange(len(first)), until - first + 1)
        by_start = np.lexsort((start[child], run))
        best = by_start[first]
    wanted = start[child] + origin[above]
    found = np.searchsorted(key[first], wanted, side="right") - 1
    same = (found >= 0) & (above[first[found]] == above)
    previous = np.where(same, child[best[found]], -1)
    _, final = runs(above)
    final_run = np.searchsorted(first, final, side="right") - 1
    return child, previous, child[best[final_run]]


def _as_ranks(start: Ints, end: Ints, waiting: Ints) -> tuple[Ints, Ints, Ints]:
    """Replace times by their ranks, where lengths add up to more than an integer holds."""
    times = np.unique(np.concatenate([start, end]))
    start, end = np.searchsorted(times, start), np.searchsorted(times, end)
    length = np.zeros(len(start), dtype=np.int64)
    length[waiting] = end[waiting] - start[waiting] + 1
    return start, end, length


DERIVED = Derived(
    "critical_path",
    "one piece of an entry's critical path; those of one entry latest first",
    ("tree",),
    compute,
    {
        "entry_row": "the entry, a row of `tree`",
        "row": "the span that worked or waited by itself then",
        "start_ns": "start of this piece of the path",
        "end_ns": "end of it",
    },
)
