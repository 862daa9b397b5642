"""Requests that hang: threads that serve one and had not come back when the recording ended.

A request that hangs ends no span, so that traces lack it; the stack of its thread shows it. Frames
of servers and frameworks tell a thread that serves a request from a consumer whose task is to wait.
That it used no CPU time at all tells one long call from many short ones with no look in between.
"""

from __future__ import annotations

import polars as pl

from perfkit.analysis.code.call_paths import CallPaths
from perfkit.analysis.code.frame_roles import handles
from perfkit.analysis.code.samples import all_requests, by_thread
from perfkit.analysis.code.waiting import waits
from perfkit.analysis.session import Derived, Tables

_MIN_HUNG_NS = 1_000_000_000
"""What stood there for less is a request as any other (our own choice)."""
_LAST_LOOK_NS = 1_000_000_000
"""A thread that was not seen for longer may have done anything, or ended (our own choice)."""


def compute(tables: Tables) -> pl.DataFrame:
    """Return the table `hung_calls`, the longest first."""
    if tables.filters.by_request:
        return all_requests(tables).frame(DERIVED.name)
    paths = tables.frame("call_paths")
    samples = by_thread(tables["ordered_samples"]).drop_nulls("path").collect()
    last = _last_stacks(samples).join(_served(paths), on="path", how="inner")
    resource, site = paths[last["resource"]], paths[last["site"]]
    return (
        last.with_columns(
            site["function"],
            site["file"],
            site["line"],
            resource["function"].alias("waits_in"),
        )
        .sort("hung_ns", "thread", descending=[True, False])
        .select(pl.col(name).cast(_SCHEMA[name]) for name in COLUMNS)
    )


def _last_stacks(samples: pl.DataFrame) -> pl.DataFrame:
    """Return the stack in which each thread was last seen, if it slept in it for long enough."""
    end, same = pl.col("ts_ns") + pl.col("duration_ns"), pl.struct("thread", "path", "slept")
    slept = (pl.col("state") == "idle") & (pl.col("unseen_ns") == 0)
    stays = samples.with_columns(
        end_ns=end, slept=slept.fill_null(False), over_ns=end.max().over("pid")
    ).with_columns(
        stay=((same != same.shift()) | (pl.col("ts_ns") - pl.col("end_ns").shift() > _LAST_LOOK_NS))
        .fill_null(True)
        .cum_sum()
    )
    return (
        stays.filter("slept", pl.col("stay") == pl.col("stay").max().over("thread"))
        .group_by("thread", "path", maintain_order=True)
        .agg(
            pl.col("pid", "tid", "thread_name", "over_ns").last(),
            since_ns=pl.col("ts_ns").min(),
            end_ns=pl.col("end_ns").max(),
            stay=pl.col("stay").first(),
        )
        .join(stays.group_by("thread").agg(first_stay=pl.col("stay").min()), on="thread")
        .with_columns(
            hung_ns=pl.col("end_ns") - pl.col("since_ns"),
            throughout=pl.col("stay") == pl.col("first_stay"),
        )
        .filter(
            pl.col("hung_ns") >= _MIN_HUNG_NS,
            pl.col("over_ns") - pl.col("end_ns") <= _LAST_LOOK_NS,
        )
    )


def _served(paths: pl.DataFrame) -> pl.DataFrame:
    """Return the paths in which code that a request or a job asked for waits, by row as `path`."""
    tree = CallPaths.of(paths)
    served = tree.innermost(paths.select(handles()).to_series().to_numpy())
    # Without code of the program, a server waits there for the next request of its client.
    site = tree.innermost(paths["own"].to_numpy())
    return (
        waits(paths)
        .select("kind", "resource")
        .with_columns(path=pl.int_range(pl.len(), dtype=pl.Int64), site=pl.Series(site))
        .filter(pl.Series((served >= 0) & (site > served)), pl.col("kind").ne_missing("idle"))
    )


COLUMNS = {
    "pid": "process",
    "tid": "thread",
    "thread_name": "its name",
    "kind": "what it waits for, as in `lock_waits`; `call` for code that called something in C; "
    "null when the frames do not say",
    "function": "function of the program that waits",
    "file": "its file",
    "line": "line in it",
    "waits_in": "function that it waits in; itself where that is written in C",
    "since_ns": "when it was first seen there",
    "hung_ns": "how long it had been there, without any CPU time, when the recording ended",
    "throughout": "whether it was there at the first look already, so that it waits for longer",
}

_SCHEMA: dict[str, pl.DataType] = {
    **dict.fromkeys(COLUMNS, pl.String()),
    **dict.fromkeys(("pid", "tid", "since_ns", "hung_ns"), pl.Int64()),
    "line": pl.Int32(),
    "throughout": pl.Boolean(),
}

DERIVED = Derived(
    "hung_calls",
    "one thread that serves a request or job and had waited in one call for a second or more, "
    "and still did, when the recording ended",
    ("ordered_samples", "call_paths"),
    compute,
    COLUMNS,
)
