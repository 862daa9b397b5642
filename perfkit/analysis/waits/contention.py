"""Who waited for what, when, how long, and which requests suffered: `contention`.

Readings, spans and samples that show waiting are gathered from everything that knows of any, and
those of one resource that are near to each other make one row.
"""

from __future__ import annotations

import polars as pl

from perfkit.analysis.series import sufferers
from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.vector.overlaps import covered, most_at_once
from perfkit.analysis.waits.ceilings import ceilings
from perfkit.analysis.waits.contended_code import (
    contended_checkouts,
    contended_gil,
    contended_loops,
    contended_waits,
)
from perfkit.analysis.waits.contended_metrics import contended_metrics, contended_pools, knows_pools

_NEAR_NS = 1_000_000_000
"""Contention that pauses for less is one (our own choice)."""
MAX_ROWS = 1000
"""Rows of each kind, those with most waiting first."""

_KEY = ("kind", "resource", "service", "instance", "pid", "unit", "evidence")


def compute(tables: Tables) -> pl.DataFrame:
    """Return the table `contention`, most waiting first."""
    sources = (
        *(contended_metrics, contended_pools, contended_checkouts),
        *(contended_waits, contended_gil, contended_loops),
    )
    found = pl.concat(_conformed(source(tables)) for source in sources)
    if not knows_pools(tables) and "pool" not in found["kind"]:
        found = pl.concat([found, _conformed(ceilings(tables))])
    episodes = _merged(found.filter(pl.col("end_ns") > pl.col("start_ns")))
    episodes = _largest(episodes).with_row_index("contention_row")
    episodes = episodes.with_columns(pl.col("contention_row").cast(pl.Int64))
    by_endpoint = _by_endpoint(episodes, tables)
    return episodes.join(
        _summed(by_endpoint),
        on="contention_row",
        how="left",
        maintain_order="left",
    ).select(pl.col(name).cast(_TYPES.get(name, pl.Int64())) for name in COLUMNS)


def _conformed(found: pl.DataFrame) -> pl.DataFrame:
    return found.select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())


def compute_endpoints(tables: Tables) -> pl.DataFrame:
    """Return the table `contention_endpoints`, in the order of `contention`."""
    found = _by_endpoint(tables.frame("contention"), tables)
    return found.sort("contention_row", "in_flight_ns", descending=[False, True]).select(
        pl.col(name).cast(_TYPES.get(name, pl.Int64())) for name in ENDPOINT_COLUMNS
    )


def _merged(found: pl.DataFrame) -> pl.DataFrame:
    """Make one row of what is near to each other."""
    found = found.sort(*_KEY, "start_ns", "end_ns", nulls_last=True)
    resource = found.select(pl.struct(_KEY).rle_id().cast(pl.Int64)).to_series()
    reached = pl.col("end_ns").cum_max().shift(1).over("series")
    found = found.with_columns(series=resource).with_columns(
        episode=((pl.col("start_ns") - reached > _NEAR_NS) | reached.is_null()).cum_sum() - 1
    )
    group = found["episode"].cast(pl.Int64).to_numpy()
    start, end = found["start_ns"].to_numpy(), found["end_ns"].to_numpy()
    count = int(group[-1]) + 1 if len(group) else 0
    union = pl.Series(covered(group, start, end, count), dtype=pl.Int64)
    at_once = pl.Series(most_at_once(group, start, end, count), dtype=pl.Int64)
    length = pl.col("end_ns") - pl.col("start_ns")
    known = pl.col("level").is_not_null()
    return (
        found.group_by("episode", *_KEY, maintain_order=True)
        .agg(
            pl.col("start_ns").min(),
            pl.col("end_ns").max(),
            times=pl.len().cast(pl.Int64),
            wait_ns=pl.when(pl.col("wait_ns").is_not_null().any()).then(pl.col("wait_ns").sum()),
            seen_ns=length.sum(),
            mean_level=pl.when(known.any()).then(
                (pl.col("level") * length).sum() / length.filter(known).sum()
            ),
            peak_level=pl.col("level").max(),
            threshold=pl.col("threshold").max(),
            confidence=pl.col("confidence").max(),
        )
        .with_columns(contended_ns=union, at_once=at_once)
        .with_columns(
            duration_ns=pl.col("end_ns") - pl.col("start_ns"),
            mean_level=pl.coalesce("mean_level", pl.col("seen_ns") / pl.col("contended_ns")),
            peak_level=pl.coalesce("peak_level", pl.col("at_once").cast(pl.Float64)),
        )
    )


def _largest(episodes: pl.DataFrame) -> pl.DataFrame:
    """Return the rows that are kept, most waiting first; where it is not known, the longest."""
    waiting = pl.coalesce("wait_ns", pl.col("contended_ns").cast(pl.Float64))
    return (
        episodes.with_columns(waiting=waiting)
        .sort("waiting", "start_ns", "kind", "resource", descending=[True, *[False] * 3])
        .filter(pl.int_range(pl.len()).over("kind") < MAX_ROWS)
    )


