"""Exact percentiles of groups of values that stand for several observations each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from perfkit.analysis.vector.forest import Ints
from perfkit.analysis.vector.overlaps import order_by, sorted_by

Floats = NDArray[np.float64]


def quantiles(
    group: Ints, values: Ints, weight: Floats, groups: int, levels: Sequence[float]
) -> Floats:
    """Return an array of one row a group (0 to `groups` - 1) and one column a level.

    A value of weight w counts as w equal observations, and between observations the percentile is
    interpolated linearly (`linear` of NumPy and Polars, type 7 of Hyndman and Fan 1996). Groups
    without values give NaN. Weights are at least 1.
    """
    if (weight <= 1.0).all():
        return _of_single(group, values, groups, levels)
    order = order_by(group, values, groups, stable=False)
    group, sorted_values = group[order], values[order].astype(np.float64)
    weight = np.maximum(weight[order], 1.0)
    until = np.cumsum(weight)
    since = np.append(0.0, until[:-1])
    first = np.searchsorted(group, np.arange(groups + 1))
    result = np.full((groups, len(levels)), np.nan)
    filled = np.flatnonzero(np.diff(first))
    if not filled.size:
        return result
    begin, last = since[first[filled]], first[filled + 1] - 1
    total = until[last] - begin
    for column, level in enumerate(levels):
        # The i-th value is observed at places since[i] to until[i] - 1; the level asks for one
        # place, which is on a value or between two.
        place = begin + level * (total - 1.0)
        lower = np.clip(np.searchsorted(since, place, side="right") - 1, first[filled], last)
        upper = np.minimum(lower + 1, last)
        beyond = np.clip(place - (until[lower] - 1.0), 0.0, 1.0)
        low, high = sorted_values[lower], sorted_values[upper]
        result[filled, column] = low + (high - low) * beyond
    return result


def _of_single(group: Ints, values: Ints, groups: int, levels: Sequence[float]) -> Floats:
    """Return quantiles of values that each stand for one observation."""
    result = np.full((groups, len(levels)), np.nan)
    size = np.bincount(group, minlength=groups) if groups > 1 else np.array([len(values)])
    filled = np.flatnonzero(size)
    if not filled.size:
        return result
    ordered, moved = sorted_by(group, values, groups)
    first, last = (np.cumsum(size) - size)[filled], size[filled] - 1
    for column, level in enumerate(levels):
        place = level * last
        lower = np.floor(place).astype(np.int64)
        upper = np.minimum(lower + 1, last)
        low, high = (
            (ordered[first + at] - moved[filled]).astype(np.float64) for at in (lower, upper)
        )
        result[filled, column] = low + (high - low) * (place - lower)
    return result


def codes(frame: pl.DataFrame, keys: Sequence[str]) -> tuple[Ints, pl.DataFrame]:
    """Number the distinct keys of a frame: a code for each row, and one row a code.

    Codes are in order of first appearance. Keys are told apart by a 64-bit hash.
    """
    keyed = frame.select(key=pl.struct(keys).hash(seed=0)).with_row_index("first")
    distinct = keyed.group_by("key").agg(pl.col("first").min()).sort("first")
    by_key = distinct["key"].arg_sort()
    place = distinct["key"][by_key].search_sorted(keyed["key"])
    code = by_key.cast(pl.Int64).to_numpy()[place.to_numpy()]
    return code, frame.select(keys)[distinct["first"]]


def sorted_codes(frame: pl.DataFrame, keys: Sequence[str]) -> tuple[Ints, pl.DataFrame]:
    """Number the distinct keys of a frame as `codes` does, but in their order."""
    code, distinct = codes(frame, keys)
    order = distinct.select(pl.arg_sort_by(keys)).to_series().cast(pl.Int64).to_numpy()
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank[code], distinct[order]
