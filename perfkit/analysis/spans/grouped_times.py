"""Exact percentiles and concurrency of groups of spans, however many there are.

Times of some groups at a time are in memory (see `spilled`), and of a group that is too large its
time is gone through slice by slice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from perfkit.analysis.spans.spilled import Spilled, batches, sizes_of
from perfkit.analysis.vector.forest import Ints
from perfkit.analysis.vector.overlaps import Concurrency, concurrency, concurrency_in_slices
from perfkit.analysis.vector.percentiles import Floats, quantiles

SINGLE, OUTER, OUTERMOST = 1, 2, 4
"""Flags of a span: no second report of a call; not below another of its operation; nor of its
component."""
LEVELS = {"p50_ns": 0.5, "p95_ns": 0.95, "p99_ns": 0.99}


@dataclass(frozen=True)
class Times:
    """For each group: percentiles, one column a level, and how many of its spans run at once."""

    marks: Floats
    at_once: Concurrency

    def of(self, groups: Ints) -> Times:
        """Return the times of some groups."""
        return Times(self.marks[groups], Concurrency(*(one[groups] for one in self.at_once)))

    def put(self, groups: Ints, times: Times) -> None:
        """Put times in the place of those of some groups."""
        self.marks[groups] = times.marks
        for mine, theirs in zip(self.at_once, times.at_once, strict=True):
            mine[groups] = theirs


def times_of(
    pieces: Sequence[Spilled], group: Ints, groups: int, flag: int, most_at_once: int | None
) -> Times:
    """Return the times of groups, 0 to `groups` - 1: `group` has that of each unit, ascending; -1
    for units that do not matter.

    Columns of the pieces are `start_ns`, `duration_ns`, `weight` and `flags`.
    Percentiles are of spans with SINGLE, concurrency is of those with `flag`. In memory are so many
    spans at once, or those of the largest group.
    """
    empty = (np.zeros(groups, dtype=np.int64) for _ in range(3))
    times = Times(np.full((groups, len(LEVELS)), np.nan), Concurrency(*empty))
    sizes = sizes_of(pieces, group, groups)
    for first, last in batches(sizes, most_at_once):
        if most_at_once is not None and last - first == 1 and sizes[first] > most_at_once:
            found = _large(pieces, group, first, flag, most_at_once)
        else:
            found = _small(pieces, group, first, last, flag)
        times.put(np.arange(first, last), Times(*found))
    return times


def _small(
    pieces: Sequence[Spilled], group: Ints, first: int, last: int, flag: int
) -> tuple[Floats, Concurrency]:
    """Return marks and concurrency of some groups, all of whose spans are in memory."""
    read = [piece.read(group, first, last) for piece in pieces]
    code = np.concatenate([code for code, _ in read])
    spans = pl.concat([spans for _, spans in read], rechunk=True)
    flags, weight = spans["flags"].to_numpy(), spans["weight"].to_numpy()
    start, duration = spans["start_ns"].to_numpy(), spans["duration_ns"].to_numpy()
    groups = last - first
    single, outer = (flags & SINGLE) > 0, (flags & flag) > 0
    if single.all():
        marks = quantiles(code, duration, weight, groups, list(LEVELS.values()))
    else:
        marks = quantiles(
            code[single], duration[single], weight[single], groups, list(LEVELS.values())
        )
    if not outer.all():
        code, start, duration = code[outer], start[outer], duration[outer]
    return marks, concurrency(code, start, start + duration, groups)


def _large(
    pieces: Sequence[Spilled], group: Ints, number: int, flag: int, most: int
) -> tuple[Floats, Concurrency]:
    """Return marks and concurrency of one group, of which only durations are all in memory."""
    counted, weights = [], []
    for piece in pieces:
        _, spans = piece.read(group, number, number + 1, "duration_ns", "weight", "flags")
        spans = spans.filter(pl.col("flags") & SINGLE > 0)
        counted.append(spans["duration_ns"].to_numpy())
        weight = spans["weight"].to_numpy()
        # One for all takes no memory.
        weights.append(np.broadcast_to(1.0, len(weight)) if (weight == 1).all() else weight)
    if all(weight.strides == (0,) for weight in weights):
        weight = np.broadcast_to(1.0, sum(map(len, counted)))
    else:
        weight = np.concatenate(weights)
    durations = np.concatenate(counted)
    counted.clear()
    one = np.broadcast_to(np.int64(0), len(durations))
    marks = quantiles(one, durations, weight, 1, list(LEVELS.values()))
    del durations, weight, weights

    def intervals() -> Iterator[tuple[Ints, Ints]]:
        for piece in pieces:
            _, spans = piece.read(group, number, number + 1, "start_ns", "duration_ns", "flags")
            spans = spans.filter(pl.col("flags") & flag > 0)
            start = spans["start_ns"].to_numpy()
            yield start, start + spans["duration_ns"].to_numpy()

    return marks, concurrency_in_slices(intervals, most)
