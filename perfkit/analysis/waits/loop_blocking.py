"""Where a callback kept an event loop from turning: `loop_blocking`.

While the loop runs a callback, every other request on it waits, whether the callback computes or
sleeps. Such time shows as stacks below `Handle._run` (asyncio), or directly below `Runner.run`
where the loop itself is not Python (uvloop).

One callback cannot be told from the next by stacks alone: a loop that runs many short callbacks of
one kind looks the same whenever it is sampled. So a run here is less than a callback: it lasts
while one function of the program stays on the stack with unchanged callers, and it is cut where
spans show that the loop turned meanwhile (`loop_turns`).
"""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.analysis.code.call_paths import CallPaths, Flags
from perfkit.analysis.code.frame_roles import LOOP_ROLES, PRIMITIVES
from perfkit.analysis.code.samples import all_requests, by_thread, number_runs
from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.waits.loop_turns import MIN_BLOCKED_NS, cut_where_the_loop_turned


def compute(tables: Tables) -> pl.DataFrame:
    """Return the table `loop_blocking`, longest first."""
    if tables.filters.by_request:
        return all_requests(tables).frame(DERIVED.name)
    paths = tables.frame("call_paths")
    sites = blocking_sites(paths)
    waiting = paths.select(
        path=pl.int_range(pl.len()),
        waits=pl.col("role").is_in([*PRIMITIVES, "io", "select"]).fill_null(False)
        & ~pl.Series(_starting_a_thread(paths), dtype=pl.Boolean),
    )
    samples = tables["ordered_samples"].filter(pl.col("path").is_not_null())
    loops = samples.join(sites.lazy(), on="path", how="semi").select("thread").unique()
    rows = (
        by_thread(samples.join(loops, on="thread", how="semi"))
        .join(waiting.lazy(), on="path", how="left")
        .join(sites.lazy(), on="path", how="inner")
        .sort("place")
        .collect()
    )
    # A turn belongs to one thread.
    runs = number_runs(cut_where_the_loop_turned(rows, tables), "turn", "site")
    return _described(runs, paths).select(list(COLUMNS))


def blocking_sites(paths: pl.DataFrame) -> pl.DataFrame:
    """Return `path`, `own` and `site` of every path on which a loop runs a callback.

    `own` is the path of the innermost function of the program that the callback runs, or of the
    callback where there is none; `site` is the same for all lines of that function.
    """
    tree = CallPaths.of(paths)
    role = paths["role"]
    anchor = tree.outermost((role == "callback").fill_null(False).to_numpy())
    # A loop in Python has its own frames; below one that is native, callbacks come at once.
    in_python = tree.under((role == "loop").fill_null(False).to_numpy())
    native = tree.innermost((role == "native loop").fill_null(False).to_numpy())
    anchor = np.where(in_python | (anchor >= 0), anchor, native)
    callback = tree.child_towards(anchor)
    # A callback in C shows nothing below `Handle._run`; a native loop alone may well be idle.
    callback = np.where(in_python & (callback < 0), anchor, callback)
    own = tree.innermost(paths["own"].to_numpy())
    site = np.where(own > anchor, own, callback)
    blocked = np.flatnonzero((anchor >= 0) & (callback >= 0))
    place = pl.col("place").min().over("parent", "function", "file").cast(pl.Int64)
    first = paths.with_row_index("place").select(place).to_series()
    return pl.DataFrame(
        {"path": blocked, "own": site[blocked], "site": first.to_numpy()[site[blocked]]}
    )


def _starting_a_thread(paths: pl.DataFrame) -> Flags:
    """Return whether a path waits in `Thread.start` for the new thread to run.

    That is over as soon as a core and the GIL are free, so it is no call that must wait.
    """
    starts = pl.col("function").str.contains(r"^(?:Thread\.)?start$") & pl.col("file").str.contains(
        r"(?:^|[/\\])threading\.py$"
    )
    return CallPaths.of(paths).under(paths.select(starts.fill_null(False)).to_series().to_numpy())


