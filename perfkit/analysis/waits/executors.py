"""Thread pools of the program itself, from their stacks: `executors`.

A worker of `concurrent.futures` or of AnyIO shows whether it has work: with none, nothing but the
pool's own frames is on its stack. What waits for a pool does so in `Future.result` and its like.
Where more threads wait than there are workers at work, the others' jobs have not begun: they queue.

An event loop waits for none of its jobs. There spans say when they gave work to a thread and when
it began (`perfkit.steps`): in between, while all workers are busy, the job is in the queue.

Stacks cannot show the jobs that one thread gave all at once (`Executor.map`), nor those that nobody
waits for. A program that measures its pools (`perfkit.otel_metrics`) tells of all: that counts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from perfkit.analysis.code.call_paths import CallPaths
from perfkit.analysis.code.samples import all_requests
from perfkit.analysis.code.span_steps import span_steps
from perfkit.analysis.code.span_threads import span_threads
from perfkit.analysis.code.waiting import waits
from perfkit.analysis.series.metric_stats import attribute, measured
from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.vector.intervals import Changes, Ints

_FUTURES = r"^concurrent\.futures\._base$"
_NUMBERED = r"^(.*\S)_\d+$"
"""How workers are called: after their pool, and numbered."""


_MOST = 1e9
"""Seconds that jobs of one pool waited, or jobs: more is none of our own measurements."""


class _Open(NamedTuple):
    """Samples as intervals between moments, by process."""

    process: Ints
    start: Ints
    end: Ints


def compute(tables: Tables) -> pl.DataFrame:
    """Return the table `executors`."""
    if tables.filters.by_request:
        return all_requests(tables).frame(DERIVED.name)
    workers = _workers(tables)
    if workers.is_empty():
        return pl.DataFrame(schema=_SCHEMA)
    waiting = _waiting(tables).join(workers.select("pid").unique(), on="pid", how="semi")
    pids = workers["pid"].unique().sort()
    handed = _handed(tables, workers)
    times = ("pid", "ts_ns", "end_ns")
    every = pl.concat([workers.select(times), waiting, handed.select(times)])
    process = every["pid"].replace_strict(pids, list(range(pids.len()))).to_numpy()
    start, end = every["ts_ns"].to_numpy(), every["end_ns"].to_numpy()
    changes = Changes.of(pids.len(), np.tile(process, 2), np.concatenate([start, end]))
    opened = _Open(process, changes.rank(start), changes.rank(end))
    seen = _table(workers, handed, pids, changes, opened)
    return _with_measured(seen, _measured(tables))


def _workers(tables: Tables) -> pl.DataFrame:
    """Return the samples of workers: their pool, and whether they have work."""
    paths = tables.frame("call_paths")
    of_pool = CallPaths.of(paths).under((paths["role"] == "worker").fill_null(False).to_numpy())
    kind = waits(paths)["kind"]
    chosen = paths.select(path=pl.int_range(pl.len(), dtype=pl.Int64)).with_columns(
        works=(kind != "idle").fill_null(True), of_pool=pl.Series(of_pool)
    )
    name = pl.col("thread_name")
    return (
        tables["ordered_samples"]
        .filter(pl.col("duration_ns") > 0, pl.col("ts_ns").is_not_null())
        .join(chosen.lazy().filter("of_pool"), on="path", how="inner", maintain_order="left")
        .select(
            "pid",
            "thread",
            "ts_ns",
            "duration_ns",
            "works",
            end_ns=_end_ns(),
            runs=(pl.col("state") == "running").fill_null(False),
            executor=pl.coalesce(name.str.extract(_NUMBERED), name, pl.lit("(unnamed)")),
        )
        .collect()
    )


def _waiting(tables: Tables) -> pl.DataFrame:
    """Return when threads waited for a result."""
    return (
        tables["wait_samples"]
        .filter(pl.col("kind") == "condition", pl.col("waits_in_module").str.contains(_FUTURES))
        .select("pid", "ts_ns", end_ns=_end_ns())
        .collect()
    )


def _end_ns() -> pl.Expr:
    """Return the end of a sample: at the next of its thread, which counts once at any moment.

    Recorded times are rounded, so that samples may overlap by a moment.
    """
    following = pl.col("ts_ns").shift(-1).over("pid", "thread", order_by="ts_ns")
    return pl.min_horizontal(pl.col("ts_ns") + pl.col("duration_ns"), following)


def _handed(tables: Tables, workers: pl.DataFrame) -> pl.DataFrame:
    """Return when spans of event loops had given work to a pool that had not begun it."""
    spans = span_threads(tables)
    steps = span_steps(tables, spans, elsewhere=True)
    home = spans.spans["thread"].gather(steps.place)
    pool_of = workers.select("thread", "pid", "executor").unique("thread")
    last_home = pl.when("at_home").then("end_ns").forward_fill().over("place")
    begun = pl.col("start_ns").shift()
    return (
        pl.DataFrame({"place": steps.place, "thread": steps.thread, "home": home})
        .with_columns(start_ns=pl.Series(steps.start_ns), end_ns=pl.Series(steps.end_ns))
        .with_columns(at_home=pl.col("thread") == pl.col("home"))
        .sort("place", "start_ns", "end_ns")
        .with_columns(ts_ns=last_home)
        # A job may be current again and again; it was handed over before the first time.
        .with_columns(before=begun.over("place", "thread"))
        .filter(
            ~pl.col("at_home"),
            pl.col("ts_ns") < pl.col("start_ns"),
            pl.col("before").is_null() | (pl.col("before") < pl.col("ts_ns")),
        )
        .join(pool_of, on="thread", how="inner")
        .select("pid", "executor", "ts_ns", end_ns="start_ns")
    )


def _table(
    workers: pl.DataFrame, handed: pl.DataFrame, pids: pl.Series, changes: Changes, every: _Open
) -> pl.DataFrame:
    pools = workers.select("pid", "executor").unique().sort("pid", "executor")
    key, numbers = ["pid", "executor"], pools.with_row_index("pool")
    pool, handed_pool = (
        frame.join(numbers, on=key, how="left", maintain_order="left")["pool"].to_numpy()
        for frame in (workers, handed)
    )
    works = workers["works"].to_numpy()
    split, last = workers.height, len(every.start) - handed.height

    def open_in(chosen: Ints) -> Ints:
        (count,) = changes.sums(*(values[chosen] for values in every))
        return count

    process = changes.key // len(changes.moments)
    of_pool = pids.to_frame("pid").with_row_index("process").join(pools, on="pid", how="right")
    full = np.zeros((pools.height, len(changes.key)), dtype=np.bool_)
    busy, size, given = [], [], []
    for number, mine in enumerate(of_pool["process"]):
        busy.append(open_in(np.flatnonzero((pool == number) & works)))
        alive = open_in(np.flatnonzero(pool == number))
        size.append(int(alive.max()))
        given.append(open_in(last + np.flatnonzero(handed_pool == number)))
        full[number] = (busy[-1] == size[-1]) & (process == mine)
    waiting = open_in(np.arange(split, last)) - np.sum(busy, axis=0)
    # With two pools at their limit nobody knows for which of them a thread waits.
    waiting = np.where(full.sum(axis=0) == 1, np.maximum(waiting, 0), 0)
    queued = waiting + np.asarray(given)
    length = changes.length_ns()
    sums = pools.with_columns(
        workers=pl.Series(size, dtype=pl.Int64),
        all_busy_ns=pl.Series((full * length).sum(axis=1)),
        queued_ns=pl.Series((full * queued * length).sum(axis=1)),
        max_queued=pl.Series((full * queued * (length > 0)).max(axis=1)),
    )
    span = pl.col("duration_ns")
    work = workers.group_by("pid", "executor").agg(
        pooled_ns=span.sum(),
        busy_ns=span.filter("works").sum(),
        running_ns=span.filter(pl.col("works") & pl.col("runs")).sum(),
    )
    return sums.join(work, on=["pid", "executor"], how="left")


def _measured(tables: Tables) -> pl.DataFrame:
    """Return what programs measured of the queues of their pools themselves."""
    names = {
        "queued_ns": "perfkit.executor.queue.time",
        "max_queued": "perfkit.executor.queue.most",
    }
    points = tables["metrics"].filter(
        pl.col("name").is_in(list(names.values())), pl.col("value").is_between(0, _MOST)
    )
    time, most = (pl.col("name") == name for name in names.values())
    return (
        measured(points)
        .with_columns(
            pid=attribute("process.pid").cast(pl.Int64, strict=False),
            executor=attribute("executor"),
        )
        .group_by("pid", "executor")
        .agg(
            measured_ns=(pl.col("increase").filter(time, pl.col("increase") > 0) * 1e9).sum(),
            most=pl.col("value").filter(most).max(),
        )
        .filter(pl.col("most").is_not_null())
        .collect()
    )


def _with_measured(seen: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """Return the table with the queues that programs measured, in place of what stacks show."""
    return (
        seen.join(known, on=["pid", "executor"], how="left")
        .with_columns(
            queued_ns=pl.coalesce(pl.col("measured_ns").round(), "queued_ns"),
            max_queued=pl.coalesce("most", "max_queued"),
            measured=pl.col("most").is_not_null(),
        )
        .sort("queued_ns", "busy_ns", "pid", "executor", descending=[True, True, False, False])
        .select(pl.col(name).cast(dtype) for name, dtype in _SCHEMA.items())
    )


_SCHEMA: dict[str, pl.DataType] = {
    "pid": pl.Int64(),
    "executor": pl.String(),
    "workers": pl.Int64(),
    "pooled_ns": pl.Int64(),
    "busy_ns": pl.Int64(),
    "running_ns": pl.Int64(),
    "all_busy_ns": pl.Int64(),
    "queued_ns": pl.Int64(),
    "max_queued": pl.Int64(),
    "measured": pl.Boolean(),
}

DERIVED = Derived(
    "executors",
    "one thread pool (`concurrent.futures`, AnyIO) that was sampled",
    ("ordered_samples", "call_paths", "wait_samples", "tree", "spans", "metrics"),
    compute,
    {
        "pid": "process",
        "executor": "what its threads are called, without their number",
        "workers": "most threads of it at once",
        "pooled_ns": "time of all its threads together",
        "busy_ns": "time of them with work",
        "running_ns": "part of that in which they computed",
        "all_busy_ns": "how long as many had work as there ever were",
        "queued_ns": "time that jobs waited for one of its threads, as the program measured it "
        "(`perfkit.executor.queue.time`). Where it did not: time that threads waited in "
        "`Future.result` and its like, more of them than had work in hand, while all of it was "
        "busy and no other pool of the process: their jobs had not begun. Jobs that no thread "
        "waits for hide as many. And time between the moment at which a span of an event loop gave "
        "work to it and the beginning of that work, while all of it was busy",
        "max_queued": "most of those at once",
        "measured": "whether the program measured its queue",
    },
)
