from __future__ import annotations

from collections import defaultdict

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


def test_nothing_to_say_gives_the_columns() -> None:
    table = executors([row(ELSEWHERE, 0, 10)])
    assert table.is_empty()
    assert "queued_ns" in table.columns


def slowly(samples: list[Sample]) -> dict[tuple[int, str], tuple[int, int, int, int]]:
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
    result = {}
    for pid, name in alive:
        full, queued, most = 0, 0, 0
        for moment in moments:
            mine = [pool for pool in alive if pool[0] == pid]
            at_limit = [pool for pool in mine if busy[pool][moment] == size[pool]]
            if (pid, name) not in at_limit:
                continue
            full += 1
            if len(at_limit) == 1:
                waiting = asking[pid][moment] - sum(busy[pool][moment] for pool in mine)
                queued += max(0, waiting)
                most = max(most, waiting)
        result[pid, name] = (size[pid, name], full * MS, queued * MS, most)
    return result


@given(
    st.lists(
        st.tuples(
            st.integers(1, 2),
            st.integers(0, 6),
            st.sampled_from([WORK, IDLE, ASKS, ELSEWHERE]),
            st.integers(1, 9),
        ),
        max_size=40,
    )
)
def test_it_equals_a_look_at_every_millisecond(
    drawn: list[tuple[int, int, tuple[Frame, ...], int]],
) -> None:
    now: dict[tuple[int, int], int] = defaultdict(int)
    samples = []
    for pid, thread, frames, length in drawn:
        begin = now[pid, thread]
        now[pid, thread] += length
        # Threads below 3 are workers of one pool, 3 and 4 of another.
        if thread >= 5 and frames in (WORK, IDLE):
            continue
        name = f"{'a' if thread < 3 else 'b'}_{thread}"
        tid = pid * 100 + thread
        samples.append(row(frames, begin, begin + length, pid=pid, tid=tid, thread_name=name))
    table = executors(samples)
    found = {
        (one["pid"], one["executor"]): (
            one["workers"],
            one["all_busy_ns"],
            one["queued_ns"],
            one["max_queued"],
        )
        for one in table.rows(named=True)
    }
    assert found == slowly(samples)


@pytest.mark.parametrize("name", [None, "worker"])
def test_threads_without_a_number_are_a_pool(name: str | None) -> None:
    table = executors([row(WORK, 0, 10, thread_name=name)])
    assert table["executor"].to_list() == [name or "(unnamed)"]
