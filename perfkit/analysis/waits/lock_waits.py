"""Where threads wait for one another: `lock_waits`."""

from __future__ import annotations

import polars as pl

from perfkit.analysis.code.samples import all_requests, by_thread, number_runs
from perfkit.analysis.code.waiting import waits
from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.vector.overlaps import most_at_once
from perfkit.analysis.waits.lock_evidence import confidences

MIN_LOCK_CONFIDENCE = 0.4
"""Idle frames that fit a lock less well are left out: they read, sleep, or wait for the GIL."""
MIN_WAIT_NS = 20_000_000
"""Places whose longest wait is shorter are not judged: at 100 Hz it rests on one observation, and
waiting for the GIL takes as long."""
_MAX_JUDGED = 50
"""How many places, those with most waiting first, are judged for being a lock."""
SPELL_GAP_NS = 100_000_000
"""Waits at a place that are less apart are one spell: what held the lock held up all of them (our
own choice)."""
_UNKNOWN_STATE_FACTOR = 0.5
_HARDLY_RUNS_RATIO = 0.03
"""What runs for longer at a line computes there, and waits for the interpreter in between: of 16
threads that compute, with one lock of the interpreter, each runs for 6 % of its time."""
_CONFIDENCE = {"pool": 0.95, "lock": 0.9, "io": 0.7, "queue": 0.6, "condition": 0.5}
"""How certain it is that a wait of a kind costs a request time. A queue or a condition may also be
how a program waits for work. Our own estimates."""

_PLACE = ("kind", "function", "file", "line", "waits_in", "waits_in_module")


def compute_samples(tables: Tables) -> pl.DataFrame:
    """Return the table `wait_samples`."""
    if tables.filters.by_request:
        return all_requests(tables).frame(SAMPLES.name)
    paths = tables.frame("call_paths")
    rows = _waiting(tables, paths)
    samples = tables.frame("ordered_samples")
    waiting = pl.concat([_named(rows), _bare_locks(rows, samples, paths)], how="diagonal_relaxed")
    if waiting.is_empty():
        return pl.DataFrame(schema={name: _SCHEMA[name] for name in SAMPLE_COLUMNS})
    waiting = waiting.join(_busy(tables, paths), on="thread", how="left").join(
        _in_requests(tables, waiting["sample_row"]), on="sample_row", how="left"
    )
    return _placed(waiting, paths).select(
        pl.col(name).cast(_SCHEMA[name]) for name in SAMPLE_COLUMNS
    )


def compute(tables: Tables) -> pl.DataFrame:
    """Return the table `lock_waits`, most waiting first."""
    waiting = tables.frame(SAMPLES.name)
    if waiting.is_empty():
        return pl.DataFrame(schema={name: _SCHEMA[name] for name in COLUMNS})
    places = waiting.group_by(*_PLACE).agg(
        wait_ns=pl.col("duration_ns").sum(),
        waits=pl.col("run").n_unique().cast(pl.Int64),
        max_wait_ns=pl.col("duration_ns").sum().over("run").max(),
        threads=pl.col("thread").n_unique().cast(pl.Int64),
        request_ns=pl.col("request_ns").sum(),
        busy_ns=pl.col("busy_ns").filter(pl.col("thread").is_first_distinct()).sum(),
        confidence=pl.col("confidence").max(),
    )
    return (
        places.join(_most_at_once(waiting), on=_PLACE, how="left", nulls_equal=True)
        .join(_spells(waiting), on=_PLACE, how="left", nulls_equal=True)
        .with_columns(
            share_ratio=pl.when(pl.col("busy_ns") > 0).then(pl.col("wait_ns") / pl.col("busy_ns"))
        )
        .sort("wait_ns", *_PLACE, descending=[True, *[False] * len(_PLACE)])
        .select(list(COLUMNS))
    )


def _waiting(tables: Tables, paths: pl.DataFrame) -> pl.DataFrame:
    """Return the samples that wait or may do so, by thread, and how (see `waits`)."""
    kinds = waits(paths).with_columns(path=pl.int_range(pl.len(), dtype=pl.Int64))
    idle = (pl.col("state") == "idle").fill_null(False)
    kind = pl.col("kind")
    # Frames tell more than the state, which may lag behind; where they are mute, it must do.
    unknown = (kind == "call") & pl.col("state").is_null()
    may_wait = (kind != "idle") & (pl.col("certain") | idle | unknown)
    return (
        by_thread(tables["ordered_samples"])
        .select("place", "sample_row", "ts_ns", "duration_ns", "pid", "thread", "path", "state")
        .join(kinds.lazy().drop_nulls("kind"), on="path", how="inner", maintain_order="left")
        .filter(may_wait)
        .collect()
    )


