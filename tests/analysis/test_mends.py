from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from perfkit.analysis.replay import mends
from perfkit.analysis.replay.edits import Edits
from perfkit.analysis.session import Tables
from perfkit.stacks import Frame
from tests.analysis.build import S, analyse
from tests.analysis.replays import replay
from tests.analysis.sampled import Sample, tables

MAIN = Frame("main", "/srv/app/main.py", 1)
PARSE = Frame("parse", "/srv/app/main.py", 20)
READ = Frame("read", "/srv/app/main.py", 30)


def row_of(tables: Tables, *names: str) -> np.ndarray[Any, Any]:
    places = {name: row for row, name in enumerate(tables.frame("tree")["name"])}
    return np.array([places[name] for name in names])


def after(tables: Tables, edits: Edits) -> list[int]:
    return replay(tables, edits)["after_ns"].to_list()


def test_calls_of_one_parent_that_begin_together() -> None:
    # s2 |--|, s3 |---|, s4 |----|, s5 |-----| one after the other
    ends = [0, 20, 50, 90, 140]
    spans = [S(1, 0, 150)]
    spans += [S(number + 2, ends[number], ends[number + 1], 1) for number in range(4)]
    found = analyse(spans)
    calls = row_of(found, "s5", "s3", "s2", "s4")
    for typical in (False, True):
        assert after(found, mends.side_by_side(found, calls, typical=typical)) == [50 + 10]


def test_a_call_that_was_held_up_once_is_as_long_as_usual_beside_others() -> None:
    spans = []
    for number, held in enumerate([0, 60, 0], 1):
        first = 4 * number
        spans += [
            S(first, 0, 70 + held, None, number, kind="server", name="plan"),
            S(first + 1, 0, 20 + held, first, number, name="GET"),
            S(first + 2, 0, 10 + held, first + 1, number, name="serve"),
            S(first + 3, 20 + held, 70 + held, first, number, name="GET"),
        ]
    found = analyse(spans)
    calls = found.frame("tree").filter(pl.col("name") == "GET")["row"].to_numpy()
    assert after(found, mends.side_by_side(found, calls, typical=False)) == [50, 80, 50]
    assert after(found, mends.side_by_side(found, calls, typical=True)) == [50, 50, 50]


def test_a_cache_answers_what_was_asked_before() -> None:
    spans = []
    for number, (at, arguments) in enumerate(
        [(0, "a"), (5, "a"), (20, "a"), (30, "b"), (200, "a")]
    ):
        first = 2 * number + 1
        spans += [
            S(first, at, at + 10, None, number, kind="server", tool="t", tool_arguments=arguments),
            S(first + 1, at + 1, at + 9, first, number),
        ]
    found = analyse(spans)
    calls = found.frame("tree").filter(pl.col("tool").is_not_null())
    calls = calls.select("row", "tool", "tool_arguments")
    # The second asks before the first has its answer; the last when that has expired.
    assert after(found, mends.cached(found, calls, 100, 0.0)) == [10, 10, 0, 10, 10]
    assert after(found, mends.cached(found, calls, 100, 0.5)) == [10, 10, 5, 10, 10]
    assert after(found, mends.cached(found, calls, 1000, 0.0)) == [10, 10, 0, 10, 0]


def test_as_many_places_as_were_held_at_once_where_nobody_knows() -> None:
    spans = []
    for number, waited in enumerate([1, 1, 41, 41]):
        first = 2 * number + 1
        spans += [
            S(first, 0, waited + 40, None, number, kind="server"),
            S(first + 1, 0, waited, first, number, name="connect"),
        ]
    found = analyse(spans)
    rows = found.frame("tree").filter(pl.col("name") == "connect")["row"].to_numpy()
    assert after(found, mends.places(found, rows, None, 1, relative=True)) == [41, 41, 81, 81]
    assert after(found, mends.places(found, rows, None, 3, relative=True)) == [41, 41, 41, 81]
    assert after(found, mends.places(found, rows, 2, 4, relative=False)) == [41, 41, 41, 41]
    assert mends.places(found, rows[:0], None, 3, relative=True) == Edits()


def threaded(samples: list[Sample], spans: list[S]) -> Tables:
    return tables(samples, spans=[one.row() for one in spans])


def on(thread: int) -> dict[str, Any]:
    return {"pid": 1, "thread_id": thread, "kind": "server"}


