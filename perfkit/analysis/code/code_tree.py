"""The merged call tree of all samples: `code_tree`."""

from __future__ import annotations

import polars as pl

from perfkit.analysis.code import frame_roles, wakeups
from perfkit.analysis.code.call_paths import CallPaths, importing
from perfkit.analysis.code.samples import unseen_ns
from perfkit.analysis.session import Derived, Tables

_WEIGHTS = ("self_ns", "running_ns", "unknown_ns", "unseen_ns", "self_count")


def compute(tables: Tables) -> pl.DataFrame:
    """Return the table `code_tree`: weights by stack first, then sums towards the roots."""
    paths = tables.frame("call_paths")
    weights = stack_weights(population_samples(tables))
    timed = weights["timed"].sum() > 0
    nodes = paths.join(weights, on="stack_id", how="left", maintain_order="left").with_columns(
        pl.col(*_WEIGHTS).fill_null(0)
    )
    woken = pl.when(wakeups.wakes()).then("running_ns").otherwise(0)
    nodes = nodes.with_columns(
        woken_ns=woken + pl.col("unseen_ns"), running_ns=pl.col("running_ns") - woken
    )
    # Where no state was recorded, an innermost frame that cannot but wait was not working.
    nodes = nodes.with_columns(
        unknown_ns=pl.when(pl.col("role").is_in(frame_roles.IDLE_LEAVES))
        .then(0)
        .otherwise("unknown_ns")
    )
    tree = CallPaths.of(paths)
    nodes = nodes.with_columns(
        pl.Series(name, tree.total(nodes[own].to_numpy()), dtype=pl.Int64)
        for name, own in (
            ("total_ns", "self_ns"),
            ("running_total_ns", "running_ns"),
            ("woken_total_ns", "woken_ns"),
            ("unknown_total_ns", "unknown_ns"),
            ("count", "self_count"),
        )
    )
    seen = pl.col("count") > 0
    # Nodes that no sample reached are left out; a node's place among the rest is its new number.
    before = nodes.select(seen.cum_sum().cast(pl.Int64).alias("to"))["to"]
    place = pl.concat([pl.Series("to", [0], dtype=pl.Int64), before])
    nodes = nodes.with_columns(
        node_id=place[:-1],
        parent_id=place.gather(nodes["parent"]),
        end_id=place.gather(nodes["end"]),
        importing=pl.Series(importing(paths)),
    )
    nodes = nodes.with_columns(import_id=_imports()).filter(seen)
    times = [name for name in COLUMNS if name.endswith("_ns")]
    if not timed:
        nodes = nodes.with_columns(pl.lit(None, dtype=pl.Int64).alias(name) for name in times)
    return nodes.select(list(COLUMNS))


def _imports() -> pl.Expr:
    """Return the outermost node of the import that a node is part of; null outside of imports.

    Nodes are in depth-first order: until the next outermost one, those that import are below it.
    """
    imports, parent = pl.col("importing"), pl.col("parent")
    outermost = imports & ~imports.gather(parent.fill_null(0)) | imports & parent.is_null()
    begun = pl.when(outermost).then("node_id").forward_fill()
    return pl.when(imports).then(begun)


def population_samples(tables: Tables) -> pl.LazyFrame:
    """Return the samples to add up: as captured, unless requests are filtered."""
    return tables["ordered_samples" if tables.filters.by_request else "samples"]


def stack_weights(samples: pl.LazyFrame) -> pl.DataFrame:
    """Return one row a stack: `self_ns`, `running_ns`, `unknown_ns`, `unseen_ns`, `self_count`,
    `timed`."""
    duration, state = pl.col("duration_ns"), pl.col("state")
    # Plain sums of prepared columns: a filter inside the aggregation costs three times as much.
    return (
        samples.select(
            "stack_id",
            self_ns=duration,
            running_ns=pl.when(state == "running").then(duration),
            unknown_ns=pl.when(state.is_null()).then(duration),
            unseen_ns=unseen_ns(samples),
            self_count=pl.col("count").fill_null(1),
        )
        .group_by("stack_id")
        .agg(pl.col(*_WEIGHTS).sum(), timed=pl.col("self_ns").count())
        .collect(engine="streaming")
    )


COLUMNS = {
    "node_id": "number of the node, parents before children, depth first",
    "parent_id": "the caller's node; null at the root",
    "end_id": "number after the last node below this one",
    "depth": "0 at the root",
    "stack_id": "the call path, as in `stacks`",
    "function": "function",
    "file": "its file",
    "line": "line in it",
    "module": "its module",
    "category": "`app`, `library`, `stdlib`, `native` or `thread`",
    "total_ns": "time in the node and below, working or waiting; null when samples are only counts",
    "self_ns": "time in the node itself, working or waiting",
    "running_ns": "the part of `self_ns` in which the thread ran, without `woken_ns`",
    "running_total_ns": "the part of `total_ns` that is `running_ns` here or below",
    "woken_ns": "CPU time of threads that were seen waiting here: they woke up, fell asleep, or "
    "ran in code that no look saw; no hot code",
    "unseen_ns": "the part of `woken_ns` in which they were not seen running",
    "woken_total_ns": "the sum of `woken_ns` here and below",
    "unknown_ns": "the part of `self_ns` of which nobody knows whether the thread ran",
    "unknown_total_ns": "the part of `total_ns` of which nobody knows whether the thread ran",
    "count": "observations in the node and below",
    "self_count": "observations in the node itself",
    "importing": "whether it is part of the import of a module: a frame of `importlib`, or below",
    "import_id": "the outermost node of that import",
}

DERIVED = Derived(
    "code_tree",
    "one node of the merged call tree of all samples",
    ("samples", "call_paths"),
    compute,
    COLUMNS,
)
