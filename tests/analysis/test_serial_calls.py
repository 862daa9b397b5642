from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given

from tests.analysis.build import S, analyse, traces


@given(traces(damaged=True))
def test_equals_the_slow_runs(spans: list[S]) -> None:
    tables = analyse(spans)
    rows = tables.frame("tree").to_dicts()
    expected = []
    for parent in rows:
        reached, run = -1, list[dict[str, Any]]()
        runs = [run]
        for row in rows:
            if (
                row["parent_row"] == parent["row"]
                and not row["detached"]
                and row["entry_row"] is not None
                and row["category"] in ("client", "tool", "database")
            ):
                if row["start_ns"] < reached:
                    run = []
                    runs.append(run)
                run.append(row)
                reached = max(reached, row["end_ns"])
        expected += [run for run in runs if len(run) > 1]
    found = tables.frame("serial_calls").to_dicts()
    assert [row["rows"] for row in found] == [[one["row"] for one in run] for run in expected]
    for row, run in zip(found, expected, strict=True):
        lengths = [one["duration_ns"] for one in run]
        assert row["sum_ns"] == sum(lengths)
        assert row["saved_ns"] == sum(lengths) - max(lengths)
        assert row["gap_ns"] == run[-1]["end_ns"] - run[0]["start_ns"] - sum(lengths)
        gaps = [after["start_ns"] - one["end_ns"] for one, after in itertools.pairwise(run)]
        assert row["max_gap_ns"] == max(gaps)
        assert row["names"] == list(dict.fromkeys(one["name"] for one in run))


def test_phases_of_a_tool_call_are_not_calls() -> None:
    spans = [S(1, 0, 100, tool="t"), S(2, 10, 20, 1, tool="t"), S(3, 30, 40, 1, tool="t")]
    spans += [S(4, 50, 60, 1, tool="other"), S(5, 70, 80, 1, tool="another")]
    (row,) = analyse(spans).frame("serial_calls").to_dicts()
    assert row["names"] == ["s4", "s5"]
    assert row["parent_name"] == "s1"


def test_no_spans_give_all_columns() -> None:
    spans = [S(1, 0, 9), S(2, 1, 2, 1, kind="client"), S(3, 2, 3, 1, kind="client")]
    some = analyse(spans).frame("serial_calls")
    assert some.height == 1
    assert analyse([]).frame("serial_calls").schema == some.schema


def test_names_are_given_once_and_not_too_many() -> None:
    names = ["b", "a", "b", None, *(f"n{number}" for number in range(30))]
    spans = [S(1, 0, 1000, name="first"), S(2, 1000, 2000, name="second")]
    for number, name in enumerate(names):
        spans.append(S(10 + number, number, number + 1, 1, kind="client", name=name))
    spans += [S(90, 1000, 1001, 2, kind="client", name=None)]
    spans += [S(91, 1001, 1002, 2, kind="client", name=None)]
    one, other = analyse(spans).frame("serial_calls").to_dicts()
    assert one["names"] == ["b", "a", *(f"n{number}" for number in range(18))]
    assert one["calls"] == len(names)
    assert other["names"] == []
    assert other["rows"] == [len(names) + 2, len(names) + 3]
