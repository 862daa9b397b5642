"""Call trees as exporters draw them: names, parents, and a weight of its own for each node.

A node's width is its own weight and that of everything below it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from perfkit.errors import InputError

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class View:
    """One way to look at a capture."""

    title: str
    table: str
    weight: str
    """Column with the weight of a node itself, in ns."""
    needs: str


VIEWS: dict[str, View] = {
    "running": View(
        "Code, while the thread ran", "code_tree", "running_ns", "stacks with their state"
    ),
    "code": View("Code, running or waiting", "code_tree", "self_ns", "stack samples"),
    "critical-path": View(
        "Requests, by what set their length", "span_tree", "critical_ns", "spans"
    ),
    "requests": View("Requests, by self time", "span_tree", "self_ns", "spans"),
}
"""In the order in which the first one that has anything to show is taken."""

NANOSECONDS, SAMPLES = "nanoseconds", "samples"


@dataclass(frozen=True)
class Tree:
    """A merged call tree, parents before their children."""

    title: str
    unit: str
    """`NANOSECONDS`, or `SAMPLES` where the capture has only counts."""
    names: list[str]
    files: list[str]
    """File of a function, service of a span; empty when not known."""
    lines: list[int]
    """0 when not known."""
    categories: list[str]
    parents: Ints
    """-1 at roots."""
    own: Ints

    def totals(self) -> Ints:
        """Return what each node and all below it weigh."""
        totals = self.own.copy()
        for node in range(len(totals) - 1, -1, -1):
            parent = self.parents[node]
            if parent >= 0:
                totals[parent] += totals[node]
        return totals

    def paths(self) -> list[list[int]]:
        """Return for each node the nodes from its root down to it."""
        paths: list[list[int]] = []
        for node, parent in enumerate(self.parents.tolist()):
            paths.append([*paths[parent], node] if parent >= 0 else [node])
        return paths


def tree(tables: Mapping[str, pl.LazyFrame], name: str) -> Tree | None:
    """Return the tree of a view, or None when the capture has nothing for it."""
    view = VIEWS[name]
    nodes = tables[view.table].collect()
    unit, weight = NANOSECONDS, view.weight
    if name == "code" and nodes["self_ns"].null_count() == nodes.height:
        unit, weight = SAMPLES, "self_count"
    own = nodes[weight].fill_null(0).to_numpy().astype(np.int64)
    if not own.sum():
        return None
    spans = view.table == "span_tree"
    label, file = ("label", "service") if spans else ("function", "file")
    lines = [0] * nodes.height if spans else nodes["line"].fill_null(0).to_list()
    return Tree(
        title=view.title,
        unit=unit,
        names=nodes[label].fill_null("(no name)").to_list(),
        files=nodes[file].fill_null("").to_list(),
        lines=lines,
        categories=nodes["category"].fill_null("").to_list(),
        parents=nodes["parent_id"].fill_null(-1).to_numpy(),
        own=own,
    )


def chosen(
    tables: Mapping[str, pl.LazyFrame], view: str | None, known: tuple[str, ...]
) -> tuple[str, Tree]:
    """Return the asked view, or else the first with anything to show. Raises InputError."""
    for name in known if view is None else (view,):
        if (found := tree(tables, name)) is not None:
            return name, found
    raise nothing(view)


def nothing(view: str | None) -> InputError:
    """Return the error for a capture, or a population, in which a view shows nothing."""
    needs = VIEWS[view].needs if view is not None else "spans or stack samples"
    return InputError(
        f"there is nothing to draw: no {needs}",
        hint="loosen the filters, or record with --otlp (spans) and --pid (stacks)",
    )
