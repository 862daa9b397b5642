"""`loop_waits` and `query_loop_waits`: for how long code of others kept the loop of a span."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.analysis.test_long_steps import spans
from tests.analysis.test_loop_blocking import MS
from tests.analysis.test_loop_turns import steps
from tests.analysis.test_span_steps import capture, request

turns = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(1, 50)), max_size=8)
"""Whose step, after which pause, and how long, in ms."""


@given(turns, st.integers(0, 150), st.integers(1, 200))
def test_it_is_what_long_steps_of_others_cover(
    drawn: list[tuple[int, int, int]], start: int, length: int
) -> None:
    kept: list[tuple[int, int, int]] = []
    at = 0
    for who, pause, lasts in drawn:
        kept.append((who, at + pause, at + pause + lasts))
        at += pause + lasts
    said = [(0, steps(*((a, b) for who, a, b in kept if who == each))) for each in range(3)]
    watching = request(start * 1000, (start + length) * 1000, None)
    table = capture([*spans(*said), watching], []).frame("loop_waits")
    long = [(who, moment) for who, a, b in kept if b - a >= 20 for moment in range(a, b)]
    if not long:
        assert table.is_empty()
        return
    expected = [sum(who != each for who, _ in long) for each in range(3)]
    expected.append(sum(start <= moment < start + length for _, moment in long))
    assert [ns / MS for ns in table["loop_wait_ns"]] == expected
    assert table["duration_ns"].to_list()[-1] == length * MS


def test_a_query_waits_while_others_keep_the_loop_that_awaits_it() -> None:
    query = {"kind": "client", "db_system": "postgresql", "db_statement": "SELECT 1"}
    awaits = request(0, 500_000, None)
    asks = request(50_000, 250_000, None, trace_lo=1, parent_id=1, **query)
    keeps = request(0, 500_000, steps((100, 180), (200, 210), (230, 300)))
    elsewhere = request(0, 500_000, steps((0, 400)), thread_id=2)
    table = capture([awaits, asks, keeps, elsewhere], []).frame("query_loop_waits")
    assert table.select("total_ns", "loop_wait_ns").rows() == [(200 * MS, 100 * MS)]


def test_nobody_waits_where_nothing_kept_a_loop() -> None:
    tables = capture([request(0, 500_000, steps((0, 5)))], [])
    assert tables.frame("loop_waits").is_empty()
    assert tables.frame("query_loop_waits").is_empty()
