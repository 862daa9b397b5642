"""Tables of PostgreSQL and how often they are read as a whole: `table_scans`.

From `pg_stat_user_tables`, as `perfkit import postgresql://…` reads it and as postgres_exporter
names it for Prometheus.
"""

from __future__ import annotations

import polars as pl

from perfkit.analysis.session import Derived, Tables

PREFIX = "pg_stat_user_tables_"
_COUNTERS = {"seq_scan": "scans", "seq_tup_read": "scanned_rows", "idx_scan": "index_scans"}
_KEY = ("instance", "database", "schema", "table")
_LABELS = {"database": "datname", "schema": "schemaname", "table": "relname"}


def compute(tables: Tables) -> pl.DataFrame:
    """Return the table `table_scans`, those of which most rows are read first."""
    value = pl.col("value")
    label = pl.col("attributes").str.json_path_match
    series = (
        tables["metrics"]
        .filter(pl.col("name").str.starts_with(PREFIX) & value.is_finite())
        .sort("ts_ns", maintain_order=True)
        .with_columns(**{name: label(f"$.{key}") for name, key in _LABELS.items()})
        .group_by("name", *_KEY)
        .agg(
            last=value.last(),
            # A counter that began anew counts from there on.
            grown=value.diff().clip(lower_bound=0).sum(),
            points=pl.len(),
            span_ns=pl.col("ts_ns").max() - pl.col("ts_ns").min(),
        )
    )
    counted = pl.when(pl.col("points") > 1).then("grown").otherwise("last")

    def of(name: str, expression: pl.Expr) -> pl.Expr:
        return expression.filter(pl.col("name") == PREFIX + name).first()

    return (
        series.group_by(_KEY)
        .agg(
            **{
                column: of(name, counted).round().cast(pl.Int64)
                for name, column in _COUNTERS.items()
            },
            live_rows=of("n_live_tup", pl.col("last")).round().cast(pl.Int64),
            over_ns=of("seq_scan", pl.when(pl.col("points") > 1).then("span_ns").cast(pl.Int64)),
        )
        .filter(pl.col("table").is_not_null())
        .sort("scanned_rows", *_KEY, descending=[True] + [False] * 4, nulls_last=True)
        .select(list(COLUMNS))
        .collect()
    )


COLUMNS = {
    "instance": "which replica or process",
    "database": "database",
    "schema": "schema",
    "table": "table",
    "scans": "how often it was read from the first row to the last",
    "scanned_rows": "rows that were read so",
    "index_scans": "how often an index of it was used; null when it has none",
    "live_rows": "rows in it at last, as the server estimates",
    "over_ns": "over which time scans were counted; null: since the server's statistics were reset",
}

DERIVED = Derived(
    "table_scans", "one table of a PostgreSQL database", ("metrics",), compute, COLUMNS
)
