from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.replay.edits import Edits, Queue, Spared, scaled
from perfkit.analysis.replay.what_if import Change, forecast, saved_range
from perfkit.analysis.vector.forest import Ints
from perfkit.analysis.vector.intervals import Intervals
from tests.analysis.build import S, analyse, families, traces
from tests.analysis.replays import replay, saved_ratio
from tests.analysis.test_drag import busy_periods

Spans = list[dict[str, Any]]
Piece = tuple[int, int, int]
"""A line, and the time on it that is spared."""


@dataclass
class Slow:
    """Replays a span that counts only between two times, one child after the other."""

    rows: Spans
    factors: list[float]
    groups: list[list[int]]
    spared: list[tuple[dict[int, int], list[Piece], float]]

    def own(self, row: int, start: int, end: int) -> float:
        """Return what stays of a piece of a span's own time, nanosecond by nanosecond."""
        away = 0.0
        for line_of, pieces, stays in self.spared:
            if row in line_of:
                inside = [
                    any(line == line_of[row] and a <= ns < b for line, a, b in pieces)
                    for ns in range(start, end)
                ]
                away += sum(inside) * (1.0 - stays)
        return max(0.0, (end - start) - max(0.0, away)) * self.factors[row]

    def length(self, row: int, start: int, end: int) -> float:
        children = {}
        for one in self.rows:
            if one["parent_row"] == row and not one["detached"] and one["entry_row"] != one["row"]:
                inside = (max(one["start_ns"], start), min(one["end_ns"], end))
                if inside[0] < inside[1]:
                    children[one["row"]] = inside

        def waited_for(moment: int) -> int | None:
            done = [child for child, inside in children.items() if inside[1] <= moment]
            latest = lambda one: (children[one][1], -children[one][0], -one)  # noqa: E731
            return max(done, key=latest, default=None)

        def lag(child: int) -> float:
            before = waited_for(children[child][0])
            ready = start if before is None else children[before][1]
            return self.own(row, ready, children[child][0])

        length = {child: self.length(child, *inside) for child, inside in children.items()}
        first_of: dict[int, int] = {}
        together: dict[int, float] = {}
        for group in self.groups:
            members = sorted((one for one in group if one in children), key=children.__getitem__)
            if len(members) > 1:
                between = sum(lag(one) for one in members[1:])
                for one in members:
                    first_of[one] = members[0]
                    together[one] = max(length[each] for each in members) + between

        periods = busy_periods(children)
        period_of = {child: number for number, period in enumerate(periods) for child in period}
        for child, leader in first_of.items():
            period_of[child] = period_of[leader]

        def finish(child: int) -> float:
            leader = first_of.get(child, child)
            before = waited_for(children[leader][0])
            if before is not None and period_of[before] == period_of[leader]:
                ready = finish(before)
            else:
                earlier = [one for one in children if period_of[one] < period_of[leader]]
                ready = max((finish(one) for one in earlier), default=0.0)
            return ready + lag(leader) + together.get(child, length[child])

        last = waited_for(end)
        tail = self.own(row, start if last is None else children[last][1], end)
        return tail + max((finish(child) for child in children), default=0.0)

    def entries(self) -> list[int]:
        return [
            round(self.length(row["row"], row["start_ns"], row["end_ns"]))
            for row in self.rows
            if row["row"] == row["entry_row"]
        ]


def rows_of(values: Iterable[int]) -> Ints:
    return np.array(list(values), dtype=np.int64)


def all_scaled(factors: Sequence[float]) -> Edits:
    return scaled(np.arange(len(factors)), np.array(factors, dtype=float))


def grouped(groups: list[list[int]]) -> Edits:
    return Edits(parallel=tuple(rows_of(group) for group in groups))


def times_of(pieces: list[Piece]) -> Intervals:
    return Intervals(*(rows_of(column) for column in zip(*pieces, strict=True)))


@given(traces(damaged=True) | families())
def test_without_changes_everything_takes_as_long_as_it_did(spans: list[S]) -> None:
    tables = analyse(spans)
    size = tables.frame("tree").height
    # A factor of 1 is not replayed at all, so one that is nearly 1 shows that the replay is exact.
    nearly = replay(tables, all_scaled([np.nextafter(1.0, 2.0)] * size))
    assert nearly["after_ns"].to_list() == nearly["before_ns"].to_list()
    same = replay(tables, all_scaled([1.0] * size))
    assert same["after_ns"].to_list() == same["before_ns"].to_list()


