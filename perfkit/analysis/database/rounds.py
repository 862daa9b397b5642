"""Rounds of a loop: a query that comes again and again with the same other spans between.

What runs between two calls of the query is the same each time, so a loop makes both:

    for each book              rounds = 3
        SELECT author; GET cover; SELECT author; GET cover; SELECT author; GET cover

The idea, an unbroken repeated sequence, and its limits are those of Sentry's m_n_plus_one_db.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from perfkit.analysis.spans.tree import parents_of
from perfkit.analysis.vector.forest import Bools, Ints
from perfkit.analysis.vector.order import stable_order
from perfkit.analysis.vector.rows import indices

LONGEST = 8
"""So many spans a round has at most (Sentry: max_sequence_length 8, in its newer form)."""


class Siblings(NamedTuple):
    """The children of some spans, by parent and in order of start."""

    place: Ints
    """By row of `tree`: where a child is in the other arrays; 0 for other rows."""
    parent: Ints
    label: Ints
    """What it does, as a number: the query, whom it calls if that is known, or else its name."""
    before_ns: Ints
    """Sum of the durations of those before it, with one more for all."""

    @classmethod
    def of(cls, tree: pl.DataFrame, calls: pl.DataFrame, parents: Ints) -> Siblings:
        """Return the children of `parents`; `calls` has `row` and `query_id`."""
        above = parents_of(tree)
        wanted = np.zeros(len(above), dtype=np.bool_)
        wanted[parents] = True
        child = np.flatnonzero((above >= 0) & wanted[above]) if len(above) else above
        child = child[stable_order(above[child])]  # siblings are in order of start
        place = np.zeros(len(above), dtype=np.int64)
        place[child] = np.arange(len(child))
        query = np.full(len(above), -1, dtype=np.int64)
        query[indices(calls["row"])] = np.arange(calls.height)
        asked = query[child]
        does = tree.select("category", "name", "peer", "start_ns", "end_ns")[child].select(
            does=pl.when(category="client").then(pl.coalesce("peer", "name")).otherwise("name"),
            query=calls["query_id"].gather(pl.Series(np.where(asked < 0, 0, asked)))
            if calls.height
            else None,
            calls=pl.col("category").cast(pl.String),
            duration_ns=pl.col("end_ns") - pl.col("start_ns"),
        )
        called = pl.Series(asked >= 0)
        what = does.select(
            pl.struct("calls", pl.when(called).then("query").otherwise("does")).hash(seed=0)
        )
        total = np.append(0, np.cumsum(does["duration_ns"].to_numpy()))
        return cls(place, above[child], what.to_series().to_numpy().view(np.int64), total)


class Rounds(NamedTuple):
    """By group of calls: how often the round repeats, 0 for none; and how long its spans take."""

    times: Ints
    total_ns: Ints


def rounds_of(siblings: Siblings, first: Ints, last: Ints, calls: Ints, wrapped: Ints) -> Rounds:
    """Return the rounds of groups of calls, from the first of them to the last.

    `first` and `last` are the children of the loop's span in which they ran, `calls` how many such
    children; `wrapped` is 1 where they are in spans of their own, which alone are a round.
    """
    start, end = siblings.place[first], siblings.place[last]
    step = (end - start) // np.maximum(calls - 1, 1)
    even = (calls > 1) & ((calls - 1) * step == end - start)
    even &= (step <= LONGEST) & (step + wrapped > 1)
    at = np.flatnonzero(even)
    at = at[_repeats(siblings.label, start[at], end[at], step[at])]
    earlier = _further(siblings, start[at], step[at], -1)
    later = _further(siblings, end[at], step[at], 1)
    count, total = np.zeros((2, len(first)), dtype=np.int64)
    length = end[at] - start[at] + 1 + earlier + later
    count[at] = length // step[at]
    begin = start[at] - earlier
    before = siblings.before_ns
    total[at] = before[begin + count[at] * step[at]] - before[begin]
    return Rounds(count, total)


def _repeats(label: Ints, start: Ints, end: Ints, step: Ints) -> Bools:
    """Return where each place from the start has what comes a step later, up to the end."""
    length = end - start - step + 1
    group = np.repeat(np.arange(len(start)), length)
    offset = np.arange(len(group)) - np.repeat(np.cumsum(length) - length, length)
    place = start[group] + offset
    differs = label[place] != label[place + step[group]]
    return ~np.isin(np.arange(len(start)), group[differs])


def _further(siblings: Siblings, edge: Ints, step: Ints, way: int) -> Ints:
    """Return how many more children, less than a round, go on as the round does."""
    parent, label = siblings.parent, siblings.label
    more = np.zeros(len(edge), dtype=np.int64)
    if not len(edge):
        return more
    goes_on = np.ones(len(edge), dtype=np.bool_)
    for distance in range(1, LONGEST):
        there = edge + way * distance
        goes_on &= (distance < step) & (there >= 0) & (there < len(label))
        there = np.where(goes_on, there, edge)
        goes_on &= parent[there] == parent[edge]
        goes_on &= label[there] == label[np.where(goes_on, there - way * step, edge)]
        more += goes_on
    return more
