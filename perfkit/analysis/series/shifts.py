"""When a series left its baseline, and which requests suffered: `trends` and `shifts`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import polars as pl

from perfkit.analysis.series import sufferers
from perfkit.analysis.series.time_series import KEY, KEY_DOCS
from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.statistics.baselines import Baseline, Scaled, baseline, scaled
from perfkit.analysis.statistics.drift import drift_p
from perfkit.analysis.statistics.error_runs import find_error_runs
from perfkit.analysis.statistics.shift_scan import MIN_POINTS, Floats, Run, find_runs
from perfkit.analysis.statistics.step_test import MAX_POINTS, find_steps, is_sure
from perfkit.analysis.statistics.trend import slope_per_s
from perfkit.analysis.vector.forest import Bools, Ints

_MIN_CHANGE = {"rate": 0.3, "errors": 1.0, "latency": 0.3, "resource": 0.2}
"""Relative changes below this are left out, however certain they are (our own choice)."""
_MIN_ERROR_RATIO = 0.02
_MIN_RATIO = 0.1
"""Metrics that are shares of 1 change by at least this much."""


class Series(NamedTuple):
    """One series without gaps."""

    key: dict[str, Any]
    width_ns: int
    start_ns: Ints
    values: Floats
    observations: Floats
    level: Floats | None
    """Of medians the means of logarithms, which are the surer the fewer there are in a bucket."""
    even: Scaled
    """Its values on a scale on which their noise is even."""
    baseline: Baseline


def compute_trends(tables: Tables) -> pl.DataFrame:
    """Return one row a series."""
    shifts = tables.frame("shifts")["series_id"].to_list()
    rows = [
        one.key
        | {
            "first_ns": int(one.start_ns[0]),
            "last_ns": int(one.start_ns[-1]) + one.width_ns,
            "bucket_width_ns": one.width_ns,
            "buckets": len(one.values),
            "typical": float(np.median(one.values)),
            "min": float(one.values.min()),
            "max": float(one.values.max()),
            "baseline": one.baseline.shape,
            "slope_per_s": slope_per_s(one.start_ns, one.values),
            "trend_p": trend_p(one),
            "shifts": shifts.count(one.key["series_id"]),
        }
        for one in tables.once(all_series)
    ]
    return pl.DataFrame(rows, schema=_TRENDS_SCHEMA)


def compute_shifts(tables: Tables) -> pl.DataFrame:
    """Return one row a shift, the clearest first."""
    series = tables.once(all_series)
    rows = [row for one in series for row in told(one, len(series))]
    if not rows:
        return pl.DataFrame(schema=_SHIFTS_SCHEMA)
    schema = {name: dtype for name, dtype in _SHIFTS_SCHEMA.items() if name in rows[0]}
    shifts = pl.DataFrame(rows, schema=schema).sort(
        "score", "series_id", "start_ns", descending=[True, False, False]
    )
    return _with_sufferers(shifts, tables).select(list(SHIFT_COLUMNS))


def all_series(tables: Tables) -> list[Series]:
    """Return the series that are long enough, without their gaps, with their baselines."""
    series = tables.frame("series").drop_nulls("value")
    return [
        _prepared(part)
        for part in series.partition_by("series_id", maintain_order=True)
        if part.height >= MIN_POINTS
    ]


def _prepared(part: pl.DataFrame) -> Series:
    key = part.select(KEY).row(0, named=True)
    width_ns = int(part["bucket_width_ns"][0])
    start = part["bucket_ns"].to_numpy()
    values, observations = part["value"].to_numpy(), part["observations"].to_numpy()
    scale = scaled(key["kind"], values, observations, width_ns)
    expected = baseline(start + width_ns // 2, scale.values)
    level = part["log_mean"].to_numpy() if part["log_mean"].null_count() == 0 else None
    return Series(key, width_ns, start, values, observations, level, scale, expected)


def trend_p(one: Series) -> float | None:
    """Return the p of "it drifts nowhere"; None where the series is short."""
    # A day's course goes nowhere itself, but may hide what does.
    drifts = one.baseline.shape == "drift"
    # Logarithms both: means of them vary less than medians do.
    even = one.even.values if one.level is None else one.level
    along = one.baseline.course if drifts else (one.start_ns - one.start_ns[0]) / 1e9
    left = even - one.baseline.course if one.baseline.shape == "daily" else even
    return drift_p(left, along)


def told(one: Series, together: int) -> list[dict[str, Any]]:
    """Return the runs of a series, one of so many, that are large enough to be told."""
    runs, base = _runs(one, together)
    normal = np.ones(len(one.values), dtype=np.bool_)
    for run in runs:
        normal[run.first : run.last + 1] = False
    rows = [_row(one, run, base, normal) for run in runs] if normal.any() else []
    return [row for row in rows if _matters(one.key, row["expected"], row["mean"])]


def _runs(one: Series, together: int) -> tuple[list[Run], float]:
    """Return the runs of a series, and its level on the even scale apart from its course."""
    if one.key["kind"] == "errors" and one.baseline.shape == "level":
        errors = one.values * one.observations
        return find_error_runs(one.observations, errors, together), 0.0
    residual = one.even.values - one.baseline.course
    runs, noise = find_runs(residual, one.even.floor, together)
    if one.key["kind"] != "rate" and len(residual) <= MAX_POINTS:
        runs = [run for run in runs if _sure(one, run, runs, together)]
    if not runs and one.level is not None:
        runs = find_steps(one.level - one.baseline.course, together)
    return runs, noise.base


def _sure(one: Series, run: Run, runs: list[Run], together: int) -> bool:
    """Return whether a run of a short series is beyond what noise that remembers does.

    In its own values or in the means of logarithms, with other runs taken back to the level. Rates
    vary at least as Poisson's do, which a short series says of none else.
    """
    values = [one.even.values] if one.level is None else [one.even.values, one.level]
    normal = np.ones(len(one.values), dtype=np.bool_)
    for other in runs:
        normal[other.first : other.last + 1] = False
    if not normal.any():
        return False
    for each in values:
        even = each - one.baseline.course
        usual = np.median(even[normal])
        for other in runs:
            if other != run:
                inside = slice(other.first, other.last + 1)
                even[inside] += usual - np.median(even[inside])
        if is_sure(even, run.first, run.last, together):
            return True
    return False


def _row(one: Series, run: Run, base: float, normal: Bools) -> dict[str, Any]:
    inside = slice(run.first, run.last + 1)
    values = one.values[inside]
    expected = _expected(one, base, normal, inside)
    mean = float(_mean(one, values, one.observations[inside]))
    peak = run.first + int(np.argmax(values) if run.up else np.argmin(values))
    end_ns = int(one.start_ns[run.last]) + one.width_ns
    lasting = run.last == len(one.values) - 1
    early = run.first == 0
    seconds = len(values) * one.width_ns / 1e9
    return one.key | {
        "shape": "change" if lasting or early else "spike",
        "direction": "up" if run.up else "down",
        "start_ns": int(one.start_ns[run.first]),
        "end_ns": end_ns,
        "duration_ns": end_ns - int(one.start_ns[run.first]),
        "changed_ns": end_ns if early else int(one.start_ns[run.first]),
        "buckets": len(values),
        "bucket_width_ns": one.width_ns,
        "expected": expected,
        "mean": mean,
        "change_ratio": mean / expected - 1 if expected else None,
        "peak": float(one.values[peak]),
        "peak_ns": int(one.start_ns[peak]),
        "excess": (mean - expected) * seconds,
        "score": run.score,
    }


def _mean(one: Series, values: Floats, observations: Floats) -> float:
    if one.key["kind"] == "errors":
        return float((values * observations).sum() / max(observations.sum(), 1e-9))
    return float(values.mean())


def _expected(one: Series, base: float, normal: Bools, inside: slice) -> float:
    """Return what the series would have been, had it gone on as outside of its runs."""
    if one.baseline.shape == "level":
        return _mean(one, one.values[normal], one.observations[normal])
    # On the even scale the baseline moves; the buckets outside say what it is in the units.
    even = one.even.values[normal]
    wanted = one.baseline.course[inside].mean() + base
    order = np.argsort(even)
    return float(np.interp(wanted, even[order], one.values[normal][order]))


def _matters(key: dict[str, Any], expected: float, mean: float) -> bool:
    change = abs(mean - expected)
    if key["kind"] == "errors" and change < _MIN_ERROR_RATIO:
        return False
    if key["kind"] == "resource" and key["unit"] == "1" and change < _MIN_RATIO:
        return False
    return change >= _MIN_CHANGE[key["kind"]] * min(abs(expected), abs(mean)) and change > 0


def _with_sufferers(shifts: pl.DataFrame, tables: Tables) -> pl.DataFrame:
    """Add which requests were in flight meanwhile, and the endpoint that suffered most."""
    shifts = shifts.with_row_index("shift").with_columns(pl.col("shift").cast(pl.Int64))
    requests = sufferers.served(tables).filter("entry")
    intervals = shifts.select("start_ns", "end_ns", interval="shift", group="series_id")
    found = sufferers.suffering(intervals, requests)
    mine = found.join(
        shifts.select("shift", mine="endpoint"), left_on="interval", right_on="shift"
    ).filter(pl.col("mine").is_null() | (pl.col("mine") == pl.col("endpoint")))
    worst = mine.sort("extra_ns", descending=True, nulls_last=True)
    summary = worst.group_by("interval", maintain_order=True).agg(
        pl.col("requests").sum(),
        extra_ns=pl.when(pl.col("extra_ns").is_not_null().any()).then(pl.col("extra_ns").sum()),
        worst_endpoint=pl.col("endpoint").filter(pl.col("extra_ns") > 0).first(),
        worst_extra_ns=pl.col("extra_ns").filter(pl.col("extra_ns") > 0).first(),
    )
    return shifts.join(
        summary, left_on="shift", right_on="interval", how="left", maintain_order="left"
    ).with_columns(pl.col("requests").fill_null(0))


_TRENDS = {
    **KEY_DOCS,
    "first_ns": "start of its first bucket",
    "last_ns": "end of its last bucket",
    "bucket_width_ns": "width of its buckets",
    "buckets": "buckets that have a value",
    "typical": "median over the buckets",
    "min": "smallest",
    "max": "largest",
    "baseline": "what it does when nothing happens: stays at a `level`, follows a line that may "
    "bend once (`drift`), "
    "or takes the same course every day (`daily`; of captures of three days or more)",
    "slope_per_s": "Theil–Sen slope per second",
    "trend_p": "two-sided p of no drift, under whatever noise the series may have, a random walk "
    "included",
    "shifts": "how many rows it has in `shifts`",
}

SHIFT_COLUMNS = {
    **KEY_DOCS,
    "shape": "`spike`: it came back; `change`: it was so from the beginning of the capture, or "
    "until its end",
    "direction": "`up` or `down`",
    "start_ns": "begin of the first bucket that is nearer to the new level than to the baseline",
    "end_ns": "end of the last one",
    "duration_ns": "time between the two",
    "changed_ns": "of a change, when it happened; of a spike its start",
    "buckets": "buckets in it; never fewer than three",
    "bucket_width_ns": "width of a bucket: times are no more exact than that",
    "expected": "mean that the baseline lets expect",
    "mean": "mean in it",
    "change_ratio": "mean by expected, less 1",
    "peak": "the bucket furthest away",
    "peak_ns": "start of that bucket",
    "excess": "mean less expected, times the length in seconds: of a rate so many requests more",
    "score": "how many standard deviations of such sums its clearest window is away",
    "requests": "entries in flight meanwhile (of its endpoint, if it has one)",
    "extra_ns": "by how much the entries that began in it took longer than those of their endpoint "
    "at other times, added up; negative if shorter; null where there are too few",
    "worst_endpoint": "the endpoint with most of that",
    "worst_extra_ns": "its part",
}

_TEXTS = (
    *("kind", "measure", "service", "endpoint", "instance", "attributes", "unit"),
    *("shape", "direction", "worst_endpoint", "baseline"),
)
_FLOATS = (
    *("expected", "mean", "change_ratio", "peak", "excess", "score"),
    *("typical", "min", "max", "slope_per_s", "trend_p"),
)


def _type(name: str) -> pl.DataType:
    if name in _TEXTS:
        return pl.String()
    return pl.Float64() if name in _FLOATS else pl.Int64()


_TRENDS_SCHEMA = {name: _type(name) for name in _TRENDS}
_SHIFTS_SCHEMA = {name: _type(name) for name in SHIFT_COLUMNS}

TRENDS = Derived(
    "trends",
    f"one series of `series` with at least {MIN_POINTS} buckets that have a value",
    ("series", "shifts"),
    compute_trends,
    _TRENDS,
)
SHIFTS = Derived(
    "shifts",
    "one spike or change of a series",
    ("series", "requests", "tree"),
    compute_shifts,
    SHIFT_COLUMNS,
)
