"""Waiting for one connection pool that several saw, told once.

Metrics, spans and stacks may all show the same waiting, under the names that each knows: the pool,
the database, the library. It is one where `pools` puts the waiting down to one pool, and where
nothing but one kind of spans and the stacks of the same processes know of any.
"""

from __future__ import annotations

import polars as pl

from perfkit.analysis.waits.pools import DATABASE_PACKAGES

_WORDS = {"metrics": "metrics", "spans": "spans", "samples": "stacks"}
_NAMES = ("resource", "service", "instance")


def told_once(contention: pl.DataFrame, pools: pl.DataFrame) -> pl.DataFrame:
    """Return `contention` with `seen_by`, and of a pool only the rows of who knows it best.

    Who counts the time waited knows it best: metrics, else spans (which time every wait), else
    stacks; metrics that only say how many waited come last.
    """
    contention = contention.with_columns(seen_by=pl.col("evidence").replace(_WORDS))
    mine, names = _one_pool(contention, pools)
    found = contention.filter(mine)
    if found["evidence"].n_unique() < 2:
        return contention
    counted = found.filter(pl.col("wait_ns").is_not_null())["evidence"].unique().to_list()
    ranked = ("metrics", "spans", "samples")
    order = sorted(
        found["evidence"].unique(), key=lambda one: (one not in counted, ranked.index(one))
    )
    seen_by = ", ".join(_WORDS[evidence] for evidence in order)
    told = mine & (pl.col("evidence") == order[0])
    replaced = {name: pl.lit(value, pl.String) for name, value in names.items()}
    return contention.filter(~mine | told).with_columns(
        *(
            pl.when(told).then(value).otherwise(name).alias(name)
            for name, value in replaced.items()
        ),
        seen_by=pl.when(told).then(pl.lit(seen_by)).otherwise("seen_by"),
    )


def _one_pool(
    contention: pl.DataFrame, pools: pl.DataFrame
) -> tuple[pl.Expr, dict[str, str | None]]:
    """Return which rows are of the one pool that is waited for, and its names."""
    of_pools = pl.col("kind") == "pool"
    spans, samples = pl.col("evidence") == "spans", pl.col("evidence") == "samples"
    of_database = samples & pl.col("resource").is_in(DATABASE_PACKAGES)
    waited = pools.filter(pl.col("source") == "metrics", pl.col("wait_ns") > 0)
    if waited.height == 1:
        pool, service, instance = waited.select("pool", "service", "instance").row(0)
        named = (pl.col("evidence") == "metrics") & (pl.col("resource") == pool)
        same = pl.lit(service is None) | pl.col("service").eq_missing(pl.lit(service, pl.String))
        mine = of_pools & ((named & same) | (spans & same) | of_database)
        return mine, {"resource": pool, "service": service, "instance": instance}
    seen = contention.filter(of_pools & spans)
    names = seen.select(_NAMES).unique()
    processes = contention.filter(of_pools & of_database)["pid"].unique()
    if waited.height or names.height != 1 or not processes.is_in(seen["pid"].implode()).all():
        return pl.lit(value=False), dict.fromkeys(_NAMES)
    return of_pools & (spans | of_database), names.row(0, named=True)
