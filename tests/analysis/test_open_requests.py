from __future__ import annotations

import json
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.analysis.build import S, analyse


@given(st.integers(0, 10_000))
def test_what_is_sure_stays_as_it_is_for_any_length_of_the_open_ones(seed: int) -> None:
    chance = random.Random(seed)
    spans, seen = [], []
    for number in range(chance.choice([1, 5, 30, 120])):
        start, length = chance.randrange(1000), chance.randrange(1, 500)
        still_open = chance.random() < chance.choice([0.01, 0.1])
        weight = chance.choice([1.0, 1.0, 3.0])
        spans += [
            S(
                1,
                start,
                None if still_open else start + length,
                trace=number + 1,
                kind="server",
                endpoint="GET /a",
                adjusted_count=weight,
            ),
            # What was seen last of an open one.
            S(2, start, start + length, 1, trace=number + 1),
        ]
        seen.append((start, length, int(weight), still_open))
    rows = analyse(spans).frame("open_requests").to_dicts()
    if not any(still_open for *_, still_open in seen):
        assert rows == []
        return
    (row,) = rows
    assert row["open"] == sum(still_open for *_, still_open in seen)
    assert row["requests"] == len(seen)
    end = max(start + length for start, length, *_ in seen)
    assert row["oldest_ns"] == max(end - start for start, _, _, still_open in seen if still_open)
    least = [length for _, length, weight, _ in seen for _ in range(weight)]
    most = [10**9 if o else length for _, length, weight, o in seen for _ in range(weight)]
    sure = 0.0
    for level in (0.5, 0.9, 0.95, 0.99):
        low, high = np.quantile(least, level), np.quantile(most, level)
        if high / low == pytest.approx(1.01, abs=1e-4):
            return  # at the limit, rounding decides
        if high > 1.01 * low:
            break
        sure = level
    assert row["sure_level"] == sure


def test_a_request_that_hangs_is_told_though_its_trace_says_nothing_more() -> None:
    spans = [
        S(1, n * 100, n * 100 + 20, trace=n + 1, kind="server", endpoint="GET /a")
        for n in range(99)
    ]
    spans.append(S(1, 500, None, trace=1000, kind="server", endpoint="GET /a"))
    (row,) = analyse(spans).frame("open_requests").to_dicts()
    assert (row["open"], row["requests"], row["oldest_ns"]) == (1, 100, 9820 - 500)
    assert row["sure_level"] == 0.95


def awaits(**place: object) -> str:
    return json.dumps({f"perfkit.{name}": value for name, value in place.items()})


def test_where_most_of_them_wait() -> None:
    here = {"awaits.function": "reserve", "awaits.file": "a.py", "awaits.line": 14}
    spans = [
        S(1, 0, None, trace=n, kind="server", endpoint="GET /a", attributes=awaits(**here))
        for n in (1, 2, 3)
    ]
    # Of this one the call that began last says where it waits.
    there = {"awaits.function": "ask", "awaits.file": "b.py", "awaits.line": 9}
    other = awaits(**there, **{"awaits.call": "Event.wait"})
    spans += [
        S(1, 5, None, trace=4, kind="server", endpoint="GET /b", attributes=awaits(**here)),
        S(2, 6, None, 1, trace=4, kind="client", name="GET", attributes=other),
        S(3, 5, 9, 1, trace=4, kind="client", name="ended"),
        S(1, 7, None, trace=5, kind="server", endpoint="GET /a", http_status=200),
    ]
    first, second = analyse(spans).frame("open_requests").to_dicts()
    assert (first["endpoint"], first["kind"], first["open"], first["unanswered"]) == (
        *("GET /a", "server", 4, 3),
    )
    assert (first["oldest_ns"], second["unanswered_ns"]) == (9, 4)
    assert [first[name] for name in ("waiting", "function", "file", "line")] == [
        *(3, "reserve", "a.py", 14),
    ]
    assert (first["waits_in"], first["call"]) == (None, None)
    assert [second[name] for name in ("waiting", "function", "line", "waits_in", "call")] == [
        *(1, "ask", 9, "Event.wait", "GET"),
    ]


def test_what_answers_already_is_counted_apart() -> None:
    here = awaits(**{"awaits.function": "stream", "awaits.file": "a.py", "awaits.line": 14})
    columns = {"kind": "server", "endpoint": "GET /a"}
    spans = [
        S(1, 0, None, trace=1, http_status=200, attributes=here, **columns),
        S(1, 30, None, trace=2, **columns),
        S(1, 20, 50, trace=3, **columns),
    ]
    (row,) = analyse(spans).frame("open_requests").to_dicts()
    assert (row["open"], row["oldest_ns"]) == (2, 50)
    assert (row["unanswered"], row["unanswered_ns"]) == (1, 20)
    assert (row["waiting"], row["function"]) == (0, None)
    (row,) = analyse([spans[0], spans[2]]).frame("open_requests").to_dicts()
    assert (row["open"], row["unanswered"], row["unanswered_ns"]) == (1, 0, None)


def test_one_of_which_no_place_is_known() -> None:
    (row,) = (
        analyse([S(1, 0, None, kind="server", endpoint="GET /a")]).frame("open_requests").to_dicts()
    )
    assert (row["waiting"], row["function"], row["call"]) == (0, None, None)


@pytest.mark.parametrize("kinds", [("server", "consumer"), ("consumer", "server")])
def test_of_two_that_began_at_once_the_kind_does_not_depend_on_their_order(
    kinds: tuple[str, str],
) -> None:
    spans = [
        S(1, 5, None, trace=number, kind=kind, endpoint="work")
        for number, kind in enumerate(kinds, 1)
    ]
    spans.append(S(1, 0, 20, trace=9, kind="server", endpoint="other"))
    assert analyse(spans).frame("open_requests")["kind"].to_list() == ["consumer"]
