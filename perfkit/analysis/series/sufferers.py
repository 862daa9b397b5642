"""Which requests suffer while something goes on, and by how much.

A request is *in flight* in an interval when it overlaps it. Long requests overlap more intervals,
so requests in flight are longer than others whatever happens; what is compared are therefore those
that *began* in an interval with those of the same endpoint that began outside of all intervals of
the group.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.analysis.session import Tables
from perfkit.analysis.vector.forest import Ints
from perfkit.analysis.vector.order import order_of_pairs
from perfkit.analysis.vector.percentiles import Floats, codes
from perfkit.analysis.vector.summary import whole

MAX_ENDPOINTS = 200
MIN_COMPARED = 5
"""Fewer requests on either side are not compared (our own choice)."""


def served(tables: Tables) -> pl.DataFrame:
    """Return all requests with what is compared, and `pid`.

    Endpoints beyond the MAX_ENDPOINTS with most requests are one, whose name is null.
    """
    requests = tables.columns(
        "requests",
        *("request_row", "entry", "service", "endpoint", "start_ns", "end_ns"),
        *("duration_ns", "adjusted_count"),
    )
    key = ["service", "endpoint"]
    often = requests.group_by(key).len().sort("len", *key, descending=[True, False, False])
    rare = often.tail(-MAX_ENDPOINTS).select(*key, rare=True)
    return (
        requests.with_columns(tables.picked("tree", requests["request_row"].to_numpy(), "pid"))
        .join(rare, on=key, how="left", nulls_equal=True, maintain_order="left")
        .with_columns(pl.when(pl.col("rare").is_null()).then("endpoint"))
        .drop("rare")
    )


def of_process(requests: pl.DataFrame, pid: int | None, service: str | None) -> pl.DataFrame:
    """Return the requests of a process, or of a service; all entries where neither is known."""
    if pid is not None:
        own = requests.filter(pl.col("pid") == pid)
        if own.height:
            return own
    if service is not None:
        own = requests.filter(pl.col("service") == service)
        if own.height:
            return own
    return requests.filter("entry")


def suffering(intervals: pl.DataFrame, requests: pl.DataFrame) -> pl.DataFrame:
    """Return one row an interval and endpoint with requests in flight.

    `intervals` has `interval`, `group`, `start_ns` and `end_ns`; those of one group do not overlap.
    Columns: `interval`, `service`, `endpoint`, `requests` (in flight) and `began`, as many as they
    stand for; `in_flight_ns`, the time they spent in the interval added up; `mean_ns` of those that
    began in it; `normal_ns`, the mean of those outside; `extra_ns`, the difference times `began`;
    the last three are null where there is too little to compare.
    """
    code, endpoints = codes(requests, ["service", "endpoint"])
    if not len(code) or intervals.is_empty():
        return pl.DataFrame(schema=_SCHEMA)
    sides = _Sides(code, requests, endpoints.height)
    start, end = intervals["start_ns"].to_numpy(), intervals["end_ns"].to_numpy()
    flight = sides.started.count(end) - sides.ended.count(start, inclusive=True)
    seen = np.flatnonzero(flight.ravel() > 0.5)
    began = sides.started.count(end) - sides.started.count(start)
    rows = sides.started.rows(end) - sides.started.rows(start)
    spent = sides.started.time(end) - sides.started.time(start)
    group = intervals["group"].to_numpy()
    outside = sides.total_count - _added(group, began)[group]
    outside_rows = sides.total_rows - _added(group, rows)[group]
    outside_spent = sides.total_time - _added(group, spent)[group]
    with np.errstate(divide="ignore", invalid="ignore"):
        mean, normal = spent / began, outside_spent / outside
    enough = (rows >= MIN_COMPARED) & (outside_rows >= MIN_COMPARED)
    mean, normal = np.where(enough, mean, np.nan), np.where(enough, normal, np.nan)
    interval, endpoint = np.divmod(seen, endpoints.height)

    def picked(values: Floats) -> pl.Series:
        found = values.ravel()[seen]
        return pl.Series(whole(found)).set(pl.Series(np.isnan(found)), None)

    return (
        endpoints[endpoint]
        .with_columns(
            interval=intervals["interval"].gather(interval),
            requests=picked(flight),
            began=picked(began),
            in_flight_ns=picked(sides.overlap(start, end)),
            mean_ns=picked(mean),
            normal_ns=picked(normal),
            extra_ns=picked((mean - normal) * began),
        )
        .select(list(_SCHEMA))
    )


def _added(group: Ints, values: Floats | Ints) -> Floats:
    """Return the sum over the intervals of each group."""
    result = np.zeros((int(group.max()) + 1, values.shape[1]))
    np.add.at(result, group, values)
    return result


class _Ordered:
    """Requests of each endpoint in the order of a time, with running sums."""

    def __init__(self, code: Ints, when: Ints, requests: pl.DataFrame, groups: int) -> None:
        order = order_of_pairs(code, when)
        self.when = when[order]
        self.first = np.searchsorted(code[order], np.arange(groups + 1))
        weight = requests["adjusted_count"].to_numpy()[order]
        self.weights = np.append(0.0, np.cumsum(weight))
        self.times = np.append(0.0, np.cumsum(weight * requests["duration_ns"].to_numpy()[order]))
        # Moments are taken from the first one on, or their sums would lose the nanoseconds.
        self.origin = int(self.when.min())
        self.moments = np.append(0.0, np.cumsum(weight * (self.when - self.origin)))

    def place(self, at: Ints, *, inclusive: bool = False) -> Ints:
        """Return, for each moment and endpoint, how many rows of all endpoints come before."""
        found = [
            first + np.searchsorted(self.when[first:last], at + inclusive)
            for first, last in zip(self.first, self.first[1:], strict=False)
        ]
        return np.stack(found, axis=1)

    def count(self, at: Ints, *, inclusive: bool = False) -> Floats:
        count: Floats = self.weights[self.place(at, inclusive=inclusive)]
        count -= self.weights[self.first[:-1]]
        return count

    def rows(self, at: Ints) -> Ints:
        return self.place(at) - self.first[:-1]

    def time(self, at: Ints) -> Floats:
        time: Floats = self.times[self.place(at)]
        time -= self.times[self.first[:-1]]
        return time

    def passed(self, at: Ints) -> Floats:
        """Return the sum over rows before a moment of the time from theirs to it."""
        place = self.place(at)
        weight = self.weights[place] - self.weights[self.first[:-1]]
        moments = self.moments[place] - self.moments[self.first[:-1]]
        passed: Floats = weight * (at - self.origin)[:, None] - moments
        return passed


class _Sides:
    """Requests by start and by end."""

    def __init__(self, code: Ints, requests: pl.DataFrame, groups: int) -> None:
        self.started = _Ordered(code, requests["start_ns"].to_numpy(), requests, groups)
        self.ended = _Ordered(code, requests["end_ns"].to_numpy(), requests, groups)
        first = self.started.first
        self.total_count = self.started.weights[first[1:]] - self.started.weights[first[:-1]]
        self.total_time = self.started.times[first[1:]] - self.started.times[first[:-1]]
        self.total_rows = np.diff(first)

    def overlap(self, start: Ints, end: Ints) -> Floats:
        """Return the time that requests spent in each interval, added up."""

        def flown(at: Ints) -> Floats:
            return self.started.passed(at) - self.ended.passed(at)

        return np.maximum(flown(end) - flown(start), 0.0)


_SCHEMA: dict[str, pl.DataType] = {
    "interval": pl.Int64(),
    "service": pl.String(),
    "endpoint": pl.String(),
    **dict.fromkeys(("requests", "began", "in_flight_ns"), pl.Int64()),
    **dict.fromkeys(("mean_ns", "normal_ns", "extra_ns"), pl.Int64()),
}
