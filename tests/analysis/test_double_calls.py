from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.analysis.build import S, analyse, by_id

GET: dict[str, Any] = {
    "kind": "client", "name": "GET", "http_method": "GET", "peer": "api", "http_status": 200,
}  # fmt: skip
SELECT: dict[str, Any] = {
    "kind": "client", "name": "SELECT", "db_system": "postgresql", "db_statement": "SELECT 1",
}  # fmt: skip
SERVED: dict[str, Any] = {"kind": "server", "endpoint": "GET /", "scope": "asgi"}


def doubles(spans: list[S]) -> list[int]:
    tree = analyse([S(1, 0, 1000, **SERVED), *spans]).frame("tree")
    return sorted(tree.filter("duplicate")["span_id"])


@pytest.mark.parametrize("call", [GET, SELECT])
def test_a_call_inside_its_double_is_no_call(call: dict[str, Any]) -> None:
    spans = [S(2, 10, 90, 1, scope="requests", **call), S(3, 12, 88, 2, scope="urllib3", **call)]
    assert doubles(spans) == [3]


def test_calls_beside_each_other_are_one_and_nest() -> None:
    spans = [S(2, 10, 90, 1, scope="requests", **GET), S(3, 12, 88, 1, scope="urllib3", **GET)]
    spans += [S(4, 20, 80, 3, service="api", kind="server", endpoint="GET /x", scope="asgi")]
    tables = analyse([S(1, 0, 100, **SERVED), *spans])
    rows = by_id(tables, "tree")
    assert rows[3]["parent_row"] == rows[2]["row"]
    assert rows[3]["duplicate"]
    assert tables.frame("span_times").select(pl.col("self_ns", "gap_ns").sum()).row(0) == (84, 16)
    edge = tables.frame("edges").row(0, named=True)
    assert (edge["count"], edge["served"], edge["server_ns"]) == (1, 1, 60)


@pytest.mark.parametrize(
    "change",
    [
        {"scope": "requests"},
        {"peer": "other"},
        {"http_method": "HEAD"},
        {"http_status": 500},
        {"service": "other"},
        {"start": 5},
        {"end": 30},
    ],
)
def test_what_differs_is_another_call(change: dict[str, Any]) -> None:
    given = {"start": 12, "end": 88, "scope": "urllib3", **GET, **change}
    other = S(3, given.pop("start"), given.pop("end"), 1, **given)
    assert doubles([S(2, 10, 90, 1, scope="requests", **GET), other]) == []


def test_attempts_inside_a_call_are_calls() -> None:
    spans = [S(2, 10, 90, 1, scope="requests", **GET)]
    spans += [S(3, 12, 40, 2, scope="urllib3", **GET | {"http_status": 503})]
    spans += [S(4, 42, 88, 2, scope="urllib3", **GET)]
    assert doubles(spans) == []


@given(
    st.lists(
        st.tuples(
            st.sampled_from([GET, GET | {"peer": "b"}, SELECT, SELECT | {"db_statement": "X"}]),
            st.sampled_from(["alone", "inside", "beside"]),
            st.integers(0, 3),
        ),
        max_size=20,
    )
)
def test_all_tables_count_each_call_once(calls: list[tuple[dict[str, Any], str, int]]) -> None:
    spans = [S(1, 0, 10_000, **SERVED)]
    for number, (call, shape, gap) in enumerate(calls):
        first, start = 10 * number + 10, 100 * number
        spans.append(S(first, start, start + 80, 1, scope="outer", **call))
        if shape != "alone":
            above = first if shape == "inside" else 1
            spans.append(S(first + 1, start + gap, start + 80 - gap, above, scope="inner", **call))
    tables = analyse(spans)
    asked = {"client": 0, "database": 0}
    for call, _, _ in calls:
        asked["database" if "db_system" in call else "client"] += 1
    for name in ("components", "operations", "edges"):
        found = tables.frame(name)
        for category, count in asked.items():
            assert sum(found.filter(category=category)["count"]) == count
    assert tables.frame("http_calls").filter(kind="client").height == asked["client"]
    assert sum(tables.frame("queries")["calls"]) == asked["database"]


Made = tuple[int, int, str, str, int | None]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 12),
            st.integers(0, 12),
            st.sampled_from(["a", "b", "c"]),
            st.sampled_from(["api", "b"]),
            st.sampled_from([200, 200, None]),
        ),
        max_size=9,
    ),
    st.data(),
)
def test_agrees_with_a_plain_search(calls: list[Made], data: st.DataObject) -> None:
    parents = [
        data.draw(st.sampled_from([1, *range(2, number + 2)])) for number in range(len(calls))
    ]
    spans = [S(1, 0, 100, **SERVED)]
    for number, (start, length, scope, peer, status) in enumerate(calls):
        call = GET | {"peer": peer, "http_status": status}
        spans.append(
            S(number + 2, 10 + start, 10 + start + length, parents[number], scope=scope, **call)
        )
    assert doubles_slowly(calls, parents) == doubles(spans[1:])


def doubles_slowly(calls: list[Made], parents: list[int]) -> list[int]:
    """Look at every pair of calls."""
    count = range(len(calls))

    def around(inner: int, outer: int) -> bool:
        one, other = calls[inner], calls[outer]
        if inner == outer or parents[inner] != parents[outer] or one[2] == other[2]:
            return False
        within = other[0] <= one[0] and one[0] + one[1] <= other[0] + other[1]
        first = one[:2] != other[:2] or outer < inner
        return one[3:] == other[3:] and within and first and one[1] >= 0.3 * other[1]

    pairs = [(one, other) for one in count for other in count if around(one, other)]
    clear = [
        (one, other)
        for one, other in pairs
        if sum(a == one and calls[b][2] == calls[other][2] for a, b in pairs) == 1
        and sum(b == other and calls[a][2] == calls[one][2] for a, b in pairs) == 1
    ]
    moved = list(parents)
    for one in count:
        outers = [other for inner, other in clear if inner == one]
        if outers:
            moved[one] = 2 + min(outers, key=lambda other: (calls[other][1], other))
    inside = [
        (one, moved[one] - 2)
        for one in count
        if moved[one] > 1 and calls[one][2] != calls[moved[one] - 2][2]
    ]
    found = []
    for one, above in inside:
        alone = sum(other == above and calls[a][2] == calls[one][2] for a, other in inside) == 1
        agree = all(
            None in (calls[one][at], calls[above][at]) or calls[one][at] == calls[above][at]
            for at in (3, 4)
        )
        if alone and agree:
            found.append(one + 2)
    return sorted(found)
