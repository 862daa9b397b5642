"""Which spans wait for a connection of a pool: `pool_waits`.

Spans do not name the pool that they take a connection from. Only who takes it from a pool that is
full waits; so where one pool of a service has waiting put down to it (see `pools`), the kinds of
spans with nearly all of the waiting take theirs from that pool, those among them that did not
happen to wait included.
"""

from __future__ import annotations

import polars as pl

from perfkit.analysis.database.statements import CHECKOUT
from perfkit.analysis.session import Derived, Tables

_NEARLY_ALL = 0.95
"""Ours: kinds of spans that only make up the rest of the waiting had free connections."""

_KIND = ("service", "entry_endpoint", "entry_tool", "parent_name")


def compute(tables: Tables) -> pl.DataFrame:
    """Return the table `pool_waits`, in the order of `tree`."""
    spans = (
        tables["tree"]
        .filter(
            pl.col("name").str.contains(CHECKOUT)
            & pl.col("db_system").is_not_null()
            & pl.col("parent_row").is_not_null()
            & pl.col("entry_row").is_not_null()
        )
        .select(*_KIND[:-1], "row", "parent_row", "duration_ns", "adjusted_count")
        .collect()
    )
    spans = spans.with_columns(parent_name=tables.looked_up("tree", spans["parent_row"], "name"))
    waiting = (pl.col("duration_ns") * pl.col("adjusted_count")).sum()
    kinds = (
        spans.group_by(_KIND)
        .agg(waiting.alias("waiting"))
        .sort("waiting", *_KIND, descending=[True, *[False] * len(_KIND)])
    )
    before = pl.col("waiting").cum_sum().over("service") - pl.col("waiting")
    most = kinds.filter(before < _NEARLY_ALL * pl.col("waiting").sum().over("service"))
    return (
        spans.join(most, on=_KIND, how="semi", nulls_equal=True)
        .join(_waited_for(tables), on="service", how="inner")
        .sort("row")
        .select("pool", "service", "row", "parent_row", wait_ns="duration_ns")
    )


def _waited_for(tables: Tables) -> pl.DataFrame:
    """Return `pool` and `service` of the pool of each service that is waited for most."""
    waited = tables["pools"].filter(pl.col("wait_ns") > 0, pl.col("source") != "samples").collect()
    services = tables["tree"].select(pl.col("service").unique()).collect()
    # Metrics of a pool may not say their service.
    if services.height == 1:
        waited = waited.with_columns(pl.col("service").fill_null(services.item()))
    return (
        waited.sort("wait_ns", "pool", descending=[True, False])
        .unique("service", keep="first", maintain_order=True)
        .select("pool", "service")
    )


COLUMNS = {
    "pool": "the pool, as in `pools`",
    "service": "service.name",
    "row": "the span that takes a connection, as in `tree`",
    "parent_row": "the span in which the connection is held",
    "wait_ns": "how long taking it lasted",
}

DERIVED = Derived(
    "pool_waits",
    "one span that takes a connection from a pool that is waited for",
    ("tree", "pools"),
    compute,
    COLUMNS,
)
