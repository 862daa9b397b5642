"""Which code ran: the merged tree of sampled stacks, and the samples to filter it by."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from perfkit.analysis.code.frame_roles import IDLE_LEAVES
from perfkit.report.columns import Column
from perfkit.report.context import Context
from perfkit.report.pack import Delta

TITLE = "Code flame graph"
NEEDS = ("samples", "code_tree")
EMPTY = {
    "what": "There are no stack samples in this capture: nobody looked at which code ran.",
    "how": "Record the process with perfkit, which samples it with py-spy from outside:",
    "command": "perfkit record --pid PID --otlp --duration 30s -o slow.perfkit",
}

EXACT_SAMPLES = 1_000_000
"""Up to so many samples the page gets each; above, they are merged by stack and time."""

_COARSE_BUCKETS = 2000
_UNKNOWN, _RUNNING, _IDLE, _WOKEN = 0, 1, 2, 3
_STATES = {"running": _RUNNING, "idle": _IDLE}
AMBIGUOUS = -2
"""Entry of a sample that fits several requests."""

_TOP_FUNCTIONS = 30
_KEYS = ("stack", "thread", "state", "entry")

_FUNCTION_COLUMNS = (
    Column("function", "Function", "text", "code"),
    Column("module", "Module", "text", "muted"),
    Column("running_self_ns", "Running self", hint="Time in the function itself, on the CPU"),
    Column("woken_self_ns", "Woke up", hint="CPU time of threads that were seen waiting here"),
    Column("self_ns", "Self", hint="Time in the function itself, running or waiting"),
    Column("self_ratio", "Share of samples", "share"),
    Column("total_ns", "Total", hint="Time in the function and what it called"),
)
_COUNTED_COLUMNS = (
    *_FUNCTION_COLUMNS[:2],
    Column("samples", "Samples"),
    Column("self_ratio", "Share", "share"),
)


def build(context: Context) -> dict[str, Any]:
    """Return the tree, the samples, and the functions with the most time of their own."""
    tree = context.tables.frame("code_tree")
    samples, threads = samples_of(context, tree)
    timed = samples["duration_ns"].null_count() < samples.height
    coarse = samples.height > EXACT_SAMPLES
    if coarse:
        samples = _merged(samples, context.population.duration_ns // _COARSE_BUCKETS + 1)
    functions = context.tables.frame("functions")
    order = ["running_self_ns", "self_ns"] if timed else ["samples"]
    top = functions.sort(order, descending=True, nulls_last=True).head(_TOP_FUNCTIONS)
    return {
        "timed": timed,
        "coarse": coarse,
        "ambiguous_ratio": _share(samples, timed),
        "columns": _FUNCTION_COLUMNS if timed else _COUNTED_COLUMNS,
        "functions": top.to_dicts(),
        "data": {
            "tree": tree_columns(tree, timed),
            "samples": _packed(samples, timed),
            "threads": threads,
            "coarse": coarse,
        },
    }


def _share(samples: pl.DataFrame, timed: bool) -> float:
    """Return the share of the sampled time, or of the samples, that fits several requests."""
    weight = pl.col("duration_ns" if timed else "count")
    parts = samples.select(weight.filter(pl.col("entry") == AMBIGUOUS).sum(), all=weight.sum())
    ambiguous, whole = parts.row(0)
    return ambiguous / whole if whole else 0.0


def tree_columns(tree: pl.DataFrame, timed: bool) -> dict[str, Any]:
    """Return a tree of code (columns of `code_tree`) as the page's columns."""
    texts = tree.select(pl.col("function", "module", "file").fill_null(""))
    strings = pl.concat([texts["function"], texts["module"], texts["file"]], how="vertical").unique(
        maintain_order=True
    )
    numbers = pl.int_range(len(strings), eager=True)
    categories = tree["category"].fill_null("native").unique().sort()
    return {
        "strings": strings.to_list(),
        "label": texts["function"].replace_strict(strings, numbers).to_numpy(),
        "module": texts["module"].replace_strict(strings, numbers).to_numpy(),
        "file": texts["file"].replace_strict(strings, numbers).to_numpy(),
        "line": tree["line"].fill_null(-1).to_numpy(),
        "parent": tree["parent_id"].fill_null(-1).to_numpy(),
        "category": tree["category"]
        .fill_null("native")
        .replace_strict(categories, pl.int_range(len(categories), eager=True))
        .to_numpy(),
        "categories": categories.to_list(),
        "unit": "ns" if timed else "samples",
    }


