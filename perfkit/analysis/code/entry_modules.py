"""How much of a kind of request goes into a module: `modules_by_entry`.

Of all CPU time of a program a module may be little, and of the requests of one endpoint most.
"""

from __future__ import annotations

import polars as pl

from perfkit.analysis.code.call_paths import CallPaths, importing
from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.vector.forest import Ints
from perfkit.analysis.vector.percentiles import codes

_KIND = ("entry_endpoint", "entry_tool")
_CALLER = ("caller", "caller_file", "caller_module")
_RESTING = ("select", "worker", "queue", "condition", "io", "pool")
"""Roles of an innermost frame in which a thread that did not run waited for something else."""


def compute(tables: Tables) -> pl.DataFrame:
    """Return one row a kind of entry and module, those of most time first."""
    seen = _seen(tables)
    working = seen.filter(pl.col("work_ns") > 0)
    if working.is_empty():
        return pl.DataFrame(schema=_SCHEMA)
    paths = tables.frame("call_paths")
    of_kind = seen.group_by("kind").agg(
        seen_ns=pl.col("duration_ns").sum(),
        seen_requests=pl.col("entry_row").n_unique().cast(pl.Int64),
    )
    modules = _modules(paths, working["path"].unique().to_numpy())
    each = working.join(modules, on="path")
    callers = (
        each.join(_callers(paths), on="caller_path", how="left")
        .group_by("kind", "module", *_CALLER)
        .agg(pl.col("work_ns").sum())
        .sort("work_ns", *_CALLER, descending=[True, False, False, False], nulls_last=True)
        .unique(["kind", "module"], keep="first", maintain_order=True)
        .drop("work_ns")
    )
    return (
        each.group_by("kind", "module")
        .agg(
            duration_ns=pl.col("work_ns").sum(),
            samples=pl.col("samples").sum(),
            requests=pl.col("entry_row").n_unique().cast(pl.Int64),
        )
        .join(of_kind, on="kind")
        .join(callers, on=["kind", "module"])
        .join(_entries(tables), on="kind")
        .sort("duration_ns", "kind", "module", descending=[True, False, False])
        .select(*COLUMNS)
    )


def _seen(tables: Tables) -> pl.DataFrame:
    """Return one row a path seen in an entry: `entry_row`, `path`, `kind`, `samples`,
    `duration_ns`, and `work_ns`, what of it was no wait for something else."""
    samples, paths = tables.frame("ordered_samples"), tables.frame("call_paths")
    parts = tables.frame("sample_spans").select("sample_row", "entry_row", "duration_ns")
    parts = parts.filter(pl.col("entry_row").is_not_null() & pl.col("duration_ns").is_not_null())
    place = parts["sample_row"]
    path = samples["path"].gather(place)
    rests = paths["role"].is_in(_RESTING).fill_null(False).gather(path).fill_null(False)
    ran = (samples["state"].gather(place) == "running").fill_null(False)
    kind, _ = codes(tables.columns("tree", *_KIND), _KIND)
    seen = (
        parts.lazy()
        .with_columns(path=path, works=~rests | ran)
        .drop_nulls("path")
        .group_by("entry_row", "path")
        .agg(
            pl.col("duration_ns").sum(),
            work_ns=pl.col("duration_ns").filter("works").sum(),
            samples=pl.len().cast(pl.Int64),
        )
        .collect()
    )
    return seen.with_columns(kind=pl.Series(kind, dtype=pl.Int64).gather(seen["entry_row"]))


def _modules(paths: pl.DataFrame, used: Ints) -> pl.DataFrame:
    """Return for each path the modules on it: `path`, `module`, `caller_path`, which is the path
    above the outermost frame of the module, or null.

    What the import of a module does is left out: it is done once.
    """
    tree = CallPaths.of(paths)
    known = paths["module"].is_not_null().to_numpy() & ~importing(paths)
    path = node = used
    steps = []
    while node.size:
        told = known[node]
        steps.append(pl.DataFrame({"path": path[told], "node": node[told]}))
        node = tree.parent[node]
        path, node = path[node >= 0], node[node >= 0]
    found = pl.concat(steps)
    # Parents have the smaller numbers.
    found = (
        found.with_columns(module=paths["module"].gather(found["node"]))
        .group_by("path", "module")
        .agg(pl.col("node").min())
    )
    above = paths["parent"].cast(pl.Int64).gather(found["node"]).alias("caller_path")
    return found.select("path", "module").with_columns(above)


def _callers(paths: pl.DataFrame) -> pl.DataFrame:
    return paths.select(
        caller_path=pl.int_range(pl.len(), dtype=pl.Int64),
        caller="function",
        caller_file="file",
        caller_module="module",
    )


def _entries(tables: Tables) -> pl.DataFrame:
    """Return `kind`, its names, `entries` and `request_ns`, weighted by what spans stand for."""
    columns = ("row", "entry_row", *_KIND, "duration_ns", "adjusted_count")
    tree = tables.columns("tree", *columns)
    kind, _ = codes(tree, _KIND)
    weight = pl.col("adjusted_count")
    return (
        tree.with_columns(kind=pl.Series(kind, dtype=pl.Int64))
        .filter(pl.col("row") == pl.col("entry_row"))
        .group_by("kind")
        .agg(
            pl.col(*_KIND).first(),
            entries=weight.sum().round().cast(pl.Int64),
            request_ns=(weight * pl.col("duration_ns")).sum().round().cast(pl.Int64),
        )
    )


COLUMNS = {
    "entry_endpoint": "endpoint of the entries",
    "entry_tool": "their tool",
    "module": "a module that was on the stack; not while it was imported",
    "caller": "the function outside of it that calls into it for most of the time",
    "caller_file": "its file",
    "caller_module": "its module",
    "duration_ns": "time in the module and what it calls, without waits for something else, "
    "such as an answer",
    "samples": "looks that saw it",
    "requests": "entries in which it was seen",
    "seen_ns": "time of these entries of which the code was seen, working or waiting",
    "seen_requests": "entries of which any code was seen",
    "entries": "all entries of this kind",
    "request_ns": "sum of their durations",
}

_SCHEMA: dict[str, pl.DataType] = {
    name: pl.String() if name in (*_KIND, "module", *_CALLER) else pl.Int64() for name in COLUMNS
}

DERIVED = Derived(
    "modules_by_entry",
    "one module in the code of one kind of entry",
    ("sample_spans", "ordered_samples", "call_paths", "tree"),
    compute,
    COLUMNS,
)
