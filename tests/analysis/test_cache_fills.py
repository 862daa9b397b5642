from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from perfkit.analysis.spans import cache_fills
from tests.analysis.sampled import tables

MS = 10**6
SERVED = {
    "kind": "server",
    "trace_hi": 0,
    "service": "desk",
    "endpoint": "GET /",
    "parent_id": None,
}

Visit = tuple[int, int, int]
"""When a request looks, how long it computes before it writes (0: it does not write), its store."""


def request(number: int, look: int, computes: int, store: int) -> list[dict[str, Any]]:
    rows = [(look, 1, None, "GET /"), (look, 1, "redis", "GET")]
    if computes:
        rows += [(look + 1 + computes, 1, "redis", "SET")]
    rows[0] = (look, computes + 3, None, "GET /")
    return [
        SERVED
        | {"trace_lo": number, "span_id": at + 1, "name": name, "start_ns": start * MS}
        | {"duration_ns": length * MS, "db_system": system}
        | (
            {"kind": "client", "parent_id": 1, "peer": f"cache{store}", "endpoint": None}
            if at
            else {}
        )
        for at, (start, length, system, name) in enumerate(rows, 0)
    ]


def found(visits: list[Visit]) -> list[dict[str, Any]]:
    spans = [row for number, visit in enumerate(visits, 1) for row in request(number, *visit)]
    frame = tables(spans=spans).frame("cache_fills")
    assert frame.columns == list(cache_fills.COLUMNS)
    return frame.to_dicts()


def test_who_looks_while_one_computes_and_computes_too() -> None:
    # GET 0 [compute.......)SET
    # GET 5      [compute.......)SET
    # GET 10           [found)
    # GET 90                         [found)
    row = found([(0, 40, 0), (5, 40, 0), (10, 0, 0), (90, 0, 0)])[0]
    assert (row["looks"], row["fills"]) == (4, 2)
    assert (row["joins"], row["joined_fills"]) == (2, 1)
    assert (row["fill_ns"], row["joined_fill_ns"]) == (80 * MS, 40 * MS)


def test_a_lock_that_is_taken_at_once_is_no_fill() -> None:
    assert found([(0, 1, 0), (90, 4, 0)]) == []


@given(
    st.lists(
        st.tuples(st.integers(0, 60), st.sampled_from([0, 1, 10, 30]), st.integers(0, 1)),
        max_size=9,
        unique_by=lambda visit: visit[0],
    )
)
@settings(max_examples=25)
def test_the_table_is_what_comparing_all_with_all_finds(visits: list[Visit]) -> None:
    told = {row["component"]: row for row in found(visits)}
    for store in (0, 1):
        mine = [visit for visit in visits if visit[2] == store]
        fills = [visit for visit in mine if visit[1] * MS >= 5 * MS]
        if not fills:
            continue
        joins = [
            one
            for one in mine
            if any(other[0] < one[0] < other[0] + 1 + other[1] for other in fills)
        ]
        row = told[f"cache{store}"]
        assert (row["looks"], row["fills"], row["joins"]) == (len(mine), len(fills), len(joins))
        assert row["joined_fills"] == len([one for one in joins if one in fills])
        assert row["fill_ns"] == sum(one[1] for one in fills) * MS
