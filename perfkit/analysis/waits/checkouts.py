"""Spans that take a connection to a database: who waits, and who opens one each time: `checkouts`.

A pool hands out a free connection at once. Who takes long has waited for one to come back, or has
opened one. Opening each time shows in two ways: nobody is ever quick, also who asks while nobody
else has one; or stacks show the driver connecting for as long.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.analysis.database.statements import CHECKOUT
from perfkit.analysis.session import Derived, Tables

_OPENS = r"(?i)^(?:pg|mysql2?|mongodb?|redis|tedious)\.connect$"
"""Names of spans below these in which a driver opens a connection."""
_MIN_SPAN_NS = 1_000_000
"""Taking a free connection is faster than this, and no wait (our own choice)."""
_EACH_TIME = 0.95
"""Share of slow ones from which on all are slow; some are quick by a pool at its fullest (ours)."""
_MIN_CHECKOUTS = 20
"""Fewer show no habit (ours)."""
_MIN_ALONE = 5
"""So many must have been slow while nobody else had a connection (ours)."""
_MIN_CONNECTING = 0.5
"""Or stacks must show connecting for this share of the time (ours: sampling misses some)."""
_CONNECTS = r"(?i)(?:^|\.)(?:_?connect|create_connection)$"
_DRIVERS = (
    r"^(?:psycopg2?|pg8000|pymysql|MySQLdb|mysql\.connector|aiomysql|asyncpg|oracledb|cx_Oracle|pyodbc)"
    r"(?:\.|$)"
)
"""Functions and modules of drivers in which a connection is opened."""
_PROCESS = ("service", "pid")
_KIND = ("service", "entry_endpoint", "entry_tool", "db_system")


def compute(tables: Tables) -> pl.DataFrame:
    """Return the table `checkouts`, most time first."""
    taking = _taking(tables)
    slow = pl.col("duration_ns") >= _MIN_SPAN_NS
    kinds = (
        taking.with_columns(alone=_alone(taking))
        .group_by(_KIND)
        .agg(
            component=pl.col("component").mode().sort().first(),
            checkouts=pl.len().cast(pl.Int64),
            slow=slow.sum().cast(pl.Int64),
            alone=pl.col("alone").sum().cast(pl.Int64),
            slow_alone=(slow & pl.col("alone")).sum().cast(pl.Int64),
            requests=pl.col("entry_row").n_unique().cast(pl.Int64),
            mean_ns=pl.col("duration_ns").mean().round().cast(pl.Int64),
            total_ns=(pl.col("duration_ns") * pl.col("adjusted_count")).sum().round(),
            spent_ns=pl.col("duration_ns").sum(),
        )
        .with_columns(pl.col("total_ns").cast(pl.Int64))
    )
    always = (pl.col("checkouts") >= _MIN_CHECKOUTS) & (
        pl.col("slow") >= _EACH_TIME * pl.col("checkouts")
    )
    seen_alone = (pl.col("slow_alone") >= _MIN_ALONE) & (
        pl.col("slow_alone") >= _EACH_TIME * pl.col("alone")
    )
    spent = int(kinds.filter(always)["spent_ns"].sum())
    in_stacks = 0 < _MIN_CONNECTING * spent <= _connecting_ns(tables)
    return (
        kinds.with_columns(
            opens=always & (seen_alone | in_stacks), connecting_seen=always & pl.lit(in_stacks)
        )
        .sort("total_ns", *_KIND, descending=[True, *[False] * len(_KIND)])
        .select(list(COLUMNS))
    )


def waiting_checkouts(tables: Tables) -> pl.DataFrame:
    """Return the spans that say that a connection was taken after a wait."""
    taking = _taking(tables)
    waited = (pl.col("duration_ns") >= _MIN_SPAN_NS) & ~_opened(taking)
    opening = tables.frame("checkouts").filter("opens").select(_KIND)
    opens = pl.col("name").str.contains(_OPENS) & pl.col("db_system").is_not_null()
    opened = tables.where("tree", opens, "parent_row")["parent_row"]
    return (
        taking.filter(waited)
        .filter(~pl.col("row").is_in(opened.drop_nulls().implode()))
        .join(opening, on=_KIND, how="anti", nulls_equal=True, maintain_order="left")
        .select(*_SPAN, "db_system", waiter=pl.coalesce("entry_tool", "entry_endpoint"))
    )


_SPAN = ("service", "instance", "pid", "start_ns", "end_ns", "duration_ns", "adjusted_count")


def _taking(tables: Tables) -> pl.DataFrame:
    """Return the spans that take a connection, and when what is around them ends."""
    more = (
        "row",
        "db_system",
        "component",
        "entry_endpoint",
        "entry_tool",
        "parent_row",
        "entry_row",
    )
    takes = pl.col("name").str.contains(CHECKOUT) & pl.col("db_system").is_not_null()
    taking = tables.where("tree", takes, *_SPAN, *more)
    return taking.with_columns(
        parent_end_ns=tables.looked_up("tree", taking["parent_row"], "end_ns"),
        entry_end_ns=tables.looked_up("tree", taking["entry_row"], "end_ns"),
    )


def _connecting_ns(tables: Tables) -> int:
    """Return the time that stacks show in drivers that open a connection."""
    seen = (
        tables["functions"]
        .filter(
            pl.col("function").str.contains(_CONNECTS) & pl.col("module").str.contains(_DRIVERS)
        )
        # A driver's functions call one another: the outermost one has all of the time.
        .select(pl.col("total_ns").max())
        .collect()
    )
    return int(seen.item() or 0)


def _alone(taking: pl.DataFrame) -> pl.Series:
    """Return which asked while no other request of the process held or wanted a connection."""
    known = _numbered(taking)
    wanted = _at_once(known, "start_ns", pl.max_horizontal("end_ns", "entry_end_ns"))
    alone = wanted.filter((pl.col("change") == 1) & (pl.col("now") == 1))
    return pl.Series(np.isin(np.arange(taking.height), alone["place"].to_numpy()))


def _numbered(taking: pl.DataFrame) -> pl.DataFrame:
    """Return the spans of which it is known what is around them, with their `place`."""
    numbered = taking.with_columns(place=pl.int_range(pl.len(), dtype=pl.Int64))
    return numbered.drop_nulls(("parent_end_ns", "entry_end_ns"))


def _opened(taking: pl.DataFrame) -> pl.Series:
    """Return which spans that take a connection opened a new one, and so waited for nobody.

    Who took one while more were held than ever before opened it; so did who asked while no other
    request held or wanted any. A connection may be back before what is around its span ends: so
    some that were opened count as waited for.
    """
    following = pl.col("start_ns").shift(-1).over("parent_row", order_by="start_ns")
    held = pl.min_horizontal("parent_end_ns", following)
    known = _numbered(taking.with_columns(held_until_ns=held))
    taken = _at_once(known, "end_ns", pl.max_horizontal("end_ns", "held_until_ns"))
    most_before = pl.col("now").cum_max().shift(1, fill_value=0).over(_PROCESS)
    first = taken.filter((pl.col("change") == 1) & (pl.col("now") > most_before))
    new = pl.Series(np.isin(np.arange(taking.height), first["place"].to_numpy()))
    return new | _alone(taking)


def _at_once(intervals: pl.DataFrame, start: str, until: pl.Expr) -> pl.DataFrame:
    """Return the changes of how many intervals of a process are open, and `now`, after each."""
    each = (
        intervals.select(*_PROCESS, "place", at_ns=start, change=1),
        intervals.select(*_PROCESS, "place", at_ns=until, change=-1),
    )
    # What ends at the moment at which another begins has ended.
    events = pl.concat(each).sort("at_ns", "change", "place")
    return events.with_columns(now=pl.col("change").cum_sum().over(_PROCESS))


COLUMNS = {
    "service": "service.name",
    "entry_endpoint": "endpoint of the requests that take the connections",
    "entry_tool": "tool of these requests",
    "db_system": "kind of the database",
    "component": "the database that is connected to most",
    "checkouts": "how many spans took a connection",
    "slow": "how many of them lasted a millisecond or more: those waited, or opened a connection",
    "alone": "how many asked while no other request of the process held or wanted one",
    "slow_alone": "how many of these were slow: nobody was there to wait for",
    "requests": "in how many requests",
    "mean_ns": "mean duration of the spans",
    "total_ns": "their time, added up",
    "opens": "whether a connection is opened each time",
    "connecting_seen": "whether stacks show the driver connecting for most of that time",
}

DERIVED = Derived(
    "checkouts",
    "one kind of request that takes connections to a database",
    ("tree", "functions"),
    compute,
    COLUMNS,
)
