"""Threads that mostly wait and were seen running at their wait: they woke up, or fell asleep.

The kernel says whether a thread runs; the stack is read a moment before or after. A thread that
wakes up a hundred times a second is seen running now and then, with the stack of its wait. That is
no hot code. A loop that polls without sleeping has the same innermost frame, but runs most of the
time.
"""

from __future__ import annotations

import polars as pl

from perfkit.analysis.code.frame_roles import IDLE_LEAVES

WAITS = (*IDLE_LEAVES, "lock")
"""Roles of an innermost frame that is there to wait."""

BUSY_SHARE = 0.3
"""From this running share of its time on, a wait is polling and counts as code that runs (our own).

Not one half: on a busy machine, or beside threads that want the interpreter, a poller is kept
waiting for a core for much of its time, and that is not told from sleeping."""

FEWEST = 10
"""With fewer observations than this a path says too little: its function decides (our own)."""


def wakes() -> pl.Expr:
    """Return whether the running time of a path was spent waking up.

    The columns: `role`, `function`, `file` of the innermost frame, and the path's own `self_ns`,
    `running_ns`, `unknown_ns` and `self_count`.
    """
    running = pl.col("running_ns")
    known = pl.col("self_ns") - pl.col("unknown_ns")
    function = (pl.col("function"), pl.col("file"))
    share = (
        pl.when(pl.col("self_count") >= FEWEST)
        .then(running / known)
        .otherwise(running.sum().over(function) / known.sum().over(function))
    )
    return (pl.col("role").is_in(WAITS) & (running > 0) & (share < BUSY_SHARE)).fill_null(False)