def _described(rows: pl.DataFrame, paths: pl.DataFrame) -> pl.DataFrame:
    """Return one row a run that is long enough, named by the path in which it was longest."""
    duration = pl.col("duration_ns")
    stays = (pl.col("path") == pl.col("path").shift(1)) & (pl.col("run") == pl.col("run").shift(1))
    stretches = rows.group_by("run", "path", (~stays.fill_null(False)).cum_sum().alias("part")).agg(
        duration.sum(),
        running_ns=duration.filter(pl.col("state") == "running").sum(),
        waiting_ns=duration.filter("waits", pl.col("state") == "idle").sum(),
        unknown_ns=duration.filter(pl.col("state").is_null()).sum(),
        start_ns=pl.col("ts_ns").min(),
        end_ns=(pl.col("ts_ns") + duration).max(),
        observations=pl.col("count").fill_null(1).sum(),
        **{name: pl.col(name).first() for name in ("pid", "tid", "own", "needs_ns")},
    )
    sums = ("running_ns", "waiting_ns", "unknown_ns", "observations")
    by_path = (
        stretches.group_by("run", "path")
        .agg(
            pl.col("own", "pid", "tid", "needs_ns").first(),
            pl.col("duration_ns", *sums).sum(),
            pl.col("start_ns").min(),
            pl.col("end_ns").max(),
            unchanged_ns=duration.max(),
        )
        .sort("run", "start_ns", "path")
    )
    longest = duration.arg_max()
    runs = (
        by_path.group_by("run")
        .agg(
            pl.col("path", "own", "pid", "tid").get(longest),
            pl.col(sums).sum(),
            pl.col("start_ns").min(),
            pl.col("end_ns").max(),
            pl.col("unchanged_ns", "needs_ns").max(),
        )
        .with_columns(duration_ns=pl.col("end_ns") - pl.col("start_ns"))
        .filter(duration >= MIN_BLOCKED_NS, duration >= pl.col("needs_ns"))
        .sort("duration_ns", "start_ns", "run", descending=[True, False, False])
    )
    chains = {own: _own_chain(paths, own) for own in runs["own"].unique()}
    frame = ("function", "file", "line")
    place = paths[runs["own"]].select(frame)
    leaf = paths[runs["path"]].select(
        "stack_id", *(pl.col(name).alias(f"leaf_{name}") for name in frame)
    )
    called_by = pl.Series("called_by", [chains[own] for own in runs["own"]], dtype=pl.String)
    return pl.concat([runs, place, leaf, called_by.to_frame()], how="horizontal")


def _own_chain(paths: pl.DataFrame, path: int) -> str:
    """Return the program's own functions that lead to a path, outermost first."""
    names: list[str] = []
    above = paths["parent"][path]
    while above is not None and paths["role"][above] not in LOOP_ROLES:
        if paths["own"][above]:
            names.append(paths["function"][above])
        above = paths["parent"][above]
    return " > ".join(reversed(names))


COLUMNS = {
    "start_ns": "when the function was first seen on the loop",
    "duration_ns": "how long it was seen there without a break; where spans do not tell requests "
    "apart, and it is called again and again, several calls may count as one",
    "pid": "process",
    "tid": "thread of the loop",
    "function": "innermost function of the program itself, or the callback when there is none",
    "file": "its file",
    "line": "the line in it that lasted longest",
    "called_by": "functions of the program that led to it from the loop, outermost first",
    "stack_id": "the whole stack that lasted longest",
    "leaf_function": "innermost function of that stack, e.g. the one that waits for a socket",
    "leaf_file": "its file",
    "leaf_line": "line in it",
    "unchanged_ns": "longest part in which no line of the stack changed: one call, most likely",
    "running_ns": "time in which the thread ran: the loop was computing, not waiting",
    "waiting_ns": "time in which it did not, in a call that is known to wait, as for a socket; the "
    "rest is another call into C, or waiting for the GIL or for a core",
    "unknown_ns": "time of which nobody knows whether the thread ran",
    "observations": "rows of samples that it rests on",
}

DERIVED = Derived(
    "loop_blocking",
    f"one time of at least {MIN_BLOCKED_NS // 1_000_000} ms in which a function kept an event loop",
    ("ordered_samples", "call_paths", "tree"),
    compute,
    COLUMNS,
)
