"""Connection pools: how full they are, and who waits for them: `pools`.

Metrics know a pool's name and size, but seldom how long threads waited for it; spans and samples
know that, but not for which pool. Threads wait only for a pool that is full. So where exactly one
pool was ever seen full, the waiting is put down to it; otherwise it stands in a row of its own.
"""

from __future__ import annotations

import polars as pl

from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.vector.overlaps import most_at_once
from perfkit.analysis.waits.checkouts import waiting_checkouts
from perfkit.analysis.waits.pool_metrics import KEY, pool_metrics

DATABASE_PACKAGES = ("sqlalchemy", "psycopg_pool", "dbutils", "pymongo")


def compute(tables: Tables) -> pl.DataFrame:
    """Return the table `pools`, most waiting first."""
    known = _conformed(pool_metrics(tables["metrics"]), "metrics")
    spans = _conformed(_from_spans(tables), "spans")
    samples = _conformed(_from_samples(tables), "samples")
    of_database = pl.col("pool").is_in(DATABASE_PACKAGES)
    # Spans time every wait, samples only see those that last; both together would count twice.
    seen = spans if spans.height else samples.filter(of_database)
    if known["wait_ns"].is_not_null().any():
        seen = seen.clear()
    full = known.filter(pl.col("max_used") >= pl.col("max_connections"))
    if full.height == 1:
        service = pl.lit(full["service"][0], dtype=pl.String)
        mine = (pl.col("source") == "samples") | pl.col("service").eq_missing(service)
        waiters = samples.filter(of_database)["waiters"].explode(empty_as_null=False).to_list()
        others = known.join(full, on=KEY, how="anti", nulls_equal=True)
        known = pl.concat([others, _put_down(full, seen.filter(mine), waiters)])
        seen = seen.filter(~mine)
    return pl.concat([known, seen, samples.filter(~of_database)]).sort(
        *("wait_ns", "saturated_ratio", *KEY),
        descending=[True, True, False, False, False],
        nulls_last=True,
    )


def _put_down(full: pl.DataFrame, seen: pl.DataFrame, waiters: list[str]) -> pl.DataFrame:
    """Return the row of the one full pool with the waiting that was seen."""
    if seen.is_empty():
        return full
    return full.with_columns(
        pl.lit(int(seen["wait_ns"].sum()), pl.Int64).alias("wait_ns"),
        pl.lit(int(seen["waits"].sum()), pl.Int64).alias("waits"),
        pl.Series("waits_threads", seen["waits_threads"].sort()[-1:]),
        pl.Series("waiters", [_who(seen, waiters)], dtype=pl.List(pl.String)),
    )


def _who(seen: pl.DataFrame, waiters: list[str]) -> list[str]:
    """Return the functions that wait, where stacks show any, or else the endpoints."""
    return sorted(set(waiters or seen["waiters"].explode().drop_nulls().to_list()))


def _from_spans(tables: Tables) -> pl.DataFrame:
    """Return one row a service whose spans say that a connection was taken after a wait."""
    spans = waiting_checkouts(tables)
    services = spans.group_by("service").agg(
        pl.col("db_system").mode().sort().first().alias("pool"),
        wait_ns=(pl.col("duration_ns") * pl.col("adjusted_count")).sum().round(),
        waits=pl.col("adjusted_count").sum().round(),
        waiters=pl.col("waiter").drop_nulls().unique().sort(),
    )
    numbered = services.select("service").with_row_index("group")
    group = spans.join(numbered, on="service", how="left", nulls_equal=True, maintain_order="left")[
        "group"
    ]
    at_once = most_at_once(
        group.cast(pl.Int64).to_numpy(),
        spans["start_ns"].to_numpy(),
        spans["end_ns"].to_numpy(),
        services.height,
    )
    return services.with_columns(waits_threads=pl.Series(at_once, dtype=pl.Int64))


def _from_samples(tables: Tables) -> pl.DataFrame:
    """Return one row a library in whose pool threads were seen to wait."""
    return (
        tables["lock_waits"]
        .filter(pl.col("kind") == "pool")
        .group_by(pool=pl.col("waits_in_module").str.split(".").list.first())
        .agg(
            pl.col("wait_ns", "waits").sum(),
            waits_threads=pl.col("max_waiting").max(),
            waiters=pl.col("function").unique().sort(),
        )
        .collect()
    )


def _conformed(pools: pl.DataFrame, source: str) -> pl.DataFrame:
    """Return pools with all columns, null where they are missing."""
    return pools.with_columns(
        pl.lit(source).alias("source"),
        *(pl.lit(None).alias(name) for name in COLUMNS if name not in (*pools.columns, "source")),
    ).select(pl.col(name).cast(_TYPES.get(name, pl.Int64())) for name in COLUMNS)


_TYPES: dict[str, pl.DataType] = {
    **dict.fromkeys((*KEY, "source"), pl.String()),
    **dict.fromkeys(("mean_used", "saturated_ratio"), pl.Float64()),
    "waiters": pl.List(pl.String()),
}

COLUMNS = {
    "pool": "name of the pool; without metrics the library (or database) that it belongs to",
    "service": "service.name; null when the source does not say it",
    "instance": "which replica; null when the source does not say it",
    "max_connections": "largest number of connections allowed; null when not known",
    "max_used": "most connections in use in any observation",
    "mean_used": "mean over the observations",
    "saturated_ratio": "share of observations in which all connections were in use",
    "pending_max": "most requests waiting for a connection in any observation",
    "timeouts": "how many gave up waiting",
    "wait_ns": "time spent waiting for a connection, added up: from metrics, else from spans that "
    "take a connection (without those that are seen to have opened one), else from stacks",
    "waits": "how often that was; of what stacks show, only waits that they saw",
    "waits_threads": "most that were seen waiting at once",
    "waiters": "functions of the program that were seen waiting in stacks, else the endpoints of "
    "spans that waited",
    "source": "`metrics`, `spans` or `samples`: what knows the pool; waiting that spans or samples "
    "saw is put down to a pool of `metrics` where no other was full",
}

DERIVED = Derived(
    "pools",
    "one connection pool, or waiting for a pool that is not known",
    ("metrics", "lock_waits", "tree", "checkouts"),
    compute,
    COLUMNS,
)
