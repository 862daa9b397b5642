"""Under which span a query repeats: its parent, or what is above where each call has a wrapper.

ORMs, resolvers and functions of one's own put a span around each query, as Prisma does:

    list the shelf                      <- here it repeats
        operation -> engine -> SELECT
        operation -> engine -> SELECT
        …
"""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.analysis.spans.tree import parents_of
from perfkit.analysis.vector.forest import Ints
from perfkit.analysis.vector.rows import indices

MANY = 5
"""So many calls under one span are a loop (Sentry, n_plus_one_db: count 5)."""
FEW = 3
"""So many, each in a wrapper of its own, may be one (Sentry, m_n_plus_one_db: 3 rounds)."""
WRAPPERS = 3
"""So many spans may be around each call (Sentry, m_n_plus_one_db: max_allowable_depth 3)."""


def loop_rows(tree: pl.DataFrame, row: Ints, query: Ints) -> Ints:
    """Return for each call the nearest span under which its query runs `MANY` times; -1 at roots.

    Where there is none, it is the nearest under which it runs `FEW` times, or else the parent.
    Only spans of the program itself count as wrappers, those of one entry, and only by the same
    names on the way: what two parts of a program ask for is no loop. `row` are the calls, `query`
    says by a number what they ask.
    """
    parent = parents_of(tree)
    above: Ints = parent[row]
    loop = above.copy()
    entry = indices(tree["entry_row"])[row]
    internal = (tree["category"] == "internal").to_numpy()
    path = np.zeros(len(row), dtype=np.uint64)
    left = np.flatnonzero(above >= 0)
    alone = np.ones(len(row), dtype=np.bool_)
    for height in range(WRAPPERS + 1):
        size = _sizes(above[left], path[left], query[left])
        many = size >= MANY
        place = left[many | (size >= FEW) & alone[left]]
        loop[place] = above[place]
        alone[place] = False
        if height == WRAPPERS:
            break
        left = left[~many]
        left = left[internal[above[left]] & (above[left] != entry[left])]
        names = tree["name"].gather(above[left]).hash(seed=0).to_numpy()
        path[left] = path[left] * np.uint64(0x9E3779B97F4A7C15) + names
        above[left] = parent[above[left]]
    return loop


def branches(parent: Ints, row: Ints, loop: Ints) -> Ints:
    """Return for each call the child of the span `loop` that it is, or is below."""
    branch = row.copy()
    for _ in range(WRAPPERS):
        branch = np.where(parent[branch] == loop, branch, parent[branch])
    return branch


def _sizes(*keys: np.ndarray[tuple[int], np.dtype[np.generic]]) -> Ints:
    """Return for each place how many have the same keys."""
    columns = {str(number): pl.Series(key) for number, key in enumerate(keys)}
    sizes = pl.DataFrame(columns).select(pl.len().over(*columns).cast(pl.Int64))
    result: Ints = sizes.to_series().to_numpy()
    return result
