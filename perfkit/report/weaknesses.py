"""What weakens a report, and what that means for its reader."""

from __future__ import annotations

import polars as pl

from perfkit import units
from perfkit.analysis.session import Tables

_CHECKS: tuple[tuple[str, pl.Expr, str, str], ...] = (
    # table, which rows, what is said of them, what it means
    (
        "tree",
        pl.col("adjusted_count") > 1,
        "{found} of {all} spans stand for more than themselves.",
        "The sender sampled its traces. Counts, sums and percentiles are weighted, so they are "
        "estimates of the whole; rare requests may be missing.",
    ),
    (
        "tree",
        pl.col("open"),
        "{found} of {all} spans had not ended.",
        "They count up to the last thing that was seen in their trace: they took at least so long.",
    ),
    (
        "tree",
        pl.col("negative"),
        "{found} of {all} spans ended before they started.",
        "A clock was set back, or an instrumentation is wrong. They count as of no length.",
    ),
    (
        "spans",
        pl.col("parent_inferred"),
        "The parents of {found} of {all} spans were inferred.",
        "The source did not record them; the smallest enclosing span of the trace was taken. Calls "
        "that ran side by side can be under the wrong one.",
    ),
    (
        "tree",
        pl.col("cut"),
        "{found} of {all} spans name a parent that is not there.",
        "They are shown as roots: spans were dropped on the way, or the trace began before the "
        "capture.",
    ),
    (
        "tree",
        # Well kept clocks agree to below a millisecond; some programs tell no less of one.
        pl.col("skew_ns").abs() >= 1_000_000,
        "The clocks of hosts disagree: {found} of {all} spans were moved.",
        "A callee cannot start before its caller. The gaps between services are uncertain.",
    ),
    (
        "tree",
        pl.col("duplicate"),
        "{found} requests or calls were reported twice, by two instrumentations.",
        "Each counts once. Switch one instrumentation off to send half as much.",
    ),
    (
        "sample_spans",
        pl.col("ambiguous"),
        "{found} of {all} stack samples fit several requests.",
        "Requests that share an event loop cannot be told apart by their thread, and by the steps "
        "of the loop only well within long ones. These samples count in the code flame graph but "
        "belong to no request.",
    ),
)


def find(tables: Tables) -> list[tuple[str, str]]:
    """Return pairs of what is weak, with figures, and what it means."""
    found = of_data(tables)
    if not tables.capture.finished:
        found.insert(
            0,
            (
                "The capture was not closed in an orderly way.",
                "Its writer was killed or is still running: the last moments may be missing.",
            ),
        )
    return found


def of_data(tables: Tables) -> list[tuple[str, str]]:
    """Return such pairs of what the spans and samples themselves lack."""
    return [weakness for check in _CHECKS for weakness in _look(tables, *check)]


def _look(
    tables: Tables, table: str, condition: pl.Expr, what: str, meaning: str
) -> list[tuple[str, str]]:
    counts = tables[table].select(condition.sum().alias("found"), pl.len().alias("all")).collect()
    row = counts.row(0, named=True)
    if not row["found"]:
        return []
    return [(what.format_map({key: units.number(number) for key, number in row.items()}), meaning)]
