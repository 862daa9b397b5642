"""Forests as arrays of parent indices (-1 at roots), without a Python loop over nodes.

Everything here is pointer doubling: after k rounds a node knows about its 2**k nearest ancestors,
so the number of vector steps is the logarithm of the depth, also for a chain of 100,000 nodes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from perfkit.analysis.vector.order import stable_order

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Combine = Callable[[Ints, Ints], Ints]


def _jumps(parent: Ints) -> Ints:
    """Return parents with one more node behind the last, which stands above every root."""
    above = len(parent)
    return np.append(np.where(parent < 0, above, parent), above)


def along_path(parent: Ints, values: Ints, combine: Combine, neutral: int) -> Ints:
    """Combine each node's value with those of all its ancestors.

    `combine` is associative and commutative: `np.add`, `np.maximum`, `np.minimum`. The forest has
    no cycles.
    """
    jump = _jumps(parent)
    total = np.append(values, neutral)
    above = len(parent)
    active = np.flatnonzero(jump[:-1] != above)
    while active.size:
        ahead = jump[active]
        # Both right-hand sides are gathered before anything is written, as the method needs.
        combined, further = combine(total[active], total[ahead]), jump[ahead]
        total[active] = combined
        jump[active] = further
        active = active[further != above]
    return total[:-1]


def cut_cycles(parent: Ints) -> tuple[Ints, Ints]:
    """Return parents without cycles, and the nodes that were made roots for it.

    Of each cycle, the node with the lowest index becomes a root.
    """
    above = len(parent)
    jump = _jumps(parent)
    rounds = 0
    while rounds <= above.bit_length() and (jump != above).any():
        jump = jump[jump]
        rounds += 1
    endless = np.flatnonzero(jump != above)
    if not endless.size:
        return parent, np.zeros(0, dtype=np.int64)
    # So many steps lead from anywhere onto the cycle, and from each of its nodes to another one.
    on_cycle = np.unique(jump[endless])
    lowest = on_cycle.copy()
    step = np.searchsorted(on_cycle, parent[on_cycle])
    for _ in range(on_cycle.size.bit_length() + 1):
        lowest = np.minimum(lowest, lowest[step])
        step = step[step]
    roots = on_cycle[lowest == on_cycle]
    mended = parent.copy()
    mended[roots] = -1
    return mended, roots


def subtree_sizes(parent: Ints) -> Ints:
    """Return how many nodes the subtree of each node has, itself included."""
    above = len(parent)
    jump = _jumps(parent)
    sizes = np.ones(above, dtype=np.int64)
    active = np.flatnonzero(parent >= 0)
    while active.size:
        ahead = jump[active]
        # Everything is gathered before anything is written, as the method needs.
        known, further = sizes[active], jump[ahead]
        np.add.at(sizes, ahead, known)
        jump[active] = further
        active = active[further != above]
    return sizes


def preorder(parent: Ints, siblings: Ints | None = None) -> tuple[Ints, Ints]:
    """Return each node's position in depth-first order, and the size of its subtree.

    Siblings, and roots, come as they do in `siblings`, an order of all nodes; without it in the
    order of their indices.
    """
    count = len(parent)
    sizes = subtree_sizes(parent)
    if not count:
        return np.zeros(0, dtype=np.int64), sizes
    by_parent = stable_order(parent if siblings is None else parent[siblings])
    if siblings is not None:
        by_parent = siblings[by_parent]
    family = parent[by_parent]
    before = np.cumsum(sizes[by_parent]) - sizes[by_parent]
    first = np.flatnonzero(np.append(True, family[1:] != family[:-1]))
    before -= np.repeat(before[first], np.diff(np.append(first, count)))
    offset = np.empty(count, dtype=np.int64)
    offset[by_parent] = before + (family >= 0)
    return along_path(parent, offset, np.add, 0), sizes


def nearest_marked(parent: Ints, marked: Bools) -> Ints:
    """Return each node's nearest marked ancestor or itself; -1 where there is none."""
    above = len(parent)
    nodes = np.arange(above + 1)
    jump = _jumps(parent)
    jump[:-1] = np.where(marked, nodes[:-1], jump[:-1])
    active = np.flatnonzero(jump[:-1] != nodes[:-1])
    while active.size:
        further = jump[jump[active]]
        moved = further != jump[active]
        jump[active] = further
        active = active[moved]
    return np.where(jump[:-1] == above, -1, jump[:-1])


def marked_chains(following: Ints, start: Ints) -> Bools:
    """Mark the nodes that are reached from `start` by going from node to node in `following`."""
    above = len(following)
    jump = _jumps(following)
    marked = np.zeros(above + 1, dtype=np.bool_)
    marked[start] = True
    while True:
        # All marked nodes jump at once: the marked part of each chain doubles every round.
        marked[jump[:-1][marked[:-1]]] = True
        marked[above] = False
        jump = jump[jump]
        if (jump == above).all():
            return marked[:-1]


def subtree_maxima(parent: Ints, values: Ints) -> Ints:
    """Return the largest value in the subtree of each node."""
    above = len(parent)
    jump = _jumps(parent)
    largest = np.append(values, np.iinfo(np.int64).min)
    while True:
        active = np.flatnonzero(jump[:-1] != above)
        if not active.size:
            return largest[:-1]
        np.maximum.at(largest, jump[active], largest[active])
        jump = jump[jump]
