"""How all requests together changed: the figures that a report begins with."""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.analysis.comparison.contrast import Contrast, Part
from perfkit.analysis.comparison.differences import Cells, Figure, Floats, judged
from perfkit.analysis.vector.percentiles import quantiles

LEVELS = {"p50_ns": 0.5, "p95_ns": 0.95, "p99_ns": 0.99}
_FEWEST = {"p50_ns": 5, "p95_ns": 20, "p99_ns": 100, "error_ratio": 5}
"""A run with fewer requests than this says nothing about that figure: a percentile needs one
request beyond it."""


def headline(contrast: Contrast) -> pl.DataFrame:
    """Return one row a figure (`differences.COLUMNS`): p50, p95, p99, error ratio and rate."""

    def read(part: Part) -> pl.DataFrame:
        requests = part.tables.frame("requests").filter("entry")
        return requests.select(
            service=pl.lit(None, dtype=pl.String),
            name=pl.lit("all requests"),
            detail=pl.lit(None, dtype=pl.String),
            run=pl.Series(part.run_of_row[requests["request_row"].to_numpy()]),
            duration=pl.col("duration_ns"),
            failed=(pl.col("status") == "error").fill_null(False),
            weight="adjusted_count",
        )

    cells = Cells.read(contrast, read)
    weight = cells.column("weight")
    count = cells.sums(weight)
    seen = cells.sums(np.ones(len(weight)))
    marks = quantiles(
        cells.cell,
        cells.column("duration").astype(np.int64),
        weight,
        cells.size,
        list(LEVELS.values()),
    )
    figures = {name: marks[:, place] for place, name in enumerate(LEVELS)}
    failed = cells.sums(weight * cells.column("failed"))
    figures["error_ratio"] = np.divide(
        failed, count, out=np.full(cells.size, np.nan), where=count > 0
    )
    judged_figures = [
        Figure(
            measure,
            cells.grid(np.where(seen >= _FEWEST[measure], values, np.nan)),
            share=measure == "error_ratio",
        )
        for measure, values in figures.items()
    ]
    judged_figures.append(Figure("rate_per_s", cells.grid(count) / _seconds(contrast)))
    return judged(contrast, "all", cells.things, judged_figures)


def _seconds(contrast: Contrast) -> Floats:
    """Return how long each run is; NaN where a side is not made of stretches of time."""
    seconds = np.full(contrast.runs, np.nan)
    for part in contrast.parts:
        for stretch in part.times:
            runs = slice(stretch.first_run, stretch.first_run + stretch.blocks)
            seconds[runs] = stretch.width_ns / 1e9
    return seconds
