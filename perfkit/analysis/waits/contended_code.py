"""When spans and stacks say that somebody waited: for a connection, a lock, an event loop."""

from __future__ import annotations

import polars as pl

from perfkit.analysis.series import sufferers
from perfkit.analysis.session import Tables
from perfkit.analysis.waits.checkouts import waiting_checkouts

_LOOP_CONFIDENCE = 0.9
_CHECKOUT_CONFIDENCE = 0.85
_GIL_CONFIDENCE = 0.7

_SECOND_NS = 1_000_000_000
_GIL_HELD = 0.9
"""Held for so much of a second, the lock is what threads wait for (our own choice)."""
_TAKES_PART = 0.05
"""Threads that hold it for less of a second do not count as another one (our own choice)."""
_GIL_COLUMNS = (
    *("pid", "kind", "resource", "service", "instance", "start_ns", "end_ns"),
    *("level", "unit", "wait_ns", "threshold", "evidence", "confidence"),
)


def contended_checkouts(tables: Tables) -> pl.DataFrame:
    """Return the spans in which a connection was taken after a wait."""
    return waiting_checkouts(tables).select(
        *("service", "instance", "pid", "start_ns", "end_ns"),
        kind=pl.lit("pool"),
        resource="db_system",
        level=pl.lit(None, pl.Float64),
        unit=pl.lit("requests waiting"),
        wait_ns=pl.col("duration_ns") * pl.col("adjusted_count"),
        threshold=pl.lit(None, pl.Float64),
        evidence=pl.lit("spans"),
        confidence=pl.lit(_CHECKOUT_CONFIDENCE),
    )


def contended_waits(tables: Tables) -> pl.DataFrame:
    """Return the stack samples in which a thread waited for a lock or for a connection."""
    return (
        tables.frame("wait_samples")
        .filter(pl.col("kind").is_in(["lock", "pool"]))
        .select(
            "kind",
            "pid",
            "confidence",
            resource=pl.when(pl.col("kind") == "pool")
            .then(pl.col("waits_in_module").str.split(".").list.first())
            .otherwise(_place()),
            service=pl.lit(None, pl.String),
            instance=pl.lit(None, pl.String),
            start_ns="ts_ns",
            end_ns=pl.col("ts_ns") + pl.col("duration_ns"),
            level=pl.lit(None, pl.Float64),
            unit=pl.lit("threads waiting"),
            wait_ns=pl.col("duration_ns").cast(pl.Float64),
            threshold=pl.lit(None, pl.Float64),
            evidence=pl.lit("samples"),
        )
    )


def contended_gil(tables: Tables) -> pl.DataFrame:
    """Return the seconds in which the interpreter's lock was never free and several took turns.

    Only recordings that watched the lock can say it: others have no column `gil_ns`, or nulls.
    """
    samples = tables["samples"]
    if "gil_ns" not in samples.collect_schema():
        return pl.DataFrame(schema=dict.fromkeys(_GIL_COLUMNS, pl.Float64))
    held = pl.col("gil_ns")
    taken = (
        samples.filter(held > 0)
        .group_by("pid", "tid", second=pl.col("ts_ns") // _SECOND_NS)
        .agg(held.sum())
        .group_by("pid", "second")
        .agg(
            held=(held.sum() / _SECOND_NS).clip(0, 1),
            takers=(held >= _TAKES_PART * _SECOND_NS).sum(),
        )
        .filter(pl.col("held") >= _GIL_HELD, pl.col("takers") >= 2)
    )
    return taken.select(
        "pid",
        kind=pl.lit("gil"),
        resource=pl.lit("interpreter lock"),
        service=pl.lit(None, pl.String),
        instance=pl.lit(None, pl.String),
        start_ns=pl.col("second") * _SECOND_NS,
        end_ns=(pl.col("second") + 1) * _SECOND_NS,
        level="held",
        unit=pl.lit("share of time"),
        wait_ns=pl.lit(None, pl.Float64),
        threshold=pl.lit(_GIL_HELD),
        evidence=pl.lit("samples"),
        confidence=pl.lit(_GIL_CONFIDENCE),
    ).collect()


def contended_loops(tables: Tables) -> pl.DataFrame:
    """Return the times in which a function kept an event loop from serving others.

    What the others lost is the time that requests of the process were in flight meanwhile, less
    that of the one which the function works for: an upper bound, for they may have had to wait for
    something else anyway.
    """
    blocked = (
        tables.frame("loop_blocking")
        .with_row_index("interval")
        .with_columns(
            pl.col("interval").cast(pl.Int64), end_ns=pl.col("start_ns") + pl.col("duration_ns")
        )
    )
    requests = sufferers.served(tables)
    parts = [
        sufferers.suffering(
            part.select("interval", "start_ns", "end_ns", group=pl.col("interval")),
            sufferers.of_process(requests, part["pid"][0], None),
        )
        for part in blocked.partition_by("pid")
    ]
    in_flight = (
        pl.concat(parts).group_by("interval").agg(pl.col("in_flight_ns").sum())
        if parts
        else pl.DataFrame(schema={"interval": pl.Int64, "in_flight_ns": pl.Int64})
    )
    return blocked.join(in_flight, on="interval", how="left").select(
        *("pid", "start_ns", "end_ns"),
        kind=pl.lit("event loop"),
        resource=_place(),
        service=pl.lit(None, pl.String),
        instance=pl.lit(None, pl.String),
        level=pl.lit(None, pl.Float64),
        unit=pl.lit("callbacks blocking"),
        wait_ns=(pl.col("in_flight_ns") - pl.col("duration_ns")).clip(0).cast(pl.Float64),
        threshold=pl.lit(None, pl.Float64),
        evidence=pl.lit("samples"),
        confidence=pl.lit(_LOOP_CONFIDENCE),
    )


def _place() -> pl.Expr:
    """Return `function (file:line)`, with the file's own name alone."""
    file = pl.col("file").str.extract(r"([^/\\]+)$")
    return pl.format(
        "{} ({}:{})",
        pl.col("function").fill_null("?"),
        file.fill_null("?"),
        pl.col("line").cast(pl.String).fill_null("?"),
    )
