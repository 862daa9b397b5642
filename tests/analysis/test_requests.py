from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from perfkit.analysis.spans.requests import COLUMNS
from tests.analysis.build import S, analyse, traces


@given(traces(damaged=True))
def test_equals_the_slow_sums(spans: list[S]) -> None:
    tables = analyse(spans)
    rows = tables.frame("tree").to_dicts()
    times = tables.frame("span_times").to_dicts()
    found = {row["request_row"]: row for row in tables.frame("requests").iter_rows(named=True)}
    assert set(found) == {row["row"] for row in rows if row["request_row"] == row["row"]}

    def below(top: dict[str, Any]) -> list[dict[str, Any]]:
        """List what is under a request and belongs to the same entry."""
        subtree = rows[top["row"] : top["row"] + top["subtree"]]
        return [row for row in subtree if row["entry_row"] == top["entry_row"]]

    for row, request in found.items():
        inside = below(rows[row])
        own_failed = rows[row]["status"] == "error"
        database = [
            one
            for one in inside
            if one["category"] == "database"
            and (one["parent_row"] is None or rows[one["parent_row"]]["category"] != "database")
        ]
        busy = {at for one in database for at in range(one["start_ns"], one["end_ns"])}
        spent = {
            one["row"]: times[one["row"]]["self_ns"] + times[one["row"]]["gap_ns"]
            for one in inside
            if one["row"] != row
        }
        expected = {
            "entry": rows[row]["entry_row"] == row,
            "status": "error" if own_failed else "ok",
            "hidden_error": not own_failed and any(one["status"] == "error" for one in inside),
            "span_count": len(inside),
            "db_count": len(database),
            "db_ns": len(busy),
            "self_ns": times[row]["self_ns"],
            "worst_self_ns": max(spent.values(), default=None),
        }
        assert {key: request[key] for key in expected} == expected
        if spent:
            worst = next(one for one, value in spent.items() if value == max(spent.values()))
            assert request["worst_name"] == rows[worst]["name"]


def test_no_spans_give_all_columns() -> None:
    assert analyse([]).frame("requests").schema == analyse([S(1, 0, 1)]).frame("requests").schema
    assert analyse([]).frame("requests").columns == list(COLUMNS)


def test_the_tool_is_the_first_one_below() -> None:
    requests = analyse(
        [
            S(1, 0, 100, kind="server"),
            S(2, 10, 20, 1, kind="server", service="b", http_method="x"),
            S(3, 30, 40, 1, tool="first"),
            S(4, 50, 60, 1, tool="second"),
            S(5, 0, 10, kind="server", tool="own", trace=2),
        ]
    ).frame("requests")
    assert requests["tool"].to_list() == ["first", None, "own"]


def test_the_endpoint_falls_back_to_the_name() -> None:
    spans = [S(1, 0, 9, kind="server", endpoint="GET /a"), S(2, 10, 19, kind="server", name="GET")]
    assert analyse(spans).frame("requests")["endpoint"].to_list() == ["GET /a", "GET"]


SECOND = 10**9


def metrics(*rows: tuple[int, str, float, str | None, str | None]) -> dict[str, list[Any]]:
    names = ("ts_ns", "name", "value", "instance", "service")
    return {name: [row[at] for row in rows] for at, name in enumerate(names)}


def test_resources_are_those_of_the_process_when_the_request_began() -> None:
    observed = metrics(
        (1 * SECOND, "process.cpu.utilization", 1.0, "pid 7", None),
        (2 * SECOND, "process.cpu.utilization", 3.0, "pid 7", None),
        (2 * SECOND, "process.cpu.utilization", 4.0, "gunicorn (pid 8)", None),
        (2 * SECOND, "process.memory.usage", 1000.0, "pid 7", None),
    )
    spans = [
        S(1, 2 * SECOND + 5, 3 * SECOND, pid=7),
        S(2, 1 * SECOND + 5, 3 * SECOND, trace=2, pid=7),
        S(3, 60 * SECOND, 61 * SECOND, trace=3, pid=7),
        S(4, 2 * SECOND, 3 * SECOND, trace=4),
        S(5, 2 * SECOND, 3 * SECOND, trace=5, pid=8),
    ]
    requests = analyse(spans, metrics=observed).frame("requests").sort("trace_lo")
    assert requests["cpu_ratio"].to_list() == pytest.approx([0.75, 0.25, None, None, 1.0])
    assert requests["rss_bytes"].to_list() == [1000, 1000, None, None, None]


def test_the_only_process_is_taken_for_spans_without_a_pid() -> None:
    observed = metrics((SECOND, "process.cpu.utilization", 1.0, "pid 7", None))
    requests = analyse([S(1, SECOND, 2 * SECOND)], metrics=observed).frame("requests")
    assert requests["cpu_ratio"].to_list() == [0.25]


def test_endpoints_and_tools() -> None:
    tables = analyse(
        [
            S(1, 0, 100 * SECOND, kind="server", endpoint="GET /a", tool="t"),
            S(2, 0, 50 * SECOND, trace=2, kind="server", endpoint="GET /a", status="error"),
            S(3, 0, 25 * SECOND, 1, kind="server", service="b", endpoint="GET /b"),
            S(4, 0, 50 * SECOND, trace=4, kind="server", endpoint="GET /c", adjusted_count=3.0),
        ]
    )
    columns = ("service", "endpoint", "requests", "rate_per_s", "errors", "error_ratio")
    assert tables.frame("endpoints").select(columns).rows() == [
        ("app", "GET /a", 2, 0.02, 1, 0.5),
        ("app", "GET /c", 3, 0.03, 0, 0.0),
        ("b", "GET /b", 1, 0.01, 0, 0.0),
    ]
    assert tables.frame("endpoints")["share_ratio"].to_list() == pytest.approx([0.5, 0.5, 25 / 300])
    assert tables.frame("endpoints")["p50_ns"].to_list()[0] == 75 * SECOND
    assert tables.frame("tools").select("tool", "requests", "total_ns").rows() == [
        ("t", 1, 100 * SECOND)
    ]


@pytest.mark.parametrize("name", ["BLPOP", "redis.brpop", "XREADGROUP", "SQS.ReceiveMessage"])
def test_waiting_for_the_next_job_is_no_request(name: str) -> None:
    job = S(1, 100, 130, kind="consumer", endpoint="process jobs")
    in_a_request = S(2, 105, 110, 1, kind="client", name=name)
    idle = S(3, 0, 90, trace=2, kind="client", name=name)
    other = S(4, 0, 10, trace=3, kind="client", name="GET")
    tables = analyse([job, in_a_request, idle, other])
    assert set(tables.frame("requests")["endpoint"]) == {"process jobs", "GET"}
    (facts,) = tables.frame("facts").to_dicts()
    assert facts["request_ns"] == 40
    # Where there is nothing else, roots of any kind stand in.
    assert analyse([idle]).frame("requests").height == 1