PIECES = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(0, 8)).map(
        lambda piece: (piece[0], piece[1], piece[1] + piece[2])
    ),
    min_size=1,
    max_size=6,
)


@given(traces(damaged=True) | families(), st.data())
def test_equals_the_slow_replay(spans: list[S], data: st.DataObject) -> None:
    tables = analyse(spans)
    tree = tables.frame("tree").with_columns(skew_ns=pl.lit(0, dtype=pl.Int64))
    tables._frames["tree"] = tree  # the times below are those of the tree
    size = tree.height
    numbers = st.sampled_from([0.0, 0.5, 1.0, 1.0, 2.0])
    factors = data.draw(st.lists(numbers, min_size=size, max_size=size))
    families = [
        group["row"].to_list()
        for _, group in tree.filter(tree["entry_row"].is_not_null()).group_by(
            "parent_row", maintain_order=True
        )
        if group.height > 1 and group["parent_row"][0] is not None
    ]
    groups = [
        data.draw(st.lists(st.sampled_from(family), min_size=2, unique=True))
        for family in families
        if data.draw(st.booleans())
    ]
    spared = []
    edits = all_scaled(factors) + grouped(groups)
    for _ in range(data.draw(st.integers(0, 2))):
        lines = data.draw(st.dictionaries(st.integers(0, max(0, size - 1)), st.integers(0, 2)))
        line_of = {row: line for row, line in lines.items() if row < size}
        pieces, stays = data.draw(PIECES), data.draw(st.sampled_from([0.0, 0.25, 2.0]))
        spared.append((line_of, pieces, stays))
        edits += Edits(
            spared=(Spared(rows_of(line_of), rows_of(line_of.values()), times_of(pieces), stays),)
        )
    found = replay(tables, edits)
    assert found["after_ns"].to_list() == Slow(tree.to_dicts(), factors, groups, spared).entries()


def after(
    spans: list[S], factors: dict[int, float], parallel: list[list[int]] | None = None
) -> int:
    tables = analyse(spans)
    places = {span: row for row, span in enumerate(tables.frame("tree")["span_id"])}
    edits = scaled(rows_of(places[span] for span in factors), np.array([*factors.values()], float))
    groups = grouped([[places[span] for span in group] for group in parallel or []])
    return int(replay(tables, edits + groups)["after_ns"][0])


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


def test_a_call_that_two_changes_put_side_by_side_is_moved_once() -> None:
    tables = analyse(SERIAL)
    once, twice = grouped([[1, 2, 3]]), grouped([[1, 2, 3], [2, 3]])
    assert replay(tables, once).equals(replay(tables, twice))


def test_two_changes_of_one_span_do_not_save_it_twice() -> None:
    tables = analyse(SERIAL)
    both = scaled(rows_of([3]), 0.5) + scaled(rows_of([3]), 0.5)
    assert replay(tables, both)["after_ns"].to_list() == [100 - 30 + 7.5 + 0.5]
    gone = scaled(rows_of([3]), 0.0) + scaled(rows_of([3]), 0.5)
    assert replay(tables, gone)["after_ns"].to_list() == [70]


def test_savings_weigh_each_entry_by_what_it_stands_for() -> None:
    spans = [S(1, 0, 100, adjusted_count=3.0), S(2, 0, 50, 1)]
    spans += [S(3, 0, 100, trace=2), S(4, 0, 400, trace=3)]
    tables = analyse(spans)
    row = tables.frame("tree")["span_id"].to_list().index(2)
    gone = scaled(rows_of([row]), 0.0)
    assert saved_ratio(tables, gone) == pytest.approx(150 / 800)
    found = forecast(tables, Change(Edits(), gone)).row(0, named=True)
    assert (found["requests"], found["mean_now_ns"], found["p50_now_ns"]) == (5, 160, 100)
    assert (found["mean_low_ns"], found["mean_high_ns"]) == (130, 160)
    assert (found["p50_low_ns"], found["p50_high_ns"]) == (50, 100)
    assert saved_range(tables, Change(gone, Edits())) == pytest.approx((0, 150 / 800))


