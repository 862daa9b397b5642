"""How much of a kind of request goes into a module: `modules_by_entry`.

Of all CPU time of a program a module may be little, and of the requests of one endpoint most.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.analysis.code.call_paths import CallPaths, importing
from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.vector.forest import Ints
from perfkit.analysis.vector.percentiles import codes

_KIND = ("entry_endpoint", "entry_tool")
_CALLER = ("caller", "caller_file", "caller_module")
_RESTING = ("select", "worker", "queue", "condition", "io", "pool")
"""Roles of an innermost frame in which a thread that did not run waited for something else."""
_LEAST = 0.05
"""Ours: a module of less than this part of what was seen of its kind is not told."""
_BITS = 64
_AT_ONCE = 2_000_000
"""Rows that are added up at a time, to bound memory."""


def compute(tables: Tables) -> pl.DataFrame:
    """Return one row a kind of entry and module, those of most time first."""
    looks = _looks(tables)
    of_path = looks.group_by("kind", "path").agg(
        pl.col("duration_ns", "work_ns").sum(), samples=pl.col("works").sum().cast(pl.Int64)
    )
    working = of_path.filter(pl.col("work_ns") > 0)
    if working.is_empty():
        return pl.DataFrame(schema=_SCHEMA)
    paths = tables.frame("call_paths")
    module, modules = codes(paths, ["module"])
    caller, callers = codes(paths, ["function", "file", "module"])
    on_path = _modules(paths, module, caller, working["path"].unique().to_numpy())
    if on_path.is_empty():
        return pl.DataFrame(schema=_SCHEMA)
    entries = looks.group_by("entry_row").agg(pl.col("kind").first())
    told = (
        _sums(working, on_path)
        .join(of_path.group_by("kind").agg(seen_ns=pl.col("duration_ns").sum()), on="kind")
        .filter(pl.col("duration_ns") >= _LEAST * pl.col("seen_ns"))
    )
    if told.is_empty():
        return pl.DataFrame(schema=_SCHEMA)
    on_path = on_path.join(told, on="number", how="semi")
    told = (
        told.join(_requests(looks.filter("works"), on_path), on=["kind", "number"])
        .join(entries.group_by("kind").agg(seen_requests=pl.len().cast(pl.Int64)), on="kind")
        .join(_entries(tables), on="kind")
        .sort("duration_ns", "kind", "number", descending=[True, False, False])
    )
    called = callers[told["caller"].clip(0)].rename(
        dict(zip(callers.columns, _CALLER, strict=True))
    )
    return (
        told.rename({"caller": "known"})
        .with_columns(modules["module"].gather(told["number"]), *called)
        .with_columns(pl.when(pl.col("known") >= 0).then(pl.col(*_CALLER)))
        .select(*COLUMNS)
    )


def _looks(tables: Tables) -> pl.DataFrame:
    """Return one row a part of a sample in an entry: `entry_row`, its `kind`, `path`,
    `duration_ns`, `works` (it was no wait for something else), and `work_ns`."""
    samples, paths = tables.frame("ordered_samples"), tables.frame("call_paths")
    parts = tables.frame("sample_spans").select("sample_row", "entry_row", "duration_ns")
    parts = parts.drop_nulls(["entry_row", "duration_ns"])
    place = parts["sample_row"]
    path = samples["path"].gather(place)
    rests = paths["role"].is_in(_RESTING).fill_null(False).gather(path)
    ran = (samples["state"].gather(place) == "running").fill_null(False)
    if parts.is_empty():  # then there is no need to read of all spans what they are called
        kind = np.zeros(0, dtype=np.int64)
    else:
        kind, _ = codes(tables.columns("tree", *_KIND), _KIND)
    return (
        parts.with_columns(
            path=path.cast(pl.Int64), works=~rests | ran, kind=kind[parts["entry_row"].to_numpy()]
        )
        .drop_nulls("path")
        .select(
            *("entry_row", "kind", "path", "duration_ns", "works"),
            work_ns=pl.when("works").then("duration_ns").otherwise(0),
        )
    )


def _modules(paths: pl.DataFrame, module: Ints, caller: Ints, used: Ints) -> pl.DataFrame:
    """Return for each path the modules on it: `path`, the module's `number`, and `caller`, the
    number of the frame above the outermost frame of the module, or -1.

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
        found.with_columns(number=module[found["node"].to_numpy()])
        .group_by("path", "number")
        .agg(pl.col("node").min())
    )
    above = tree.parent[found["node"].to_numpy()]
    return found.select("path", "number", caller=np.where(above >= 0, caller[above], -1))


def _sums(working: pl.DataFrame, on_path: pl.DataFrame) -> pl.DataFrame:
    """Return `kind`, module `number`, `duration_ns`, `samples` and the `caller` of most time."""
    on_each = on_path.group_by("path").agg(modules=pl.len())
    piece = pl.col("modules").cum_sum() // _AT_ONCE
    pieces = (
        working.join(on_each, on="path")
        .sort("kind", "path")
        .with_columns(piece=piece.first().over("kind"))
        .partition_by("piece", include_key=False)
    )
    return pl.concat(_summed(one.join(on_path, on="path")) for one in pieces)


def _summed(rows: pl.DataFrame) -> pl.DataFrame:
    by_caller = rows.group_by("kind", "number", "caller").agg(
        duration_ns=pl.col("work_ns").sum(), samples=pl.col("samples").sum()
    )
    return (
        by_caller.sort("duration_ns", "caller", descending=True)
        .group_by("kind", "number")
        .agg(pl.col("duration_ns", "samples").sum(), pl.col("caller").first())
    )


def _requests(looks: pl.DataFrame, on_path: pl.DataFrame) -> pl.DataFrame:
    """Return `kind`, module `number` and in how many `requests` of that kind it was seen.

    A bit a module says which are on a path; those of an entry are what any of its paths has.
    """
    looks = looks.sort("entry_row")
    begins = looks.select(pl.col("entry_row").rle_id().diff().fill_null(1) > 0).to_series()
    first = np.flatnonzero(begins.to_numpy())
    kind = looks["kind"].to_numpy()[first]
    path = looks["path"].to_numpy()
    numbers = on_path["number"].unique().sort()
    bit = numbers.search_sorted(on_path["number"]).cast(pl.Int64).to_numpy()
    counts = []
    for start in range(0, len(numbers), _BITS):
        mine = (bit >= start) & (bit < start + _BITS)
        words = np.zeros(int(path.max()) + 1, dtype=np.uint64)
        where = on_path["path"].to_numpy()[mine]
        inside = where < len(words)
        flags = np.left_shift(np.uint64(1), (bit[mine] - start).astype(np.uint64))
        np.bitwise_or.at(words, where[inside], flags[inside])
        of_entry = np.bitwise_or.reduceat(words[path], first)
        for place, number in enumerate(numbers[start : start + _BITS]):
            has = np.right_shift(of_entry, np.uint64(place)) & np.uint64(1) > 0
            found, requests = np.unique(kind[has], return_counts=True)
            counts.append(pl.DataFrame({"kind": found, "requests": requests, "number": number}))
    return pl.concat(counts)


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
    "module": "a module that was on the stack, for a twentieth of `seen_ns` or more; not while it "
    "was imported",
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
