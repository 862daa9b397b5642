from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.session import Tables
from perfkit.analysis.what_if import replay, savings
from tests.analysis.build import S, analyse, traces

Spans = list[dict[str, Any]]


def slow_length(
    rows: Spans, row: int, start: int, end: int, factors: list[float], groups: list[list[int]]
) -> float:
    """Replay a span that counts only between `start` and `end`, one child after the other."""
    children = {}
    for one in rows:
        if one["parent_row"] == row and not one["detached"] and one["entry_row"] != one["row"]:
            inside = (max(one["start_ns"], start), min(one["end_ns"], end))
            if inside[0] < inside[1]:
                children[one["row"]] = inside

    def waited_for(moment: int) -> int | None:
        done = [child for child, inside in children.items() if inside[1] <= moment]
        return max(done, key=lambda one: (children[one][1], -children[one][0], -one), default=None)

    def lag(child: int) -> float:
        before = waited_for(children[child][0])
        ready = start if before is None else children[before][1]
        return (children[child][0] - ready) * factors[row]

    length = {
        child: slow_length(rows, child, *inside, factors, groups)
        for child, inside in children.items()
    }
    first_of: dict[int, int] = {}
    together: dict[int, float] = {}
    for group in groups:
        members = sorted((one for one in group if one in children), key=lambda one: children[one])
        if len(members) > 1:
            between = sum(lag(one) for one in members[1:])
            for one in members:
                first_of[one] = members[0]
                together[one] = max(length[each] for each in members) + between

    def finish(child: int) -> float:
        leader = first_of.get(child, child)
        before = waited_for(children[leader][0])
        ready = 0.0 if before is None else finish(before)
        return ready + lag(leader) + together.get(child, length[child])

    last = waited_for(end)
    tail = (end - (start if last is None else children[last][1])) * factors[row]
    return tail + max((finish(child) for child in children), default=0.0)


def slow_replay(tables: Tables, factors: list[float], groups: list[list[int]]) -> list[int]:
    rows = tables.frame("tree").to_dicts()
    return [
        round(slow_length(rows, row["row"], row["start_ns"], row["end_ns"], factors, groups))
        for row in rows
        if row["row"] == row["entry_row"]
    ]


@given(traces(damaged=True))
def test_without_changes_everything_takes_as_long_as_it_did(spans: list[S]) -> None:
    tables = analyse(spans)
    size = tables.frame("tree").height
    # A factor of 1 is not replayed at all, so one that is nearly 1 shows that the replay is exact.
    nearly = replay(tables, np.full(size, np.nextafter(1.0, 2.0)))
    assert nearly["after_ns"].to_list() == nearly["before_ns"].to_list()
    same = replay(tables, np.ones(size))
    assert same["after_ns"].to_list() == same["before_ns"].to_list()


@given(traces(damaged=True), st.data())
def test_equals_the_slow_replay(spans: list[S], data: st.DataObject) -> None:
    tables = analyse(spans)
    tree = tables.frame("tree")
    size = tree.height
    numbers = st.sampled_from([0.0, 0.5, 1.0, 1.0, 2.0])
    factors = data.draw(st.lists(numbers, min_size=size, max_size=size))
    families = [
        group["row"].to_list()
        for _, group in tree.filter(tree["entry_row"].is_not_null()).group_by("parent_row")
        if group.height > 1 and group["parent_row"][0] is not None
    ]
    groups = [
        data.draw(st.lists(st.sampled_from(family), min_size=2, unique=True))
        for family in families
        if data.draw(st.booleans())
    ]
    found = replay(tables, np.array(factors), parallel=[np.array(group) for group in groups])
    assert found["after_ns"].to_list() == slow_replay(tables, factors, groups)


def after(
    spans: list[S], factors: dict[int, float], parallel: list[list[int]] | None = None
) -> int:
    tables = analyse(spans)
    places = {span: row for row, span in enumerate(tables.frame("tree")["span_id"])}
    values = np.ones(len(places))
    for span, factor in factors.items():
        values[places[span]] = factor
    groups = [np.array([places[span] for span in group]) for group in parallel or []]
    return int(replay(tables, values, parallel=groups)["after_ns"][0])


SERIAL = [S(1, 0, 100), S(2, 10, 30, 1), S(3, 40, 60, 1), S(4, 60, 90, 1)]
# 1 |--==--==--===-|
# 2    |=|
# 3         |==|
# 4            |==|


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        ({2: 0.0}, 80),
        ({2: 0.5}, 90),
        ({2: 0.0, 3: 0.0, 4: 0.0}, 30),
        ({1: 0.0}, 70),
        ({4: 2.0}, 130),
    ],
)
def test_serial_calls_that_become_faster(factors: dict[int, float], expected: int) -> None:
    assert after(SERIAL, factors) == expected


def test_serial_calls_side_by_side_save_all_but_the_longest() -> None:
    assert after(SERIAL, {}, [[2, 3, 4]]) == 100 - (20 + 20 + 30) + 30


def test_what_waits_for_one_of_a_group_waits_for_all() -> None:
    spans = [S(1, 0, 100), S(2, 0, 40, 1), S(3, 40, 50, 1), S(4, 60, 100, 1)]
    assert after(spans, {}, [[2, 3]]) == 90


def test_groups_are_divided_by_the_span_that_makes_the_calls() -> None:
    spans = [S(1, 0, 100), S(2, 0, 50, 1), S(3, 50, 100, 1)]
    spans += [S(4, 0, 20, 2), S(5, 20, 40, 2), S(6, 50, 60, 3)]
    assert after(spans, {}, [[4, 5, 6]]) == 80


def test_what_is_hidden_behind_something_parallel_saves_nothing() -> None:
    # 1 |==========|
    # 2    |=====|
    # 3    |---|
    spans = [S(1, 0, 100), S(2, 10, 80, 1), S(3, 10, 60, 1)]
    assert after(spans, {3: 0.0}) == 100
    assert after(spans, {2: 0.0}) == 80


def test_only_the_part_within_the_parent_counts() -> None:
    spans = [S(1, 0, 100), S(2, 20, 500, 1)]
    assert after(spans, {2: 0.0}) == 20


def test_savings_weigh_each_entry_by_what_it_stands_for() -> None:
    spans = [S(1, 0, 100, adjusted_count=3.0), S(2, 0, 50, 1)]
    spans += [S(3, 0, 100, trace=2), S(4, 0, 400, trace=3)]
    tables = analyse(spans)
    factors = np.where(tables.frame("tree")["span_id"].to_numpy() == 2, 0.0, 1.0)
    found = savings(tables, factors)
    assert found.saved_ratio == pytest.approx(150 / 800)
    assert found.entries == 1
    assert (found.p50_before_ns, found.p50_after_ns) == (100, 50)


def test_no_spans() -> None:
    tables = analyse([])
    assert replay(tables, np.ones(0)).is_empty()
    assert savings(tables, np.ones(0)).saved_ratio == 0.0


def test_a_deep_chain_and_a_wide_family() -> None:
    count = 3000
    chain = [
        S(number, number, 3 * count - number, number - 1 or None) for number in range(1, count)
    ]
    assert after(chain, {count - 1: 0.0}) == 3 * count - 2 - (count + 2)
    wide = [S(1, 0, 10 * count)]
    wide += [S(number, 10 * number, 10 * number + 5, 1) for number in range(2, count)]
    assert after(wide, dict.fromkeys(range(2, count), 0.0)) == 10 * count - 5 * (count - 2)
