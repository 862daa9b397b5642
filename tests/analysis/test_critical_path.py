"""The critical path, beside a slow twin that walks it as Jaeger's UI does.

In the timelines `=` is on the critical path of the first span and `-` is not.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from perfkit.analysis.session import Tables
from tests.analysis.build import S, analyse, traces

Piece = tuple[int, int, int]


def pieces(tables: Tables, entry: int = 0) -> list[Piece]:
    """Return (span id, start, end) of the path of one entry, latest first."""
    ids = tables.frame("tree")["span_id"]
    return [
        (ids[piece["row"]], piece["start_ns"], piece["end_ns"])
        for piece in tables.frame("critical_path").iter_rows(named=True)
        if piece["entry_row"] == entry
    ]


def walk(rows: list[dict[str, Any]], row: int, start: int, end: int) -> list[Piece]:
    """Walk a span from its end to its start; it counts only within `start` and `end`."""
    children = []
    for one in rows:
        if one["parent_row"] == row and not one["detached"]:
            inside = (max(one["start_ns"], start), min(one["end_ns"], end))
            if inside[0] < inside[1]:
                children.append((inside, one["row"]))
    path, until = [], end
    while True:
        done = [child for child in children if child[0][1] <= until]
        if not done:
            break
        latest = max(inside[1] for inside, _ in done)
        # Of those that end together the longest; of equal ones the first.
        (begin, finish), child = min(one for one in done if one[0][1] == latest)
        path.append((row, finish, until))
        path.extend(walk(rows, child, begin, finish))
        until = begin
    path.append((row, start, until))
    return [piece for piece in path if piece[1] < piece[2]]


@given(traces(damaged=True))
def test_equals_the_slow_walk(spans: list[S]) -> None:
    tables = analyse(spans)
    rows = tables.frame("tree").to_dicts()
    for row in rows:
        if row["entry_row"] == row["row"]:
            expected = walk(rows, row["row"], row["start_ns"], row["end_ns"])
            found = [
                (piece["row"], piece["start_ns"], piece["end_ns"])
                for piece in tables.frame("critical_path").iter_rows(named=True)
                if piece["entry_row"] == row["row"]
            ]
            assert found == expected


@given(traces())
def test_a_path_is_as_long_as_its_entry_and_has_no_gaps(spans: list[S]) -> None:
    tables = analyse(spans)
    tree = tables.frame("tree")
    for entry in tree.filter(tree["row"] == tree["entry_row"]).iter_rows(named=True):
        path = pieces(tables, entry["row"])
        assert sum(end - start for _, start, end in path) == entry["duration_ns"]
        assert all(later[1] == earlier[2] for later, earlier in itertools.pairwise(path))


def test_one_span() -> None:
    # 1 |==========|
    assert pieces(analyse([S(1, 0, 100)])) == [(1, 0, 100)]


def test_a_child_of_equal_length_takes_it_all() -> None:
    # 1 |----------|
    # 2 |==========|
    assert pieces(analyse([S(1, 0, 100), S(2, 0, 100, 1)])) == [(2, 0, 100)]


def test_children_one_after_the_other() -> None:
    # 1 |==---==---==|
    # 2    |==|
    # 3         |==|
    path = pieces(analyse([S(1, 0, 100), S(2, 10, 30, 1), S(3, 50, 90, 1)]))
    assert path == [(1, 90, 100), (3, 50, 90), (1, 30, 50), (2, 10, 30), (1, 0, 10)]


def test_back_to_back_children_follow_each_other() -> None:
    # 1 |==------==|       jaeger #9148: the first child must not be lost
    # 2    |==|
    # 3       |==|
    path = pieces(analyse([S(1, 0, 100), S(2, 10, 50, 1), S(3, 50, 90, 1)]))
    assert path == [(1, 90, 100), (3, 50, 90), (2, 10, 50), (1, 0, 10)]


def test_of_parallel_children_the_last_to_end_counts() -> None:
    # 1 |==------==|
    # 2    |----|
    # 3    |=====|
    path = pieces(analyse([S(1, 0, 100), S(2, 10, 70, 1), S(3, 10, 80, 1)]))
    assert path == [(1, 80, 100), (3, 10, 80), (1, 0, 10)]


def test_an_overlapped_child_is_no_predecessor() -> None:
    # 1 |====----==|
    # 2    |---|
    # 3      |====|
    path = pieces(analyse([S(1, 0, 100), S(2, 10, 60, 1), S(3, 40, 90, 1)]))
    assert path == [(1, 90, 100), (3, 40, 90), (1, 0, 40)]


def test_of_children_that_end_together_the_longest_counts() -> None:
    # 1 |==------==|
    # 2      |---|
    # 3    |=====|
    path = pieces(analyse([S(1, 0, 100), S(2, 40, 80, 1), S(3, 10, 80, 1)]))
    assert path == [(1, 80, 100), (3, 10, 80), (1, 0, 10)]


def test_a_child_that_sticks_out_is_clipped() -> None:
    # 1 |==--------|
    # 2    |=======|---|
    path = pieces(analyse([S(1, 0, 100), S(2, 20, 150, 1)]))
    assert path == [(2, 20, 100), (1, 0, 20)]


def test_a_grandchild_is_clipped_to_all_above_it() -> None:
    # 1 |==----|
    # 2   |=---|---|
    # 3     |==|-----|
    path = pieces(analyse([S(1, 0, 29), S(2, 14, 34, 1), S(3, 19, 39, 2)]))
    assert path == [(3, 19, 29), (2, 14, 19), (1, 0, 14)]


def test_a_child_that_starts_after_its_parent_ended_is_left_out() -> None:
    # 1 |=====|
    # 2        |---|
    assert pieces(analyse([S(1, 0, 100), S(2, 110, 160, 1)])) == [(1, 0, 100)]


def test_nobody_waits_for_a_consumer() -> None:
    # 1 |=========|       producer
    # 2   |---|           consumer
    path = pieces(analyse([S(1, 0, 100, kind="producer"), S(2, 10, 90, 1, kind="consumer")]))
    assert path == [(1, 0, 100)]


def test_children_of_no_length_change_nothing() -> None:
    spans = [S(1, 0, 100), *(S(number, 50, 50, 1) for number in range(2, 40))]
    assert pieces(analyse(spans)) == [(1, 0, 100)]


def test_a_request_of_no_length_has_no_path() -> None:
    tables = analyse([S(1, 5, 5), S(2, 5, 5, 1)])
    assert tables.frame("critical_path").is_empty()


def test_long_spans_do_not_overflow() -> None:
    year = 365 * 86_400 * 10**9
    spans = []
    for trace in range(300):
        spans += [S(1, 0, year, trace=trace), S(2, 10, year - 10, 1, trace=trace)]
        spans += [S(3, 5, 7, 1, trace=trace), S(4, 20, 30, 2, trace=trace)]
    tables = analyse(spans)
    assert len(tables.frame("critical_path")) == 300 * 7
    assert pieces(tables) == [
        (1, year - 10, year),
        (2, 30, year - 10),
        (4, 20, 30),
        (2, 10, 20),
        (1, 7, 10),
        (3, 5, 7),
        (1, 0, 5),
    ]
    assert sum(tables.frame("span_times")["self_ns"].to_list()) == 300 * year


def jaeger(trace: dict[str, Any], links: dict[str, list[int]] | None = None) -> Tables:
    """Return a trace of Jaeger's JSON, times unchanged; ids are places in the list."""
    numbers = {span["spanID"]: number for number, span in enumerate(trace["spans"], 1)}
    columns: dict[str, list[int]] = {
        name: []
        for name in (
            *("trace_hi", "trace_lo", "span_id"),
            *("linked_trace_hi", "linked_trace_lo", "linked_span_id"),
        )
    }
    spans = []
    for span in trace["spans"]:
        number, parent = numbers[span["spanID"]], None
        for reference in span["references"]:
            parent = numbers[reference["spanID"]]
            if reference["refType"] == "FOLLOWS_FROM":
                for name, value in zip(columns, (0, 1, number, 0, 1, parent), strict=True):
                    columns[name].append(value)
        start, process = span["startTime"], trace["processes"][span["processID"]]
        service, name = process["serviceName"], span["operationName"]
        end = start + span["duration"]
        spans.append(S(number, start, end, parent, kind="unspecified", service=service, name=name))
    return analyse(spans, span_links=columns)


