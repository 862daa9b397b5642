from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.stacks import Frame
from tests.analysis.sampled import Sample, tables
from tests.analysis.test_lock_waits import (
    ANYIO,
    GET,
    ITEM,
    MS,
    RESULT,
    RUN,
    THREAD,
    WAIT,
    WORKER,
    app,
    row,
)
from tests.analysis.test_span_steps import capture, request

IDLE = (*THREAD, RUN, WORKER)
WORK = (*IDLE, ITEM, app("job", 3))
ASKS = (*THREAD, RUN, app("serve", 5), app("route", 6), app("handle", 7), RESULT, WAIT)
ELSEWHERE = (*THREAD, RUN, app("serve", 9))


def executors(samples: list[Sample]) -> pl.DataFrame:
    return tables(samples).frame("executors")


def test_jobs_queue_while_all_threads_are_busy() -> None:
    #           0    10    20    30    40
    # pool_0    [work------------|idle--)
    # pool_1    [idle|work-------------)
    # server 3  [asks----------------)
    # server 4       [asks-------)
    # server 5             [asks-)
    table = executors(
        [
            row(WORK, 0, 30, tid=1, thread_name="pool_0", state="running"),
            row(IDLE, 30, 40, tid=1, thread_name="pool_0"),
            row(IDLE, 0, 10, tid=2, thread_name="pool_1"),
            row(WORK, 10, 40, tid=2, thread_name="pool_1"),
            row(ASKS, 0, 38, tid=3, thread_name="server"),
            row(ASKS, 10, 30, tid=4, thread_name="server"),
            row(ASKS, 20, 30, tid=5, thread_name="server"),
        ]
    )
    assert table.rows(named=True) == [
        {
            "pid": 1,
            "executor": "pool",
            "workers": 2,
            "pooled_ns": 80 * MS,
            "busy_ns": 60 * MS,
            "running_ns": 30 * MS,
            "all_busy_ns": 20 * MS,
            "queued_ns": 10 * MS,
            "max_queued": 1,
            "measured": False,
        }
    ]


def test_workers_of_anyio_are_a_pool() -> None:
    worker = (*THREAD, ANYIO)
    table = executors(
        [
            row((*worker, app("endpoint", 1)), 0, 10, tid=1, thread_name="AnyIO worker thread"),
            row((*worker, GET, WAIT), 10, 30, tid=1, thread_name="AnyIO worker thread"),
            row((*worker, GET, WAIT), 0, 30, tid=2, thread_name="AnyIO worker thread"),
        ]
    )
    found = table.select("executor", "workers", "busy_ns", "all_busy_ns").row(0)
    assert found == ("AnyIO worker thread", 2, 10 * MS, 0)


def given_at(give_ms: int, begin_ms: int, tid: int) -> str:
    """Return the steps of a span that gave work to a thread, which begins it later."""
    return f"0 {give_ms * 1000} @{tid} {(begin_ms - give_ms) * 1000} 500 ."


def test_what_a_loop_gave_queues_until_a_thread_begins_it() -> None:
    #             0    10    20    30    40
    # asyncio_0   [work-------------|work)
    # asyncio_1   [work------|idle-------)
    # request 1     gives............begins, and is current again later
    # request 2                  gives.begins
    samples = [
        row(ELSEWHERE, 0, 50),
        row(WORK, 0, 40, tid=11, thread_name="asyncio_0"),
        row(WORK, 0, 20, tid=12, thread_name="asyncio_1"),
        row(IDLE, 20, 40, tid=12, thread_name="asyncio_1"),
    ]
    again = given_at(5, 30, 11).removesuffix(".") + "5000 1000 ."
    spans = [request(0, 50_000, again), request(0, 50_000, given_at(22, 30, 11))]
    table = capture(spans, samples).frame("executors")
    found = table.select("executor", "all_busy_ns", "queued_ns", "max_queued").row(0)
    assert found == ("asyncio", 20 * MS, 15 * MS, 1)


