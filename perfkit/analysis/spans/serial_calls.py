"""The table `serial_calls`: calls under one span that ran one after the other."""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.spans.tree import waiting_parents_of
from perfkit.analysis.vector.forest import Ints
from perfkit.analysis.vector.order import stable_order
from perfkit.analysis.vector.overlaps import overlapping_earlier, runs

_CALLING = ("client", "tool", "database")
_NAMES = 20
_READ = (
    *("parent_row", "detached", "category", "entry_row", "tool", "name"),
    *("start_ns", "end_ns", "duration_ns", "entry_endpoint", "entry_tool"),
)


def compute(tables: Tables) -> pl.DataFrame:
    """Return one row a run of at least two sibling calls of which none overlaps an earlier one."""
    tree = tables.columns("tree", *_READ)
    parent = waiting_parents_of(tree)
    calling = tree["category"].is_in(_CALLING) & tree["entry_row"].is_not_null()
    row = np.flatnonzero(calling.to_numpy() & (parent >= 0))
    # A span of the tool that its parent is of is a phase of that call, not another call.
    tools = tree["tool"]
    phase = (tools.gather(row) == tools.gather(parent[row])).fill_null(False).to_numpy()
    row = row[~phase]
    row = row[stable_order(parent[row])]  # siblings are in order of start already
    above = parent[row]
    start, end = tree["start_ns"].to_numpy()[row], tree["end_ns"].to_numpy()[row]
    # A new run begins where the parent changes or a call overlaps an earlier one.
    new = overlapping_earlier(above, start, end)
    new[runs(above)[0]] = True
    size = np.diff(np.append(np.flatnonzero(new), len(row)))
    several = np.repeat(size > 1, size)
    row, start, end, size = row[several], start[several], end[several], size[size > 1]
    first, run = np.cumsum(size) - size, np.repeat(np.arange(len(size)), size)
    parents, entries = parent[row[first]], tree["entry_row"].gather(row[first])
    duration = tree["duration_ns"].to_numpy()[row]
    total, longest = np.add.reduceat(duration, first), np.maximum.reduceat(duration, first)
    extent = np.maximum.reduceat(end, first) - start[first]
    gap = start - np.append(start[:1], end[:-1])
    gap[first] = np.iinfo(np.int64).min
    of_entry: pl.DataFrame = tree.select("entry_endpoint", "entry_tool")[entries]
    return (
        pl.DataFrame(
            {
                "entry_row": entries,
                "parent_row": parents,
                "parent_name": tree["name"].gather(parents),
                "calls": size,
                "rows": _listed(pl.Series(row), run, len(size)),
                "names": _names(tree["name"].gather(row), run, len(size)),
                "sum_ns": total,
                "max_ns": longest,
                "saved_ns": total - longest,
                "gap_ns": extent - total,
                "max_gap_ns": np.maximum.reduceat(gap, first),
            }
        )
        .hstack(of_entry)
        .select(*_COLUMNS)
    )


def _names(names: pl.Series, run: Ints, runs: int) -> pl.Series:
    """Return the distinct names of the calls of each run, in order of appearance."""
    # Names are told apart by a 64-bit hash, as in `codes`.
    keys = names.hash(seed=0).to_numpy() + run.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    first = pl.Series(keys).is_first_distinct() & names.is_not_null()
    names, run = names.filter(first), run[first.to_numpy()]
    number = np.arange(len(run)) - np.searchsorted(run, run)
    some = number < _NAMES
    return _listed(names.filter(pl.Series(some)), run[some], runs)


def _listed(values: pl.Series, run: Ints, runs: int) -> pl.Series:
    """Return the values of each run, 0 to `runs` - 1, as a list; none is an empty list."""
    size = np.bincount(run, minlength=runs)
    lists = pl.DataFrame({"values": values, "run": run})
    found = lists.group_by("run", maintain_order=True).agg("values")["values"]
    if (size > 0).all():
        return found
    places = pl.Series(np.where(size > 0, np.cumsum(size > 0) - 1, len(found)))
    return pl.concat([found, pl.Series([[]], dtype=found.dtype)]).gather(places)


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
