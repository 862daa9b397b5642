"""Unions and overlaps of many groups of intervals at once.

The groups are laid end to end on one axis, so that a single running maximum over all of them is
the running maximum of each.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from perfkit.analysis.forest import Ints

_AXIS_NS = float(1 << 62)


def covered(group: Ints, start: Ints, end: Ints, groups: int) -> Ints:
    """Return for each group (0 to `groups` - 1) how much time its intervals cover together.

    Intervals are sorted by group; within a group by start. None ends before it starts.
    """
    result = np.zeros(groups, dtype=np.int64)
    if not len(group):
        return result
    first, last = runs(group)
    origin = start[first]
    length = np.maximum.reduceat(end, first) - origin
    counts = last - first + 1
    for chunk in _chunks(length):
        some = slice(first[chunk.start], last[chunk.stop - 1] + 1)
        place = np.cumsum(length[chunk]) - length[chunk] - origin[chunk]
        shift = np.repeat(place, counts[chunk])
        ends = end[some] + shift
        reached = np.maximum.accumulate(ends)
        starts = start[some] + shift
        new = reached - np.maximum(starts, np.append(starts[:1], reached[:-1]))
        sums = np.add.reduceat(np.maximum(new, 0), first[chunk] - first[chunk.start])
        result[group[first[chunk]]] = sums
    return result


def runs(group: Ints) -> tuple[Ints, Ints]:
    """Return the first and the last index of each run of equal values."""
    change = np.flatnonzero(group[1:] != group[:-1])
    return np.append(0, change + 1), np.append(change, len(group) - 1)


def most_at_once(group: Ints, start: Ints, end: Ints, groups: int) -> Ints:
    """Return for each group the largest number of its intervals that are open at one time.

    An interval that begins when another ends does not overlap it; one of no length counts alone.
    """
    result = np.zeros(groups, dtype=np.int64)
    if not len(group):
        return result
    both = np.concatenate([group, group])
    times = np.concatenate([start, np.maximum(end, start + 1)])
    step = np.repeat(np.array([1, -1]), len(group))
    order = np.lexsort((step, times, both))
    level = np.cumsum(step[order])  # each group returns to 0 at its end
    first, _ = runs(both[order])
    result[both[order][first]] = np.maximum.reduceat(level, first)
    return result


def _chunks(length: Ints) -> Iterator[slice]:
    """Cut groups into runs whose lengths together fit on the axis; nearly always one run."""
    axis = np.cumsum(length, dtype=np.float64) / _AXIS_NS
    piece = np.floor(axis).astype(np.int64)
    starts = np.append(0, np.flatnonzero(np.diff(piece)) + 1)
    for begin, stop in zip(starts, np.append(starts[1:], len(length)), strict=True):
        yield slice(int(begin), int(stop))
