"""How much of a time may be explained by waiting for a core: `core_waits`.

On a machine that others keep busy everything takes long, whatever it is called: a query, a
transaction, holding a connection. The kernel counts for how long the threads of a process could
have run but had no core, and how many tasks of the whole machine run or want to.

A process whose threads used C cores and waited R (threads, on average) could have run C + R of the
time, and waited R / (C + R) of that. Its k threads that serve requests (one, for an event loop)
waited at most min(1, (C + R) / k) × R / (C + R) of the time, as if no other thread of the process
did. Of a machine with n cores and r tasks that run or want to, a task has a core n / r of the time
that it wants one. Both are the most that was waited. Of it the share is put down to other programs
that they have of the used cores, an estimate: what the recorded processes wait for each other, they
do to themselves.

A call to the same machine is answered by a process that is mostly not recorded: there the larger of
both counts. Of one to elsewhere only the caller's waiting is known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from perfkit.analysis.facts import cores
from perfkit.analysis.series.metric_stats import SERIES, measured
from perfkit.analysis.session import Derived, Frames, Tables
from perfkit.analysis.spans.request_resources import PID
from perfkit.analysis.vector.forest import Ints
from perfkit.analysis.vector.overlaps import covered, order_by
from perfkit.analysis.vector.percentiles import Floats, codes
from perfkit.analysis.waits.contended_metrics import timed

HERE = r"^(?:localhost|127\.\d+\.\d+\.\d+|\[?::1\]?|/.*)(?::\d+)?$"
"""Peers on the same machine: by loopback, or by the path of a socket."""

_WAITED, _USED = "process.linux.run_queue.time", "process.cpu.utilization"
_RUNNING, _BUSY = "system.linux.tasks.running", "system.cpu.utilization"


@dataclass(frozen=True)
class Curve:
    """What was waited since the first reading, at the ends of the readings."""

    at_ns: Ints
    waited_ns: Floats

    @classmethod
    def of(cls, start: Ints, end: Ints, ratio: Floats) -> Curve:
        """Make it of times, in their order, and of the share of each that was waited."""
        spent = (end - start) * ratio
        before = np.cumsum(spent) - spent
        at = np.column_stack((start, end)).ravel()
        waited = np.column_stack((before, before + spent)).ravel()
        return cls(at, waited)

    def between(self, start: Ints, end: Ints) -> Floats:
        """Return what was waited between two moments; where nothing was read, nothing."""
        first = self.at_ns[0]
        # Differences of nanoseconds since 1970 are exact as floating-point numbers, they are not.
        known = (self.at_ns - first).astype(np.float64)
        until, since = (
            np.interp((one - first).astype(np.float64), known, self.waited_ns)
            for one in (end, start)
        )
        waited: Floats = until - since
        return waited


@dataclass(frozen=True)
class CoreWaits:
    """The waiting of each recorded process, and of any task of the machine."""

    processes: Mapping[int, Curve]
    machine: Curve | None

    @property
    def known(self) -> bool:
        """Whether anything is known."""
        return bool(self.processes) or self.machine is not None

    def most_ns(self, spans: pl.DataFrame) -> Floats:
        """Return how much of each span may be waiting for a core that other programs had.

        `spans` has start_ns, end_ns, pid, and peer: null where it is no call.
        """
        start, end = spans["start_ns"].to_numpy(), spans["end_ns"].to_numpy()
        most = np.zeros(spans.height)
        if not self.known:
            return most
        pid = spans["pid"].fill_null(-1).to_numpy()
        for one, curve in self.processes.items():
            mine = np.flatnonzero(pid == one)
            most[mine] = curve.between(start[mine], end[mine])
        if self.machine is not None:
            here = np.flatnonzero(_here(spans["peer"]))
            most[here] = np.maximum(most[here], self.machine.between(start[here], end[here]))
        return np.clip(most, 0.0, np.maximum(0, end - start))


def core_waits(tables: Tables) -> CoreWaits:
    """Return what the capture says about waiting for a core."""
    names = (_WAITED, _USED, _RUNNING, _BUSY)
    readings = timed(
        measured(tables["metrics"].filter(pl.col("name").is_in(names))).collect(), SERIES
    ).filter(pl.col("end_ns") > pl.col("start_ns"))
    if not readings["name"].is_in((_WAITED, _RUNNING)).any():
        return CoreWaits({}, None)
    by_name = {name: readings.filter(pl.col("name") == name) for name in names}
    machine_cores = cores(tables)
    others = _others_ratio(by_name[_USED], by_name[_BUSY], machine_cores)
    return CoreWaits(
        _processes(by_name[_WAITED], by_name[_USED], others, tables),
        _machine(by_name[_RUNNING], others, machine_cores),
    )


def _others_ratio(used: pl.DataFrame, busy: pl.DataFrame, machine_cores: int | None) -> float:
    """Return the share of the used cores that unrecorded programs had; 1 where it is unknown."""
    whole = busy.filter(pl.col("attributes").is_null())
    # Of several machines it is not known which one a process ran on.
    if machine_cores is None or whole["instance"].n_unique() != 1:
        return 1.0
    # Processes come and go: what counts is for how long they used it.
    own, all_of_it = (
        float(((end - start) * value).sum()) for start, end, value in map(_columns, (used, whole))
    )
    return max(0.0, 1 - own / (all_of_it * machine_cores)) if all_of_it > 0 else 1.0


def _processes(
    waited: pl.DataFrame, used: pl.DataFrame, others: float, tables: Tables
) -> dict[int, Curve]:
    if waited.is_empty():
        return {}
    serving = _serving(tables)
    curves = {}
    for instance in waited["instance"].drop_nulls().unique().sort():
        pid = _pid(instance)
        mine, cpu = (one.filter(pl.col("instance") == instance) for one in (waited, used))
        if pid is None or cpu.is_empty():
            continue
        start, end = mine["start_ns"].to_numpy(), mine["end_ns"].to_numpy()
        running = Curve.of(*_columns(cpu)).between(start, end) / (end - start)
        threads = serving.get(pid, 1.0)
        ratio = waiting_ratio(mine["measured"].to_numpy(), running, threads)
        curves[pid] = Curve.of(start, end, others * ratio)
    return curves


def waiting_ratio(waiting: Floats, running: Floats, threads: float) -> Floats:
    """Return the share of the time that each of the serving threads waited for a core, at most.

    `waiting` and `running` are how many threads of the process did so, on average.
    """
    wanted = waiting + running
    ratio = np.divide(waiting, wanted, out=np.zeros_like(wanted), where=wanted > 0)
    shared: Floats = np.minimum(1.0, wanted / threads) * ratio
    return shared


def _machine(running: pl.DataFrame, others: float, machine_cores: int | None) -> Curve | None:
    # Of several machines it is not known where a request ran.
    if machine_cores is None or running["instance"].n_unique() != 1:
        return None
    start, end, tasks = _columns(running)
    # Who reads the number runs.
    wanting = np.maximum(tasks - 1, machine_cores)
    return Curve.of(start, end, others * (1.0 - machine_cores / wanting))


def _columns(readings: pl.DataFrame) -> tuple[Ints, Ints, Floats]:
    start, end, value = readings.select("start_ns", "end_ns", "measured")
    return start.to_numpy(), end.to_numpy(), value.to_numpy().astype(np.float64)


def _serving(tables: Tables) -> dict[int, float]:
    """Return how many threads of each process served requests while any did, on average.

    Requests of which the thread is not known count as if each had its own.
    """
    entry = (pl.col("row") == pl.col("entry_row")) & pl.col("pid").is_not_null()
    served = tables.where("tree", entry, "row", "pid", "thread_id", "start_ns", "end_ns")
    if served.is_empty():
        return {}
    served = served.with_columns(
        alone=pl.when(pl.col("thread_id").is_null()).then("row").otherwise(-1)
    )
    of_threads = _covered(served, ["pid", "thread_id", "alone"]).group_by("pid").sum()
    both = of_threads.join(_covered(served, ["pid"]), on="pid", suffix="_whole")
    ratios = both.filter(pl.col("ns_whole") > 0).select("pid", pl.col("ns") / pl.col("ns_whole"))
    return dict(ratios.iter_rows())


def _covered(spans: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """Return the distinct keys and how much time the spans of each cover, as `ns`."""
    group, distinct = codes(spans, keys)
    start, end = spans["start_ns"].to_numpy(), spans["end_ns"].to_numpy()
    order = order_by(group, start, distinct.height)
    time = covered(group[order], start[order], end[order], distinct.height)
    return distinct.with_columns(ns=pl.Series(time, dtype=pl.Int64))


def _pid(instance: str) -> int | None:
    """Return the process that recording calls so."""
    found = re.search(PID, instance)
    return int(found[1]) if found else None


def _here(peer: pl.Series) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return peer.str.contains(HERE).fill_null(False).to_numpy()


def compute(tables: Tables) -> pl.DataFrame:
    """Return the table `core_waits`, in the order of `tree`; empty where nothing is known."""
    waits = tables.once(core_waits)
    if not waits.processes:
        return pl.DataFrame(schema=dict.fromkeys(COLUMNS, pl.Int64))
    entry = (pl.col("row") == pl.col("entry_row")) & pl.col("pid").is_in(list(waits.processes))
    spans = tables.where("tree", entry, "row", "start_ns", "end_ns", "pid")
    most = waits.most_ns(spans.with_columns(peer=pl.lit(None, pl.String)))
    return spans.select(
        entry_row="row",
        duration_ns=pl.col("end_ns") - pl.col("start_ns"),
        core_wait_ns=pl.Series(most).round().cast(pl.Int64),
    ).sort("entry_row")


def compute_queries(tables: Tables) -> pl.DataFrame:
    """Return the table `query_core_waits`, by query; empty where nothing is known."""
    waits = tables.once(core_waits)
    schema = {name: pl.String() if name == "query_id" else pl.Int64() for name in QUERY_COLUMNS}
    if not waits.known:
        return pl.DataFrame(schema=schema)
    columns = {"query_calls": ("row", "query_id"), "tree": _OF_CALL}
    parts = tables.each_piece(columns, _of_queries, [waits] * (len(tables.cuts()) - 1))
    sums = pl.concat(parts).group_by("query_id").sum().sort("query_id")
    return sums.select(
        "query_id", *(pl.col(name).round().cast(pl.Int64) for name in ("total_ns", "core_wait_ns"))
    )


_OF_CALL = ("start_ns", "end_ns", "duration_ns", "adjusted_count", "pid", "peer")


def _of_queries(frames: Frames, waits: CoreWaits) -> pl.DataFrame:
    """Return the sums of a piece; its rows are numbered from 0."""
    calls = frames["query_calls"]
    spans = frames["tree"][calls["row"]]
    weight = pl.col("adjusted_count")
    return (
        spans.with_columns(calls["query_id"], most=pl.Series(waits.most_ns(spans)))
        .group_by("query_id")
        .agg(
            total_ns=(pl.col("duration_ns") * weight).sum(),
            core_wait_ns=(pl.col("most") * weight).sum(),
        )
    )


COLUMNS = {
    "entry_row": "the entry, as in `tree`",
    "duration_ns": "its length",
    "core_wait_ns": "how much of it may be waiting of its thread for a core that others had",
}

DERIVED = Derived(
    "core_waits",
    "one entry of a process of which it is known how long it waited for a core",
    ("tree", "metrics"),
    compute,
    COLUMNS,
)

QUERY_COLUMNS = {
    "query_id": "the query, as in `queries`",
    "total_ns": "sum of the durations of its calls",
    "core_wait_ns": "how much of that may be waiting for a core that others had, of who asks or, "
    "on the same machine, answers",
}

QUERIES = Derived(
    "query_core_waits",
    "one query of a capture that tells how long cores were waited for",
    ("query_calls", "tree", "metrics"),
    compute_queries,
    QUERY_COLUMNS,
)
