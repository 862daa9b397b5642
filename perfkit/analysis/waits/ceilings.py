"""A limit on database calls at once, inferred from spans where nothing else tells of one."""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from perfkit.analysis.session import Tables
from perfkit.analysis.spans.requests import top_database_calls
from perfkit.analysis.vector.forest import Bools, Ints

_MIN_CALLS = 50
"""Calls, and lengths of a mean call, for which there was more demand than the limit."""
_MIN_MISSING = 0.05
"""Share of that time in which more calls than ever happened would have run without a limit."""
_MIN_AT_LIMIT = 0.2
"""Share of that time in which as many ran as ever did. These three numbers are our own."""
_CONFIDENCE = 0.5
"""A pool, but also a lock or an event loop that runs calls one by one, looks like this."""

_KEY = ("service", "instance", "pid", "component")
_READ = ("start_ns", "end_ns", "duration_ns", "adjusted_count")
_TEXTS = ("service", "instance", "kind", "resource", "unit", "evidence")
_FLOATS = ("level", "wait_ns", "threshold", "confidence")
_SCHEMA: dict[str, pl.DataType] = {
    **dict.fromkeys(("start_ns", "end_ns", "pid"), pl.Int64()),
    **dict.fromkeys(_TEXTS, pl.String()),
    **dict.fromkeys(_FLOATS, pl.Float64()),
}


def ceilings(tables: Tables) -> pl.DataFrame:
    """Return the times at which database calls ran into a limit, as `contention.SCHEMA` has them.

    The more requests are in flight, the more calls run at once. If each request is in a call with
    the same chance, their number follows a binomial distribution. Where that would be above the
    highest number that was ever seen for a good part of the time, something keeps it there.
    """
    tree = tables.columns("tree", "category", "parent_row", "entry_row")
    entered = tree["entry_row"].is_not_null().to_numpy()
    rows = np.flatnonzero(top_database_calls(tree) & entered)
    calls = tables.picked("tree", rows, *_KEY, *_READ)
    at_top = pl.col("row") == pl.col("request_row")
    requests = tables.where("tree", at_top, "service", "pid", *_SIDES)
    parts = [
        found
        for key, part in calls.group_by(_KEY, maintain_order=True)
        if part.height >= _MIN_CALLS and part["adjusted_count"].max() == 1.0
        for found in [_ceiling(part, _same_process(requests, key[0], key[2]))]
        if found is not None
    ]
    return pl.concat(parts) if parts else pl.DataFrame(schema=_SCHEMA)


def _same_process(requests: pl.DataFrame, service: object, pid: object) -> pl.DataFrame:
    own = requests.filter(pl.col("service") == service)
    return own.filter(pl.col("pid") == pid) if pid is not None else own


def _ceiling(calls: pl.DataFrame, requests: pl.DataFrame) -> pl.DataFrame | None:
    """Return the times at the limit; None when there is no sign of one."""
    times, open_calls, open_requests = _levels(calls, requests)
    lasts = np.append(np.diff(times), 0)
    most = int(open_calls.max())
    wanted = open_requests > most
    demand_ns = int(lasts[wanted].sum())
    if demand_ns < _MIN_CALLS * calls["duration_ns"].mean() or demand_ns == 0:  # type: ignore[operator]
        return None
    mean_calls = float((lasts * open_calls)[wanted].sum()) / demand_ns
    mean_requests = float((lasts * open_requests)[wanted].sum()) / demand_ns
    at_limit = wanted & (open_calls == most) & (lasts > 0)
    if int(lasts[at_limit].sum()) < _MIN_AT_LIMIT * demand_ns:
        return None
    if _more_than(most, round(mean_requests), mean_calls / mean_requests) < _MIN_MISSING:
        return None
    first, last = _stretches(at_limit)
    return (
        pl.DataFrame({"start_ns": times[first], "end_ns": times[last + 1]})
        .with_columns(
            *(pl.lit(calls[name][0], dtype=calls.schema[name]).alias(name) for name in _KEY[:3]),
            kind=pl.lit("pool"),
            resource=pl.lit(calls["component"][0]),
            level=pl.lit(float(most)),
            unit=pl.lit("calls at once"),
            wait_ns=pl.lit(None, pl.Float64),
            threshold=pl.lit(float(most)),
            evidence=pl.lit("spans"),
            confidence=pl.lit(_CONFIDENCE),
        )
        .select(list(_SCHEMA))
    )


def _levels(calls: pl.DataFrame, requests: pl.DataFrame) -> tuple[Ints, Ints, Ints]:
    """Return the moments at which anything starts or ends, and how much is open after each."""
    sides = [(calls, 1, 0), (requests, 0, 1)]
    times = np.concatenate([frame[name].to_numpy() for frame, *_ in sides for name in _SIDES])
    steps = [
        np.concatenate(
            [
                np.full(frame.height, sign * mine[which])
                for frame, *mine in sides
                for sign in (1, -1)
            ]
        )
        for which in (0, 1)
    ]
    moments, place = np.unique(times, return_inverse=True)
    levels = []
    for step in steps:
        change = np.zeros(len(moments), dtype=np.int64)
        np.add.at(change, place, step)
        levels.append(np.cumsum(change))
    return moments, levels[0], levels[1]


_SIDES = ("start_ns", "end_ns")


def _more_than(most: int, requests: int, chance: float) -> float:
    """Return how likely it is that more than `most` of so many requests are in a call."""
    if not 0.0 < chance < 1.0 or most >= requests:
        return float(chance >= 1.0 and most < requests)
    logs = [
        math.lgamma(requests + 1) - math.lgamma(one + 1) - math.lgamma(requests - one + 1)
        + one * math.log(chance) + (requests - one) * math.log1p(-chance)
        for one in range(most + 1)
    ]  # fmt: skip
    return max(0.0, 1.0 - sum(map(math.exp, logs)))  # rounding may pass zero


def _stretches(flags: Bools) -> tuple[Ints, Ints]:
    """Return the first and the last index of each stretch of flags."""
    padded = np.concatenate([[False], flags, [False]])
    change = np.flatnonzero(padded[1:] != padded[:-1])
    return change[::2], change[1::2] - 1
