"""The merged call tree of all entries: one node is one path of labels from an entry down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.spans.tree import parents_of
from perfkit.analysis.vector.forest import Ints, along_path
from perfkit.analysis.vector.percentiles import codes
from perfkit.analysis.vector.rows import indices, rows_or_null
from perfkit.analysis.vector.summary import sums, whole

_LABEL = ("label", "service", "category")
_SUMS = ("count", "total_ns", "self_ns", "critical_ns")


def compute_rows(tables: Tables) -> pl.DataFrame:
    """Return the node of each span that belongs to an entry."""
    tree = tables.frame("tree")
    inside = tree["entry_row"].is_not_null()
    label, _ = codes(tree.select(_label(), "service", "category"), _LABEL)
    path = along_path(_parents(tree), _mixed(label, tree["depth"].to_numpy()), np.add, 0)
    node, _ = codes(pl.DataFrame({"path": path}).filter(inside), ["path"])
    return pl.DataFrame({"row": tree["row"].filter(inside), "node_id": node})


def compute_nodes(tables: Tables) -> pl.DataFrame:
    """Return one row a node, parents before children."""
    return merged([sums_of_nodes(tables)]).nodes


def sums_of_nodes(tables: Tables) -> pl.DataFrame:
    """Return the table `span_tree` with sums that are not rounded, so that they can be added up."""
    tree, times = tables.frame("tree"), tables.frame("span_times")
    placed = tables.frame("span_tree_rows")
    rows, node = placed["row"].to_numpy(), placed["node_id"].to_numpy()
    nodes = int(node.max()) + 1 if len(node) else 0
    spans = tree.select(_label(), "service", "category", "depth", "duration_ns", "adjusted_count")
    # Nodes are numbered as they first appear, so their first rows come in their order.
    first = rows[placed["node_id"].is_first_distinct().to_numpy()]
    node_of = np.full(tree.height + 1, -1)
    node_of[rows] = node
    parent = node_of[_parents(tree)[first]]
    weight = spans["adjusted_count"].to_numpy()[rows]

    def total(values: pl.Series) -> pl.Series:
        return pl.Series(sums(node, weight * values.to_numpy()[rows], nodes))

    nodes_in_order: pl.DataFrame = spans[first]
    return nodes_in_order.select(
        node_id=pl.Series(np.arange(nodes)),
        parent_id=pl.Series(parent, dtype=pl.Int64).set(pl.Series(parent < 0), None),
        depth="depth",
        label="label",
        service="service",
        category="category",
        count=pl.Series(sums(node, weight, nodes)),
        total_ns=total(spans["duration_ns"]),
        self_ns=total(times["self_ns"] + times["gap_ns"]),
        critical_ns=total(times["critical_ns"]),
    )


class Merged(NamedTuple):
    """The trees of several parts of a capture made one."""

    nodes: pl.DataFrame
    """The table `span_tree`."""
    node_ids: list[Ints]
    """For each part, in which node of it each of its own nodes is."""


def merged(parts: Sequence[pl.DataFrame]) -> Merged:
    """Add up trees, as `sums_of_nodes` gives them, by the paths of their nodes."""
    every = pl.concat(parts)
    sizes = [part.height for part in parts]
    shift = np.repeat(np.cumsum(sizes) - sizes, sizes)
    parent = indices(every["parent_id"])
    parent = np.where(parent < 0, -1, parent + shift)
    label, _ = codes(every, _LABEL)
    path = along_path(parent, _mixed(label, every["depth"].to_numpy()), np.add, 0)
    node, _ = codes(pl.DataFrame({"path": path}), ["path"])
    first = pl.Series(node).is_first_distinct().to_numpy()
    above = parent[first]
    nodes = len(above)
    result = every.filter(pl.Series(first)).with_columns(
        node_id=pl.Series(np.arange(nodes)),
        parent_id=rows_or_null(np.where(above < 0, -1, node[above])),
        **{name: whole(sums(node, every[name].to_numpy(), nodes)) for name in _SUMS},
    )
    return Merged(result, np.split(node, np.cumsum(sizes)[:-1]))


def _label() -> pl.Expr:
    at_top = pl.col("row") == pl.col("request_row")
    return pl.when(at_top).then(pl.coalesce("endpoint", "name")).otherwise("name").alias("label")


def _parents(tree: pl.DataFrame) -> Ints:
    entry = indices(tree["entry_row"]) == np.arange(tree.height)
    return np.where(entry, -1, parents_of(tree))


def _mixed(label: Ints, depth: Ints) -> Ints:
    """Return a 64-bit hash of label and depth (splitmix64), whose sums tell paths apart."""
    mixed = (label.astype(np.uint64) << np.uint64(32)) + depth.astype(np.uint64)
    mixed += np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (mixed ^ (mixed >> np.uint64(31))).view(np.int64)


SPAN_TREE_ROWS = Derived(
    "span_tree_rows",
    "one span that belongs to an entry",
    ("tree",),
    compute_rows,
    {"row": "the span, as in `tree`", "node_id": "its node in `span_tree`"},
)
SPAN_TREE = Derived(
    "span_tree",
    "one node of the merged call tree; parents come before their children",
    ("tree", "span_times", "span_tree_rows"),
    compute_nodes,
    {
        "node_id": "number of the node, from 0",
        "parent_id": "node above; null at roots",
        "depth": "0 at roots",
        "label": "endpoint of a request, otherwise span name",
        "service": "service that ran it",
        "category": "as in `tree`",
        "count": "how many spans",
        "total_ns": "sum of their durations",
        "self_ns": "sum of their self time and client-server gaps",
        "critical_ns": "sum of their time on critical paths",
    },
)
