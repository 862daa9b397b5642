"""Call paths in depth-first order, so that sums over everything below a path are differences.

Every table made from samples weighs the paths first (one row a stack) and propagates afterwards,
so its cost depends on the samples only through one group-by.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from perfkit.analysis.code import frame_roles
from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.vector.order import stable_order

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_IMPORT_SYSTEM = r"^importlib(\.|$)"
_NODES = ("stack_id", "parent", "end", "depth")
_FRAME = ("function", "file", "line", "module", "category", "role", "own")


def compute(tables: Tables) -> pl.DataFrame:
    """Return the table `call_paths`."""
    frames = (
        tables["frames"]
        .collect()
        .with_columns(frame_roles.role().alias("role"), frame_roles.own().alias("own"))
        .sort("function", "file", "line", "frame_id")
        .with_row_index("rank")
    )
    # Parents have a smaller depth, so this order has parents first and siblings by name.
    paths = (
        tables["stacks"]
        .collect()
        .join(frames, on="frame_id", how="left")
        .sort("depth", "rank", "stack_id")
        .with_row_index("node")
    )
    parent = _parents(paths)
    depth = paths["depth"].fill_null(0).to_numpy()
    position, size, true_depth = _depth_first(parent, depth)
    order = np.argsort(position)
    parent_position = np.where(parent >= 0, position[parent], -1)
    return (
        paths.select("stack_id", *_FRAME)[order]
        .with_columns(
            pl.Series("parent", parent_position[order]).replace(-1, None),
            pl.Series("end", (position + size)[order]),
            pl.Series("depth", true_depth[order].astype(np.int32)),
            pl.col("function").fill_null("(unknown)"),
            pl.col("own").fill_null(False),
        )
        .select(*_NODES, *_FRAME)
    )


def _parents(paths: pl.DataFrame) -> Ints:
    """Return the row of each path's parent, -1 for roots and for links that a capture lost."""
    parents = paths.select("stack_id", parent="node", parent_depth="depth").unique("stack_id")
    joined = paths.join(
        parents, left_on="parent_id", right_on="stack_id", how="left", maintain_order="left"
    )
    # A damaged capture could link in circles; a smaller depth at every step excludes that.
    valid = pl.when(pl.col("parent_depth") < pl.col("depth")).then(pl.col("parent"))
    return joined.select(valid.cast(pl.Int64).fill_null(-1)).to_series().to_numpy()


def _depth_first(parent: Ints, depth: npt.NDArray[Any]) -> tuple[Ints, Ints, Ints]:
    """Return each node's position in depth-first order, its subtree's size, and its depth."""
    nodes = len(parent)
    size = np.ones(nodes, dtype=np.int64)
    position = np.zeros(nodes, dtype=np.int64)
    true_depth = np.zeros(nodes, dtype=np.int64)
    bounds = np.concatenate([[0], np.flatnonzero(np.diff(depth)) + 1, [nodes]])
    levels = [slice(low, high) for low, high in itertools.pairwise(bounds)]
    for level in reversed(levels):
        linked = np.flatnonzero(parent[level] >= 0) + level.start
        np.add.at(size, parent[linked], size[linked])
    by_parent = stable_order(parent)
    before = np.cumsum(size[by_parent]) - size[by_parent]
    first = np.searchsorted(parent[by_parent], parent[by_parent])
    offset = np.empty(nodes, dtype=np.int64)
    offset[by_parent] = before - before[first]
    for level in levels:
        above = parent[level]
        rooted = above < 0
        position[level] = offset[level] + np.where(rooted, 0, position[above] + 1)
        true_depth[level] = np.where(rooted, 0, true_depth[above] + 1)
    return position, size, true_depth