def _busy(tables: Tables, paths: pl.DataFrame) -> pl.DataFrame:
    """Return for each thread the time in which it had anything to do, as `busy_ns`."""
    kinds = waits(paths).select("kind", path=pl.int_range(pl.len(), dtype=pl.Int64))
    busy = (pl.col("kind") != "idle").fill_null(True)
    return (
        tables["ordered_samples"]
        .group_by("thread", "path")
        .agg(pl.col("duration_ns").sum())
        .join(kinds.lazy(), on="path", how="left")
        .group_by("thread")
        .agg(busy_ns=pl.col("duration_ns").filter(busy).sum())
        .collect(engine="streaming")
    )


def _in_requests(tables: Tables, sample_rows: pl.Series) -> pl.DataFrame:
    """Return the time of some samples that belongs to a known entry, as `request_ns`."""
    chosen = sample_rows.unique().to_frame().lazy()
    return (
        tables["sample_spans"]
        .filter(pl.col("entry_row").is_not_null())
        .join(chosen, on="sample_row", how="semi")
        .group_by("sample_row")
        .agg(request_ns=pl.col("duration_ns").sum())
        .collect()
    )


def _named(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the waits that a frame gives away."""
    named = rows.filter(pl.col("kind") != "call")
    return number_runs(named, "thread", "site", "resource").with_columns(
        confidence=pl.col("kind").replace_strict(_CONFIDENCE, return_dtype=pl.Float64)
    )


def _bare_locks(rows: pl.DataFrame, samples: pl.DataFrame, paths: pl.DataFrame) -> pl.DataFrame:
    """Return the waits in code that shows only an idle frame, where it behaves as a lock does."""
    lines = paths.select(pl.struct("function", "file", "line").rank("dense")).to_series()
    calls = rows.filter(pl.col("kind") == "call")
    calls = number_runs(calls.with_columns(spot=lines.gather(calls["path"])), "thread", "spot")
    waiting = pl.col("duration_ns").sum()
    judged = (
        calls.group_by("spot", "run")
        .agg(waiting)
        .group_by("spot")
        .agg(waiting, longest_ns=pl.col("duration_ns").max())
        .filter(pl.col("longest_ns") >= MIN_WAIT_NS)
        .sort("duration_ns", "spot", descending=[True, False])
        .head(_MAX_JUDGED)
    )
    groups = calls.join(judged.select("spot"), on="spot", how="semi").partition_by("spot")
    if not groups:
        return calls.clear()
    timed = samples.filter(pl.col("duration_ns") > 0, pl.col("path").is_not_null())
    hardly_run = _hardly_run(timed, lines, groups)
    found = []
    for group, certain in zip(groups, confidences(paths, timed, groups, hardly_run), strict=True):
        unknown_ns = int(group["duration_ns"].filter(group["state"].is_null()).sum())
        unknown_ratio = unknown_ns / int(group["duration_ns"].sum())
        confidence = certain * (1 - unknown_ratio * (1 - _UNKNOWN_STATE_FACTOR))
        if confidence >= MIN_LOCK_CONFIDENCE:
            found.append(group.with_columns(confidence=pl.lit(confidence), kind=pl.lit("lock")))
    return pl.concat(found) if found else calls.clear()


def _hardly_run(samples: pl.DataFrame, lines: pl.Series, groups: list[pl.DataFrame]) -> list[bool]:
    """Return for each group, of one line, whether its time is a small part running."""
    running = (pl.col("state") == "running").fill_null(False)
    span = pl.col("duration_ns")
    hardly = (
        samples.select("duration_ns", running=running, spot=lines.gather(samples["path"]))
        .group_by("spot")
        .agg(hardly=span.filter("running").sum() <= _HARDLY_RUNS_RATIO * span.sum())
        .filter("hardly")["spot"]
    )
    spots = set(hardly)
    return [group["spot"][0] in spots for group in groups]


def _placed(waiting: pl.DataFrame, paths: pl.DataFrame) -> pl.DataFrame:
    """Add the names of the place in the program and of what is waited in."""
    site, resource = paths[waiting["site"]], paths[waiting["resource"]]
    return waiting.with_columns(
        site["function"],
        site["file"],
        site["line"],
        resource["function"].alias("waits_in"),
        resource["module"].alias("waits_in_module"),
        # Both ways of finding waits number them from 1.
        run=pl.concat_str(pl.col("kind"), pl.col("run").cast(pl.String)),
    )


def _most_at_once(waiting: pl.DataFrame) -> pl.DataFrame:
    """Return for each place how many threads of one process waited there at once."""
    groups = waiting.select(*_PLACE, "pid").unique().with_row_index("group")
    rows = waiting.join(groups, on=[*_PLACE, "pid"], how="left", nulls_equal=True)
    start = rows["ts_ns"].to_numpy()
    end = start + rows["duration_ns"].to_numpy()
    peaks = most_at_once(rows["group"].cast(pl.Int64).to_numpy(), start, end, groups.height)
    return (
        groups.with_columns(max_waiting=pl.Series(peaks).gather(groups["group"]))
        .group_by(*_PLACE)
        .agg(pl.col("max_waiting").max())
    )


def _spells(waiting: pl.DataFrame) -> pl.DataFrame:
    """Return for each place in how many separate spells any thread waited, and the longest."""
    end = pl.col("ts_ns") + pl.col("duration_ns")
    until = end.cum_max().shift(1).over(_PLACE)
    begins = until.is_null() | (pl.col("ts_ns") - until >= SPELL_GAP_NS)
    return (
        waiting.sort("ts_ns", maintain_order=True)
        .with_columns(begins=begins)
        .with_columns(spell=pl.col("begins").cum_sum().over(_PLACE))
        .group_by(*_PLACE, "spell")
        .agg(length_ns=end.max() - pl.col("ts_ns").min())
        .group_by(*_PLACE)
        .agg(spells=pl.len().cast(pl.Int64), max_spell_ns=pl.col("length_ns").max())
    )


_INTEGERS = (
    *("wait_ns", "waits", "spells", "max_spell_ns", "max_wait_ns", "threads", "max_waiting"),
    *("request_ns", "sample_row", "ts_ns", "duration_ns", "pid", "thread", "busy_ns"),
)
_SCHEMA: dict[str, pl.DataType] = {
    **dict.fromkeys((*_PLACE, "run"), pl.String()),
    "line": pl.Int32(),
    **dict.fromkeys(_INTEGERS, pl.Int64()),
    **dict.fromkeys(("share_ratio", "confidence"), pl.Float64()),
}

COLUMNS = {
    "kind": "`lock`, `pool` (for a connection), `queue`, `condition` (an event, a future, a "
    "thread's end), or `io` (not for a thread, but for a file, a socket or a database)",
    "function": "function of the program that waits",
    "file": "its file",
    "line": "line in it",
    "waits_in": "function that it waits in: the pool, the primitive, or itself for a bare lock",
    "waits_in_module": "module of that function",
    "wait_ns": "time that threads waited there, added up",
    "waits": "how many waits were seen",
    "spells": "in how many spells, 100 ms or more apart, anybody waited there; a lock that is held "
    "once at the start has one",
    "max_spell_ns": "how long the longest of them lasted",
    "max_wait_ns": "the longest of them",
    "threads": "how many threads waited there at some time",
    "max_waiting": "how many threads of one process waited there at once",
    "request_ns": "the part of `wait_ns` that is known to belong to a request",
    "share_ratio": "share of the time in which these threads had anything to do",
    "confidence": "how certain it is, from 0 to 1, that they wait and for this",
}

SAMPLE_COLUMNS = {
    **{name: COLUMNS[name] for name in _PLACE},
    "run": "one wait: rows of one run follow one another on one thread",
    "sample_row": "the sample, a row of `ordered_samples`",
    "ts_ns": "when it was first seen",
    "duration_ns": "how long it stayed",
    "pid": "process",
    "thread": "number of the thread in the capture",
    "request_ns": "the part that is known to belong to a request",
    "busy_ns": "time in which the thread had anything to do in all of the capture",
    "confidence": "how certain it is that the thread waits, and for this",
}

SAMPLES = Derived(
    "wait_samples",
    "one sample of a thread that waits for another one",
    ("ordered_samples", "call_paths", "sample_spans"),
    compute_samples,
    SAMPLE_COLUMNS,
)
DERIVED = Derived(
    "lock_waits",
    "one place in the program where threads wait",
    ("wait_samples",),
    compute,
    COLUMNS,
)
