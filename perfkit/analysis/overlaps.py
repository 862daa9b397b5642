"""Unions and overlaps of many groups of intervals at once.

The groups are laid end to end on one axis, so that a single running maximum over all of them is
the running maximum of each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from perfkit.analysis.forest import Bools, Ints

_AXIS_NS = float(1 << 62)


def covered(group: Ints, start: Ints, end: Ints, groups: int) -> Ints:
    """Return for each group (0 to `groups` - 1) how much time its intervals cover together.

    Intervals are sorted by group; within a group by start. None ends before it starts.
    """
    result = np.zeros(groups, dtype=np.int64)
    for axis in _axes(group, start, end):
        before = np.append(axis.start[:1], axis.reached[:-1])
        new = np.maximum(axis.reached - np.maximum(axis.start, before), 0)
        result[group[axis.rows][axis.first]] = np.add.reduceat(new, axis.first)
    return result


def overlapping_earlier(group: Ints, start: Ints, end: Ints) -> Bools:
    """Return which intervals start before an earlier one of their group has ended.

    Intervals are sorted as for `covered`.
    """
    result = np.zeros(len(group), dtype=np.bool_)
    for axis in _axes(group, start, end):
        overlaps = axis.start < np.append(axis.start[:1], axis.reached[:-1])
        overlaps[axis.first] = False
        result[axis.rows] = overlaps
    return result


def order_by(group: Ints, value: Ints, groups: int) -> Ints:
    """Return the order of (group, value); equal ones in the order in which they come."""
    lowest = np.full(groups, np.iinfo(np.int64).max)
    highest = np.full(groups, np.iinfo(np.int64).min)
    np.minimum.at(lowest, group, value)
    np.maximum.at(highest, group, value)
    filled = highest >= lowest
    length = np.where(filled, highest, 0) - np.where(filled, lowest, 0) + filled
    if np.sum(length, dtype=np.float64) >= _AXIS_NS:
        return np.lexsort((value, group))
    origin = np.cumsum(length) - length - np.where(filled, lowest, 0)
    return np.argsort(value + origin[group], kind="stable")


def most_at_once(group: Ints, start: Ints, end: Ints, groups: int) -> Ints:
    """Return for each group the largest number of its intervals that are open at one time.

    An interval that begins when another ends does not overlap it; one of no length lasts 1 ns.
    """
    result = np.zeros(groups, dtype=np.int64)
    if not len(group):
        return result
    both = np.concatenate([group, group])
    # Ends come first, so that a stable order puts them before the starts of the same moment.
    times = np.concatenate([np.maximum(end, start + 1), start])
    step = np.repeat(np.array([-1, 1]), len(group))
    order = order_by(both, times, groups)
    level = np.cumsum(step[order])  # each group returns to 0 at its end
    first, _ = runs(both[order])
    result[both[order][first]] = np.maximum.reduceat(level, first)
    return result


def runs(group: Ints) -> tuple[Ints, Ints]:
    """Return the first and the last index of each run of equal values; of none for no values."""
    change = np.flatnonzero(group[1:] != group[:-1])
    if not len(group):
        return change, change
    return np.append(0, change + 1), np.append(change, len(group) - 1)


class _Axis(NamedTuple):
    """Groups laid end to end. `first` are the places where a group begins."""

    rows: slice
    first: Ints
    start: Ints
    reached: Ints
    """The latest end so far."""


def _axes(group: Ints, start: Ints, end: Ints) -> Iterator[_Axis]:
    """Lay out the groups, on several axes if they are too long for one."""
    if not len(group):
        return
    first, last = runs(group)
    origin = start[first]
    length = np.maximum.reduceat(end, first) - origin
    axis = np.floor(np.cumsum(length, dtype=np.float64) / _AXIS_NS).astype(np.int64)
    for begin, final in zip(*runs(axis), strict=True):
        some = slice(begin, final + 1)
        rows = slice(first[begin], last[final] + 1)
        place = np.cumsum(length[some]) - length[some] - origin[some]
        shift = np.repeat(place, last[some] - first[some] + 1)
        reached = np.maximum.accumulate(end[rows] + shift)
        yield _Axis(rows, first[some] - first[begin], start[rows] + shift, reached)
