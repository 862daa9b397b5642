"""Steps of spans on event loops: read from the attribute, and samples attributed by them."""

from __future__ import annotations

import json
from itertools import accumulate, pairwise
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.code import span_steps
from perfkit.analysis.session import Tables
from tests.analysis.sampled import FRAMES, Sample, tables

US = 1000


def parsed(*texts: str, base_ns: int = 0, end_ns: int = 10**9) -> list[tuple[Any, ...]]:
    frame = pl.LazyFrame(
        {
            "place": range(len(texts)),
            "pid": [1] * len(texts),
            "thread_id": [7] * len(texts),
            "start_ns": [base_ns] * len(texts),
            "end_ns": [end_ns] * len(texts),
            "text": texts,
        }
    )
    columns = ("place", "tid", "start_ns", "end_ns", "more")
    return span_steps.parse(frame).select(columns).collect().rows()


def test_steps_are_read() -> None:
    assert parsed("5 10 3 2 .", "@9 1 2 @7 4 1 +", base_ns=100 * US) == [
        (0, 7, 105 * US, 115 * US, False),
        (0, 7, 118 * US, 120 * US, False),
        (1, 9, 101 * US, 103 * US, True),
        (1, 7, 107 * US, 108 * US, True),
    ]


def test_a_step_on_another_thread_may_lie_before_the_last() -> None:
    assert parsed("10 10 @9 -15 3 .") == [
        (0, 7, 10 * US, 20 * US, False),
        (0, 9, 5 * US, 8 * US, False),
    ]


def test_no_step_at_all_is_said_too() -> None:
    assert parsed(".") == [(0, 7, None, None, False)]


def test_what_is_cut_off_or_not_ours_says_that_there_is_more() -> None:
    assert parsed("5 10 3 2") == [(0, 7, 5 * US, 15 * US, True)]
    assert parsed("5 10 3 21") == [(0, 7, 5 * US, 15 * US, True)]
    assert parsed("5 x .", "99999999999999999999 1 .", "5 1" + "0" * 16 + " .") == [
        (place, 7, None, None, True) for place in range(3)
    ]


def test_steps_stay_within_their_span() -> None:
    assert parsed("5 10 5 100 .", base_ns=0, end_ns=30 * US) == [
        (0, 7, 5 * US, 15 * US, False),
        (0, 7, 20 * US, 30 * US, False),
    ]


ALWAYS = 10**10
"""Looks of py-spy a second after which nothing is uncertain."""


def capture(
    spans: list[dict[str, Any]], samples: list[Sample], rate: float | None = ALWAYS
) -> Tables:
    """Return the tables of a capture with roots; `steps` is the attribute, None for none."""
    rows = []
    for number, each in enumerate(spans, 1):
        steps = each.pop("steps")
        attributes = json.dumps({span_steps.ATTRIBUTE: steps}) if steps is not None else None
        row = {"trace_hi": 0, "trace_lo": number, "span_id": number, "kind": "server", "pid": 1}
        row |= {"thread_id": 1, "service": "shop", "name": "n", "status": "unset"}
        row |= {"adjusted_count": 1.0, "attributes": attributes, "endpoint": f"GET /{number}"}
        rows.append(row | each)
    found = tables(samples, spans=rows)
    if rate is not None:
        found.capture.info.sources[0]["settings"] = [{"since_ns": 0, "rate": rate}]
    return found


def attributed(found: Tables) -> list[tuple[Any, ...]]:
    """Return by thread from when to when which span was at work, and whether that is ambiguous."""
    ids = found.frame("tree").select("row", "span_id")
    parts = found.frame("sample_spans").join(ids, on="row", how="left", maintain_order="left")
    entries = found.frame("tree").select(entry_row="row", entry_id="span_id")
    parts = parts.join(entries, on="entry_row", how="left", maintain_order="left")
    threads = found.frame("ordered_samples")["thread"].gather(parts["sample_row"])
    end = pl.col("start_ns") + pl.col("duration_ns")
    columns = ("start_ns", end.alias("end_ns"), "span_id", "entry_id", "ambiguous")
    merged: list[tuple[Any, ...]] = []
    for row in parts.with_columns(threads).sort("thread", "start_ns").select(columns).rows():
        if merged and merged[-1][1:] == (row[0], *row[2:]):
            row = (merged.pop()[0], *row[1:])
        merged.append(row)
    return merged


def request(start_us: int, end_us: int, steps: str | None, **more: Any) -> dict[str, Any]:
    times = {"start_ns": start_us * US, "duration_ns": (end_us - start_us) * US}
    return times | {"steps": steps} | more


