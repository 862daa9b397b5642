"""One pool that metrics, spans and stacks saw is one row's worth of waiting, not three."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from perfkit.analysis.waits.told_once import told_once

Row = dict[str, Any]
POOLS = {
    **dict.fromkeys(("pool", "service", "instance", "source"), pl.String),
    "wait_ns": pl.Int64,
}
ROWS = {
    **dict.fromkeys(("kind", "resource", "service", "instance", "evidence"), pl.String),
    "pid": pl.Int64,
    "wait_ns": pl.Float64,
}


def seen(evidence: str, resource: str, **more: Any) -> Row:
    row = {"kind": "pool", "resource": resource, "service": "shop", "instance": "a", "pid": 7}
    return row | {"evidence": evidence, "wait_ns": None} | more


SPANS = seen("spans", "sqlite", wait_ns=6.9)
STACKS = seen("samples", "sqlalchemy", service=None, instance=None, wait_ns=8.0)
METRICS = seen("metrics", "inventory", pid=None)
LOCK = seen("samples", "Book.lock (tools.py:63)", kind="lock", service=None, instance=None)


def told(rows: list[Row], *pools: Row) -> list[tuple[Any, ...]]:
    found = told_once(pl.DataFrame(rows, schema=ROWS), pl.DataFrame(list(pools), schema=POOLS))
    return found.select("resource", "service", "wait_ns", "seen_by").rows()


def pool(name: str, wait_ns: int | None = 7) -> Row:
    return {"pool": name, "service": "shop", "instance": "a", "source": "metrics"} | {
        "wait_ns": wait_ns
    }


def test_the_pool_that_waiting_is_put_down_to_is_told_once_by_who_counts_it_best() -> None:
    rows = told([STACKS, LOCK, METRICS, SPANS], pool("inventory"), pool("store", None))
    assert rows == [
        (LOCK["resource"], None, None, "stacks"),
        ("inventory", "shop", 6.9, "spans, stacks, metrics"),
    ]


def test_metrics_that_count_the_time_come_first() -> None:
    rows = told([SPANS, METRICS | {"wait_ns": 5.0}], pool("inventory"))
    assert rows == [("inventory", "shop", 5.0, "metrics, spans")]


def test_without_metrics_spans_and_stacks_of_one_process_are_one() -> None:
    assert told([STACKS, SPANS]) == [("sqlite", "shop", 6.9, "spans, stacks")]


@pytest.mark.parametrize(
    "rows",
    [
        [STACKS | {"pid": 8}, SPANS],  # another process
        [STACKS, SPANS, SPANS | {"service": "other"}],  # which of the two?
        [STACKS | {"resource": "urllib3"}, SPANS],  # no pool of a database
        [STACKS],
        [],
    ],
)
def test_what_may_be_several_stays_apart(rows: list[Row]) -> None:
    words = {"spans": "spans", "samples": "stacks"}
    expected = [
        (row["resource"], row["service"], row["wait_ns"], words[row["evidence"]]) for row in rows
    ]
    assert told(rows) == expected


def test_two_pools_that_are_waited_for_are_not_mixed() -> None:
    rows = told([METRICS, SPANS, STACKS], pool("inventory"), pool("store"))
    assert [row[0] for row in rows] == ["inventory", "sqlite", "sqlalchemy"]
