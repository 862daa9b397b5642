from __future__ import annotations

from typing import Any

from hypothesis import given

from perfkit.analysis.session import Tables
from tests.analysis.build import S, analyse, by_id, traces


def waiting_children(tables: Tables) -> dict[int, list[dict[str, Any]]]:
    """List, by row, the children that a span waits for."""
    rows = list(tables.frame("tree").iter_rows(named=True))
    return {
        row["row"]: [one for one in rows if one["parent_row"] == row["row"] and not one["detached"]]
        for row in rows
    }


@given(traces(damaged=True))
def test_self_time_is_what_no_child_covers(spans: list[S]) -> None:
    tables = analyse(spans)
    children = waiting_children(tables)
    times = tables.frame("span_times").to_dicts()
    for row in tables.frame("tree").iter_rows(named=True):
        below = children[row["row"]]
        free = [
            moment
            for moment in range(row["start_ns"], row["end_ns"])
            if not any(one["start_ns"] <= moment < one["end_ns"] for one in below)
        ]
        remote = row["kind"] == "client" and any(one["kind"] == "server" for one in below)
        found = times[row["row"]]
        assert (found["self_ns"], found["gap_ns"]) == ((0, len(free)) if remote else (len(free), 0))


def test_the_gap_between_client_and_server_is_not_the_callers_time() -> None:
    #      0    10        40     70       90  100
    # 1    |====================================|     server, app
    # 2         |------------------------|            client, app
    # 3              .   |======|                     server, b
    times = by_id(
        analyse(
            [
                S(1, 0, 100, kind="server"),
                S(2, 10, 90, 1, kind="client"),
                S(3, 40, 70, 2, kind="server", service="b"),
            ]
        ),
        "span_times",
    )
    assert [times[number]["self_ns"] for number in (1, 2, 3)] == [20, 0, 30]
    assert [times[number]["gap_ns"] for number in (1, 2, 3)] == [0, 50, 0]
    assert [times[number]["critical_ns"] for number in (1, 2, 3)] == [20, 50, 30]


def test_a_producers_consumer_takes_no_time_of_it() -> None:
    times = by_id(
        analyse([S(1, 0, 30, kind="producer"), S(2, 10, 20, 1, kind="consumer")]), "span_times"
    )
    assert times[1]["self_ns"] == 30
    assert times[2]["self_ns"] == 10


@given(traces(damaged=True))
def test_critical_times_are_the_lengths_of_the_pieces(spans: list[S]) -> None:
    tables = analyse(spans)
    pieces = tables.frame("critical_path").to_dicts()
    for row in tables.frame("span_times").iter_rows(named=True):
        lengths = [one["end_ns"] - one["start_ns"] for one in pieces if one["row"] == row["row"]]
        assert row["critical_ns"] == sum(lengths)
