"""The functions of all samples with their own and their total time: `functions`."""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.analysis.code.call_paths import CallPaths
from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.vector.order import stable_order

_KEY = ("function", "file")


def compute(tables: Tables) -> pl.DataFrame:
    """Return the table `functions`, most own time first."""
    tree = tables.frame("code_tree")
    timed = bool(tree["self_ns"].is_not_null().any())
    nodes = tree.with_columns(
        pl.col("file").fill_null(""),
        outermost=pl.Series(outermost_calls(tree), dtype=pl.Boolean),
    )
    # The time below a function that is called again below itself is counted at its outermost call.
    outermost = pl.col("outermost")
    functions = nodes.group_by(_KEY).agg(
        pl.col("module", "category").first(),
        pl.col("self_ns").sum(),
        total_ns=pl.col("total_ns").filter(outermost).sum(),
        running_self_ns=pl.col("running_ns").sum(),
        running_total_ns=pl.col("running_total_ns").filter(outermost).sum(),
        woken_self_ns=pl.col("woken_ns").sum(),
        samples=pl.col("self_count").sum(),
        total_samples=pl.col("count").filter(outermost).sum(),
    )
    own, total = ("self_ns", "total_ns") if timed else ("samples", "total_samples")
    functions = functions.with_columns(
        self_ratio=_ratio(pl.col(own), pl.col(own).sum()),
        total_ratio=_ratio(pl.col(total), pl.col(own).sum()),
        running_ratio=_ratio(pl.col("running_self_ns"), pl.col("running_self_ns").sum()),
    )
    if not timed:
        missing = [name for name in COLUMNS if name.endswith("_ns")]
        functions = functions.with_columns(
            pl.lit(None, dtype=pl.Int64).alias(name) for name in missing
        )
    return functions.sort(own, total, *_KEY, descending=[True, True, False, False]).select(
        list(COLUMNS)
    )


def outermost_calls(tree: pl.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return for each node of `code_tree` whether its function is not already on the path above."""
    paths = CallPaths(tree["parent_id"].fill_null(-1).to_numpy(), tree["end_id"].to_numpy())
    nodes = np.arange(tree.height)
    code = (
        tree.select(pl.struct(*_KEY).rank("dense").fill_null(0).cast(pl.Int64))
        .to_series()
        .to_numpy()
    )
    order = stable_order(code)
    # Subtrees are nested or apart. In one function's nodes, by number, a node is below an earlier
    # one when some earlier subtree ends after it; a step per function keeps functions apart.
    step = code[order] * (tree.height + 1)
    furthest = np.maximum.accumulate(paths.end[order] + step)
    covered = np.zeros(tree.height, dtype=np.bool_)
    covered[1:] = furthest[:-1] > (nodes[order] + step)[1:]
    result = np.empty(tree.height, dtype=np.bool_)
    result[order] = ~covered
    return result


def _ratio(part: pl.Expr, whole: pl.Expr) -> pl.Expr:
    return pl.when(whole > 0).then(part / whole).otherwise(pl.lit(None, dtype=pl.Float64))


COLUMNS = {
    "function": "function",
    "file": "its file; empty when the source names none",
    "module": "its module",
    "category": "`app`, `library`, `stdlib`, `native` or `thread`",
    "self_ns": "time in the function itself on all threads, working or waiting; null when samples "
    "are only counts",
    "total_ns": "time in it and what it calls; a recursive call is not counted twice",
    "running_self_ns": "the part of `self_ns` in which the thread ran, without `woken_self_ns`",
    "running_total_ns": "the part of `total_ns` in which the thread ran, likewise",
    "woken_self_ns": "CPU time of threads that were seen waiting here: they woke up, fell asleep, "
    "or ran in code that no look saw; no hot code",
    "self_ratio": "own share of all sampled time (of all samples, when they are only counts)",
    "total_ratio": "share of all sampled time in it and what it calls",
    "running_ratio": "own share of the sum of all `running_self_ns`; null when that is nothing",
    "samples": "observations in the function itself",
    "total_samples": "observations in it and what it calls",
}

DERIVED = Derived(
    "functions", "one function that samples were taken in", ("code_tree",), compute, COLUMNS
)