def samples_of(context: Context, tree: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Return the samples in time order, with the columns of `_KEYS`, and the threads' names.

    A sample during which its thread changed from one request to another is cut in two.
    """
    population = context.population
    piece = ("sample_row", "entry_row", "ambiguous")
    pieces = (
        context.tables["sample_spans"]
        .group_by(piece)
        .agg(
            piece_ns=pl.when(pl.col("duration_ns").is_not_null().all()).then(
                pl.col("duration_ns").sum()
            ),
            piece_start_ns=pl.col("start_ns").min(),
        )
        .join(
            population.page_rows.lazy(),
            left_on="entry_row",
            right_on="request_row",
            how="left",
        )
    )
    # Where no state was recorded, an innermost frame that cannot but wait was waiting.
    waits = context.tables["call_paths"].select(
        "stack_id", waits=pl.col("role").is_in(IDLE_LEAVES).fill_null(False)
    )
    samples = (
        context.tables["ordered_samples"]
        .join(pieces, on="sample_row", how="left")
        .join(
            tree.lazy().select(
                "stack_id", stack="node_id", woken=pl.col("woken_ns") > pl.col("unseen_ns")
            ),
            on="stack_id",
        )
        .join(waits, on="stack_id", how="left")
        .with_columns(
            duration_ns=pl.coalesce("piece_ns", "duration_ns"),
            ts_ns=pl.coalesce("piece_start_ns", "ts_ns"),
        )
        .sort("ts_ns", "sample_row", nulls_last=True)
        .collect()
    )
    threads = (
        samples.group_by("pid", "tid")
        .agg(pl.col("thread_name").drop_nulls().last(), pl.len().alias("rows"))
        .sort("rows", "pid", "tid", descending=[True, False, False])
        .with_row_index("thread")
    )
    samples = samples.join(
        threads.select("pid", "tid", "thread"),
        on=["pid", "tid"],
        nulls_equal=True,
        maintain_order="left",
    )
    numbered = samples.select(
        "stack",
        "thread",
        "duration_ns",
        pl.col("count").fill_null(1),
        pl.when(pl.col("state").is_null() & pl.col("waits"))
        .then(_IDLE)
        .when((pl.col("state") == "running") & pl.col("woken"))
        .then(_WOKEN)
        .otherwise(pl.col("state").replace_strict(_STATES, default=_UNKNOWN, return_dtype=pl.Int8))
        .alias("state"),
        pl.when(pl.col("ambiguous"))
        .then(AMBIGUOUS)
        .otherwise(pl.col("page_row").cast(pl.Int64).fill_null(-1))
        .alias("entry"),
        rel_ns=pl.col("ts_ns") - population.origin_ns,
    )
    several = threads["pid"].n_unique() > 1
    return numbered, [_thread_name(row, several) for row in threads.iter_rows(named=True)]


def _thread_name(row: dict[str, Any], several_processes: bool) -> str:
    name = row["thread_name"] or "thread"
    ids = [f"pid {row['pid']}"] if several_processes and row["pid"] is not None else []
    ids += [str(row["tid"])] if row["tid"] is not None else []
    return f"{name} ({', '.join(ids)})" if ids else name


def _merged(samples: pl.DataFrame, bucket_ns: int) -> pl.DataFrame:
    """Add up samples of the same stack, thread, state, request and stretch of time."""
    return (
        samples.with_columns(rel_ns=pl.col("rel_ns") // bucket_ns * bucket_ns)
        .group_by(*_KEYS, "rel_ns")
        .agg(
            pl.when(pl.col("duration_ns").count() > 0).then(pl.col("duration_ns").sum()),
            pl.col("count").sum(),
        )
        .sort("rel_ns", *_KEYS, nulls_last=True)
    )


def _packed(samples: pl.DataFrame, timed: bool) -> dict[str, Any]:
    duration = samples["duration_ns"].fill_null(0) if timed else samples["count"]
    return {
        **{key: samples[key].to_numpy() for key in _KEYS},
        "start_ns": _starts(samples["rel_ns"]),
        "duration": duration.to_numpy(),
    }


def _starts(rel_ns: pl.Series) -> Delta | npt.NDArray[np.float64]:
    if rel_ns.null_count():
        return rel_ns.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return Delta(rel_ns.to_numpy())
