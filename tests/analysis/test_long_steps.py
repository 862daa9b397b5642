"""`long_steps`: which spans kept an event loop for 20 ms or more, as they say it."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.filters import Filters
from perfkit.analysis.session import Tables
from tests.analysis.sampled import Sample
from tests.analysis.test_loop_blocking import ASGI, CALLBACK, HANDLER, MS, SELECT, row
from tests.analysis.test_loop_turns import steps
from tests.analysis.test_span_steps import capture, request

BUSY = (*CALLBACK, ASGI, HANDLER)


def spans(*said: tuple[int, str | None]) -> list[dict[str, Any]]:
    """Return requests that begin at those ms and last for 10 s."""
    return [request(start * 1000, start * 1000 + 10_000_000, text) for start, text in said]


def kept(tables: Tables) -> list[tuple[str, float, float]]:
    """Return endpoint, start and length in ms."""
    return [
        (row["entry_endpoint"], row["start_ns"] / MS, row["duration_ns"] / MS)
        for row in tables.frame("long_steps").to_dicts()
    ]


def test_it_needs_no_stack_that_was_seen_in_time() -> None:
    late: list[Sample] = [row(SELECT, 0, 300, state="idle"), row(BUSY, 300, 340)]
    said = spans((0, steps((10, 90), (150, 169))), (5, steps((200, 230))), (6, None))
    assert kept(capture(said, late)) == [("GET /1", 10, 80), ("GET /2", 205, 30)]


def test_what_the_loop_gives_to_another_thread_does_not_keep_it() -> None:
    assert kept(capture(spans((0, "0 30000 @2 5000 400000 .")), [])) == [("GET /1", 0, 30)]


def test_the_code_is_that_which_was_seen_for_most_of_it() -> None:
    other = (*CALLBACK, ASGI)
    seen = [row(BUSY, 0, 25), row(other, 25, 75), row(SELECT, 75, 200)]
    found = capture(spans((0, steps((0, 80), (120, 140)))), seen).frame("long_steps")
    assert found.select("function", "leaf_function").rows() == [
        ("run_asgi", "run_asgi"),
        (None, None),
    ]
    assert found["row"].to_list() == found["entry_row"].to_list() == [0, 0]


def test_what_is_filtered_out_is_not_there() -> None:
    said = spans((0, steps((10, 90))), (5, steps((200, 230))))
    whole = capture(said, [])
    tables = Tables(whole.capture, Filters(endpoint="GET /2"))
    assert kept(tables) == [("GET /2", 205, 30)]
    assert tables.frame("long_steps")["row"].to_list() == [0]


def test_a_capture_without_steps_has_none() -> None:
    assert kept(capture(spans((0, None)), [])) == []
    assert kept(capture([], [])) == []


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 40)), max_size=5), max_size=4)
)
def test_they_are_the_long_ones_of_all_steps(drawn: list[list[tuple[int, int]]]) -> None:
    expected, said = [], []
    for number, pairs in enumerate(drawn, 1):
        intervals, at = [], 0
        for gap, length in pairs:
            intervals.append((at + gap, at + gap + length))
            at += gap + length
        said.append((number, steps(*intervals)))
        expected += [
            (f"GET /{number}", number + start, end - start)
            for start, end in intervals
            if end - start >= 20
        ]
    assert sorted(kept(capture(spans(*said), []))) == sorted(expected)
