"""The capture in one row: `facts`."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from perfkit.analysis.code.call_paths import importing
from perfkit.analysis.code.span_threads import join_reason
from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.vector.overlaps import most_at_once

_LARGEST = 2**63 - 1


def compute(tables: Tables) -> pl.DataFrame:
    """Return the table `facts`, which always has one row."""
    facts = _of_spans(tables) | _of_samples(tables)
    facts["most_at_once"] = _most_at_once(tables)
    if facts["running_ns"] is not None:
        facts["importing_ns"] = _importing_ns(tables)
        facts["running_ns"] -= facts["importing_ns"]
    metrics = tables["metrics"]
    points, first_ns, last_ns = (
        metrics.select(pl.len(), pl.col("ts_ns").min().alias("first"), pl.col("ts_ns").max())
        .collect()
        .row(0)
    )
    ranges = [
        (facts.pop("spans_start_ns"), facts.pop("spans_end_ns")),
        (facts.pop("samples_start_ns"), facts.pop("samples_end_ns")),
        (first_ns, last_ns),
    ]
    known = sorted((start, end) for start, end in ranges if start is not None)
    facts |= {
        "start_ns": known[0][0] if known else None,
        "end_ns": max((end for _, end in known), default=None),
        "duration_ns": _covered(known),
        "metric_points": points,
        "cores": cores(tables),
        "processes": len(facts.pop("sampled_pids") | facts.pop("span_pids")),
    }
    schema = {name: _TYPES.get(name, pl.Int64()) for name in COLUMNS}
    return pl.DataFrame([facts], schema=schema)


def _most_at_once(tables: Tables) -> int:
    """Return how many entries were in flight at one time, at most."""
    entries = tables["requests"].filter("entry").select("start_ns", "duration_ns").collect()
    start = entries["start_ns"].to_numpy()
    end = start + entries["duration_ns"].to_numpy()
    return int(most_at_once(np.zeros(len(start), dtype=np.int64), start, end, 1)[0])


def _importing_ns(tables: Tables) -> int:
    """Return for how long threads ran in imports of modules before the first request."""
    first_ns = tables["requests"].filter("entry").select(pl.col("start_ns").min()).collect().item()
    samples = tables["ordered_samples"].filter(pl.col("state") == "running")
    if first_ns is not None:
        samples = samples.filter(pl.col("ts_ns") < first_ns)
    seen = samples.select("path", "duration_ns").drop_nulls().collect()
    flags = pl.Series(importing(tables.frame("call_paths")))
    return int(seen["duration_ns"].filter(flags.gather(seen["path"])).sum())


def _covered(ranges: list[tuple[int, int]]) -> int:
    """Return how much time sorted ranges cover together."""
    total, reached = 0, ranges[0][0] if ranges else 0
    for start, end in ranges:
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total


def cores(tables: Tables) -> int | None:
    """Return how many cores the recorded machine has; None when the capture does not say it."""
    if tables.capture.info.cores:
        return tables.capture.info.cores
    # Imported files come from elsewhere; metrics of each core tell how many there are.
    core = pl.col("attributes").str.json_path_match('$["cpu.logical_number"]')
    found = (
        tables["metrics"]
        .filter(pl.col("name") == "system.cpu.utilization")
        .select("instance", core.alias("core"))
        .drop_nulls("core")
        .unique()
        .group_by("instance")
        .len()
        .select(pl.col("len").max())
        .collect()
        .item()
    )
    return int(found) if found else None


def _of_spans(tables: Tables) -> dict[str, Any]:
    tree = tables["tree"]
    weight = pl.col("adjusted_count")
    entry = pl.col("entry")
    requests = tables["requests"].select(
        requests=weight.sum(),
        entries=weight.filter(entry).sum(),
        errors=weight.filter(entry & (pl.col("status") == "error")).sum(),
        request_ns=(weight * pl.col("duration_ns")).filter(entry).sum(),
    )
    spans = tree.select(
        spans=pl.len(),
        spans_start_ns=pl.col("start_ns").min(),
        spans_end_ns=pl.col("end_ns").max(),
        services=pl.col("service").drop_nulls().unique().sort().implode(),
        span_pids=pl.col("pid").drop_nulls().unique().implode(),
    )
    row = pl.collect_all([requests, spans])
    counts = {
        name: min(round(value or 0), _LARGEST) for name, value in row[0].row(0, named=True).items()
    }
    found = row[1].row(0, named=True)
    # A trace is in one shard: so none of them has to be remembered for longer than that.
    traces = sum(
        shard["tree"].select(pl.struct("trace_hi", "trace_lo").n_unique()).collect().item()
        for shard in tables.shards_of("tree")
    )
    return counts | found | {"traces": traces, "span_pids": set(found["span_pids"])}


def _of_samples(tables: Tables) -> dict[str, Any]:
    duration, state = pl.col("duration_ns"), pl.col("state")
    samples = tables["ordered_samples"].select(
        samples=pl.col("count").fill_null(1).sum(),
        sampled_ns=pl.when(duration.is_not_null().any()).then(duration.sum()),
        running_ns=pl.when(state.is_not_null().any()).then(
            duration.filter(state == "running").sum()
        ),
        unseen_ns=pl.when(pl.col("unseen_ns").is_not_null().any()).then(pl.col("unseen_ns").sum()),
        threads=pl.col("thread").filter(pl.col("tid").is_not_null()).n_unique(),
        samples_start_ns=pl.col("ts_ns").min(),
        samples_end_ns=(pl.col("ts_ns") + duration.fill_null(0)).max(),
        sampled_pids=pl.col("pid").drop_nulls().unique().implode(),
    )
    joined = tables["sample_spans"].select(
        in_requests_ns=duration.filter(pl.col("entry_row").is_not_null()).sum(),
        ambiguous_ns=duration.filter("ambiguous").sum(),
    )
    row = pl.collect_all([samples, joined])
    facts = row[0].row(0, named=True) | row[1].row(0, named=True)
    return facts | {
        "sampled_pids": set(facts["sampled_pids"]),
        "samples_joined": join_reason(tables),
    }


_TYPES: dict[str, pl.DataType] = {"services": pl.List(pl.String()), "samples_joined": pl.String()}

COLUMNS = {
    "start_ns": "first time in the capture; null when it has none",
    "end_ns": "last time in it",
    "duration_ns": "time that spans, samples or metrics cover; less than between the two where "
    "files of different times were imported together",
    "spans": "spans",
    "traces": "traces",
    "requests": "requests, as many as the spans stand for",
    "entries": "entries: requests with no request above them",
    "errors": "entries that failed",
    "most_at_once": "most entries in flight at one time, as far as they are recorded",
    "request_ns": "request time: the sum of the durations of entries",
    "samples": "stack samples, as many observations as the rows stand for",
    "sampled_ns": "time of all threads that samples stand for; null when they are only counts",
    "running_ns": "the part of it in which threads ran, without `importing_ns`; null when no state "
    "was recorded",
    "importing_ns": "time in which they ran in imports of modules before the first request",
    "unseen_ns": "CPU time that threads used besides in code that no look saw; null when not known",
    "in_requests_ns": "the part of it that belongs to a known entry",
    "ambiguous_ns": "the part of it that may be of several entries, or of one or none",
    "samples_joined": "how samples were laid beside spans, or why they could not be",
    "threads": "threads that were sampled",
    "processes": "processes that samples or spans name",
    "metric_points": "observations of metrics",
    "cores": "cores of the recorded machine; null when not known",
    "services": "services that made spans",
}

DERIVED = Derived(
    "facts",
    "the capture as a whole: always exactly one row",
    ("tree", "requests", "ordered_samples", "call_paths", "sample_spans", "metrics"),
    compute,
    COLUMNS,
)
