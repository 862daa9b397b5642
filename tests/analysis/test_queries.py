from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given

from perfkit.analysis.session import Tables
from tests.analysis.build import S, analyse, traces

Row = dict[str, Any]


def database_calls(tables: Tables) -> list[Row]:
    """List the calls of entries that are not inside another call."""
    rows = tables.frame("tree").to_dicts()
    return [
        row
        for row in rows
        if row["category"] == "database"
        and row["entry_row"] is not None
        and (row["parent_row"] is None or rows[row["parent_row"]]["category"] != "database")
    ]


@given(traces(damaged=True))
def test_queries_equal_the_slow_sums(spans: list[S]) -> None:
    tables = analyse(spans)
    calls = database_calls(tables)
    critical = tables.frame("span_times")["critical_ns"].to_list()
    queries = tables.frame("queries").to_dicts()
    assert {row["example"] for row in queries} == {row["db_statement"] for row in calls}
    for query in queries:
        own = [row for row in calls if row["db_statement"] == query["example"]]
        weights = [row["adjusted_count"] for row in own]
        per_parent = [
            sum(row["parent_row"] == one["parent_row"] for row in own)
            for one in own
            if one["parent_row"] is not None
        ]
        failed = [row["adjusted_count"] for row in own if row["status"] == "error"]
        assert query["calls"] == sum(weights)
        assert query["total_ns"] == sum(row["duration_ns"] * row["adjusted_count"] for row in own)
        assert query["error_ratio"] == pytest.approx(sum(failed) / sum(weights))
        assert query["requests"] == len({row["entry_row"] for row in own})
        assert query["max_repeats"] == max(per_parent, default=1)
        assert query["critical_ns"] == sum(
            critical[row["row"]] * row["adjusted_count"] for row in own
        )
        assert set(query["endpoints"]) == {row["entry_endpoint"] for row in own}


@given(traces(damaged=True))
def test_repeats_equal_the_slow_sums(spans: list[S]) -> None:
    tables = analyse(spans)
    groups: dict[tuple[int, str], list[Row]] = {}
    siblings: dict[int, list[Row]] = {}
    every = [row["parent_row"] for row in tables.frame("tree").iter_rows(named=True)]
    for row in database_calls(tables):
        if row["parent_row"] is not None:
            groups.setdefault((row["parent_row"], row["db_statement"]), []).append(row)
            siblings.setdefault(row["parent_row"], []).append(row)
    expected = {}
    for (parent, statement), calls in groups.items():
        if len(calls) > 1:
            moments = {at for one in calls for at in range(one["start_ns"], one["end_ns"])}
            total = sum(one["duration_ns"] for one in calls)
            place = siblings[parent].index(calls[0])
            expected[parent, calls[0]["row"]] = {
                "calls": len(calls),
                "distinct_statements": len({one["db_statement"] for one in calls}),
                "union_ns": len(moments),
                "total_ns": total,
                # All of these times lie within the first millisecond: at 0 they are as good as one.
                "sequential": len(moments) == total or not any(one["start_ns"] for one in calls),
                "interleaved": every[calls[0]["row"] : calls[-1]["row"] + 1].count(parent)
                > len(calls),
                "source_row": siblings[parent][place - 1]["row"] if place else None,
                "entry_row": calls[0]["entry_row"],
            }
            assert statement
    found = tables.frame("query_repeats").to_dicts()
    assert {
        (row["parent_row"], row["first_row"]): {
            name: row[name] for name in next(iter(expected.values()))
        }
        for row in found
    } == expected


def test_variance_rows_and_callers() -> None:
    second = 10**9
    common = {"kind": "client", "db_system": "postgresql", "service": "b"}
    spans = [S(1, 0, 100 * second, kind="server", endpoint="GET /a", name="top", service="b")]
    for number, length in ((2, 1), (3, 3)):
        statement = f"SELECT * FROM t WHERE id = {number}"
        start, end = number * 10 * second, (number * 10 + length) * second
        spans.append(S(number, start, end, 1, db_statement=statement, db_rows=number, **common))
    (query,) = analyse(spans).frame("queries").to_dicts()
    assert query["statement"] == "SELECT * FROM t WHERE id = ?"
    assert query["db_system"] == "postgresql"
    assert query["service"] == "b"
    assert query["rows"] == 5
    assert query["callers"] == ["top"]
    assert query["variance_to_mean"] == pytest.approx(0.5)
    assert query["share_ratio"] == pytest.approx(0.04)


def test_a_call_of_a_lower_driver_is_not_counted_again() -> None:
    common = {"kind": "client", "db_system": "postgresql", "db_statement": "SELECT 1"}
    spans = [S(1, 0, 100), S(2, 10, 20, 1, **common), S(3, 11, 19, 2, **common)]
    tables = analyse(spans)
    assert tables.frame("queries")["calls"].to_list() == [1]
    assert tables.frame("requests")["db_count"].to_list() == [1]


