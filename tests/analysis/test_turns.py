from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from perfkit.analysis.sharded import Division, ShardedTables
from perfkit.analysis.waits.turns import HANDOVER_NS, MIN_WAIT_NS
from perfkit.engine import Here
from tests.analysis.build import S, analyse
from tests.analysis.sampled import tables

MS = 1_000_000
_SCOPE = ("service", "pid", "thread_id", "entry_endpoint", "entry_tool")
_KEY = (*_SCOPE, "component", "name")


def request(number: int, start: int, end: int, *calls: tuple[int, int], **more: Any) -> list[S]:
    """Return a request in ms, with its calls."""
    common = {"pid": 1, "thread_id": 1, "trace": number, **more}
    name = common.pop("endpoint", "GET /a")
    return [
        S(1, start * MS, end * MS, kind="server", endpoint=name, **common),
        *(
            S(2 + place, first * MS, last * MS, 1, kind="client", name="GET", peer="p", **common)
            for place, (first, last) in enumerate(calls)
        ),
    ]


def test_who_waits_goes_on_when_the_one_before_is_done() -> None:
    # request 1 [call------|-]
    # request 2   [........[call------]
    # request 3      [................[call-----]
    # request 4 (another loop)  [.......[call]
    spans = [
        *request(1, 0, 31, (0, 30)),
        *request(2, 5, 61, (31, 60)),
        *request(3, 10, 93, (62, 92)),
        *request(4, 40, 80, (62, 70), thread_id=2),
    ]
    table = analyse(spans).frame("turns")
    names = ("thread_id", "calls", "most_at_once", "waits", "handed_over", "wait_ns", "max_wait_ns")
    assert table.select(names).rows() == [
        (1, 3, 1, 2, 2, 78 * MS, 52 * MS),
        (2, 1, 1, 1, 0, 0, None),
    ]


def test_a_loop_that_stands_still_lets_nobody_wait_for_a_turn() -> None:
    spans = [*request(1, 0, 31, (0, 30)), *request(2, 5, 61, (31, 60))]
    blocked = {"pid": [1], "tid": [1], "start_ns": [6 * MS], "duration_ns": [40 * MS]}
    found = tables(
        spans=[span.row() for span in spans], derived={"loop_blocking": pl.DataFrame(blocked)}
    ).frame("turns")
    assert found.is_empty()


def test_threads_that_a_loop_gives_work_to_are_left_out() -> None:
    spans = [*request(1, 0, 31, (0, 30)), *request(2, 5, 61, (31, 60))]
    for span in spans:
        span.columns["thread_id"] = 1 if span.parent is None else 2
    assert analyse(spans).frame("turns").is_empty()


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 60),
            st.lists(st.tuples(st.integers(0, 25), st.integers(1, 20)), max_size=3),
            st.sampled_from(["GET /a", "GET /b"]),
            st.integers(1, 2),
        ),
        max_size=8,
    )
)
def test_it_equals_the_slow_way(drawn: list[Any]) -> None:
    spans = []
    for number, (start, gaps, endpoint, thread) in enumerate(drawn, 1):
        now, calls = start, []
        for gap, length in gaps:
            calls.append((now + gap, now + gap + length))
            now += gap + length
        spans += request(number, start, now + 1, *calls, endpoint=endpoint, thread_id=thread)
    found = analyse(spans)
    tree = found.frame("tree").to_dicts()
    calls = [one for one in tree if one["category"] == "client"]
    expected: dict[tuple[Any, ...], tuple[int, int, int, int]] = {}
    text = itemgetter(*_KEY)
    for key, same in groupby(sorted(calls, key=lambda one: str(text(one))), text):
        kind = list(same)
        waits = handed = wait_ns = 0
        for one in kind:
            before = [
                other["end_ns"]
                for other in calls
                if other["entry_row"] == one["entry_row"] and other["end_ns"] <= one["start_ns"]
            ]
            since = max([tree[one["entry_row"]]["start_ns"], *before])
            if one["start_ns"] - since < MIN_WAIT_NS:
                continue
            waits += 1
            done = [
                time
                for other in calls
                if other["entry_row"] != one["entry_row"]
                and all(other[name] == one[name] for name in _SCOPE)
                for time in (other["end_ns"], tree[other["entry_row"]]["end_ns"])
                if since < time <= one["start_ns"]
            ]
            if done and one["start_ns"] - max(done) <= HANDOVER_NS:
                handed += 1
                wait_ns += one["start_ns"] - since
        most = max(
            sum(other["start_ns"] <= one["start_ns"] < other["end_ns"] for other in kind)
            for one in kind
        )
        if waits:
            expected[key] = (most, waits, handed, wait_ns)
    rows = found.frame("turns").select(*_KEY, "most_at_once", "waits", "handed_over", "wait_ns")
    assert {row[: len(_KEY)]: row[len(_KEY) :] for row in rows.rows()} == expected


@settings(max_examples=5)
@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.integers(1, 20), st.sampled_from("ab"), st.integers(1, 2)),
        min_size=4,
        max_size=12,
    )
)
def test_in_shards_it_is_that_of_the_capture_in_one_piece(drawn: list[Any]) -> None:
    spans = []
    for number, (start, length, endpoint, thread) in enumerate(drawn, 1):
        call = (start + 12, start + 12 + length)
        spans += request(number, start, call[1] + 1, call, endpoint=endpoint, thread_id=thread)
    whole = analyse(spans)
    shards = ShardedTables(Division(whole.capture, Here(), 3))
    shards.most_at_once = 4  # a scope at a time
    try:
        assert_frame_equal(shards.frame("turns"), whole.frame("turns"))
        assert whole.frame("turns")["waits"].sum() == len(drawn)
    finally:
        shards.close()
