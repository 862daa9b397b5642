"""The table `span_waits`: what each span waited for, the order of things behind all critical paths.

A span's children are clipped to all spans above them. A child began when the sibling that had
ended last by then was done, or else with the parent's own work; the parent ended after its last
child. A child that ends exactly when the next begins is followed (jaeger #9148), and of children
that end together the longest is taken. What a span does not wait for (`detached`), and what has no
length after clipping, has no part in this.

Where no child ran for a moment, all that had begun before was done: what follows waited for all of
it, not just for the last. Between such moments lie busy periods. Within one, calls that follow each
other may belong to several chains that know nothing of each other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.spans.tree import waiting_parents_of
from perfkit.analysis.vector.depth_first import marked_above
from perfkit.analysis.vector.forest import Bools, Ints, along_path, marked_chains
from perfkit.analysis.vector.intervals import distinct
from perfkit.analysis.vector.order import order_of_pairs, stable_order
from perfkit.analysis.vector.overlaps import runs
from perfkit.analysis.vector.rows import indices, rows_or_null

_READ = ("parent_row", "entry_row", "subtree", "detached", "start_ns", "end_ns")
_AXIS_NS = float(1 << 62)


def compute(tables: Tables) -> pl.DataFrame:
    """Return one row a span, in the order of `tree`."""
    tree = tables.columns("tree", *_READ)
    rows = np.arange(tree.height)
    entry = indices(tree["entry_row"])
    top = entry == rows
    parent = np.where(top, -1, waiting_parents_of(tree))
    start, end = _clipped(parent, tree["start_ns"].to_numpy(), tree["end_ns"].to_numpy())

    before, last, period = (np.full(tree.height, -1) for _ in range(3))
    child = np.flatnonzero((parent >= 0) & (end > start))
    if child.size:
        found = _waits(child, parent, start, end)
        before[found.child] = found.before
        period[found.child] = found.period
        last[parent[found.last]] = found.last
    waited_for = marked_chains(before, np.concatenate([last[last >= 0], np.flatnonzero(top)]))
    unnoticed = marked_above(~waited_for, tree["subtree"].to_numpy())
    return pl.DataFrame(
        {
            "row": rows,
            "parent_row": rows_or_null(parent),
            "start_ns": start,
            "end_ns": end,
            "before_row": rows_or_null(before),
            "last_row": rows_or_null(last),
            "period_row": rows_or_null(period),
            # Between it and its entry everything was waited for.
            "critical": (unnoticed == unnoticed[entry]) & (entry >= 0),
        }
    )


def _clipped(parent: Ints, start: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Return starts and ends of spans within those of all spans above them."""
    above = np.where(parent < 0, np.arange(len(parent)), parent)
    if (start < start[above]).any():
        start = along_path(parent, start, np.maximum, 0)
    if (end > end[above]).any():
        end = along_path(parent, end, np.minimum, np.iinfo(np.int64).max)
    return start, np.maximum(end, start)


class _Waits(NamedTuple):
    """Children in order of parent and end; `before` and `period` have one element for each."""

    child: Ints
    before: Ints
    period: Ints
    last: Ints
    """The last child of each parent."""


def _waits(child: Ints, parent: Ints, start: Ints, end: Ints) -> _Waits:
    # One number orders children by parent and end: parents are laid end to end on one axis.
    above = parent[child]
    waiting = np.zeros(len(parent), dtype=np.bool_)
    waiting[above] = True
    length = np.where(waiting, end - start + 1, 0)
    if np.sum(length, dtype=np.float64) >= _AXIS_NS:
        start, end, length = _as_ranks(start, end, waiting)
    origin = np.cumsum(length) - length - start
    key = end[child] + origin[above]
    order = stable_order(key)
    child, key, above = child[order], key[order], above[order]
    # Of those that end together the longest is taken.
    first, until = runs(key)
    ties = np.flatnonzero(until > first)
    best = first.copy()
    if ties.size:
        run = np.repeat(np.arange(len(first)), until - first + 1)
        by_start = order_of_pairs(run, start[child])
        best = by_start[first]
    wanted = start[child] + origin[above]
    found = np.searchsorted(key[first], wanted, side="right") - 1
    same = (found >= 0) & (above[first[found]] == above)
    previous = np.where(same, child[best[found]], -1)
    # A period ends where all that end later also begin later; parents never touch on the axis.
    earliest = np.minimum.accumulate(wanted[::-1])[::-1]
    ends = np.append(np.flatnonzero(earliest[1:] >= key[:-1]), len(key) - 1)
    longest = child[best[np.searchsorted(first, ends, side="right") - 1]]
    _, final = runs(above)
    return _Waits(
        child,
        previous,
        np.repeat(longest, np.diff(ends, prepend=-1)),
        longest[np.searchsorted(ends, final)],
    )


def _as_ranks(start: Ints, end: Ints, waiting: Bools) -> tuple[Ints, Ints, Ints]:
    """Replace times by their ranks, where lengths add up to more than an integer holds."""
    times = distinct(np.concatenate([start, end]))
    start, end = np.searchsorted(times, start), np.searchsorted(times, end)
    return start, end, np.where(waiting, end - start + 1, 0)


DERIVED = Derived(
    "span_waits",
    "one span: what it waited for",
    ("tree",),
    compute,
    {
        "row": "the span, as in `tree`",
        "parent_row": "the span that waits for it; null at entries and for detached spans",
        "start_ns": "start, not before that of any span above it",
        "end_ns": "end, not after that of any span above it",
        "before_row": "the sibling that had ended last when it began; null if none had",
        "last_row": "its own child that ended last; null if it has none",
        "period_row": "the one that ended last of the siblings of its busy period, a time in which "
        "always one of them ran; null if nobody waits for it, or it has no length",
        "critical": "whether it is on the critical path of its entry",
    },
)
