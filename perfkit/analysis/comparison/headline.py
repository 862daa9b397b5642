"""How all requests together changed: the figures that a report begins with."""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.analysis.comparison.contrast import Contrast, Part
from perfkit.analysis.comparison.differences import SCHEMA, Cells, Figure, Floats, judged
from perfkit.analysis.vector.percentiles import quantiles

LEVELS = {"p50_ns": 0.5, "p95_ns": 0.95, "p99_ns": 0.99}
_FEWEST = {"p50_ns": 5, "p95_ns": 20, "p99_ns": 100, "error_ratio": 5}
"""A run with fewer requests than this says nothing about that figure: a percentile needs one
request beyond it."""


RESOURCES = {
    "cpu_ratio": pl.col("cpu_ratio").mean(),
    "host_cpu_ratio": pl.col("host_cpu_ratio").mean(),
    "rss_bytes": pl.col("rss_bytes").max(),
}
"""What is compared of the table `timeline` in each run, and said of each whole side."""


_OF_REQUEST = ("request_row", "entry", "duration_ns", "status", "adjusted_count")


def headline(contrast: Contrast) -> pl.DataFrame:
    """Return one row a figure (`differences.COLUMNS`).

    p50, p95, p99, error ratio and rate of all requests; mean CPU and highest memory. A percentile
    for which no run has enough requests is that of the whole side, and not tested.
    """
    return pl.concat([_of_requests(contrast), _of_resources(contrast)])


def _of_requests(contrast: Contrast) -> pl.DataFrame:

    def read(part: Part) -> pl.DataFrame:
        requests = part.tables.columns("requests", *_OF_REQUEST).filter("entry")
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
    found = judged(contrast, "all", cells.things, judged_figures)
    return _completed(found, contrast, cells)


def _completed(found: pl.DataFrame, contrast: Contrast, cells: Cells) -> pl.DataFrame:
    """Put percentiles of whole sides where a side has none of any run."""
    side = contrast.side_of_run[cells.cell % max(cells.runs, 1)]
    duration, weight = cells.column("duration").astype(np.int64), cells.column("weight")
    marks = quantiles(side, duration, weight, 2, list(LEVELS.values()))
    seen = np.bincount(side, minlength=2)
    rows = found.to_dicts()
    for row in rows:
        if row["measure"] not in LEVELS or None not in (row["before"], row["after"]):
            continue
        if (seen < _FEWEST[row["measure"]]).any():
            continue
        before, after = marks[:, list(LEVELS).index(row["measure"])].tolist()
        row |= {"before": before, "after": after, "low": None, "high": None, "p": None}
        row |= {"change": after / before - 1 if before else None, "relative": True}
    return pl.DataFrame(rows, schema=found.schema)


def _of_resources(contrast: Contrast) -> pl.DataFrame:
    """Test by runs; what is said is of each whole side, for a peak is no mean of peaks."""
    seen = []
    for part in contrast.parts:
        timeline = part.tables.frame("timeline")
        middle = timeline["bucket_ns"] + timeline["bucket_width_ns"] // 2
        run = part.run_of_time(middle).fill_null(-1)
        seen.append(timeline.select("cpu_ratio", "host_cpu_ratio", "rss_bytes", run=run))
    rows = pl.concat(seen, how="vertical_relaxed").filter(pl.col("run") >= 0)
    runs = rows.group_by("run").agg(**RESOURCES)
    side = pl.Series(contrast.side_of_run[rows["run"].to_numpy()])
    whole = rows.group_by(side=side).agg(**RESOURCES).rows_by_key("side", named=True, unique=True)
    grids = {name: np.full((1, contrast.runs), np.nan) for name in RESOURCES}
    for name, grid in grids.items():
        known = runs.filter(pl.col(name).is_not_null())
        grid[0, known["run"].to_numpy()] = known[name].cast(pl.Float64).to_numpy()
    things = pl.DataFrame(
        {"service": [None], "name": ["all requests"], "detail": [None]},
        schema=dict.fromkeys(("service", "name", "detail"), pl.String),
    )
    figures = [Figure(name, grid, share=name != "rss_bytes") for name, grid in grids.items()]
    found = judged(contrast, "all", things, figures).to_dicts()
    for row in found:
        before, after = (whole.get(number, {}).get(row["measure"]) for number in (0, 1))
        if before is None or after is None or row["before"] is None or row["after"] is None:
            continue
        factor = after / before - 1 if before else None
        row |= {"before": float(before), "after": float(after)}
        row["change"] = factor if row["relative"] else float(after - before)
    return pl.DataFrame(found, schema=SCHEMA)


def _seconds(contrast: Contrast) -> Floats:
    """Return how long each run is; NaN where a side is not made of stretches of time."""
    seconds = np.full(contrast.runs, np.nan)
    for part in contrast.parts:
        for stretch in part.times:
            runs = slice(stretch.first_run, stretch.first_run + stretch.blocks)
            seconds[runs] = stretch.width_ns / 1e9
    return seconds