def looks(*times_us: int, tid: int = 1) -> list[Sample]:
    """Return stacks that differ, each from one time to the next."""
    return [
        Sample(FRAMES[: 1 + number % 2], begin * US, (end - begin) * US, tid=tid)
        for number, (begin, end) in enumerate(pairwise(times_us))
    ]


def test_two_requests_on_a_loop_are_told_apart() -> None:
    spans = [request(0, 100, "0 10 30 10 ."), request(5, 95, "5 30 20 5 .")]
    assert attributed(capture(spans, looks(0, 10, 40, 50, 60, 65, 100))) == [
        (0, 10 * US, 1, 1, False),
        (10 * US, 40 * US, 2, 2, False),
        (40 * US, 50 * US, 1, 1, False),
        (50 * US, 60 * US, None, None, False),
        (60 * US, 65 * US, 2, 2, False),
        (65 * US, 100 * US, None, None, False),
    ]


def test_work_given_to_a_thread_belongs_to_the_span() -> None:
    spans = [request(0, 100, "0 10 @2 5 20 .")]
    assert attributed(capture(spans, [*looks(0, 10, 30), *looks(0, 50, tid=2)])) == [
        (0, 10 * US, 1, 1, False),
        (10 * US, 30 * US, None, None, False),
        (0, 15 * US, None, None, False),
        (15 * US, 35 * US, 1, 1, False),
        (35 * US, 50 * US, None, None, False),
    ]


def test_a_span_without_steps_stays_ambiguous_outside_of_the_steps_of_others() -> None:
    spans = [request(0, 100, "0 10 ."), request(0, 100, None), request(50, 100, None)]
    assert attributed(capture(spans, looks(0, 10, 100))) == [
        (0, 10 * US, 1, 1, False),
        (10 * US, 50 * US, 2, 2, False),
        (50 * US, 100 * US, None, None, True),
    ]


def test_after_the_last_step_that_fits_nothing_is_claimed() -> None:
    spans = [request(0, 100, "0 10 20 10 +"), request(0, 100, "10 5 50 5 .")]
    assert attributed(capture(spans, looks(0, 10, 15, 30, 65, 70, 100))) == [
        (0, 10 * US, 1, 1, False),
        (10 * US, 15 * US, 2, 2, False),
        (15 * US, 30 * US, None, None, False),
        # From 40 on span 1 may have had more steps; it alone is not known not to be at work.
        (30 * US, 65 * US, 1, 1, False),
        (65 * US, 70 * US, 2, 2, False),
        (70 * US, 100 * US, 1, 1, False),
    ]


SECOND_SPAN = 3
ENTRY = {0: None, 1: 1, 2: 2, SECOND_SPAN: 1}
REACH_US = 90
RATE = 10**6 / 30  # three periods


def slow(
    loop: list[int], moment: int, changes: list[int], *, pool: bool, alike: bool
) -> tuple[int | None, int | None, bool]:
    """Return the span, the entry and whether it is ambiguous, by the definition in words."""

    def owner(at: int) -> int:
        return loop[at] if 0 <= at < len(loop) else 0

    def kind(at: int) -> str | None:
        entry = ENTRY[owner(at)]
        return None if entry is None else "GET /alike" if alike else f"GET /{entry}"

    # A thread of a pool serves one entry at a time.
    found = range(len(loop) + 1 if not pool else 0)
    edges = [at for at in found if ENTRY[owner(at - 1)] != ENTRY[owner(at)]]
    for begin, end in list(pairwise([None, *edges, None])):
        middle = begin if begin is not None else -1
        if ENTRY[owner(middle)] is not None:
            continue
        bounded = begin is not None and end is not None
        same = bounded and ENTRY[owner(begin - 1)] == ENTRY[owner(end)]
        brief = same and end - begin <= 0.03 * REACH_US
        if brief and begin <= moment < end:
            return None, None, True
        if brief:
            edges = [at for at in edges if at not in (begin, end)]
    for at in edges:
        if at - REACH_US <= moment < at + REACH_US:
            return None, None, True
        if kind(at - 1) == kind(at):
            continue
        # The stack that stood across the edge, and the begin of the one after it.
        following = [change for change in changes if change >= at][:2]
        if following and at <= moment < following[0]:
            return None, None, True
        if len(following) == 2 and following[0] <= moment < min(
            following[1], following[0] + REACH_US
        ):
            return None, None, True
    return owner(moment) or None, ENTRY[owner(moment)], False