def test_ids_are_the_same_in_every_capture() -> None:
    common = {"kind": "client", "db_system": "redis"}
    one = analyse([S(1, 0, 9), S(2, 1, 2, 1, db_statement="GET a", **common)])
    other = analyse([S(7, 5, 9), S(8, 6, 7, 7, db_statement="GET b", **common)])
    (query_id,) = one.frame("queries")["query_id"]
    assert other.frame("queries")["query_id"].to_list() == [query_id]
    assert len(query_id) == 16


def test_the_name_stands_for_a_statement_that_was_not_recorded() -> None:
    spans = [S(1, 0, 9), S(2, 1, 2, 1, kind="client", db_system="sqlite", name="connect")]
    assert analyse(spans).frame("queries")["statement"].to_list() == ["connect"]


@pytest.mark.parametrize("name", ["queries", "query_calls", "query_repeats"])
def test_no_spans_give_all_columns(name: str) -> None:
    common = {"kind": "client", "db_system": "redis", "db_statement": "GET a"}
    some = analyse([S(1, 0, 9), S(2, 1, 2, 1, **common), S(3, 3, 4, 1, **common)]).frame(name)
    assert some.height
    assert analyse([]).frame(name).schema == some.schema


def test_what_begins_a_transaction_is_not_where_rows_come_from() -> None:
    asked = {"kind": "client", "db_system": "postgresql"}
    spans = [S(1, 0, 100, kind="server"), S(2, 90, 200, kind="server", trace=2)]
    spans += [S(3, 10, 14, 1, db_statement="SELECT id FROM orders", **asked)]
    # The driver begins the transaction within the query of the ORM.
    spans += [S(4, 11, 12, 1, db_statement="BEGIN;", **asked)]
    spans += [
        S(10 + at, 20 + at, 21 + at, 1, db_statement="SELECT a FROM lines WHERE id = $1", **asked)
        for at in range(3)
    ]
    spans += [S(20, 100, 101, 2, trace=2, db_statement="BEGIN", **asked)]
    spans += [
        S(21 + at, 110 + at, 111 + at, 2, trace=2, db_statement="SELECT b FROM c", **asked)
        for at in range(2)
    ]
    tables = analyse(spans)
    ids = tables.frame("tree")["span_id"]
    lines, other = tables.frame("query_repeats")["source_row"]
    assert (ids[lines], other) == (3, None)


def test_taking_a_connection_is_not_the_query_that_fetched_the_rows() -> None:
    asked = {"kind": "client", "db_system": "postgresql"}
    orders, lines = "SELECT id FROM orders", "SELECT a FROM lines WHERE id = $1"
    spans = [S(1, 0, 100, kind="server")]
    for at, statement in enumerate([orders, lines, lines, lines]):
        began = 10 + 10 * at
        spans.append(S(2 + 2 * at, began, began + 1, 1, name="pg-pool.connect", **asked))
        spans.append(S(3 + 2 * at, began + 2, began + 9, 1, db_statement=statement, **asked))
    tables = analyse(spans)
    found = tables.frame("query_repeats").filter(pl.col("calls") == 3)
    assert tables.frame("tree")["span_id"].gather(found["source_row"]).to_list() == [3]


MS = 1_000_000


@pytest.mark.parametrize(
    ("starts", "took_ns", "sequential"),
    [
        # Each began where the one before ended, as a clock of whole milliseconds says it.
        ([0, 0, 1, 2, 2, 3], 600_000, True),
        ([0, 0, 0, 0, 0, 0], 600_000, False),
        ([0, 2, 5, 8, 11, 14], 2_900_000, True),
        ([0, 2, 5, 8, 11, 14], 3_100_000, False),
    ],
)
def test_calls_overlap_only_by_what_a_coarse_clock_cannot_tell(
    starts: list[int], took_ns: int, sequential: bool
) -> None:
    spans = [S(1, 0, 20 * MS, kind="server")]
    asked = {"kind": "client", "db_system": "redis", "db_statement": "GET a"}
    for at, start in enumerate(starts):
        spans.append(S(2 + at, start * MS, start * MS + took_ns, 1, **asked))
    (row,) = analyse(spans).frame("query_repeats").to_dicts()
    assert row["sequential"] == sequential
    # A clock that tells nanoseconds is believed.
    fine = [S(1, 0, 20 * MS, kind="server")]
    for at, start in enumerate(starts):
        fine.append(S(2 + at, start * MS + 7, start * MS + 7 + took_ns, 1, **asked))
    (row,) = analyse(fine).frame("query_repeats").to_dicts()
    assert not row["sequential"]
