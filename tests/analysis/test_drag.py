"""Drag and slack, beside a twin that changes one span at a time and replays the whole request."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given

from perfkit.analysis.replay.edits import scaled
from perfkit.analysis.session import Tables
from tests.analysis.build import S, analyse, by_id, families, traces
from tests.analysis.replays import replay

Spans = list[dict[str, Any]]


def busy_periods(inside: dict[int, tuple[int, int]]) -> list[list[int]]:
    """Divide calls, by their starts and ends, where none of them runs."""
    periods: list[list[int]] = []
    for child in sorted(inside, key=inside.__getitem__):
        if not periods or all(inside[one][1] <= inside[child][0] for one in periods[-1]):
            periods.append([])
        periods[-1].append(child)
    return periods


def length(
    rows: Spans, row: int, start: int, end: int, lengths: dict[int, int], longer: dict[int, int]
) -> int:
    """Replay a span that counts only between `start` and `end`, with some lengths changed."""
    inside = {}
    for one in rows:
        if one["parent_row"] == row and not one["detached"] and one["entry_row"] != one["row"]:
            clipped = (max(one["start_ns"], start), min(one["end_ns"], end))
            if clipped[0] < clipped[1]:
                inside[one["row"]] = clipped

    def waited_for(moment: int) -> int | None:
        done = [child for child, clipped in inside.items() if clipped[1] <= moment]
        return max(done, key=lambda one: (inside[one][1], -inside[one][0], -one), default=None)

    periods = busy_periods(inside)
    period_of = {child: number for number, period in enumerate(periods) for child in period}

    def finish(child: int) -> int:
        before = waited_for(inside[child][0])
        since = start if before is None else inside[before][1]
        if before is not None and period_of[before] == period_of[child]:
            at = finish(before)
        else:
            earlier = periods[period_of[child] - 1] if period_of[child] else []
            at = max((finish(one) for one in earlier), default=0)
        own = length(rows, child, *inside[child], lengths, longer)
        return at + inside[child][0] - since + own

    last = waited_for(end)
    tail = end - (start if last is None else inside[last][1])
    took = tail + max((finish(child) for child in inside), default=0)
    return lengths.get(row, took) + longer.get(row, 0)


def entry_length(
    rows: Spans, row: int, lengths: dict[int, int] | None = None, longer: int = 0
) -> int:
    """Return how long the entry of a span takes, if the span is that much longer."""
    entry = rows[rows[row]["entry_row"]]
    return length(
        rows, entry["row"], entry["start_ns"], entry["end_ns"], lengths or {}, {row: longer}
    )


def takes_part(tables: Tables, row: dict[str, Any]) -> bool:
    """Whether the length of a span can matter to its entry at all."""
    waits = tables.frame("span_waits").row(row["row"], named=True)
    waited = waits["parent_row"] is not None and waits["end_ns"] > waits["start_ns"]
    return row["entry_row"] is not None and (waited or row["row"] == row["entry_row"])


@given(traces(damaged=True) | families())
def test_drag_is_what_the_entry_loses_without_the_span(spans: list[S]) -> None:
    tables = analyse(spans)
    rows = tables.frame("tree").to_dicts()
    for row, found in zip(rows, tables.frame("span_drag").to_dicts(), strict=True):
        expected = 0
        if takes_part(tables, row):
            expected = entry_length(rows, row["row"]) - entry_length(
                rows, row["row"], {row["row"]: 0}
            )
        assert found["drag_ns"] == expected


@given(traces(damaged=True) | families())
def test_slack_is_the_most_that_a_span_can_grow_unnoticed(spans: list[S]) -> None:
    tables = analyse(spans)
    rows = tables.frame("tree").to_dicts()
    for row, found in zip(rows, tables.frame("span_drag").to_dicts(), strict=True):
        slack = found["slack_ns"]
        if not takes_part(tables, row):
            assert slack is None
            continue
        before = entry_length(rows, row["row"])
        assert entry_length(rows, row["row"], longer=slack) == before
        assert entry_length(rows, row["row"], longer=slack + 1) == before + 1


@given(traces(damaged=True) | families())
def test_drag_is_what_the_what_if_replay_saves(spans: list[S]) -> None:
    tables = analyse(spans)
    tree, drag = tables.frame("tree"), tables.frame("span_drag")["drag_ns"].to_list()
    entry = tree["entry_row"].to_list()
    for row, size in enumerate(tree["subtree"].to_list()):
        if entry[row] is None or not takes_part(tables, tree.row(row, named=True)):
            continue
        within = [below for below in range(row, row + size) if entry[below] == entry[row]]
        replayed = replay(tables, scaled(np.array(within), 0.0))
        changed = replayed.filter(replayed["entry_row"] == entry[row])
        assert changed["before_ns"][0] - changed["after_ns"][0] == drag[row]


@given(traces(damaged=True) | families())
def test_only_the_critical_path_has_drag_and_only_what_is_off_it_has_slack(spans: list[S]) -> None:
    tables = analyse(spans)
    waits = tables.frame("span_waits").to_dicts()
    for wait, drag in zip(waits, tables.frame("span_drag").to_dicts(), strict=True):
        assert wait["critical"] or drag["drag_ns"] == 0
        assert drag["drag_ns"] == 0 or drag["slack_ns"] == 0


def test_what_runs_beside_a_span_hides_part_of_it() -> None:
    # 1 |==---------==|
    # 2    |======|         10 to 70, then 4
    # 3    |---|            10 to 40
    # 4           |=|       70 to 90
    # 5    |--------|       10 to 85
    spans = [S(1, 0, 100), S(2, 10, 70, 1), S(3, 10, 40, 1), S(4, 70, 90, 1), S(5, 10, 85, 1)]
    found = by_id(analyse(spans), "span_drag")
    assert [found[number]["drag_ns"] for number in range(1, 6)] == [100, 5, 0, 5, 0]
    assert [found[number]["slack_ns"] for number in range(1, 6)] == [0, 0, 50, 0, 5]


def test_a_call_after_a_fan_out_waited_for_all_of_it() -> None:
    # 1 |==========|
    # 2 |=====|         0 to 60
    # 3 |---|           0 to 40
    # 4       |====|    60 to 100
    spans = [S(1, 0, 100), S(2, 0, 60, 1), S(3, 0, 40, 1), S(4, 60, 100, 1)]
    found = by_id(analyse(spans), "span_drag")
    assert [found[number]["drag_ns"] for number in range(1, 5)] == [100, 20, 0, 40]
    assert [found[number]["slack_ns"] for number in range(1, 5)] == [0, 0, 20, 0]


def test_two_chains_side_by_side_do_not_wait_for_each_other() -> None:
    # 1 |==========|
    # 2 |====|            0 to 40
    # 3      |=====|      40 to 100
    # 4 |---|             0 to 30
    # 5     |-----|       35 to 95, after 4
    spans = [S(1, 0, 100), S(2, 0, 40, 1), S(3, 40, 100, 1), S(4, 0, 30, 1), S(5, 35, 95, 1)]
    found = by_id(analyse(spans), "span_drag")
    assert [found[number]["drag_ns"] for number in range(1, 6)] == [100, 5, 5, 0, 0]
    assert [found[number]["slack_ns"] for number in range(1, 6)] == [0, 0, 0, 5, 5]


def test_a_span_below_another_can_cost_no_more_than_that_lets_through() -> None:
    # 1 |=---------|
    # 2  |========|     10 to 90
    # 3  |-------|      10 to 80
    # 4   |======|      20 to 80, below 2
    found = by_id(
        analyse([S(1, 0, 100), S(2, 10, 90, 1), S(3, 10, 80, 1), S(4, 20, 80, 2)]), "span_drag"
    )
    assert found[4]["drag_ns"] == 10
    assert found[3]["slack_ns"] == 10