def times(*pieces: tuple[int, int, int]) -> pl.DataFrame:
    rows = [(1, thread, start, end - start) for thread, start, end in pieces]
    schema = dict.fromkeys(mends.TIMES, pl.Int64)
    return pl.DataFrame(rows, schema=schema, orient="row")


def test_times_on_a_thread_are_taken_from_the_spans_there() -> None:
    samples = [Sample((MAIN,), 0, 1, tid=thread) for thread in (1, 2)]
    spans = [S(1, 0, 100, **on(1)), S(2, 20, 50, 1, **on(1) | {"kind": "client"})]
    spans += [S(3, 0, 100, trace=2, **on(2)), S(4, 0, 100, trace=3, kind="server")]
    found = threaded(samples, spans)
    # Of 40 to 70, 10 are in the call and 20 in the request around it.
    freed = times((1, 40, 70), (2, 90, 120))
    gone, half = mends.freed(found, freed, [0.0, 0.5])
    assert after(found, gone) == [70, 90, 100]
    assert after(found, half) == [85, 95, 100]
    assert after(found, *mends.freed(found, times((7, 0, 100)), [0.0])) == [100, 100, 100]


def test_what_is_seen_in_a_sample_began_half_an_interval_before() -> None:
    samples = [Sample((MAIN,), at, 20) for at in range(0, 200, 20)]
    found = threaded(samples, [S(1, 0, 100, **on(1)), S(2, 100, 200, trace=2, **on(1))])
    assert after(found, *mends.freed(found, times((1, 80, 120)), [0.0])) == [70, 90]


def test_who_keeps_the_loop_saves_nothing_by_it_but_all_others_do() -> None:
    # 1 |----------|       waits for a thread until 60, and gets on at 80
    # 2    ·|=====|·       keeps the loop from 30 to 80
    samples = [Sample((MAIN,), 0, 1)]
    spans = [S(1, 0, 100, **on(1)), S(2, 5, 60, 1, pid=1, thread_id=9)]
    spans += [S(3, 25, 90, trace=2, **on(1))]
    found = threaded(samples, spans)
    kept = times((1, 30, 80))
    each = mends.loop_freed(found, kept, [0.0, 0.5, 1.0])
    assert [after(found, one) for one in each] == [[80, 65], [90, 65], [100, 65]]


@pytest.mark.parametrize(("own", "expected"), [(False, [10, 20, 30]), (True, [10, 20])])
def test_times_in_which_a_function_ran(own: bool, expected: list[int]) -> None:
    samples = [
        Sample((MAIN, PARSE), 10, 5, state="running"),
        Sample((MAIN, PARSE), 20, 5, state="idle"),  # waits for the GIL, say
        Sample((MAIN, PARSE, READ), 30, 5, state="running"),
        Sample((MAIN, READ), 40, 5, state="running"),
    ]
    found = mends.code_times(tables(samples), "parse", "/srv/app/main.py", own=own)
    assert found["start_ns"].to_list() == expected


def test_a_query_goes_with_what_its_driver_reports_of_it() -> None:
    query = {"kind": "client", "db_system": "postgresql", "db_statement": "SELECT 1"}
    spans = [
        S(1, 0, 100, kind="server", name="GET"),
        S(2, 10, 50, 1, name="SELECT", scope="sqlalchemy", **query),
        S(3, 12, 48, 1, name="SELECT", scope="psycopg", **query),
        S(4, 20, 30, 3, name="work"),
        S(5, 50, 90, 1, name="SELECT", scope="sqlalchemy", **query),
    ]
    rows = np.array([1])
    assert mends.with_drivers(analyse(spans), rows).tolist() == [1, 2]


def test_waits_for_a_pool_are_those_of_the_kinds_of_spans_that_wait() -> None:
    spans = []
    calls = [("stock", 1, 90_000_000), ("stock", 90_000_000, 10**9), ("list", 1, 10**9)]
    for number, (tool, wait, end) in enumerate(calls):
        first = 3 * number + 1
        spans += [
            S(first, 0, end, None, number, kind="server", name="POST", tool=tool),
            S(first + 1, 0, wait, first, number, name="connect", db_system="sqlite"),
            S(first + 2, wait, end, first, number, name="SELECT", db_system="sqlite"),
        ]
    found = analyse(spans).frame("pool_waits")
    assert found.select("pool", "service", "wait_ns").rows() == [
        ("sqlite", "app", 1),
        ("sqlite", "app", 90_000_000),
    ]