@pytest.mark.parametrize("number", [1, 2, 5, 7])
def test_the_cases_of_jaeger_ui(shared_data: Path, number: int) -> None:
    case = json.loads((shared_data / "critical_path" / f"jaeger-ui-{number}.json").read_text())
    tables = jaeger(case["trace"])
    ids = [span["spanID"] for span in case["trace"]["spans"]]
    found = [
        {"spanID": ids[span - 1], "sectionStart": start, "sectionEnd": end}
        for span, start, end in pieces(tables)
    ]
    assert found == case["critical_path"]


@pytest.mark.parametrize("number", [1, 3, 5, 7, 9, 11, 13, 15])
def test_the_cases_of_crisp(shared_data: Path, number: int) -> None:
    case = json.loads((shared_data / "jaeger_json" / f"crisp-case-{number}.json").read_text())
    tables = jaeger(case["data"][0])
    tree = tables.frame("tree").with_columns(tables.frame("span_times")["critical_ns"])
    found: dict[str, int] = {}
    for row in tree.iter_rows(named=True):
        label = f"[{row['service']}] {row['name']}"
        found[label] = found.get(label, 0) + row["critical_ns"]
    expected = case["testing"]
    expected = expected[0] if isinstance(expected, list) else expected["opTimeExclusive"]
    assert {label: found[label] for label in expected} == expected
