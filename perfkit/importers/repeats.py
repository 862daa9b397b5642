"""What was imported more than once: in two files, or in one file and its compressed copy.

Analyses tell spans that repeat, so that these are only counted. Samples and metrics have no ids;
those that can be no others are dropped.
"""

from __future__ import annotations

import polars as pl

from perfkit.capture import CaptureWriter

IDENTITY = ("trace_hi", "trace_lo", "span_id", "service", "kind", "start_ns")
"""What the analysis takes for the same span, of which it keeps one."""


def count(spans: pl.LazyFrame) -> int:
    """Return how many rows repeat a span that another row has already."""
    key = pl.col("trace_lo").hash() ^ pl.col("span_id").hash(seed=1)
    # Nearly always nothing repeats; a key of 8 bytes a span shows it without the others.
    keys = spans.select(key).collect().to_series()
    if keys.n_unique() == len(keys):
        return 0
    repeated = keys.filter(keys.is_duplicated()).unique()
    rows = spans.filter(key.is_in(repeated.implode())).select(IDENTITY).collect()
    return rows.height - rows.unique().height


_NS_OF = pl.coalesce(
    *(
        pl.when(
            (pl.col("start_ns") % unit == 0) & (pl.col("duration_ns").fill_null(0) % unit == 0)
        ).then(unit)
        for unit in (10**6, 10**3)
    ),
    1,
)
"""To what the times of a span are known: formats with ms or µs have ends that are multiples."""
_SAME_SPAN = ("trace_hi", "trace_lo", "span_id", pl.col("service").str.to_lowercase().alias("of"))
_MOST_TO_REPLACE = 4_000_000


def coarser(spans: pl.LazyFrame) -> pl.DataFrame:
    """Return which spans are there again with finer times, as `row` numbers and what they are.

    One of Jaeger (µs) or SkyWalking (ms) is that of OTLP (ns) where ids, service and kind are the
    same and start and duration differ by less than the coarser unit.
    """
    key = pl.col("trace_lo").hash() ^ pl.col("span_id").hash(seed=1)
    keys = spans.select(key).collect().to_series()
    if keys.n_unique() == len(keys):
        return pl.DataFrame(schema={"row": pl.UInt32})
    repeated = keys.filter(keys.is_duplicated()).unique()
    found = (
        spans.with_row_index("row")
        .filter(key.is_in(repeated.implode()))
        .select("row", *_SAME_SPAN, "start_ns", "duration_ns", "kind", unit_ns=_NS_OF)
        .collect()
    )
    # One that came a thousand times is compared once, and only with those that are finer.
    different = found.drop("row").unique()
    coarse = pl.concat(_coarser_than_some(different, unit_ns) for unit_ns in (10**6, 10**3))
    columns = different.columns
    rows = found.join(coarse, on=columns, how="semi", nulls_equal=True)
    return rows.select("row", "trace_hi", "trace_lo", "span_id", "unit_ns")


def _coarser_than_some(spans: pl.DataFrame, unit_ns: int) -> pl.DataFrame:
    """Return those known to a unit of which there is one with finer times among the others."""
    ids = ["trace_hi", "trace_lo", "span_id", "of"]
    coarse = spans.filter(pl.col("unit_ns") == unit_ns)
    finer = spans.filter(pl.col("unit_ns") < unit_ns)
    pairs = coarse.join(finer, on=ids, suffix="_finer", nulls_equal=True).filter(
        (pl.col("start_ns") - pl.col("start_ns_finer")).abs() < unit_ns,
        ((pl.col("duration_ns") - pl.col("duration_ns_finer")).abs() <= unit_ns).fill_null(
            value=True
        ),
        (pl.col("kind") == pl.col("kind_finer"))
        | pl.any_horizontal(pl.col("kind", "kind_finer").is_in(["unspecified", "internal"])),
    )
    return pairs.select(spans.columns).unique()


def drop_coarser(writer: CaptureWriter) -> tuple[int, bool]:
    """Drop spans that are there with finer times, and their events.

    Returns how many there are, and whether they were dropped: not from more than some millions of
    spans, which would have to be in memory for it.
    """
    found = coarser(writer.written("spans"))
    if found.is_empty() or writer.info.rows["spans"] > _MOST_TO_REPLACE:
        return found.height, False
    spans = writer.written("spans").with_row_index("row").join(found.lazy().select("row"), on="row",
                                                               how="anti")  # fmt: skip
    writer.replace("spans", spans.drop("row").collect())
    if writer.info.rows.get("span_events"):
        _drop_events(writer, found)
    return found.height, True


def _drop_events(writer: CaptureWriter, spans: pl.DataFrame) -> None:
    """Drop the events of these spans that are there with finer times."""
    ids = ["trace_hi", "trace_lo", "span_id"]
    units = spans.group_by(ids).agg(pl.col("unit_ns").max()).lazy()
    events = writer.written("span_events").with_row_index("row")
    theirs = events.join(units, on=ids).select(*ids, "name", "row", "ts_ns", "unit_ns").collect()
    key = [*ids, "name", "ts_ns", "unit_ns"]
    coarse = pl.col("ts_ns") % pl.col("unit_ns") == 0
    different = theirs.select(key).unique()
    pairs = different.filter(coarse).join(
        different.filter(~coarse), on=[*ids, "name"], suffix="_finer"
    )
    replaced = pairs.filter((pl.col("ts_ns") - pl.col("ts_ns_finer")).abs() < pl.col("unit_ns"))
    again = theirs.filter(
        coarse & (pl.col("row") > pl.col("row").min().over(key))
        | pl.struct(key).is_in(replaced.select(pl.struct(key)).to_series().implode())
    )
    kept = events.join(again.lazy().select("row"), on="row", how="anti")
    writer.replace("span_events", kept.drop("row").collect())


SURE = {
    "samples": ("ts_ns", "pid", "tid", "stack_id"),
    "metrics": ("ts_ns", "name", "kind", "service", "instance", "attributes", "value", "count"),
}
"""What no two rows have in common: a thread is nowhere twice at a time, nor has a series two values
that are the same. Nothing is sure of samples without time or thread, and of increments and points
of a load test, of which several may be equal at one time."""


def drop(writer: CaptureWriter, table: str) -> int:
    """Drop the rows that repeat one that came before; returns how many there were."""
    rows = writer.written(table)
    key = pl.struct(SURE[table]).hash()
    sure = pl.col("ts_ns").is_not_null()
    if table == "samples":
        sure &= pl.col("tid").is_not_null()
    else:
        sure &= (pl.col("kind") != "delta") & ~pl.col("name").str.starts_with("k6.")
    keys = rows.filter(sure).select(key).collect().to_series()
    if keys.n_unique() == len(keys):
        return 0
    whole = rows.with_columns(sure.alias("@sure")).collect()
    kept = pl.concat(
        [
            whole.filter(~pl.col("@sure")),
            whole.filter(pl.col("@sure")).unique(SURE[table], keep="first", maintain_order=True),
        ]
    ).drop("@sure")
    if kept.height < whole.height:
        writer.replace(table, kept)
    return whole.height - kept.height
