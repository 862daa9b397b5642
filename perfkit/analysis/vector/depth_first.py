"""Forests whose nodes are in depth-first order: a subtree is a range of rows.

What pointer doubling finds for any order (see `forest`) takes one running sum here.
"""

from __future__ import annotations

import numpy as np

from perfkit.analysis.vector.forest import Bools, Ints, preorder
from perfkit.analysis.vector.order import stable_order


def depth_first(parent: Ints, start: Ints) -> tuple[Ints, Ints]:
    """Return the nodes in depth-first order, and how many are in the subtree of each in that order.

    Siblings, and roots, come in order of start; those that start together in that of their indices.
    """
    position, sizes = preorder(parent, stable_order(start))
    order, ordered_sizes = np.empty_like(position), np.empty_like(sizes)
    order[position] = np.arange(len(position))
    ordered_sizes[position] = sizes
    return order, ordered_sizes


def marked_above(marked: Bools, sizes: Ints) -> Ints:
    """Return for each node of a forest in depth-first order how many of it and its ancestors are
    marked. `sizes` are those of the subtrees.
    """
    nodes = np.flatnonzero(marked)
    ended = np.bincount(nodes + sizes[nodes], minlength=len(sizes) + 1)[: len(sizes)]
    open_now = marked - ended
    return np.cumsum(open_now, out=open_now)
