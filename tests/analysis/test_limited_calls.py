"""A limit on calls at once shows in who waits while it is reached, and nowhere else."""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfkit.analysis.filters import Filters
from perfkit.analysis.replay.edits import scaled
from perfkit.analysis.session import Tables
from perfkit.analysis.waits import limited_calls
from perfkit.analysis.waits.limited_calls import _MIN_AT_LIMIT, _MIN_WAITS
from perfkit.analysis.waits.turns import HANDOVER_NS, MIN_WAIT_NS
from tests.analysis.build import S, analyse
from tests.analysis.replays import saved_ratio

MS = 1_000_000
Call = tuple[int, int, int]
"""When it could begin, began and ended, in ms."""


def spans_of(calls: list[Call], first: int = 1, **more: Any) -> list[S]:
    """Return a request for each call, which does nothing but wait and call."""
    common = {"service": "shop", "pid": 1, "endpoint": "GET /a", **more}
    return [
        span
        for trace, (ready, start, end) in enumerate(calls, first)
        for span in (
            S(1, ready * MS, end * MS, kind="server", name="GET /a", trace=trace, **common),
            S(2, start * MS, end * MS, 1, name="work", trace=trace, **common),
        )
    ]


def queued(arrivals: list[tuple[int, int]], places: int) -> list[Call]:
    """Let calls (when they come after the one before, how long they take) wait for a place."""
    free, now, calls = [0] * places, 0, []
    for gap, length in arrivals:
        now += gap
        start = max(now, free[0])
        heapq.heapreplace(free, start + length)
        calls.append((now, start, start + length))
    return calls


def slowly(calls: list[Call]) -> tuple[int, list[int]] | None:
    """Return the limit and how long each call waited in ms, by counting every millisecond."""
    times = range(max(end for *_, end in calls) + 1)
    soon = HANDOVER_NS // MS
    most = max(sum(start <= at < end for _, start, end in calls) for at in times)
    running = [sum(start <= at < end + soon for _, start, end in calls) for at in times]
    late = [start - ready >= MIN_WAIT_NS // MS for ready, start, _ in calls]
    at_limit = [
        sum(running[at] >= most for at in range(ready, start)) if is_late else 0
        for (ready, start, _), is_late in zip(calls, late, strict=True)
    ]
    waits = [
        time if is_late and time >= _MIN_AT_LIMIT * (start - ready) else 0
        for (ready, start, _), time, is_late in zip(calls, at_limit, late, strict=True)
    ]
    before = sum(start - ready for (ready, start, _), one in zip(calls, late, strict=True) if one)
    enough = sum(at_limit) >= _MIN_AT_LIMIT * before
    return (most, waits) if enough and sum(map(bool, waits)) >= _MIN_WAITS else None


ARRIVALS = st.lists(st.tuples(st.integers(0, 8), st.integers(1, 30)), min_size=12, max_size=40)


@settings(max_examples=60)
@given(arrivals=ARRIVALS, places=st.integers(1, 4), data=st.data())
def test_equals_counting_every_millisecond(
    arrivals: list[tuple[int, int]], places: int, data: st.DataObject
) -> None:
    # Some compute before they call, which no limit explains.
    calls = [
        (ready - data.draw(st.sampled_from([0, 0, 0, 25])) + 30, start + 30, end + 30)
        for ready, start, end in queued(arrivals, places)
    ]
    tables = analyse(spans_of(calls))
    found = tables.frame("limited_calls")
    expected = slowly(calls)
    if expected is None:
        assert found.is_empty()
        return
    most, waits = expected
    assert found["most_at_once"].unique().to_list() == [most]
    trace = tables.frame("tree")["trace_lo"].gather(found["row"])
    of_call = found.with_columns(trace=trace).sort("trace")["wait_ns"]
    assert of_call.to_list() == [wait * MS for wait in waits]


def busy(places: int = 3, calls: int = 60) -> list[Call]:
    return queued([(3, 20)] * calls, places)


def test_a_limit_of_one_endpoint_is_told_from_that_of_all() -> None:
    calls = busy()
    others = [(ready + 1, ready + 1, ready + 90) for ready, *_ in calls]
    apart = analyse([*spans_of(calls), *spans_of(others, len(calls) + 1, endpoint="GET /b")]).frame(
        "limited_calls"
    )
    assert apart.select("entry_endpoint", "most_at_once").unique().rows() == [("GET /a", 3)]
    assert apart.height == len(calls)
    half = len(calls) // 2
    together = analyse(
        [*spans_of(calls[:half]), *spans_of(calls[half:], half + 1, endpoint="GET /b")]
    ).frame("limited_calls")
    assert together["limit"].unique().to_list() == [0]
    assert together.height == len(calls)


def test_who_computes_before_a_call_waits_for_no_limit() -> None:
    # Twelve come at any moment, compute for 40 ms, and call: as many as happen to run.
    calls = [(at, at + 40, at + 60) for at in range(0, 900, 17)]
    assert analyse(spans_of(calls)).frame("limited_calls").is_empty()


def test_what_stands_for_several_or_is_filtered_tells_no_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = busy()
    sampled = analyse(spans_of(calls, adjusted_count=10.0))
    assert sampled.frame("limited_calls").is_empty()
    tables = analyse(spans_of(calls))
    assert tables.frame("limited_calls").height == len(calls)
    assert tables.narrowed(Filters(endpoint="GET /a")).frame("limited_calls").is_empty()
    monkeypatch.setattr(limited_calls, "MOST_SPANS", 10)
    assert analyse(spans_of(calls)).frame("limited_calls").is_empty()


def halved(tables: Tables) -> float:
    """Return the share of request time that goes when the calls take half as long."""
    tree = tables.frame("tree")
    rows = tree.filter(pl.col("name") == "work")["row"].to_numpy()
    return saved_ratio(tables, scaled(rows, 0.5))


def test_calls_that_get_shorter_are_waited_for_less() -> None:
    arrivals = [(3, 20)] * 60
    now, then = queued(arrivals, 3), queued([(gap, length // 2) for gap, length in arrivals], 3)
    total, after = (sum(end - ready for ready, _, end in calls) for calls in (now, then))
    assert np.isclose(halved(analyse(spans_of(now))), 1 - after / total)
    # Without a limit only the calls themselves get shorter.
    free = [(at, at, at + 20) for at in range(0, 1000, 50)]
    assert np.isclose(halved(analyse(spans_of(free))), 0.5)


def test_of_waiting_that_the_limit_does_not_explain_the_rest_stays() -> None:
    # All compute for 12 ms more before they call.
    calls = [(ready, start + 12, end + 12) for ready, start, end in busy()]
    tables = analyse(spans_of(calls))
    total = sum(end - ready for ready, _, end in calls)
    waiting = tables.frame("limited_calls")["wait_ns"].sum() / MS
    saved = halved(tables) * total
    assert 0.5 * 20 * len(calls) < saved <= 0.5 * 20 * len(calls) + waiting
