"""Rows of a table that is in pieces: which piece has which."""

from __future__ import annotations

import numpy as np

from perfkit.analysis.vector.forest import Ints


def parted(rows: Ints, cuts: Ints) -> list[Ints]:
    """Return for each piece the places in `rows` of the rows that it has, in their order.

    Piece `i` has the rows from `cuts[i]` up to `cuts[i + 1]`.
    """
    if len(cuts) == 2:
        return [np.arange(len(rows))]
    piece = (np.searchsorted(cuts, rows, side="right") - 1).astype(np.int16)
    order = np.argsort(piece, kind="stable")
    return np.split(order, np.searchsorted(piece[order], np.arange(1, len(cuts) - 1)))
