"""Rows that pieces of a capture left behind by group, of which some groups at a time are read.

A group, such as a component, has spans in many pieces; a unit is what a piece knows of it, such as
one of its operations. Units are numbered through over all pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from perfkit.analysis.vector.forest import Ints


@dataclass(frozen=True)
class Spilled:
    """The rows of a piece, those of a unit one after the other."""

    frame: pl.LazyFrame
    units: Ints
    """Which units it has, ascending."""
    rows: Ints
    """How many rows of each."""

    def read(self, group: Ints, first: int, last: int, *columns: str) -> tuple[Ints, pl.DataFrame]:
        """Return the rows of groups `first` to `last` - 1, and the group of each from 0.

        `group` has that of each unit, -1 for none. Of each group the rows keep their order.
        """
        mine = group[self.units]
        wanted = np.flatnonzero((mine >= first) & (mine < last))
        chosen = self.frame.select(columns) if columns else self.frame
        if not len(wanted):
            return np.zeros(0, dtype=np.int64), chosen.head(0).collect()
        some = slice(wanted[0], wanted[-1] + 1)
        begin, rows = int(self.rows[: wanted[0]].sum()), self.rows[some]
        frame = chosen.slice(begin, int(rows.sum())).collect()
        code = np.repeat(mine[some], rows) - first
        inside = (code >= 0) & (code < last - first)
        if not inside.all():
            code, frame = code[inside], frame.filter(pl.Series(inside))
        return code, frame


def sizes_of(pieces: Sequence[Spilled], group: Ints, groups: int) -> Ints:
    """Return how many rows each group has."""
    sizes = np.zeros(groups, dtype=np.int64)
    for piece in pieces:
        mine = group[piece.units]
        np.add.at(sizes, mine[mine >= 0], piece.rows[mine >= 0])
    return sizes


def batches(sizes: Ints, most: int | None) -> Iterator[tuple[int, int]]:
    """Yield the first group and the one behind the last of batches of no more than so many rows,
    or of one group; one batch at least.
    """
    first, held = 0, 0
    for number, size in enumerate(sizes.tolist()):
        if most is not None and number > first and held + size > most:
            yield first, number
            first, held = number, 0
        held += size
    yield first, len(sizes)
