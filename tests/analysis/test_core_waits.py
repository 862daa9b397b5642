from __future__ import annotations

import math
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.replay import pool_demand
from perfkit.analysis.waits import core_waits
from tests.analysis.sampled import Row, Span, span, tables, tree_frame

SECOND = 10**9
MS = 10**6
PID = 7


def metric(name: str, second: int, value: float, kind: str = "gauge", instance: str = "") -> Row:
    of = instance or f"web (pid {PID})"
    return {
        "name": name,
        "ts_ns": second * SECOND,
        "value": value,
        "kind": kind,
        "instance": of,
        "unit": "s",
    }


def process(waiting: list[float], running: list[float]) -> list[Row]:
    """Return readings each second: how many threads waited and ran in the second before."""
    rows, waited = [], 0.0
    for second, (waits, runs) in enumerate(zip(waiting, running, strict=True)):
        waited += waits
        rows.append(metric("process.linux.run_queue.time", second, waited, "counter"))
        rows.append(metric("process.cpu.utilization", second, runs))
    return rows


def machine(tasks: list[int]) -> list[Row]:
    name = "system.linux.tasks.running"
    return [metric(name, second, value, instance="vm") for second, value in enumerate(tasks)]


def request(row: int, start: int, end: int, **more: Any) -> Span:
    return span(row, start, end, pid=PID, **({"thread_id": PID} | more))


def found(metrics: list[Row], spans: list[Span]) -> list[dict[str, Any]]:
    frame = tables(metrics=metrics, derived={"tree": tree_frame(spans)}).frame("core_waits")
    assert frame.columns == list(core_waits.COLUMNS)
    return frame.rows(named=True)


levels = st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0])


@given(
    st.lists(st.tuples(levels, levels), min_size=3, max_size=8),
    st.lists(
        st.tuples(st.integers(0, 9000), st.integers(0, 5000), st.sampled_from([1, 2, None])),
        min_size=1,
        max_size=6,
    ),
)
def test_what_a_core_was_waited_for_equals_a_loop(
    readings: list[tuple[float, float]], drawn: list[tuple[int, int, int | None]]
) -> None:
    spans = [
        request(row, start * MS, (start + length) * MS, thread_id=thread)
        for row, (start, length, thread) in enumerate(drawn)
    ]
    got = found(process([one[0] for one in readings], [one[1] for one in readings]), spans)
    # Millisecond by millisecond: on how many threads somebody is served.
    busy = [
        {(thread, None if thread else row) for row, (start, long, thread) in enumerate(drawn)
         if start <= at < start + long}
        for at in range(15_000)
    ]  # fmt: skip
    served = [len(one) for one in busy if one]
    threads = sum(served) / len(served) if served else 1.0
    shares = {}
    # Of the first reading it is not known since when threads waited as long.
    for second, (waiting, running) in list(enumerate(readings))[1:]:
        wanted = waiting + running
        share = min(1.0, wanted / threads) * waiting / wanted if wanted else 0.0
        shares[second] = share
    for one, (start, length, _) in zip(got, drawn, strict=True):
        expected = sum(
            share * max(0, min(start + length, second * 1000) - max(start, second * 1000 - 1000))
            for second, share in shares.items()
        )
        assert one["core_wait_ns"] == pytest.approx(expected * MS, abs=2)
        assert one["duration_ns"] == length * MS


def test_nothing_is_known_without_readings_or_of_other_processes() -> None:
    spans = [request(0, 3 * SECOND, 5 * SECOND)]
    assert found([], spans) == []
    assert found(process([1.0] * 9, [1.0] * 9), [span(0, 3 * SECOND, 5 * SECOND, pid=8)]) == []


@pytest.mark.parametrize(
    ("busy", "share"), [(0.5, 0.0), (0.25, 0.0), (1.0, 0.5), (0.625, 0.2), (0.0, 1.0), (None, 1.0)]
)
def test_what_the_recorded_processes_take_from_each_other_does_not_count(
    busy: float | None, share: float
) -> None:
    # They use two of four cores.
    readings = process([1.0] * 9, [2.0] * 9)
    if busy is not None:
        readings += [metric("system.cpu.utilization", n, busy, instance="vm") for n in range(9)]
    (alone,) = found(process([1.0] * 9, [2.0] * 9), [request(0, 3 * SECOND, 5 * SECOND)])
    (row,) = found(readings, [request(0, 3 * SECOND, 5 * SECOND)])
    assert alone["core_wait_ns"] > 0
    assert row["core_wait_ns"] == pytest.approx(share * alone["core_wait_ns"], abs=2)


def test_processes_that_come_and_go_count_for_as_long_as_they_ran() -> None:
    # Each reading stands for the second before it. Two of four cores are used by what is recorded,
    # one of them by processes that live for two seconds each, and a third one by others.
    alone = process([1.0] * 9, [1.0] * 9)
    for number in range(4):
        alone += [
            metric("process.cpu.utilization", second, 1.0, instance=f"job (pid {number + 50})")
            for second in range(2 * number + 1, 2 * number + 3)
        ]
    busy = [metric("system.cpu.utilization", n, 0.75, instance="vm") for n in range(9)]
    (most,) = found(alone, [request(0, 3 * SECOND, 5 * SECOND)])
    (row,) = found(alone + busy, [request(0, 3 * SECOND, 5 * SECOND)])
    others = 1 - (9 + 4 * 2) / (9 * 3)
    assert row["core_wait_ns"] == pytest.approx(others * most["core_wait_ns"], abs=2)


