from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from perfkit.analysis.session import Tables
from tests.analysis.build import S, analyse, traces

Row = dict[str, Any]


def ancestors(rows: list[Row], row: Row) -> list[Row]:
    above = []
    while row["parent_row"] is not None:
        row = rows[row["parent_row"]]
        above.append(row)
    return above


def slow_components(tables: Tables, keys: list[str]) -> dict[tuple[Any, ...], Row]:
    rows = tables.frame("tree").to_dicts()
    times = tables.frame("span_times").to_dicts()
    inside = [row for row in rows if row["entry_row"] is not None]
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in inside:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    request_time = sum(
        row["duration_ns"] * row["adjusted_count"] for row in rows if row["row"] == row["entry_row"]
    )
    first = min((row["start_ns"] for row in inside), default=0)
    window = max((row["end_ns"] for row in inside), default=0) - first
    result = {}
    for key, spans in groups.items():
        outer = [row for row in spans if not any(above in spans for above in ancestors(rows, row))]
        counted = [row for row in spans if not row["duplicate"]]

        def total(name: str, spans: list[Row] = spans) -> int:
            return round(sum(times[row["row"]][name] * row["adjusted_count"] for row in spans))

        busy = sum(row["duration_ns"] * row["adjusted_count"] for row in outer)
        failed = [row for row in counted if row["status"] == "error"]
        result[key] = {
            "count": sum(row["adjusted_count"] for row in counted),
            "errors": sum(row["adjusted_count"] for row in failed),
            "total_ns": round(busy),
            "self_ns": total("self_ns"),
            "gap_ns": total("gap_ns"),
            "critical_ns": total("critical_ns"),
            "critical_ratio": total("critical_ns") / request_time if request_time else 0.0,
            "mean_concurrency": busy / max(window, 1),
            "max_concurrency": max(
                sum(
                    one["start_ns"] <= row["start_ns"] < max(one["end_ns"], one["start_ns"] + 1)
                    for one in outer
                )
                for row in outer
            ),
            **slow_levels(outer, max(window, 1)),
        }
    return result


def slow_levels(spans: list[Row], window: int) -> Row:
    """Count open spans nanosecond by nanosecond."""
    moments: dict[int, int] = {}
    for row in spans:
        for at in range(row["start_ns"], max(row["end_ns"], row["start_ns"] + 1)):
            moments[at] = moments.get(at, 0) + 1
    most = max(moments.values())
    return {
        "busy_ratio": len(moments) / window,
        "saturated_ratio": sum(level == most for level in moments.values()) / len(moments),
    }


@given(traces(damaged=True))
def test_components_and_operations_equal_the_slow_sums(spans: list[S]) -> None:
    tables = analyse(spans)
    keys = ["service", "category", "component"]
    for name, by in (("components", keys), ("operations", [*keys, "name"])):
        found = tables.frame(name).to_dicts()
        expected = slow_components(tables, by)
        assert len(found) == len(expected)
        for row in found:
            values = expected[tuple(row[key] for key in by)]
            assert {key: row[key] for key in values} == pytest.approx(values)


@given(traces())
def test_critical_time_of_all_components_is_request_time(spans: list[S]) -> None:
    tables = analyse([S(span.id, span.start, span.end, span.parent) for span in spans])
    ratios = tables.frame("components")["critical_ratio"]
    tree = tables.frame("tree")
    lengths = tree.filter(tree["row"] == tree["entry_row"])["duration_ns"].sum()
    assert ratios.sum() == pytest.approx(1.0 if lengths else 0.0)


def test_edges_are_what_a_service_calls() -> None:
    edges = analyse(
        [
            S(1, 0, 100, kind="server"),
            S(2, 10, 40, 1, kind="client", peer="b:80", adjusted_count=2.0),
            S(3, 20, 30, 2, kind="server", service="b", adjusted_count=2.0),
            S(4, 22, 28, 3, kind="client", service="b", db_system="redis"),
            S(5, 50, 60, 1),
            S(6, 60, 70, 1, kind="client", peer="b:80", status="error"),
        ]
    ).frame("edges")
    names = ("service", "category", "component", "count", "errors", "error_ratio")
    assert edges.select(*names).rows() == [
        ("app", "client", "b", 3, 1, pytest.approx(1 / 3)),
        ("b", "database", "redis", 1, 0, 0.0),
    ]
    costs = ("total_ns", "served", "server_ns", "gap_ns")
    # The call that failed never reached a server that we know of.
    assert edges.select(*costs).rows() == [(70, 2, 20, 40), (6, 0, None, 0)]


def test_work_on_a_message_is_no_call() -> None:
    edges = analyse(
        [
            S(1, 0, 100, kind="server"),
            S(2, 10, 15, 1, kind="producer", peer="orders"),
            S(3, 200, 300, 2, kind="consumer", service="worker", peer="orders"),
        ]
    ).frame("edges")
    assert edges.select("service", "category", "component", "served").rows() == [
        ("app", "messaging", "orders", 1)
    ]


@given(traces(damaged=True))
def test_edges_equal_the_slow_sums(spans: list[S]) -> None:
    tables = analyse(spans)
    rows = tables.frame("tree").to_dicts()
    calling = ("client", "database", "messaging", "tool")
    expected: dict[tuple[Any, ...], list[float]] = {}
    calls: dict[tuple[Any, ...], dict[int, float]] = {}
    for row in rows:
        if row["entry_row"] is None or row["category"] not in calling:
            continue
        expected.setdefault((row["service"], row["category"], row["component"]), [])
    for row in rows:
        if row["kind"] not in ("server", "consumer") or row["duplicate"]:
            continue
        if row["parent_row"] is None or row["entry_row"] is None:
            continue
        call = rows[row["parent_row"]]
        key = (call["service"], call["category"], call["component"])
        if call["category"] in calling and call["entry_row"] is not None:
            expected[key].append(row["duration_ns"] * call["adjusted_count"])
            calls.setdefault(key, {})[call["row"]] = call["adjusted_count"]
    found = {
        (row["service"], row["category"], row["component"]): row
        for row in tables.frame("edges").to_dicts()
    }
    assert set(found) == set(expected)
    for key, times in expected.items():
        assert found[key]["served"] == sum(calls.get(key, {}).values())
        assert found[key]["server_ns"] == (sum(times) if times else None)
