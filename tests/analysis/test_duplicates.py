from __future__ import annotations

from pathlib import Path

import pytest

from perfkit.analysis.filters import Filters
from perfkit.analysis.session import Tables
from perfkit.capture import Capture, CaptureWriter
from perfkit.importers import import_files
from tests.analysis.build import S, analyse, by_id

MS = 10**6
HTTP = {"kind": "server", "endpoint": "POST /rpc", "http_method": "POST", "http_status": 200}


def pair(number: int, *, late_ns: int = MS, **other: object) -> list[S]:
    """One request as two traces: a bare report, and one with a span below it."""
    start, end = number * 1000 * MS, (number * 1000 + 300) * MS
    outer = {**HTTP, "scope": "framework"}
    inner = {**HTTP, "scope": "application", **other}
    return [
        S(10 * number + 1, start, end, trace=2 * number, **outer),
        S(10 * number + 2, start + late_ns, end + late_ns, trace=2 * number + 1, **inner),
        S(10 * number + 3, start + 5 * MS, end - 5 * MS, 10 * number + 2, trace=2 * number + 1),
    ]


def requests(spans: list[S]) -> list[int]:
    return sorted(analyse(spans).frame("requests")["span_id"])


def test_a_server_span_inside_its_double_is_no_request() -> None:
    spans = [
        S(1, 0, 100, scope="asgi", **HTTP),
        S(2, 1, 99, 1, scope="fastapi", **HTTP),
        S(3, 10, 90, 2),
    ]
    tables = analyse(spans)
    rows = by_id(tables, "tree")
    assert tables.frame("requests")["span_id"].to_list() == [1]
    assert rows[2]["duplicate"]
    assert rows[3]["request_row"] == rows[1]["row"]
    assert tables.frame("span_times")["self_ns"].sum() == 100


@pytest.mark.parametrize("change", [{"service": "other"}, {"instance": "y"}])
def test_another_request_inside_a_request_is_one(change: dict[str, str]) -> None:
    inner = {**HTTP, "instance": "x", **change}
    spans = [S(1, 0, 100, instance="x", **HTTP), S(2, 1, 99, 1, **inner)]
    assert requests(spans) == [1, 2]


def query(number: int, start: int, end: int, scope: str, statement: str = "SELECT 1") -> S:
    return S(
        *(number, start, end, 1), kind="client", scope=scope, db_system="postgresql",
        db_statement=statement,
    )  # fmt: skip


def test_what_an_orm_and_its_driver_report_side_by_side_is_one_query() -> None:
    spans = [S(1, 0, 100, scope="asgi", **HTTP)]
    for number in range(3):
        at = 30 * number
        spans.append(query(10 + number, at, at + 20, "sqlalchemy"))
        spans.append(query(20 + number, at + 1, at + 19, "psycopg"))
    tables = analyse(spans)
    rows = by_id(tables, "tree")
    assert [rows[20 + number]["parent_row"] for number in range(3)] == [
        rows[10 + number]["row"] for number in range(3)
    ]
    assert tables.frame("queries")["calls"].to_list() == [3]
    assert tables.frame("queries")["max_repeats"].to_list() == [3]


@pytest.mark.parametrize(
    "other",
    [
        query(3, 1, 19, "sqlalchemy"),
        query(3, 1, 19, "psycopg", "SELECT 2"),
        query(3, 1, 21, "psycopg"),
        query(3, 20, 30, "psycopg"),
    ],
)
def test_other_queries_beside_a_query_stay_there(other: S) -> None:
    tables = analyse([S(1, 0, 100, scope="asgi", **HTTP), query(2, 0, 20, "sqlalchemy"), other])
    assert sum(tables.frame("queries")["calls"]) == 2


def test_reports_side_by_side_in_two_traces_are_one_request() -> None:
    spans = [span for number in range(1, 6) for span in pair(number)]
    assert requests(spans) == [12, 22, 32, 42, 52]
    tree = analyse(spans).frame("tree")
    assert tree.filter("duplicate")["span_id"].to_list() == [11, 21, 31, 41, 51]
    assert tree.filter("duplicate")["entry_row"].null_count() == 5


def test_duplicates_are_gone_from_a_filtered_tree() -> None:
    spans = [span for number in range(1, 6) for span in pair(number)]
    tree = analyse(spans, Filters(endpoint="/rpc")).frame("tree")
    assert not tree["duplicate"].any()
    assert tree.height == 10


def test_a_template_matches_the_path_that_fits_it() -> None:
    spans = [span for number in range(1, 6) for span in pair(number, endpoint="POST /{name}")]
    assert requests(spans) == [12, 22, 32, 42, 52]


@pytest.mark.parametrize(
    "change",
    [
        {"scope": "framework"},
        {"service": "other"},
        {"http_status": 500},
        {"endpoint": "POST /rpc/{name}"},
        {"late_ns": 270 * MS},
    ],
)
def test_what_differs_is_another_request(change: dict[str, object]) -> None:
    spans = [span for number in range(1, 6) for span in pair(number, **change)]
    assert len(requests(spans)) == 10


def test_two_requests_that_only_happen_together_are_two() -> None:
    spans = pair(1)
    for number in range(2, 9):
        spans += pair(number)[:1] if number % 2 else pair(number)[1:]
    assert len(requests(spans)) == 2 + 7


def test_a_report_with_spans_of_its_own_moves_into_the_other() -> None:
    spans = []
    for number in range(1, 6):
        spans += pair(number, late_ns=0)
        inside = (number * 1000 + 1) * MS
        spans.append(S(10 * number + 4, inside, inside + 9, 10 * number + 1, trace=2 * number))
        spans.append(S(10 * number + 5, inside, inside + 9, 10 * number + 1, trace=2 * number))
    tables = analyse(spans)
    rows = by_id(tables, "tree")
    assert tables.frame("requests")["span_id"].to_list() == [11, 21, 31, 41, 51]
    assert rows[12]["parent_row"] == rows[11]["row"]
    assert rows[13]["entry_row"] == rows[11]["row"]


def test_the_gateway_reports_each_rpc_twice(shared_data: Path, tmp_path: Path) -> None:
    with CaptureWriter(tmp_path / "x.perfkit", command=["test"]) as writer:
        import_files([shared_data / "contextforge" / "otlp"], writer)
    tables = Tables(Capture.open(tmp_path / "x.perfkit"))
    spans = tables.frame("spans")
    rpc = spans.filter(spans["endpoint"] == "POST /rpc", spans["kind"] == "server")
    assert rpc["scope"].value_counts(sort=True)["count"].to_list() == [451, 451]
    counted = {
        row["endpoint"]: row["requests"] for row in tables.frame("endpoints").iter_rows(named=True)
    }
    assert 451 <= counted["POST /rpc"] <= 451 * 1.02
    assert counted["POST /mcp/"] == 6
    assert "POST /mcp/{path}" not in counted
    kept = tables.frame("tree").filter("duplicate")
    assert set(kept["scope"]) == {"fastapi"}
