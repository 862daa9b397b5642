"""A limit on database calls at once, inferred from spans where nothing else tells of one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import polars as pl

from perfkit.analysis.session import Frames, Tables
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
_READ = ("category", "parent_row", "entry_row", "row", "request_row", "adjusted_count")
_SIDES = ("start_ns", "end_ns")
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
    nothing = [None] * (len(tables.cuts()) - 1)
    parts = tables.each_piece({"tree": (*_KEY, *_READ, *_SIDES)}, _numbers, nothing)
    keys = (
        pl.concat(part.keys for part in parts)
        .group_by("key", maintain_order=True)
        .agg(pl.col(_KEY).first(), pl.col("calls").sum(), pl.col("most").max())
        .filter(pl.col("calls") >= _MIN_CALLS, pl.col("most") == 1.0)
    )
    found = []
    for key in keys.iter_rows(named=True):
        calls = pl.concat(part.calls.filter(pl.col("key") == key["key"]) for part in parts)
        process = [pl.col("service") == _hash(key["service"])]
        if key["pid"] is not None:
            process.append(pl.col("pid") == key["pid"])
        requests = pl.concat(part.requests.filter(process).select(_SIDES) for part in parts)
        ceiling = _ceiling(key, calls.select(_SIDES), requests)
        if ceiling is not None:
            found.append(ceiling)
    return pl.concat(found) if found else pl.DataFrame(schema=_SCHEMA)


class _Part(NamedTuple):
    """What some whole traces say: numbers, for texts of all calls would not fit into memory."""

    keys: pl.DataFrame
    """One row a service and what it calls, with a `key`, how many `calls`, and the `most` that one
    stands for."""
    calls: pl.DataFrame
    requests: pl.DataFrame


def _numbers(frames: Frames, _: None) -> _Part:
    tree = frames["tree"]
    entered = tree["entry_row"].is_not_null()
    calls = tree.filter(pl.Series(top_database_calls(tree)), entered).with_columns(
        key=pl.struct(_KEY).hash(seed=0)
    )
    keys = calls.group_by("key", maintain_order=True).agg(
        pl.col(_KEY).first(), calls=pl.len(), most=pl.col("adjusted_count").max()
    )
    requests = tree.filter(pl.col("row") == pl.col("request_row"))
    service = pl.col("service").hash(seed=0)
    return _Part(keys, calls.select("key", *_SIDES), requests.select(service, "pid", *_SIDES))


def _hash(text: str) -> int:
    return int(pl.Series([text]).hash(seed=0)[0])


def _ceiling(
    key: Mapping[str, object], calls: pl.DataFrame, requests: pl.DataFrame
) -> pl.DataFrame | None:
    """Return the times at the limit; None when there is no sign of one."""
    mean_ns = float((calls["end_ns"] - calls["start_ns"]).mean())  # type: ignore[arg-type]
    times, open_calls, open_requests = _levels(calls, requests)
    lasts = np.append(np.diff(times), 0)
    most = int(open_calls.max())
    wanted = open_requests > most
    demand_ns = int(lasts[wanted].sum())
    if demand_ns < _MIN_CALLS * mean_ns or demand_ns == 0:
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
            *(pl.lit(key[name], dtype=_SCHEMA[name]).alias(name) for name in _KEY[:3]),
            kind=pl.lit("pool"),
            resource=pl.lit(key["component"], dtype=pl.String),
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
    sides = [(calls, 0), (requests, 2)]
    times = np.concatenate([frame[name].to_numpy() for frame, _ in sides for name in _SIDES])
    # 0 and 1: a call starts and ends, 2 and 3: a request does.
    what = np.concatenate(
        [np.full(frame.height, first + side, np.int8) for frame, first in sides for side in (0, 1)]
    )
    order = np.argsort(times)
    times, what = times[order], what[order]
    del order
    last = np.append(times[1:] != times[:-1], True)
    moments = times[last]
    calls_open, requests_open = (
        np.cumsum((what == start).astype(np.int8) - (what == start + 1), dtype=np.int32)[last]
        for start in (0, 2)
    )
    return moments, calls_open, requests_open


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
