"""What pools that are waited for are asked for, and what of that a busy machine explains:
`pool_demand`.

Callers are replayed in the recorded order of arrival, each with its connection for as long as it
held it: from the end of the span that takes one to that of the last call to the same database under
the same parent, before the next one is taken there; or to the end of the parent. No span says which
of both it is, so it is the one that comes nearer to the waiting that was recorded.

Once more they are replayed with connections held for as much shorter as their holders may have
waited for a core. What is waited for then is the pool's own.
"""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from perfkit.analysis.replay.queue_replay import waits
from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.vector.overlaps import most_at_once
from perfkit.analysis.vector.percentiles import Floats
from perfkit.analysis.waits.core_waits import core_waits

_KEY = ("pool", "service")


def compute(tables: Tables) -> pl.DataFrame:
    """Return the table `pool_demand`, by pool."""
    held = _held(tables)
    if held.is_empty():
        return pl.DataFrame(schema={name: _TYPES.get(name, pl.Int64()) for name in COLUMNS})
    most_ns = tables.once(core_waits).most_ns
    ways = []
    for until in ("last_ns", "parent_end_ns"):
        way = held.with_columns(end_ns=pl.max_horizontal("start_ns", until))
        core_wait = pl.Series(most_ns(way)).round().cast(pl.Int64)
        # Each process has a pool of its own.
        ways.append(
            way.with_columns(core_wait_ns=core_wait).partition_by(*_KEY, "pid", maintain_order=True)
        )
    processes = [
        min((_replayed(one) for one in both), key=_off) for both in zip(*ways, strict=True)
    ]
    return (
        pl.concat(processes)
        .group_by(_KEY)
        .agg(
            pl.col("callers", "held_ns", "core_wait_ns", "wait_ns", "quiet_wait_ns").sum(),
            pl.col("places", "wanted", "quiet_wanted").max(),
        )
        .sort(_KEY, nulls_last=True)
        .select(list(COLUMNS))
    )


def _held(tables: Tables) -> pl.DataFrame:
    """Return who takes a connection: when it asks, and from when until when it has one."""
    takers = tables.frame("pool_waits")
    rows, parents = takers["row"].to_numpy(), takers["parent_row"]
    asked = tables.picked("tree", rows, "start_ns", "end_ns", "pid", "peer", "db_system")
    held = takers.select(*_KEY, "parent_row", "wait_ns").with_columns(
        asked.select("pid", "peer", "db_system", arrive_ns="start_ns", start_ns="end_ns"),
        parent_end_ns=tables.looked_up("tree", parents, "end_ns"),
    )
    next_ns = pl.col("arrive_ns").shift(-1).over("parent_row", order_by="arrive_ns")
    held = held.with_columns(next_ns=next_ns, place=pl.int_range(pl.len()))
    return held.join(
        _last_calls(tables, held), on="place", how="left", maintain_order="left"
    ).select(
        *(*_KEY, "pid", "peer", "arrive_ns", "start_ns", "wait_ns"),
        last_ns=pl.coalesce("last_ns", pl.min_horizontal("parent_end_ns", "next_ns")),
        parent_end_ns=pl.min_horizontal("parent_end_ns", "next_ns"),
    )


def _off(replayed: pl.DataFrame) -> float:
    """Return how far a replay is from what was recorded, in times; one millisecond is nothing."""
    waited, seen = (replayed[name].item() + 1e6 for name in ("wait_ns", "seen_ns"))
    return abs(math.log(waited / seen))


def _last_calls(tables: Tables, held: pl.DataFrame) -> pl.DataFrame:
    """Return by `place` when the last call ended that may have used a connection, as `last_ns`."""
    parents = held["parent_row"].unique()
    beside = pl.col("parent_row").is_in(parents.implode()) & (pl.col("category") == "database")
    calls = tables.where("tree", beside, "parent_row", "db_system", "start_ns", "end_ns")
    used = held.select("place", "parent_row", "db_system", "next_ns", got_ns="start_ns")
    return (
        used.join(calls, on=["parent_row", "db_system"], how="inner")
        .filter(
            pl.col("start_ns") >= pl.col("got_ns"),
            (pl.col("start_ns") < pl.col("next_ns")).fill_null(True),
        )
        .group_by("place")
        .agg(last_ns=pl.col("end_ns").max())
    )


def _replayed(held: pl.DataFrame) -> pl.DataFrame:
    """Return one row about the callers of one process."""
    start, end = held["start_ns"].to_numpy(), held["end_ns"].to_numpy()
    arrive = held["arrive_ns"].to_numpy()
    nobody = np.zeros(len(arrive), dtype=np.int64)
    places = max(1, int(most_at_once(nobody, start, end, 1)[0]))
    hold, core_wait = end - start, held["core_wait_ns"].to_numpy()
    came: Floats = (arrive - arrive.min()).astype(np.float64)
    waited, quiet = (
        int(waits(came, length.astype(np.float64), places).sum())
        for length in (hold, hold - core_wait)
    )
    wanted, quiet_wanted = (
        int(most_at_once(nobody, arrive, arrive + length, 1)[0])
        for length in (hold, hold - core_wait)
    )
    return held.head(1).select(
        *_KEY,
        callers=pl.lit(len(arrive), pl.Int64),
        places=pl.lit(places, pl.Int64),
        held_ns=pl.lit(int(hold.sum()), pl.Int64),
        core_wait_ns=pl.lit(int(core_wait.sum()), pl.Int64),
        seen_ns=pl.lit(int(held["wait_ns"].sum()), pl.Int64),
        wait_ns=pl.lit(waited, pl.Int64),
        quiet_wait_ns=pl.lit(quiet, pl.Int64),
        wanted=pl.lit(wanted, pl.Int64),
        quiet_wanted=pl.lit(quiet_wanted, pl.Int64),
    )


_TYPES: dict[str, pl.DataType] = dict.fromkeys(_KEY, pl.String())

COLUMNS = {
    "pool": "the pool, as in `pools`",
    "service": "service.name",
    "callers": "how many spans took a connection",
    "places": "most connections that were held at once, of one process",
    "held_ns": "for how long they were held, added up",
    "core_wait_ns": "how much of that may be waiting for a core that others had",
    "wait_ns": "for how long callers wait in a replay, with so many places and these times",
    "quiet_wait_ns": "the same with connections held for as much shorter as was waited for a core",
    "wanted": "most connections that would be held at once if nobody waited for one",
    "quiet_wanted": "the same without waiting for a core either",
}

DERIVED = Derived(
    "pool_demand",
    "one pool that is waited for, in a replay of those who take a connection",
    ("tree", "pool_waits", "metrics"),
    compute,
    COLUMNS,
)
