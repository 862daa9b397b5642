"""The table `serial_calls`: calls under one span that ran one after the other."""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.spans.tree import waiting_parents_of
from perfkit.analysis.vector.overlaps import overlapping_earlier, runs

_CALLING = ("client", "tool", "database")
_NAMES = 20


def compute(tables: Tables) -> pl.DataFrame:
    """Return one row a run of at least two sibling calls of which none overlaps an earlier one."""
    tree = tables.frame("tree")
    parent = waiting_parents_of(tree)
    calling = tree["category"].is_in(_CALLING) & tree["entry_row"].is_not_null()
    row = np.flatnonzero(calling.to_numpy() & (parent >= 0))
    # A span of the tool that its parent is of is a phase of that call, not another call.
    tools = tree["tool"]
    phase = (tools.gather(row) == tools.gather(parent[row])).fill_null(False).to_numpy()
    row = row[~phase]
    row = row[np.argsort(parent[row], kind="stable")]  # siblings are in order of start already
    above = parent[row]
    calls = tree.select("name", "start_ns", "end_ns", "duration_ns", "entry_row")[row]
    calls = calls.with_columns(row=pl.Series(row), parent_row=pl.Series(above))
    calls = calls.with_columns(group=_run_ids(calls))
    groups: pl.DataFrame = (
        calls.lazy()
        .group_by("group", maintain_order=True)
        .agg(
            pl.col("entry_row", "parent_row").first(),
            calls=pl.len().cast(pl.Int64),
            rows="row",
            names=pl.col("name").drop_nulls().unique(maintain_order=True).head(_NAMES),
            sum_ns=pl.col("duration_ns").sum(),
            max_ns=pl.col("duration_ns").max(),
            extent_ns=pl.col("end_ns").max() - pl.col("start_ns").min(),
            max_gap_ns=(pl.col("start_ns") - pl.col("end_ns").shift(1)).max(),
        )
        .filter(pl.col("calls") > 1)
        .collect()
    )
    of_entry: pl.DataFrame = tree.select("entry_endpoint", "entry_tool")[groups["entry_row"]]
    return groups.with_columns(
        of_entry,
        parent_name=tree["name"].gather(groups["parent_row"]),
        saved_ns=pl.col("sum_ns") - pl.col("max_ns"),
        gap_ns=pl.col("extent_ns") - pl.col("sum_ns"),
    ).select(*_COLUMNS)


def _run_ids(calls: pl.DataFrame) -> pl.Series:
    """Number the runs: a new one where the parent changes or a call overlaps an earlier one."""
    parent = calls["parent_row"].to_numpy()
    new = overlapping_earlier(parent, calls["start_ns"].to_numpy(), calls["end_ns"].to_numpy())
    new[runs(parent)[0]] = True
    return pl.Series(np.cumsum(new))


_COLUMNS = {
    "entry_row": "the entry, a row of `tree`",
    "parent_row": "the span under which they ran",
    "parent_name": "its name",
    "entry_endpoint": "endpoint of the entry",
    "entry_tool": "tool of the entry",
    "calls": "how many calls",
    "rows": "the calls, rows of `tree`",
    "names": f"their names without repeats, {_NAMES} at most",
    "sum_ns": "sum of their durations",
    "max_ns": "the longest",
    "saved_ns": "what would be gained at most if all ran side by side: sum minus longest",
    "gap_ns": "time between them",
    "max_gap_ns": "the longest time between one and the next",
}

DERIVED = Derived(
    "serial_calls",
    "calls under one span that ran one after the other, each after all earlier ones",
    ("tree",),
    compute,
    _COLUMNS,
)
