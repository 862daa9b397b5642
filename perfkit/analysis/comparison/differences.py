"""What differs between two sides: endpoints, components, queries, resources, one row a figure.

Every figure is computed for each run; the runs are tested. Times and counts are per request, so
that a longer or busier run is no change. All counts and sums use `adjusted_count`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from perfkit.analysis.comparison.contrast import Contrast, Part
from perfkit.analysis.series.metric_stats import measured
from perfkit.analysis.statistics.memory import memory
from perfkit.analysis.statistics.significance import (
    MINIMUM_EFFECT,
    Change,
    adjusted,
    compare_runs,
    verdict,
)
from perfkit.analysis.vector.forest import Ints
from perfkit.analysis.vector.percentiles import codes, quantiles
from perfkit.analysis.vector.summary import summed

Floats = NDArray[np.float64]

MINIMUM_RATIO = 0.01
"""A share (of failed requests, say) has to change by one point in a hundred to be reported."""

FEWEST = {"p50_ns": 5, "mean_ns": 5, "p95_ns": 20, "error_ratio": 5}
"""A run with fewer requests than this says nothing about that figure of an endpoint."""

_LEVELS = {"p50_ns": 0.5, "p95_ns": 0.95}

FEWEST_SHARE = 0.01
"""Components and queries with less than a hundredth of the time of both sides together are not
tested: they could explain nothing, and each test makes all others less sure. Choosing by the sum of
both sides favours neither (Bourgon et al. 2010, PNAS 107)."""

SCHEMA: dict[str, pl.DataType] = {
    "kind": pl.String(),
    "service": pl.String(),
    "name": pl.String(),
    "detail": pl.String(),
    "measure": pl.String(),
    "before": pl.Float64(),
    "after": pl.Float64(),
    "change": pl.Float64(),
    "low": pl.Float64(),
    "high": pl.Float64(),
    "relative": pl.Boolean(),
    "p": pl.Float64(),
    "p_adjusted": pl.Float64(),
    "verdict": pl.String(),
    "unit": pl.String(),
    "runs_before": pl.Int64(),
    "runs_after": pl.Int64(),
}

COLUMNS = {
    "kind": "`endpoint`, `tool`, `component`, `query` or `resource`",
    "service": "service; null for the host",
    "name": "the endpoint, tool, component, statement or metric",
    "detail": "category of a component, id of a query, attributes of a metric",
    "measure": "which figure: a percentile, `mean_ns`, `error_ratio`; `critical_ns`, `calls` and "
    "`total_ns` are per request; `value` of a metric",
    "before": "mean over the runs of the one side (geometric where the change is a factor)",
    "after": "the same of the other side",
    "change": "change, relative to `before` or, where `relative` is false, in the figure's unit",
    "low": "lower end of the confidence interval of the change",
    "high": "upper end of it",
    "relative": "whether change, low and high are relative",
    "p": "two-sided p of Welch's test over runs; null when there were too few",
    "p_adjusted": "that, corrected for the number of tests of this kind (Benjamini–Hochberg)",
    "verdict": "`grew`, `shrank`, `no evidence` or `not tested`",
    "unit": "unit of a metric (UCUM), `/s` behind that of a rate; null for what the measure says",
    "runs_before": "runs (or blocks of time) of the one side in which the figure is known",
    "runs_after": "the same of the other side",
}

_KEYS = ("service", "name", "detail")
_OF_REQUEST = (
    *("request_row", "entry", "service", "endpoint", "tool"),
    *("duration_ns", "status", "adjusted_count"),
)
_OF_COMPONENT = ("critical", "calls", "failed")
_OF_SPAN = ("service", "component", "category", "status", "duplicate", "adjusted_count")


class Figure(NamedTuple):
    """One figure of several things: a row each, a column a run, NaN where it is not known."""

    measure: str
    values: Floats
    share: bool = False
    """Whether it is a share of something: changes are then differences, not factors."""


def endpoints(contrast: Contrast) -> pl.DataFrame:
    """Return percentiles, mean and errors of every endpoint."""
    return _latencies(contrast, "endpoint", pl.lit(True), pl.col("endpoint"), pl.col("service"))


def tools(contrast: Contrast) -> pl.DataFrame:
    """Return percentiles, mean and errors of the requests (entries) to every tool."""
    with_tool = pl.col("entry") & pl.col("tool").is_not_null()
    return _latencies(contrast, "tool", with_tool, pl.col("tool"), pl.lit(None, dtype=pl.String))


def _latencies(
    contrast: Contrast, kind: str, of: pl.Expr, name: pl.Expr, service: pl.Expr
) -> pl.DataFrame:
    def read(part: Part) -> pl.DataFrame:
        requests = part.tables.columns("requests", *_OF_REQUEST).filter(of)
        return requests.select(
            service=service,
            name=name,
            detail=pl.lit(None, dtype=pl.String),
            run=pl.Series(part.run_of_row[requests["request_row"].to_numpy()]),
            duration=pl.col("duration_ns"),
            failed=(pl.col("status") == "error").fill_null(False),
            weight="adjusted_count",
        )

    cells = Cells.read(contrast, read)
    weight, duration = cells.column("weight"), cells.column("duration")
    count = cells.sums(weight)
    requests = cells.sums(np.ones(len(weight)))
    marks = quantiles(
        cells.cell, duration.astype(np.int64), weight, cells.size, list(_LEVELS.values())
    )
    figures = {name: marks[:, place] for place, name in enumerate(_LEVELS)}
    figures["mean_ns"] = _divide(cells.sums(weight * duration), count)
    figures["error_ratio"] = _divide(cells.sums(weight * cells.column("failed")), count)
    return judged(
        contrast,
        kind,
        cells.things,
        [
            Figure(
                measure,
                cells.grid(np.where(requests >= FEWEST[measure], values, np.nan)),
                share=measure == "error_ratio",
            )
            for measure, values in figures.items()
        ],
    )


def components(contrast: Contrast) -> pl.DataFrame:
    """Return time on the critical path, calls and errors of every component.

    The critical times of all components add up to the mean length of a request, so their changes
    add up to its change.
    """

    def read(part: Part) -> pl.DataFrame:
        weight = pl.col("adjusted_count")
        failed = (pl.col("status") == "error").fill_null(False)
        sums = []
        for rows, piece in part.pieces({"tree": _OF_SPAN, "span_times": ("critical_ns",)}):
            spans = piece.select(
                service="service",
                name="component",
                detail="category",
                run=pl.Series(part.run_of_row[rows]),
                critical=weight * pl.col("critical_ns"),
                calls=pl.when(~pl.col("duplicate")).then(weight).otherwise(0.0),
                failed=pl.when(failed & ~pl.col("duplicate")).then(weight).otherwise(0.0),
            )
            sums.append(summed(spans.filter(pl.col("run") >= 0), [*_KEYS, "run"], _OF_COMPONENT))
        return pl.concat(sums)

    cells = Cells.read(contrast, read)
    calls = cells.sums(cells.column("calls"))
    per_request = _per_request(contrast)
    figures = [
        Figure("critical_ns", cells.grid(cells.sums(cells.column("critical")))),
        Figure("calls", cells.grid(calls)),
    ]
    figures = [one._replace(values=one.values * per_request) for one in figures]
    errors = _divide(cells.sums(cells.column("failed")), calls)
    enough = np.where(calls >= FEWEST["error_ratio"], errors, np.nan)
    figures.append(Figure("error_ratio", cells.grid(enough), share=True))
    return judged(contrast, "component", cells.things, figures, _worth(figures[0].values))


def queries(contrast: Contrast) -> pl.DataFrame:
    """Return calls, total and mean time of every query."""

    def read(part: Part) -> pl.DataFrame:
        calls = part.tables.columns("query_calls", "row", "statement", "query_id")
        row = calls["row"].to_numpy()
        spans = part.tables.picked("tree", row, "duration_ns", "adjusted_count")
        return calls.select(
            service=pl.lit(None, dtype=pl.String),
            name="statement",
            detail="query_id",
            run=pl.Series(part.run_of_row[row]),
            duration=spans["duration_ns"],
            weight=spans["adjusted_count"],
        )

    cells = Cells.read(contrast, read)
    weight = cells.column("weight")
    calls, total = cells.sums(weight), cells.sums(weight * cells.column("duration"))
    per_request = _per_request(contrast)
    figures = [
        Figure("total_ns", cells.grid(total) * per_request),
        Figure("calls", cells.grid(calls) * per_request),
        Figure("mean_ns", cells.grid(_divide(total, calls))),
    ]
    return judged(contrast, "query", cells.things, figures, _worth(figures[0].values))


def resources(contrast: Contrast) -> pl.DataFrame:
    """Return the mean of every metric; nothing where sides are not told apart by time."""

    def read(part: Part) -> pl.DataFrame:
        points = measured(part.tables["metrics"]).collect()
        return points.select(
            service="service",
            name="name",
            detail="attributes",
            run=part.run_of_time(points["ts_ns"]).fill_null(-1),
            value="measured",
            unit=pl.when(pl.col("measure") == "rate").then(pl.col("unit") + "/s").otherwise("unit"),
        )

    cells = Cells.read(contrast, read)
    value = cells.column("value")
    mean = _divide(cells.sums(value), cells.sums(np.ones(len(value))))
    found = judged(contrast, "resource", cells.things, [Figure("value", cells.grid(mean))])
    unit = cells.rows.select(*_KEYS, "unit").unique(_KEYS, keep="first", maintain_order=True)
    return (
        found.drop("unit")
        .join(unit, on=_KEYS, how="left", nulls_equal=True, maintain_order="left")
        .select(list(SCHEMA))
    )


class Cells(NamedTuple):
    """Rows of both sides, each in the cell of its thing (by `_KEYS`) and its run."""

    rows: pl.DataFrame
    things: pl.DataFrame
    cell: Ints
    runs: int

    @classmethod
    def read(
        cls,
        contrast: Contrast,
        read: Callable[[Part], pl.DataFrame],
        keys: Sequence[str] = _KEYS,
    ) -> Cells:
        """Read every part: a frame with the keys and `run` (negative: on neither side)."""
        rows = pl.concat(read(part).filter(pl.col("run") >= 0) for part in contrast.parts)
        code, things = codes(rows, keys)
        return cls(rows, things, code * contrast.runs + rows["run"].to_numpy(), contrast.runs)

    @property
    def size(self) -> int:
        """Number of cells."""
        return self.things.height * self.runs

    def column(self, name: str) -> Floats:
        """Return a column of the rows as numbers."""
        return self.rows[name].cast(pl.Float64).to_numpy()

    def sums(self, values: Floats) -> Floats:
        """Return the sum of each cell."""
        return np.bincount(self.cell, values, self.size).astype(np.float64)

    def grid(self, values: Floats) -> Floats:
        """Return values of cells as a row a thing and a column a run."""
        return values.reshape(self.things.height, self.runs)


def judged(
    contrast: Contrast,
    kind: str,
    things: pl.DataFrame,
    figures: Sequence[Figure],
    worth: NDArray[np.bool_] | None = None,
) -> pl.DataFrame:
    """Test every figure of the things that are worth it; corrected for the tests of this kind."""
    rows, changes = [], []
    correlation = resemblance(
        contrast,
        [figure.values if worth is None else figure.values[worth] for figure in figures],
    )
    for figure in figures:
        before, after = contrast.split(figure.values)
        for number, (thing, one, other) in enumerate(
            zip(things.iter_rows(), before, after, strict=True)
        ):
            change = compare_runs(one, other, relative=not figure.share, correlation=correlation)
            if worth is not None and not worth[number]:
                change = change._replace(low=math.nan, high=math.nan, p=math.nan)
            seen = [int(np.isfinite(side).sum()) for side in (one, other)]
            changes.append(change)
            rows.append((kind, *thing, figure.measure, *change, *seen))
    order = ["kind", *_KEYS, "measure", *Change._fields, "runs_before", "runs_after"]
    frame = pl.DataFrame(rows, schema={name: SCHEMA[name] for name in order}, orient="row")
    p = adjusted(frame["p"].cast(pl.Float64).to_numpy(), "benjamini-hochberg")
    verdicts = [
        verdict(change, one, minimum_effect=MINIMUM_EFFECT if change.relative else MINIMUM_RATIO)
        for change, one in zip(changes, p, strict=True)
    ]
    return (
        frame.with_columns(
            p_adjusted=pl.Series(p),
            verdict=pl.Series(verdicts, dtype=pl.String),
            unit=pl.lit(None, dtype=pl.String),
        )
        .select(list(SCHEMA))
        .with_columns(pl.col(pl.Float64).fill_nan(None))
    )


def resemblance(contrast: Contrast, grids: Sequence[Floats]) -> float:
    """Return how much blocks of time resemble the one before; 0 where runs are captures.

    Each grid has a row a thing and a column a run; figures above 0 count by their logarithm, as
    they are tested.
    """
    if contrast.unit == "run":
        return 0.0
    series = [row for grid in grids for side in contrast.split(grid) for row in side]
    return memory([np.log(row) if not (row <= 0).any() else row for row in series])


def _worth(time: Floats) -> NDArray[np.bool_]:
    """Return which things have their share of the time in all runs."""
    total = np.nansum(time, axis=1)
    worth: NDArray[np.bool_] = total >= FEWEST_SHARE * total.sum()
    return worth


def request_weight(contrast: Contrast) -> Floats:
    """Return how many requests each run has."""
    entries = contrast.entries()
    return np.bincount(
        entries["run"].to_numpy(), entries["adjusted_count"].to_numpy(), contrast.runs
    ).astype(np.float64)


def _per_request(contrast: Contrast) -> Floats:
    weight = request_weight(contrast)
    return _divide(np.ones(len(weight)), weight)


def _divide(values: Floats, by: Floats) -> Floats:
    result: Floats = np.divide(values, by, out=np.full(len(values), np.nan), where=by > 0)
    return result