def test_a_forecast_by_endpoint() -> None:
    spans = [S(1, 0, 100, kind="server", endpoint="GET /a"), S(2, 0, 60, 1)]
    spans += [S(3, 0, 500, trace=2, kind="server", endpoint="GET /b")]
    tables = analyse(spans)
    row = tables.frame("tree")["span_id"].to_list().index(2)
    change = Change(scaled(rows_of([row]), 0.5), scaled(rows_of([row]), 0.0))
    found = forecast(tables, change, by=["entry_endpoint"])
    assert found["entry_endpoint"].to_list() == ["GET /b", "GET /a"]
    assert found["p99_low_ns"].to_list() == [500, 40]
    assert found["p99_high_ns"].to_list() == [500, 70]


def test_no_spans() -> None:
    tables = analyse([])
    assert replay(tables, Edits()).is_empty()
    assert saved_ratio(tables, Edits()) == 0.0
    assert forecast(tables, Change(Edits(), Edits())).is_empty()
    assert forecast(tables, Change(Edits(), Edits()), by=["entry_endpoint"]).is_empty()


def test_a_deep_chain_and_a_wide_family() -> None:
    count = 3000
    chain = [
        S(number, number, 3 * count - number, number - 1 or None) for number in range(1, count)
    ]
    assert after(chain, {count - 1: 0.0}) == 3 * count - 2 - (count + 2)
    wide = [S(1, 0, 10 * count)]
    wide += [S(number, 10 * number, 10 * number + 5, 1) for number in range(2, count)]
    assert after(wide, dict.fromkeys(range(2, count), 0.0)) == 10 * count - 5 * (count - 2)


def pool_of(callers: int, hold: int, pool: int) -> list[S]:
    """Return requests that come together and hold one of `pool` connections for `hold` each."""
    spans = []
    for number in range(callers):
        wait = 1 + number // pool * hold
        trace, first = number + 1, 3 * number + 1
        spans += [
            S(first, 0, wait + hold, None, trace, kind="server"),
            S(first + 1, 0, wait, first, trace, name="connect"),
            S(first + 2, wait, wait + hold, first, trace, name="query"),
        ]
    return spans


def queue_of(spans: list[S], now: int, then: int, *, relative: bool) -> tuple[Any, Edits]:
    tables = analyse(spans)
    tree = tables.frame("tree")
    waiting = tree.filter(pl.col("name") == "connect")
    rows, holders = waiting["row"].to_numpy(), waiting["parent_row"].to_numpy()
    return tables, Edits(queues=(Queue(rows, holders, now, then, 1, relative),))


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize(("now", "then"), [(1, 1), (1, 2), (1, 4), (2, 3), (2, 9)])
def test_a_pool_with_more_connections(now: int, then: int, relative: bool) -> None:
    tables, edits = queue_of(pool_of(5, 40, now), now, then, relative=relative)
    expected = [1 + number // then * 40 + 40 for number in range(5)]
    assert replay(tables, edits)["after_ns"].to_list() == expected


def test_a_pool_whose_holders_become_faster_is_waited_for_less() -> None:
    tables, edits = queue_of(pool_of(4, 40, 1), 1, 1, relative=False)
    queries = tables.frame("tree").filter(pl.col("name") == "query")["row"].to_numpy()
    found = replay(tables, edits + scaled(queries, 0.5))
    assert found["after_ns"].to_list() == [1 + 20 * number + 20 for number in range(4)]


def test_waiting_that_a_pool_does_not_explain_stays_when_only_the_difference_counts() -> None:
    spans = [
        S(1, 0, 70, kind="server"),
        S(2, 0, 30, 1, name="connect"),
        S(3, 30, 70, 1, name="query"),
    ]
    tables, edits = queue_of(spans, 1, 5, relative=True)
    assert replay(tables, edits)["after_ns"].to_list() == [70]
    tables, edits = queue_of(spans, 1, 5, relative=False)
    assert replay(tables, edits)["after_ns"].to_list() == [41]
