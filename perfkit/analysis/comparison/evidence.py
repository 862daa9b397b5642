"""What speaks for a component as the cause: its operation that changed most, and how."""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.analysis.comparison.call_kinds import Calls
from perfkit.analysis.comparison.votes import Strength
from perfkit.analysis.vector.forest import Bools, Ints
from perfkit.analysis.vector.percentiles import Floats

_COMPONENTS = 10
"""So many of the first components get evidence."""

_LEAST_PART = 0.1
"""A kind of votes that is a smaller part of a component's score does not speak for it."""

SCHEMA: dict[str, pl.DataType] = {
    **dict.fromkeys(("component", "reason", "operation", "callee", "child"), pl.String()),
    **dict.fromkeys(("before", "after", "votes"), pl.Float64()),
}

COLUMNS = {
    "component": "the component",
    "reason": "`slower`, `fails`, or `calls`: other operations are called below it",
    "operation": "its operation with the most votes for that reason",
    "callee": "whom the operation calls, where it is a call",
    "child": "for `calls`: the operation that is called more, or less, often",
    "before": "mean own time in ns (the median, where outliers turn the means around); share that "
    "failed; share that called the child",
    "after": "the same on the other side",
    "votes": "strength: requests' worth of spans that are unusual, or excess time in ns",
}


def evidence(
    calls: Calls, strength: Strength, normal: Bools, judged: Bools, ranking: pl.DataFrame
) -> pl.DataFrame:
    """Return a line (`SCHEMA`) for each kind of score of the first components in `ranking`."""
    lines: list[tuple[object, ...]] = []
    numbers = {name: number for number, name in enumerate(calls.owners)}
    excess, unusual = (one * calls.weight for one in strength)
    for row in ranking.head(_COMPONENTS).iter_rows(named=True):
        component = row["component"]
        mine = calls.owner == numbers[component]
        least = _LEAST_PART * row["score"]
        if row["latency_score"] > least:
            of = calls.operation == _strongest(calls.operation, np.where(mine, excess, 0.0))
            times = own_times(calls.own[of & normal], calls.own[of & judged])
            lines.append((component, "slower", *_names(calls, of), None, *times, excess[of].sum()))
        if row["behaviour_score"] > least:
            of = calls.place == _strongest(calls.place, np.where(mine, unusual, 0.0))
            lines.append((component, *_odd(calls, of, normal, judged), unusual[of].sum()))
    return pl.DataFrame(lines, schema=SCHEMA, orient="row")


def _strongest(group: Ints, strength: Floats) -> int:
    return int(np.bincount(group, strength).argmax())


def own_times(before: Floats, after: Floats) -> tuple[float | None, float | None]:
    """Return the own time on both sides: the mean, for what is rare counts too; or the median.

    One call that was held up for a second turns the means of many around. What is slower by its
    median and faster by its mean is told by its median.
    """
    if not (len(before) and len(after)):
        return _mean(before), _mean(after)
    means = float(before.mean()), float(after.mean())
    medians = float(np.median(before)), float(np.median(after))
    return medians if means[1] <= means[0] and medians[1] > medians[0] else means


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if len(values) else None


def _names(calls: Calls, of: Bools) -> tuple[str, str | None]:
    first = int(np.argmax(of))
    name, callee = calls.frame.select("name", "callee").row(first)
    return name, callee


def _odd(
    calls: Calls, of: Bools, normal: Bools, judged: Bools
) -> tuple[str, str, str | None, str | None, float | None, float | None]:
    """Return what is unusual about an operation: that it fails, or whom it calls."""
    failing = [_mean(calls.failed[of & side].astype(np.float64)) for side in (normal, judged)]
    child, shares = _changed_child(calls, of, normal, judged)
    change = (failing[1] or 0.0) - (failing[0] or 0.0)
    if child is None or change >= abs(shares[1] - shares[0]):
        return "fails", *_names(calls, of), None, failing[0], failing[1]
    return "calls", *_names(calls, of), child, *shares


def _changed_child(
    calls: Calls, of: Bools, normal: Bools, judged: Bools
) -> tuple[str | None, tuple[float, float]]:
    """Return the operation right below whose presence changed most, and its two shares."""
    parents = [np.flatnonzero(of & side) for side in (normal, judged)]
    below = np.flatnonzero((calls.parent >= 0) & np.append(of, False)[calls.parent])
    if not len(below) or not all(len(rows) for rows in parents):
        return None, (0.0, 0.0)
    pairs = pl.DataFrame(
        {
            "operation": calls.operation[below],
            "parent": calls.parent[below],
            "after": judged[below],
            "row": below,
        }
    ).unique(["operation", "parent"])
    shares = pairs.group_by("operation").agg(
        pl.col("row").min(),
        before=(~pl.col("after")).sum() / len(parents[0]),
        after=pl.col("after").sum() / len(parents[1]),
    )
    most = shares.sort((pl.col("after") - pl.col("before")).abs(), "row", descending=[True, False])
    row = most.row(0, named=True)
    name, callee = calls.frame.select("name", "callee").row(row["row"])
    return f"{name} → {callee}" if callee else name, (row["before"], row["after"])
