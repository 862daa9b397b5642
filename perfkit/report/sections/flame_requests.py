"""Where requests spend their time: the merged tree of spans, one value per node and request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from perfkit.report.context import Context
from perfkit.report.population import Population

TITLE = "Request flame graph"
NEEDS = ("requests", "span_tree")
EMPTY = {
    "what": "There are no spans in this capture, so there is no flame graph of requests.",
    "how": "Record what the service's OpenTelemetry SDK sends, or import traces:",
    "command": "perfkit record --pid PID --otlp --duration 30s -o slow.perfkit",
}

EXACT_CELLS = 200_000
"""Up to so many pairs of node and request the page filters exactly; above, requests are binned."""

_MAX_BUCKETS = 512
CELL = ("node", "group")
_TIMES = ("total_ns", "self_ns", "critical_ns", "gap_ns")
SUMS = (*_TIMES, "count", "errors")


def build(context: Context) -> dict[str, Any]:
    """Return the tree and its cells."""
    population = context.population
    cells = None if population.coarse else cells_of(context, population)
    coarse = cells is None or cells.height > EXACT_CELLS
    bin_of_request: dict[str, Any] = {}
    if cells is None or coarse:
        groups, cells, of_entry = _binned(context, cells)
        if not population.coarse:  # the page knows single requests: each finds its bin
            bin_of_request = {"of_request": of_entry.sort("index")["bin"].to_numpy()}
    else:
        groups = population.entries.with_columns(weight="adjusted_count")
    return {
        "coarse": coarse,
        "groups": groups.height,
        "data": {
            "tree": tree_columns(context.tables.frame("span_tree")),
            "groups": population.group_columns(groups) | bin_of_request,
            "cells": {name: cells[name].to_numpy() for name in (*CELL, *SUMS)},
            "coarse": coarse,
        },
    }


def tree_columns(tree: pl.DataFrame) -> dict[str, Any]:
    """Return a tree of spans (columns of `span_tree`) as the page's columns."""
    labels = tree["label"].fill_null("(no name)")
    strings = labels.unique(maintain_order=True)
    categories = tree["category"].fill_null("internal").unique().sort().to_list()
    return {
        "strings": strings.to_list(),
        "label": labels.replace_strict(strings, pl.int_range(len(strings), eager=True)).to_numpy(),
        "parent": tree["parent_id"].fill_null(-1).to_numpy(),
        "category": tree["category"]
        .fill_null("internal")
        .replace_strict(categories, list(range(len(categories))))
        .to_numpy(),
        "categories": categories,
        "unit": "ns",
    }


def cells_of(context: Context, population: Population) -> pl.DataFrame:
    """Return one row per node and entry: weighted sums over the entry's spans at that node."""
    groups = population.entries.select("request_row", group="index")
    return pl.concat(_cells(context, groups)).sort(*CELL)


def _cells(context: Context, groups: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Yield the cells of some traces at a time; `groups` has `group` and `request_row` of entries.

    An entry's spans come together, those of a group need not.
    """
    weight = pl.col("adjusted_count")
    for shard in context.tables.shards_of("tree", "span_times", "span_tree_rows"):
        tree = shard["tree"].select(
            "row", "entry_row", "adjusted_count", "status", total_ns="duration_ns"
        )
        times = shard["span_times"].select("row", "self_ns", "critical_ns", "gap_ns")
        yield (
            shard["span_tree_rows"]
            .join(tree, on="row")
            .join(times, on="row")
            .join(groups.lazy(), left_on="entry_row", right_on="request_row")
            .group_by(node="node_id", group="group")
            .agg(
                *((pl.col(name) * weight).sum().round().cast(pl.Int64) for name in _TIMES),
                weight.sum().alias("count"),
                weight.filter(pl.col("status") == "error").sum().alias("errors"),
            )
            .collect()
        )


def _binned(
    context: Context, cells: pl.DataFrame | None
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Merge requests of one endpoint, tool, status, time and duration until the cells fit.

    `cells` are those of single requests; None where there are too many requests for that. Returns
    the bins, their cells, and the `bin` of each entry's `index`.
    """
    population = context.population
    buckets = _MAX_BUCKETS
    while True:
        groups, of_entry = population.bins(buckets)
        if cells is None:
            of_row = population.entries.select("request_row", "index").join(of_entry, on="index")
            parts = _cells(context, of_row.select("request_row", group="bin"))
        else:
            parts = iter([cells.join(of_entry, left_on="group", right_on="index").drop("group")])
            parts = (part.rename({"bin": "group"}) for part in parts)
        merged = pl.concat(parts).group_by(CELL).agg(pl.col(SUMS).sum()).sort(*CELL)
        if merged.height <= EXACT_CELLS or buckets == 1:
            return groups, merged, of_entry
        buckets //= 2
