"""The difference of two merged call trees, of requests and of code, vanished and new paths kept.

Both sides are brought to the same measure first: time per request, or, where there are no requests,
the share of all sampled time. Paths are told by their labels, so trees of different captures match;
code paths by function and module, so that a moved line is no change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import polars as pl

from perfkit.analysis.comparison.contrast import Contrast, Part
from perfkit.analysis.comparison.differences import Floats, request_weight, resemblance
from perfkit.analysis.session import Tables
from perfkit.analysis.spans.tree import parents_of
from perfkit.analysis.statistics.significance import adjusted, compare_runs, verdict
from perfkit.analysis.vector.forest import Ints, along_path
from perfkit.analysis.vector.rows import indices
from perfkit.analysis.vector.summary import summed

FEWEST_SHARE = 0.001
"""Paths with less of the time of both sides together are not tested: they could explain nothing.

Choosing by the sum of both sides does not favour either, so the correction stays valid (Bourgon et
al. 2010, PNAS 107)."""

SCHEMA: dict[str, pl.DataType] = {
    **dict.fromkeys(("path_id", "parent_id", "depth"), pl.Int64()),
    **dict.fromkeys(("label", "group", "category"), pl.String()),
    **dict.fromkeys(
        ("self_before", "self_after", "total_before", "total_after", "count_before", "count_after"),
        pl.Float64(),
    ),
    "state": pl.String(),
    **dict.fromkeys(("change", "low", "high", "p", "p_adjusted"), pl.Float64()),
    "verdict": pl.String(),
}

_TESTED = ("change", "low", "high", "p")

COLUMNS = {
    "path_id": "hash of the labels from the root, equal in every capture",
    "parent_id": "the path above; null at roots",
    "depth": "0 at roots",
    "label": "endpoint or span name; function",
    "group": "service; module",
    "category": "as in `tree` and `frames`",
    "self_before": "own time per request (ns) on the one side; of code without requests its share",
    "self_after": "the same on the other side",
    "total_before": "time of it and what is below, likewise",
    "total_after": "the same on the other side",
    "count_before": "calls per request; of code, samples per request or share of samples",
    "count_after": "the same on the other side",
    "state": "`both`, `new` (on the other side only) or `vanished` (on the one side only)",
    "change": "change of own time, relative to `self_before` where that is above 0",
    "low": "lower end of its confidence interval",
    "high": "upper end of it",
    "p": "two-sided p of Welch's test over runs; null when not tested",
    "p_adjusted": "that, corrected for the number of paths tested (Benjamini–Hochberg)",
    "verdict": "`grew`, `shrank`, `no evidence` or `not tested`",
}


_OF_SPAN = (
    *("row", "parent_row", "request_row", "entry_row", "depth", "category", "endpoint", "name"),
    *("service", "duration_ns", "adjusted_count"),
)


class _Rows(NamedTuple):
    """What happened on which path in which run, and the paths."""

    values: pl.DataFrame
    """`path_id`, `run`, `own`, `total`, `count`; total is null where it follows from the tree."""
    paths: pl.DataFrame
    """`path_id`, `parent_id`, `depth`, `label`, `group`, `category`."""


def request_paths(contrast: Contrast) -> pl.DataFrame:
    """Return the difference of the merged trees of requests (schema: `SCHEMA`)."""
    return _difference(contrast, _request_rows, per_request=True)


def code_paths(contrast: Contrast) -> pl.DataFrame:
    """Return the difference of the merged trees of stack samples: time in which threads ran.

    Where no state was recorded it is all sampled time, where no times were, observations.
    """
    with_requests = bool((request_weight(contrast) > 0).any())
    return _difference(contrast, _code_rows, per_request=with_requests)


def _request_rows(part: Part) -> _Rows:
    columns = {"tree": _OF_SPAN, "span_times": ("self_ns", "gap_ns")}
    pieces = [
        _request_piece(spans, part.run_of_row[rows], rows.start)
        for rows, spans in part.pieces(columns)
    ]
    return _Rows(
        pl.concat(piece.values for piece in pieces),
        pl.concat(piece.paths for piece in pieces).unique(
            "path_id", keep="first", maintain_order=True
        ),
    )


def _request_piece(spans: pl.DataFrame, run: Ints, first: int) -> _Rows:
    """Return the sums on each path in each run of whole traces, rows from `first` on."""
    at_top = pl.col("row") == pl.col("request_row")
    label = pl.when(at_top).then(pl.coalesce("endpoint", "name")).otherwise("name")
    nodes = spans.select("depth", "category", label=label, group="service")
    top = indices(spans["entry_row"]) == spans["row"].to_numpy()
    above = parents_of(spans)
    parent = np.where(top | (above < 0), -1, above - first)
    path = _path_ids(nodes, parent)
    weight = pl.col("adjusted_count")
    values = spans.select(
        path_id=pl.Series(path),
        run=pl.Series(run),
        own=weight * (pl.col("self_ns") + pl.col("gap_ns")),
        total=weight * pl.col("duration_ns"),
        count=weight,
    ).filter(pl.col("run") >= 0)
    return _Rows(
        summed(values, ["path_id", "run"], ("own", "total", "count")),
        _described(nodes, path, parent, run >= 0),
    )


def _code_rows(part: Part) -> _Rows:
    tables = part.tables
    stacks = tables.frame("call_paths")
    nodes = stacks.select(
        "category",
        depth=pl.col("depth").cast(pl.Int64),
        label="function",
        group=pl.coalesce("module", "file"),
    )
    parent = stacks["parent"].fill_null(-1).to_numpy()
    path = _path_ids(nodes, parent)
    known = pl.DataFrame({"stack_id": stacks["stack_id"], "path_id": path})
    seen = _samples(part, tables).group_by("stack_id", "run").agg(pl.all().sum())
    column = next((name for name in ("running", "own") if seen[name].sum() > 0), "count")
    values = seen.join(known, on="stack_id").select(
        "path_id", "run", own=pl.col(column).cast(pl.Float64), total=None, count="count"
    )
    return _Rows(values, _described(nodes, path, parent, np.ones(len(path), dtype=np.bool_)))


def _samples(part: Part, tables: Tables) -> pl.DataFrame:
    """Return `stack_id`, `run`, `own`, `running`, `count` of the samples of either side.

    A thread that only woke up at its wait ran no code: see `wakeups`.
    """
    samples = tables.frame("ordered_samples")
    if part.times:
        rows = samples.with_columns(run=part.run_of_time(samples["ts_ns"]))
        if len(part.times) == 1:
            # Without times they are of this side for sure, and of no block more than another.
            rows = rows.with_columns(pl.col("run").fill_null(part.times[0].first_run))
    else:
        pieces = tables.frame("sample_spans")
        run = np.append(part.run_of_row, -1)[indices(pieces["entry_row"])]
        rows = samples[pieces["sample_row"]].with_columns(
            pieces["duration_ns"],
            # However many parts it is cut into, an observation is one.
            count=pl.when(pieces["sample_row"].is_first_distinct())
            .then(pl.col("count").fill_null(1))
            .otherwise(0),
            run=pl.Series(run),
        )
    tree = tables.frame("code_tree")
    woken = tree.filter(pl.col("woken_ns") > pl.col("unseen_ns"))["stack_id"]
    ran = (pl.col("state") == "running") & ~pl.col("stack_id").is_in(woken.implode())
    return rows.filter(pl.col("run") >= 0).select(
        "stack_id",
        "run",
        own=pl.col("duration_ns").fill_null(0),
        running=pl.when(ran).then("duration_ns").fill_null(0),
        count=pl.col("count").fill_null(1).cast(pl.Float64),
    )


def _path_ids(nodes: pl.DataFrame, parent: Ints) -> Ints:
    """Return a hash of the labels from the root to each node; of sums, so depth is in each term."""
    own = nodes.select(pl.struct("label", "group", "category", "depth").hash(seed=0))
    return along_path(parent, own.to_series().reinterpret(signed=True).to_numpy(), np.add, 0)


def _described(nodes: pl.DataFrame, path: Ints, parent: Ints, keep: np.ndarray) -> pl.DataFrame:
    above = pl.Series(np.append(path, 0)[parent], dtype=pl.Int64)
    return (
        nodes.select("depth", "label", "group", "category")
        .with_columns(path_id=pl.Series(path), parent_id=above.set(pl.Series(parent < 0), None))
        .filter(pl.Series(keep))
        .unique("path_id", keep="first", maintain_order=True)
    )


def _difference(
    contrast: Contrast, read: Callable[[Part], _Rows], *, per_request: bool
) -> pl.DataFrame:
    parts = [read(part) for part in contrast.parts]
    paths = (
        pl.concat(part.paths for part in parts)
        .unique("path_id", keep="first", maintain_order=True)
        .sort("depth", maintain_order=True)
    )
    place = paths.select("path_id", place=pl.int_range(pl.len(), dtype=pl.Int64))
    rows = pl.concat(
        part.values.filter(pl.col("run") >= 0).cast({"own": pl.Float64, "total": pl.Float64})
        for part in parts
    ).join(place, on="path_id")
    cell = rows["place"].to_numpy() * contrast.runs + rows["run"].to_numpy()
    shape = (paths.height, contrast.runs)

    def grid(name: str) -> Floats:
        summed = np.bincount(cell, rows[name].to_numpy(), shape[0] * shape[1])
        return summed.astype(np.float64).reshape(shape)

    own, count = grid("own"), grid("count")
    above = paths.select("parent_id").join(
        place, left_on="parent_id", right_on="path_id", how="left", maintain_order="left"
    )
    if rows["total"].null_count():
        total = _below(own, indices(above["place"]), paths["depth"].to_numpy())
        count = _below(count, indices(above["place"]), paths["depth"].to_numpy())
    else:
        total = grid("total")
    by = request_weight(contrast) if per_request else own.sum(axis=0)
    scale = np.divide(1.0, by, out=np.full(len(by), np.nan), where=by > 0)
    return _tested(contrast, paths, own * scale, total * scale, count * scale)


def _below(own: Floats, parent: Ints, depth: Ints) -> Floats:
    """Return the sums over each node and all below it; nodes are sorted by depth."""
    total = own.copy()
    for level in range(int(depth.max(initial=0)), 0, -1):
        nodes = np.arange(*np.searchsorted(depth, [level, level + 1]))
        nodes = nodes[parent[nodes] >= 0]
        np.add.at(total, parent[nodes], total[nodes])
    return total


def _tested(
    contrast: Contrast, paths: pl.DataFrame, own: Floats, total: Floats, count: Floats
) -> pl.DataFrame:
    means = {
        f"{name}_{side}": _means(values)
        for name, grid in (("self", own), ("total", total), ("count", count))
        for side, values in zip(("before", "after"), contrast.split(grid), strict=True)
    }
    whole = sum(np.nansum(means[f"self_{side}"]) for side in ("before", "after"))
    both = means["self_before"] + means["self_after"]
    worth = (both >= FEWEST_SHARE * whole) & (both > 0)
    changes = np.full((paths.height, 4), np.nan)
    verdicts = np.full(paths.height, "not tested", dtype=object)
    before, after = contrast.split(own)
    correlation = resemblance(contrast, [own[worth]])
    tests = {
        node: compare_runs(before[node], after[node], correlation=correlation)
        for node in np.flatnonzero(worth)
    }
    for node, one in tests.items():
        changes[node] = (one.change, one.low, one.high, one.p)
    p = adjusted(changes[:, 3], "benjamini-hochberg")
    for node, one in tests.items():
        verdicts[node] = verdict(one, float(p[node]))
    state = np.select(
        [means["count_before"] == 0, means["count_after"] == 0], ["new", "vanished"], "both"
    )
    return paths.with_columns(
        *(pl.Series(name, values) for name, values in means.items()),
        *(pl.Series(name, changes[:, i]).fill_nan(None) for i, name in enumerate(_TESTED)),
        p_adjusted=pl.Series(p).fill_nan(None),
        state=pl.Series(state.tolist(), dtype=pl.String),
        verdict=pl.Series(verdicts.tolist(), dtype=pl.String),
    ).select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())


def _means(values: Floats) -> Floats:
    """Return the mean over the runs in which there is a value; 0 for no such run."""
    known = np.isfinite(values)
    seen = known.sum(axis=1)
    total = np.where(known, values, 0.0).sum(axis=1)
    mean: Floats = np.divide(total, seen, out=np.zeros(len(total)), where=seen > 0)
    return mean