def test_samples_that_overlap_by_rounding_are_one_thread() -> None:
    samples = [
        row(WORK, 0, 20, tid=1, thread_name="pool_0"),
        row(WORK, 20, 40, tid=1, thread_name="pool_0"),
        row(WORK, 0, 40, tid=2, thread_name="pool_1"),
        *(row(ASKS, 0, 40, tid=tid, thread_name="server") for tid in (3, 4, 5)),
    ]
    samples[0] = replace(samples[0], duration_ns=20 * MS + 100)
    found = executors(samples).select("workers", "all_busy_ns", "queued_ns").row(0)
    assert found == (2, 40 * MS, 40 * MS)


def test_nothing_to_say_gives_the_columns() -> None:
    table = executors([row(ELSEWHERE, 0, 10)])
    assert table.is_empty()
    assert "queued_ns" in table.columns


Given = tuple[int, int, int, int]
"""Process, thread, and from when to when what was given to it had not begun."""


def slowly(
    samples: list[Sample], given_: list[Given]
) -> dict[tuple[int, str], tuple[int, int, int, int]]:
    """Look at every millisecond: (workers, all busy, queued, most queued) of each pool."""
    alive: dict[tuple[int, str], dict[int, int]] = defaultdict(lambda: defaultdict(int))
    busy: dict[tuple[int, str], dict[int, int]] = defaultdict(lambda: defaultdict(int))
    asking: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    moments = set()
    for sample in samples:
        start = (sample.ts_ns or 0) // MS
        pid, name = sample.pid or 0, (sample.thread_name or "").rpartition("_")[0]
        for moment in range(start, start + (sample.duration_ns or 0) // MS):
            moments.add(moment)
            if sample.frames in (WORK, IDLE):
                alive[pid, name][moment] += 1
                busy[pid, name][moment] += sample.frames == WORK
            asking[pid][moment] += sample.frames == ASKS
    size = {pool: max(counts.values()) for pool, counts in alive.items()}
    workers = {(one.pid, one.tid) for one in samples if one.frames in (WORK, IDLE)}
    result = {}
    for pid, name in alive:
        full, queued, most = 0, 0, 0
        for moment in moments:
            mine = [pool for pool in alive if pool[0] == pid]
            at_limit = [pool for pool in mine if busy[pool][moment] == size[pool]]
            if (pid, name) not in at_limit:
                continue
            full += 1
            waiting = sum(
                (one, tid) in workers and one == pid and pool_of(tid) == name and g <= moment < b
                for one, tid, g, b in given_
            )
            if len(at_limit) == 1:
                more = asking[pid][moment] - sum(busy[pool][moment] for pool in mine)
                waiting += max(0, more)
            queued += waiting
            most = max(most, waiting)
        result[pid, name] = (size[pid, name], full * MS, queued * MS, most)
    return result


def pool_of(tid: int) -> str:
    return "a" if tid % 100 < 3 else "b"


@given(
    st.lists(
        st.tuples(
            st.integers(1, 2),
            st.integers(0, 6),
            st.sampled_from([WORK, IDLE, ASKS, ELSEWHERE]),
            st.integers(1, 9),
        ),
        max_size=40,
    ),
    st.lists(
        st.tuples(st.integers(1, 2), st.integers(0, 4), st.integers(1, 30), st.integers(1, 9)),
        max_size=6,
    ),
)
def test_it_equals_a_look_at_every_millisecond(
    drawn: list[tuple[int, int, tuple[Frame, ...], int]],
    given_: list[tuple[int, int, int, int]],
) -> None:
    now: dict[tuple[int, int], int] = defaultdict(int)
    samples = [row(ELSEWHERE, 0, 1, pid=pid, tid=pid * 100 + 50) for pid in (1, 2)]
    for pid, thread, frames, length in drawn:
        begin = now[pid, thread]
        now[pid, thread] += length
        # Threads below 3 are workers of one pool, 3 and 4 of another.
        if thread >= 5 and frames in (WORK, IDLE):
            continue
        name = f"{pool_of(thread)}_{thread}"
        tid = pid * 100 + thread
        samples.append(row(frames, begin, begin + length, pid=pid, tid=tid, thread_name=name))
    jobs = [(pid, pid * 100 + thread, at, at + wait) for pid, thread, at, wait in given_]
    spans = [
        request(0, 90_000, given_at(at, begin, tid), pid=pid, thread_id=pid * 100 + 50)
        for pid, tid, at, begin in jobs
    ]
    table = capture(spans, samples).frame("executors")
    found = {
        (one["pid"], one["executor"]): (
            one["workers"],
            one["all_busy_ns"],
            one["queued_ns"],
            one["max_queued"],
        )
        for one in table.rows(named=True)
    }
    assert found == slowly(samples, jobs)


@pytest.mark.parametrize("name", [None, "worker"])
def test_threads_without_a_number_are_a_pool(name: str | None) -> None:
    table = executors([row(WORK, 0, 10, thread_name=name)])
    assert table["executor"].to_list() == [name or "(unnamed)"]


def reading(name: str, ts: int, value: float, **attributes: object) -> dict[str, object]:
    return {
        "name": f"perfkit.executor.queue.{name}",
        "ts_ns": ts * MS,
        "value": value,
        "kind": "counter" if name == "time" else "gauge",
        "attributes": json.dumps({"executor": "pool", "process.pid": 1, **attributes}),
    }


def test_what_a_program_measured_of_its_queue_counts() -> None:
    # Executor.map: one thread waits for eight jobs, of which stacks show the two at work.
    samples = [
        row(WORK, 0, 40, tid=1, thread_name="pool_0"),
        row(WORK, 0, 40, tid=2, thread_name="pool_1"),
        row(WORK, 0, 40, tid=3, thread_name="other_0"),
        row(ASKS, 0, 40, tid=4, thread_name="server"),
    ]
    seen = {one["executor"]: one for one in executors(samples).rows(named=True)}
    assert (seen["pool"]["queued_ns"], seen["pool"]["max_queued"]) == (0, 0)
    metrics = [
        reading("time", 0, 5.0),
        reading("time", 20, 5.06),
        reading("time", 40, 5.1),
        reading("time", 0, 9.0, **{"process.pid": 2}),
        reading("time", 40, 19.0, **{"process.pid": 2}),
        *(reading("most", ts, most) for ts, most in ((0, 0), (20, 6), (40, 2))),
    ]
    table = tables(samples, metrics=metrics).frame("executors")
    told = {one["executor"]: one for one in table.rows(named=True)}
    assert (told["pool"]["queued_ns"], told["pool"]["max_queued"]) == (100 * MS, 6)
    assert told["pool"]["measured"]
    assert told["other"] == seen["other"]


def test_a_program_that_measured_no_queue_has_none() -> None:
    # Four ask for one job: what stacks take for three that queue.
    samples = [row(WORK, 0, 40, tid=1, thread_name="pool_0")]
    samples += [row(ASKS, 0, 40, tid=tid, thread_name="server") for tid in (3, 4, 5, 6)]
    assert executors(samples)["queued_ns"].to_list() == [3 * 40 * MS]
    metrics = [reading(name, ts, 0.0) for ts in (0, 40) for name in ("time", "most")]
    table = tables(samples, metrics=metrics).frame("executors")
    assert table.select("queued_ns", "max_queued").row(0) == (0, 0)


@pytest.mark.parametrize("value", [1e15, -1.0])
def test_a_queue_that_cannot_be_is_no_measurement(value: float) -> None:
    samples = [row(WORK, 0, 40, tid=1, thread_name="pool_0")]
    metrics = [
        reading(name, ts, number)
        for name in ("time", "most")
        for ts, number in ((0, 0.0), (20, 3.0), (40, value))
    ]
    table = tables(samples, metrics=metrics).frame("executors")
    assert table.select("queued_ns", "max_queued").row(0) == (3_000_000_000, 3)