def _by_endpoint(episodes: pl.DataFrame, tables: Tables) -> pl.DataFrame:
    """Return what requests of each endpoint did during each episode."""
    requests = sufferers.served(tables)
    parts = []
    for part in episodes.partition_by("pid", "service", maintain_order=True):
        group = part.select(pl.struct("kind", "resource", "instance", "evidence").rank("dense") - 1)
        parts.append(
            sufferers.suffering(
                part.select(
                    "start_ns",
                    "end_ns",
                    interval="contention_row",
                    group=group.to_series().cast(pl.Int64),
                ),
                sufferers.of_process(requests, part["pid"][0], part["service"][0]),
            )
        )
    if not parts:
        parts = [sufferers.suffering(episodes.select(interval="contention_row"), requests)]
    return pl.concat(parts).rename({"interval": "contention_row"})


def _summed(by_endpoint: pl.DataFrame) -> pl.DataFrame:
    """Return for each episode which requests suffered, and the endpoint that did most."""
    extra = pl.col("extra_ns")
    worst = by_endpoint.sort(
        "extra_ns", "in_flight_ns", descending=True, nulls_last=True, maintain_order=True
    )
    return worst.group_by("contention_row", maintain_order=True).agg(
        pl.col("requests", "began").sum(),
        extra_ns=pl.when(extra.is_not_null().any()).then(extra.sum()),
        worst_endpoint=pl.col("endpoint").first(),
        worst_extra_ns=extra.first(),
    )


SCHEMA: dict[str, pl.DataType] = {
    **dict.fromkeys(("kind", "resource", "service", "instance"), pl.String()),
    **dict.fromkeys(("pid", "start_ns", "end_ns"), pl.Int64()),
    "level": pl.Float64(),
    "unit": pl.String(),
    **dict.fromkeys(("wait_ns", "threshold"), pl.Float64()),
    "evidence": pl.String(),
    "confidence": pl.Float64(),
}
"""Columns of what the sources give."""

_TYPES: dict[str, pl.DataType] = {
    **dict.fromkeys(("kind", "resource", "service", "instance", "unit", "evidence"), pl.String()),
    **dict.fromkeys(("endpoint", "worst_endpoint"), pl.String()),
    **dict.fromkeys(("mean_level", "peak_level", "threshold", "confidence"), pl.Float64()),
}

_SUFFERING = {
    "requests": "requests in flight meanwhile: those of its process or service, or all entries "
    "where it has none",
    "began": "those of them that began in it",
    "extra_ns": "by how much those took longer than requests of their endpoint that began at other "
    "times, added up; negative if shorter; null where there are too few of either",
}

COLUMNS = {
    "contention_row": "number of the row",
    "kind": "`pool` (connections), `lock`, `gil`, `event loop`, `run queue`, `cpu throttling`, "
    "`cpu steal`, `cpu pressure`, `memory pressure`, `io pressure`, `disk`, `accept queue`",
    "resource": "name of the pool, place of the lock or of the blocking function, device …",
    "service": "service whose requests wait; null when not known",
    "instance": "replica, process or host; null when not known",
    "pid": "process; null when not known",
    "start_ns": "begin; of readings of metrics, the time of the reading before",
    "end_ns": "end",
    "duration_ns": "time between the two",
    "contended_ns": "the part of it in which somebody waited; pauses of less than 1 s are in "
    "`duration_ns` but not here",
    "times": "how many readings, spans or samples it rests on",
    "mean_level": "how much, on average over `contended_ns`, in `unit`",
    "peak_level": "how much at most",
    "unit": "`requests waiting`, `threads waiting`, `connections waiting`, `callbacks blocking`, "
    "`calls at once` (database calls, at a limit that their spans show), `tasks per core`, "
    "or `share of time`",
    "threshold": "the size of the pool, or the value from which on a metric counts as contention",
    "wait_ns": "time waited, added up over those who waited; of event loops the time that other "
    "requests were in flight meanwhile, an upper bound; null where nobody counts it",
    **_SUFFERING,
    "worst_endpoint": "the endpoint with most of that, or else with most requests in flight",
    "worst_extra_ns": "its part",
    "evidence": "`metrics`, `spans` or `samples`",
    "confidence": "how certain it is, from 0 to 1, that somebody waited for this",
}

ENDPOINT_COLUMNS = {
    "contention_row": "the row of `contention`",
    "service": "service of the endpoint",
    "endpoint": "endpoint; null for all but the most used",
    **_SUFFERING,
    "in_flight_ns": "time that they spent in it, added up",
    "mean_ns": "mean duration of those that began in it; null when too few did",
    "normal_ns": "mean duration of those that began at other times",
}

DERIVED = Derived(
    "contention",
    f"one time in which requests waited for one resource (at most {MAX_ROWS} of a kind)",
    ("metrics", "samples", "tree", "requests", "wait_samples", "loop_blocking"),
    compute,
    COLUMNS,
)
ENDPOINTS = Derived(
    "contention_endpoints",
    "one endpoint with requests in flight during one row of `contention`",
    ("contention", "requests", "tree"),
    compute_endpoints,
    ENDPOINT_COLUMNS,
)