def calls(metrics: list[Row], peer: str) -> int | None:
    spans = [
        request(0, 2 * SECOND, 6 * SECOND),
        request(1, 3 * SECOND, 5 * SECOND, parent_row=0, peer=peer, db_system="postgresql"),
    ]
    for one in spans:
        one["category"] = "database" if one["row"] else "server"
    waits = core_waits.core_waits(tables(metrics=metrics, derived={"tree": tree_frame(spans)}))
    return int(waits.most_ns(tree_frame(spans)[1:])[0])


@pytest.mark.parametrize(
    ("peer", "seconds"),
    [("127.0.0.1:5432", 1.5), ("localhost", 1.5), ("/run/db.sock", 1.5), ("db-1:5432", 0.5)],
)
def test_who_answers_on_the_same_machine_may_wait_more(peer: str, seconds: float) -> None:
    # A quarter of the time the caller waits. Of 16 tasks beside the reader four have a core.
    metrics = process([0.25] * 9, [0.75] * 9) + machine([17] * 9)
    assert calls(metrics, peer) == pytest.approx(seconds * SECOND, abs=2)


def test_of_each_query_the_calls_are_added_up() -> None:
    spans = [request(0, 2 * SECOND, 7 * SECOND)]
    for row, (start, end, weight) in enumerate(((2, 3, 1.0), (3, 5, 1.0), (5, 6, 4.0)), 1):
        more = {"parent_row": 0, "db_system": "postgresql", "adjusted_count": weight}
        spans.append(request(row, start * SECOND, end * SECOND) | more)
    calls = pl.DataFrame({"row": [1, 2, 3], "query_id": ["a", "b", "a"]})
    derived = {"tree": tree_frame(spans), "query_calls": calls}
    frame = tables(metrics=process([0.25] * 9, [0.75] * 9), derived=derived).frame(
        "query_core_waits"
    )
    assert frame.columns == list(core_waits.QUERY_COLUMNS)
    assert frame.rows() == [("a", 5 * SECOND, 1.25 * SECOND), ("b", 2 * SECOND, 0.5 * SECOND)]


def test_a_machine_with_free_cores_explains_nothing() -> None:
    assert calls(machine([4] * 9), "localhost") == 0
    assert calls([], "localhost") == 0


holders = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 9), st.integers(1, 30), st.integers(0, 20)),
    min_size=1,
    max_size=12,
)


def demand(drawn: list[tuple[int, int, int, int]], metrics: list[Row]) -> dict[str, Any]:
    """Return what is said of a pool; drawn are when one asks, how long it waits, uses and stays."""
    spans: list[Span] = []
    for asks, waits, uses, stays in drawn:
        row, got = len(spans), asks + waits
        database = {"db_system": "postgresql", "category": "database", "service": "shop"}
        for start, end, parent, more in (
            (asks, got + uses + stays, None, {"service": "shop"}),
            (asks, got, row, database | {"name": "connect"}),
            (got, got + uses, row, database | {"name": "SELECT"}),
        ):
            one = request(len(spans), start * 100 * MS, end * 100 * MS, parent_row=parent)
            spans.append(one | more)
    taking = spans[1::3]
    takers = pl.DataFrame(
        {
            "pool": ["postgresql"] * len(taking),
            "service": ["shop"] * len(taking),
            "row": [one["row"] for one in taking],
            "parent_row": [one["parent_row"] for one in taking],
            "wait_ns": [one["end_ns"] - one["start_ns"] for one in taking],
        }
    )
    derived = {"tree": tree_frame(spans), "pool_waits": takers}
    frame = tables(metrics=metrics, derived=derived).frame("pool_demand")
    assert frame.columns == list(pool_demand.COLUMNS)
    return frame.row(0, named=True)


def _at_once(times: list[tuple[float, float]]) -> int:
    return max(sum(start <= at < end for start, end in times) for at, _ in times)


def _waits(times: list[tuple[int, float]], places: int) -> float:
    free, waited = [0.0] * places, 0.0
    for asks, holds in sorted(times, key=lambda one: one[0]):
        first = min(range(places), key=lambda place: free[place])
        begins = max(asks, free[first])
        waited += begins - asks
        free[first] = begins + holds
    return waited


@given(holders)
def test_a_pool_is_replayed_as_a_loop_does_it(drawn: list[tuple[int, int, int, int]]) -> None:
    said = demand(drawn, process([1.0] * 20, [1.0] * 20))
    ways = []
    for stays_too in (False, True):
        held = [uses + (stays if stays_too else 0) for _, _, uses, stays in drawn]
        began = [asks + waits for asks, waits, *_ in drawn]
        got = [(at, at + hold) for at, hold in zip(began, held, strict=True)]
        places = max(1, _at_once(got))
        asked = [(one[0], hold) for one, hold in zip(drawn, held, strict=True)]
        ways.append((places, sum(held), _waits(asked, places) * 100 * MS))
    seen = sum(waits for _, waits, *_ in drawn) * 100 * MS
    off = [abs(math.log((way[2] + MS) / (seen + MS))) for way in ways]
    place = 0 if off[0] <= off[1] else 1
    assert (said["places"], said["held_ns"]) == (ways[place][0], ways[place][1] * 100 * MS)
    assert said["wait_ns"] == pytest.approx(ways[place][2], abs=len(drawn))
    assert 0 <= said["core_wait_ns"] <= said["held_ns"] / 2 + 1
    assert said["quiet_wanted"] <= said["wanted"] <= len(drawn)
    assert said["quiet_wait_ns"] <= said["wait_ns"] + len(drawn)