@dataclass(frozen=True)
class CallPaths:
    """A tree in depth-first order: parents first, and what is below `i` are `i + 1 … end[i] - 1`.

    All methods take and return arrays with one value a node.
    """

    parent: Ints
    """Position of the parent, -1 at roots."""
    end: Ints

    @classmethod
    def of(cls, paths: pl.DataFrame) -> CallPaths:
        """Wrap the table `call_paths`."""
        return cls(paths["parent"].fill_null(-1).to_numpy(), paths["end"].to_numpy())

    def total(self, values: Ints) -> Ints:
        """Return for each node the sum of `values` over it and everything below it."""
        running = np.concatenate([[0], np.cumsum(values)])
        total: Ints = running[self.end] - running[:-1]
        return total

    def under(self, flags: Flags) -> Flags:
        """Return whether the node or any above it is flagged."""
        return self.count(flags) > 0

    def topmost(self, flags: Flags) -> Flags:
        """Return whether the node is flagged and none above it is."""
        topmost: Flags = flags & (self.count(flags) == 1)
        return topmost

    def innermost(self, flags: Flags) -> Ints:
        """Return the nearest flagged node, from the node itself upwards; -1 when there is none."""
        # Pointer doubling: the last entry stands for "above the root".
        nodes = len(self.parent)
        above = np.append(np.where(self.parent < 0, nodes, self.parent), nodes)
        stop = np.append(flags, True)
        step = np.where(stop, np.arange(nodes + 1), above)
        while True:
            further = step[step]
            if np.array_equal(further, step):
                break
            step = further
        return np.where(step[:-1] == nodes, -1, step[:-1])

    def outermost(self, flags: Flags) -> Ints:
        """Return the flagged node nearest to the root, from the root down to the node; or -1."""
        tops = np.flatnonzero(self.topmost(flags))
        if not len(tops):
            return np.full(len(self.parent), -1, dtype=np.int64)
        last = tops[np.maximum(np.searchsorted(tops, np.arange(len(flags)), side="right") - 1, 0)]
        inside = (last <= np.arange(len(flags))) & (np.arange(len(flags)) < self.end[last])
        return np.where(inside, last, -1)

    def child_towards(self, ancestor: Ints) -> Ints:
        """Return for each node the child of `ancestor[node]` on the way to it.

        -1 where there is no ancestor (it is -1) or the node is the ancestor itself.
        """
        depth = self.depth()
        wanted = np.where(ancestor >= 0, depth[ancestor] + 1, -1)
        node = np.where((ancestor >= 0) & (wanted <= depth), np.arange(len(self.parent)), -1)
        rising = np.flatnonzero((node >= 0) & (depth > wanted))
        while len(rising):
            node[rising] = self.parent[node[rising]]
            rising = rising[depth[node[rising]] > wanted[rising]]
        return node

    def depth(self) -> Ints:
        """Return how many nodes are above each node."""
        return self.count(np.ones(len(self.parent), dtype=np.bool_)) - 1

    def count(self, flags: Flags) -> Ints:
        """Return how many nodes are flagged from the root down to each node, itself included."""
        change = np.zeros(len(flags) + 1, dtype=np.int64)
        marked = np.flatnonzero(flags)
        np.add.at(change, marked, 1)
        np.add.at(change, self.end[marked], -1)
        depth: Ints = np.cumsum(change[:-1])
        return depth


def importing(paths: pl.DataFrame) -> Flags:
    """Return which of `call_paths` are part of the import of a module: in `importlib`, or below."""
    system = paths["module"].str.contains(_IMPORT_SYSTEM).fill_null(False)
    return CallPaths.of(paths).under(system.to_numpy())


DERIVED = Derived(
    "call_paths",
    "one call path that the capture knows, in depth-first order",
    ("stacks", "frames"),
    compute,
    {
        "stack_id": "the path, as in `stacks`",
        "parent": "row of the caller's path in this table, counted from 0; null at the root",
        "end": "row after the last path below this one",
        "depth": "0 at the root",
        "function": "innermost function",
        "file": "its file",
        "line": "line in it",
        "module": "its module",
        "category": "`app`, `library`, `stdlib`, `native` or `thread`",
        "role": "what the innermost frame means for waiting, e.g. `select`, `pool`, `io`; or null",
        "own": "whether the innermost frame is the program's own code",
    },
)