@given(
    st.lists(
        st.tuples(st.integers(0, SECOND_SPAN), st.sampled_from([1, 2, 3, 4, 50, 89, 90, 135, 260])),
        max_size=8,
    ),
    st.lists(st.sampled_from([1, 7, 30, 80, 100, 300]), max_size=12),
    st.booleans(),
    st.booleans(),
)
def test_a_moment_belongs_to_the_step_it_is_safely_within(
    runs: list[tuple[int, int]], stood: list[int], pool: bool, alike: bool
) -> None:
    """A thread that gives each microsecond to one span or none, against the plain reading of it."""
    loop = [owner for owner, length in runs for _ in range(length)]
    spans = []
    for number in range(1, SECOND_SPAN + 1):
        parts, before, at = ["@2"] if pool else [], 0, 0
        for owner, length in runs:
            if owner == number:
                parts.append(f"{at - before} {length}")
                before = at + length
            at += length
        child = {"trace_lo": 1, "parent_id": 1, "kind": "internal"}
        more = child if number == SECOND_SPAN else {}
        more = {"endpoint": "GET /alike"} | more if alike else more
        spans.append(request(0, len(loop) + 1, " ".join([*parts, "."]), **more))
    end = len(loop) + 130
    changes = [at for at in accumulate(stood, initial=0) if at < end] + [end]
    samples = [*looks(*changes, tid=2 if pool else 1), *looks(-3, -2, -1)[1:]]
    got = {}
    for start_ns, end_ns, *answer in attributed(capture(spans, samples, RATE)):
        if start_ns >= 0:
            got |= dict.fromkeys(range(start_ns // US, end_ns // US), tuple(answer))
    expected = {at: slow(loop, at, changes, pool=pool, alike=alike) for at in range(end)}
    assert expected == {at: got[at] for at in range(end)}


def test_a_stack_that_stood_across_an_edge_is_of_nobody_from_there() -> None:
    # py-spy had no core: it looked at 20 and 90 ms, and was stamped late at 95 once more.
    spans = [request(0, 300_000, "0 40000 ."), request(0, 300_000, "40000 260000 .")]
    ms = 1000 * US
    assert attributed(capture(spans, looks(0, 20_000, 90_000, 95_000, 300_000), 1000)) == [
        (0, 3 * ms, None, None, True),
        (3 * ms, 37 * ms, 1, 1, False),
        (37 * ms, 93 * ms, None, None, True),
        (93 * ms, 297 * ms, 2, 2, False),
        (297 * ms, 300 * ms, None, None, True),
    ]


def test_requests_of_one_endpoint_may_look_the_same() -> None:
    # Each hashes for long in one and the same line: the endpoint is right at any rate.
    spans = [
        request(0, 300_000, "0 100000 .", endpoint="GET /hash"),
        request(0, 300_000, "100000 200000 .", endpoint="GET /hash"),
    ]
    ms = 1000 * US
    assert attributed(capture(spans, looks(0, 290_000), 1000)) == [
        (0, 3 * ms, None, None, True),
        (3 * ms, 97 * ms, 1, 1, False),
        (97 * ms, 103 * ms, None, None, True),
        (103 * ms, 290 * ms, 2, 2, False),
    ]


@pytest.mark.parametrize("rate", [None, 100, 100.0])
def test_near_another_step_or_none_a_sample_is_ambiguous(rate: float | None) -> None:
    # Without settings py-spy looked each 10 ms: what is 30 ms from an edge is certain.
    spans = [
        request(0, 300_000, "0 100000 100000 50000 ."),
        request(0, 300_000, "100000 100000 ."),
    ]
    ms = 1000 * US
    expected = [
        (0, 30 * ms, None, None, True),
        (30 * ms, 70 * ms, 1, 1, False),
        (70 * ms, 130 * ms, None, None, True),
        (130 * ms, 170 * ms, 2, 2, False),
        (170 * ms, 280 * ms, None, None, True),
        (280 * ms, 290 * ms, None, None, False),
    ]
    samples = looks(0, 100_000, 200_000, 250_000, 290_000)
    assert attributed(capture(spans, samples, rate)) == expected


def test_the_rate_of_the_time_counts() -> None:
    spans = [request(0, 100, "0 50 ."), request(0, 100, "50 50 .")]
    found = capture(spans, looks(0, 50, 100), 10**6)
    found.capture.info.sources[0]["settings"].append({"since_ns": 45 * US, "rate": 200_000})
    assert attributed(found) == [
        (0, 3 * US, None, None, True),
        (3 * US, 35 * US, 1, 1, False),
        (35 * US, 65 * US, None, None, True),
        (65 * US, 85 * US, 2, 2, False),
        (85 * US, 100 * US, None, None, True),
    ]
