from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.waits import checkouts
from perfkit.stacks import Frame
from tests.analysis.sampled import Sample, Span, span, tables, tree_frame
from tests.analysis.test_lock_waits import SERVE, SITE

MS = 1_000_000
SECOND = 1000 * MS
CONNECTING = (*SERVE, Frame("Connection.connect", SITE + "psycopg/connection.py", 100))


def requests(times: list[tuple[int, int, int]], **more: Any) -> list[Span]:
    """Return spans of requests: when each asks, gets its connection, and ends, in ns."""
    spans: list[Span] = []
    for asks, gets, ends in times:
        row = len(spans)
        kind = {"name": "connect", "db_system": "postgresql", "entry_endpoint": "GET /stock"}
        spans += [span(row, asks, ends), span(row + 1, asks, gets, row, **{**kind, **more})]
    return spans


def kinds(spans: list[Span], samples: list[Sample] | None = None) -> list[dict[str, Any]]:
    frame = tables(samples or [], derived={"tree": tree_frame(spans)}).frame("checkouts")
    assert frame.columns == list(checkouts.COLUMNS)
    return frame.rows(named=True)


def apart(many: int, takes_ns: int) -> list[tuple[int, int, int]]:
    at = [number * SECOND for number in range(many)]
    return [(each, each + takes_ns, each + takes_ns + 30 * MS) for each in at]


def together(many: int, takes_ns: int) -> list[tuple[int, int, int]]:
    at = [number * MS for number in range(many)]
    return [(each, each + takes_ns, each + takes_ns + SECOND) for each in at]


def test_nothing_takes_no_connection() -> None:
    assert kinds([]) == []


def test_a_connection_for_each_request_is_seen_when_nobody_else_has_one() -> None:
    found = kinds(requests(apart(30, 8 * MS)))
    assert [one["opens"] for one in found] == [True]
    assert (found[0]["checkouts"], found[0]["slow"], found[0]["slow_alone"]) == (30, 30, 30)
    assert (found[0]["mean_ns"], found[0]["total_ns"]) == (8 * MS, 240 * MS)


def test_few_are_no_habit_and_free_connections_are_quick() -> None:
    assert not kinds(requests(apart(19, 8 * MS)))[0]["opens"]
    assert not kinds(requests(apart(30, MS // 10)))[0]["opens"]
    mixed = apart(30, 8 * MS)[:27] + apart(30, MS // 10)[27:]
    assert not kinds(requests(mixed))[0]["opens"]


def test_where_all_are_slow_together_stacks_decide() -> None:
    spans = requests(together(30, 100 * MS))
    assert not kinds(spans)[0]["opens"]
    shown = [Sample(CONNECTING, number * 10 * MS, 100 * MS) for number in range(20)]
    found = kinds(spans, shown)[0]
    assert (found["opens"], found["connecting_seen"]) == (True, True)
    assert not kinds(spans, shown[:10])[0]["opens"]


def test_pools_of_other_languages_take_connections_too() -> None:
    for name in ("pg-pool.connect", "generic-pool.acquire", "HikariDataSource.getConnection"):
        assert kinds(requests(together(30, 8 * MS), name=name))[0]["checkouts"] == 30
    assert kinds(requests(together(30, 8 * MS), name="pg.connect")) == []


def test_who_is_seen_to_open_a_connection_waits_for_nobody() -> None:
    # One connection goes from hand to hand; all but the first wait for it.
    in_turn = [(at * MS, (at + 1) * 40 * MS, (at + 2) * 40 * MS) for at in range(30)]
    spans = requests(in_turn, name="pg-pool.connect")
    opened = [
        span(60 + at, one["start_ns"] + MS, one["end_ns"], one["row"], name="pg.connect")
        | {"db_system": "postgresql"}
        for at, one in enumerate(spans[41::2])
    ]

    def waiting(*more: Span) -> int:
        frame = tree_frame([*spans, *more])
        return checkouts.waiting_checkouts(tables([], derived={"tree": frame})).height

    assert waiting() == 29
    assert waiting(*opened) == 19


@given(
    st.lists(
        st.tuples(st.integers(0, 60), st.integers(0, 4), st.integers(0, 6)), min_size=1, max_size=30
    )
)
def test_counts_equal_a_loop(drawn: list[tuple[int, int, int]]) -> None:
    times = [
        (asks * MS, (asks + takes) * MS, (asks + takes + holds) * MS + number + 1)
        for number, (asks, takes, holds) in enumerate(drawn)
    ]
    times = [
        (asks + 7 * number, gets + 7 * number, ends + 7 * number)
        for number, (asks, gets, ends) in enumerate(times)
    ]
    found = kinds(requests(times))[0]
    slow = [each[1] - each[0] >= MS for each in times]
    alone = [
        not any(
            other[0] < each[0] < other[2]
            for place, other in enumerate(times)
            if times[place] is not each
        )
        for each in times
    ]
    assert found["checkouts"] == found["requests"] == len(times)
    assert found["slow"] == sum(slow)
    assert found["alone"] == sum(alone)
    assert found["slow_alone"] == sum(a and b for a, b in zip(slow, alone, strict=True))
