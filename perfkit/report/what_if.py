"""What request latencies would be if one operation or component took less time, by replay.

The page has a slider between the replayed steps. Each step is a replay of every request
(`perfkit/analysis/replay/what_if.py`), so that work beside something slower saves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from perfkit.analysis.replay.edits import scaled
from perfkit.analysis.replay.what_if import replay_all
from perfkit.analysis.session import Tables
from perfkit.analysis.vector.percentiles import codes, quantiles

MEASURES = ("mean", "p50", "p95", "p99")
_LEVELS = (0.5, 0.95, 0.99)
_STEPS = ((0.1, 0.25, 0.5, 0.75, 0.9, 1.0), (0.25, 0.5, 0.75, 1.0), (0.5, 1.0))
"""Which parts of the time are taken away: the first set that the budget has room for."""
_BUDGET = 8_000_000
"""Spans times replays: about a second."""
_ENDPOINTS = 8

Key = dict[str, Any]
"""Columns of `tree` and their value: what is made faster."""


@dataclass(frozen=True)
class Replays:
    """Latencies now and at each step, for all entries and for the endpoints with most time."""

    steps: tuple[float, ...]
    endpoints: list[str | None]
    """The groups: null is all entries."""
    values: list[npt.NDArray[np.float32]]
    """One a subject: (1 + steps) × groups × measures, flattened; the first is now."""

    def at(self, subject: int, step: int, group: int, measure: str) -> float:
        """Return one value in ns; step 0 is now."""
        place = (step * len(self.endpoints) + group) * len(MEASURES) + MEASURES.index(measure)
        return float(self.values[subject][place])


def run(tables: Tables, subjects: list[Key]) -> Replays:
    """Replay every subject at every step that there is time for."""
    of_entry = ("row", "endpoint", "duration_ns", "adjusted_count")
    entries = tables.where("tree", pl.col("entry_row") == pl.col("row"), *of_entry)
    total = pl.col("duration_ns") * pl.col("adjusted_count")
    busiest = (
        entries.drop_nulls("endpoint")
        .group_by("endpoint")
        .agg(total.sum().alias("total"))
        .sort("total", "endpoint", descending=[True, False])["endpoint"]
        .head(_ENDPOINTS)
        .to_list()
    )
    groups = _Groups(entries, busiest)
    steps = _steps(int(tables.cuts()[-1]), len(subjects))
    values = []
    now = groups.summary(entries["duration_ns"])
    for key in subjects:
        chosen = pl.all_horizontal(pl.col(name).eq_missing(value) for name, value in key.items())
        rows = tables.where("tree", chosen, "row")["row"].to_numpy()
        played = replay_all(tables, [scaled(rows, 1.0 - share) for share in steps])
        found = [now, *(groups.summary(one["after_ns"]) for one in played)]
        values.append(np.concatenate(found).astype(np.float32))
    return Replays(steps, [None, *busiest], values)


def fitting(spans: int) -> int:
    """Return how many subjects the budget has room for, at the fewest steps."""
    return max(1, _BUDGET // max(spans, 1) // len(_STEPS[-1]))


def _steps(spans: int, subjects: int) -> tuple[float, ...]:
    for steps in _STEPS:
        if spans * subjects * len(steps) <= _BUDGET:
            return steps
    return _STEPS[-1]


class _Groups:
    """Which entries each group has; replays list the entries in the order of `tree`."""

    def __init__(self, entries: pl.DataFrame, endpoints: list[str]) -> None:
        self._weight = entries["adjusted_count"].to_numpy()
        code, names = codes(entries, ["endpoint"])
        place = {name: at for at, name in enumerate(names["endpoint"].to_list())}
        every = np.arange(entries.height)
        self._members = [every, *(np.flatnonzero(code == place[name]) for name in endpoints)]

    def summary(self, durations: pl.Series) -> npt.NDArray[np.float64]:
        """Return the measures of all entries, then of each endpoint, flattened."""
        after = durations.to_numpy()
        return np.concatenate(
            [_measures(after[rows], self._weight[rows]) for rows in self._members]
        )


def _measures(values: npt.NDArray[Any], weight: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    mean = (values * weight).sum() / weight.sum() if weight.sum() > 0 else np.nan
    marks = quantiles(np.zeros(len(values), dtype=np.int64), values, weight, 1, list(_LEVELS))[0]
    return np.append(mean, marks)
