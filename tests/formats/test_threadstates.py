"""States of samples from the thread log, against a millisecond by millisecond twin."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit import model
from perfkit.formats.threadlog import (
    DIED,
    GIL_HELD,
    GIL_WATCHED,
    POLLED,
    TICK,
    ThreadLogWriter,
)
from perfkit.formats.threadstates import ThreadStates
from perfkit.parts import conform

MS = 1_000_000
LOOK_MS = 20
STACK_NS = 10 * MS
PID = 7
EPOCH_NS = 1_790_000_000_000_000_000


@dataclass(frozen=True)
class Thread:
    """What a thread really did: alternating pauses and runs, in whole looks of 20 ms."""

    tid: int
    plan: tuple[int, ...]

    def runs(self) -> list[bool]:
        """Return for each look whether it ran in it: it begins with a pause."""
        return [bool(place % 2) for place, length in enumerate(self.plan) for _ in range(length)]


THREADS = st.lists(
    st.builds(
        Thread,
        st.integers(100, 105),
        st.lists(st.integers(1, 4), min_size=1, max_size=6).map(tuple),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda thread: thread.tid,
)


def log_of(threads: list[Thread], *, sparse: bool) -> bytes:
    """Write the log that a watcher would; `sparse` leaves out points in which nothing changed."""
    log = ThreadLogWriter()
    log.add(0, PID, POLLED)
    for thread in threads:
        busy = 0
        written = True
        log.add(0, thread.tid, 0)
        runs = thread.runs()
        for look, ran in enumerate(runs, 1):
            if ran and not written:
                log.add((look - 1) * LOOK_MS * MS, thread.tid, busy)
            busy += LOOK_MS * MS * ran
            written = ran or not sparse or look == len(runs)
            if written:
                log.add(look * LOOK_MS * MS, thread.tid, busy)
        log.add((len(runs) * LOOK_MS + 5) * MS, thread.tid, DIED)
    for look in range(40):
        log.add(look * LOOK_MS * MS, 0, TICK)
    return log.take()


def samples(*rows: tuple[int, int, int]) -> pl.DataFrame:
    """Return samples from (tid, start ms, duration ms)."""
    return conform(
        model.SAMPLES,
        {
            "ts_ns": [EPOCH_NS + row[1] * MS for row in rows],
            "duration_ns": [row[2] * MS for row in rows],
            "tid": [row[0] for row in rows],
            "pid": [PID] * len(rows),
            "stack_id": list(range(len(rows))),
        },
    )


def pieces(frame: pl.DataFrame) -> list[tuple[int, float, float, str | None]]:
    """Return (stack, start ms, duration ms, state) in time order."""
    ordered = frame.sort("stack_id", "ts_ns")
    return [
        (row["stack_id"], (row["ts_ns"] - EPOCH_NS) / MS, row["duration_ns"] / MS, row["state"])
        for row in ordered.iter_rows(named=True)
    ]


@given(threads=THREADS, data=st.data(), sparse=st.booleans())
def test_states_are_those_of_the_twin(
    threads: list[Thread], data: st.DataObject, sparse: bool
) -> None:
    rows = data.draw(
        st.lists(
            st.tuples(
                st.sampled_from([thread.tid for thread in threads]),
                st.integers(0, 30).map(lambda looks: looks * LOOK_MS),
                st.integers(1, 20).map(lambda looks: looks * LOOK_MS),
            ),
            max_size=5,
        )
    )
    states = ThreadStates(log_of(threads, sparse=sparse), EPOCH_NS)
    found = pieces(states.apply(samples(*rows), STACK_NS, {}))
    painted: dict[tuple[int, int], str | None] = {}
    for stack, start, length, state in found:
        for ms in range(round(start), round(start + length)):
            assert (stack, ms) not in painted, "pieces must not overlap"
            painted[stack, ms] = state
    by_tid = {thread.tid: thread for thread in threads}
    expected: dict[tuple[int, int], str | None] = {}
    for stack, (tid, start_ms, length_ms) in enumerate(rows):
        runs = by_tid[tid].runs()
        death_ms = len(runs) * LOOK_MS + 5
        # Samples that begin after the death belong to another thread with the same number.
        end_ms = min(start_ms + length_ms, death_ms if start_ms <= death_ms else 10**9)
        for ms in range(start_ms, end_ms):
            look = min(ms // LOOK_MS, len(runs) - 1)  # the last state goes on
            state = "running" if runs[look] else "idle"
            expected[stack, ms] = state if start_ms < len(runs) * LOOK_MS else None
    assert painted == expected


def test_a_run_over_several_looks_has_sharp_ends() -> None:
    log = ThreadLogWriter()
    # Idle until 50 ms, then running until 110 ms: looks see it only in sum.
    for at_ms, busy_ms in (
        (0, 0),
        (20, 0),
        (40, 0),
        (60, 10),
        (80, 30),
        (100, 50),
        (120, 60),
        (140, 60),
    ):
        log.add(at_ms * MS, 1, busy_ms * MS)
    found = pieces(ThreadStates(log.take(), EPOCH_NS).apply(samples((1, 0, 140)), STACK_NS, {}))
    assert found == [(0, 0, 50, "idle"), (0, 50, 60, "running"), (0, 110, 30, "idle")]


def test_time_that_is_counted_late_is_put_where_it_belongs() -> None:
    log = ThreadLogWriter()
    # The thread ran from 20 ms on; the kernel says so only at its tick.
    for at_ms, busy_ms in ((0, 0), (20, 0), (40, 0), (60, 0), (80, 0), (100, 80), (120, 80)):
        log.add(at_ms * MS, 1, busy_ms * MS)
    found = pieces(ThreadStates(log.take(), EPOCH_NS).apply(samples((1, 0, 120)), STACK_NS, {}))
    assert found == [(0, 0, 20, "idle"), (0, 20, 80, "running"), (0, 100, 20, "idle")]


def test_a_thread_that_was_never_seen_was_gone_at_the_next_look() -> None:
    log = ThreadLogWriter()
    log.add(0, PID, POLLED)
    for at_ms in (0, 20, 40, 60):
        log.add(at_ms * MS, 0, TICK)
    found = pieces(ThreadStates(log.take(), EPOCH_NS).apply(samples((5, 25, 500)), STACK_NS, {}))
    assert found == [(0, 25, 15, None)]


def test_threads_of_a_process_that_was_not_watched_are_left_alone() -> None:
    log = ThreadLogWriter()
    log.add(30 * MS, PID, POLLED)
    for at_ms in (30, 50):
        log.add(at_ms * MS, 0, TICK)
    found = pieces(ThreadStates(log.take(), EPOCH_NS).apply(samples((5, 25, 500)), STACK_NS, {}))
    assert found == [(0, 25, 500, None)]


def test_a_thread_id_that_is_used_again_is_clipped_at_its_own_death() -> None:
    log = ThreadLogWriter()
    log.add(0, 1, 0)
    log.add(50 * MS, 1, DIED)
    log.add(100 * MS, 1, 0)
    log.add(180 * MS, 1, DIED)
    found = pieces(
        ThreadStates(log.take(), EPOCH_NS).apply(samples((1, 10, 300), (1, 110, 300)), STACK_NS, {})
    )
    assert [(piece[1], piece[2]) for piece in found] == [(10, 40), (110, 70)]


@pytest.mark.parametrize("data", [b"", b"\0" * 23], ids=["empty", "cut"])
def test_an_empty_log_changes_nothing(data: bytes) -> None:
    before = samples((1, 0, 100))
    assert ThreadStates(data, EPOCH_NS).apply(before, STACK_NS, {}).equals(before)


def test_samples_without_times_or_threads_are_kept() -> None:
    frame = samples((1, 0, 100), (1, 0, 100)).with_columns(
        ts_ns=pl.Series([None, EPOCH_NS], dtype=pl.Int64), tid=pl.lit(None, dtype=pl.Int64)
    )
    log = ThreadLogWriter()
    log.add(0, 1, 0)
    log.add(100 * MS, 1, 50 * MS)
    kept = ThreadStates(log.take(), EPOCH_NS).apply(frame, STACK_NS, {})
    assert kept.height == 2
    assert kept["state"].null_count() == 2


@given(data=st.binary(max_size=400))
def test_any_bytes_can_be_read(data: bytes) -> None:
    ThreadStates(data, 0).apply(samples((1, 0, 10), (2, 5, 10)), STACK_NS, {})


@given(
    looks=st.lists(st.tuples(st.integers(1, 300), st.sampled_from([None, 100, 101, 102]))),
    rows=st.lists(st.tuples(st.sampled_from([100, 101]), st.integers(1, 200), st.integers(0, 50))),
)
def test_a_row_has_the_gil_for_the_looks_in_it_that_found_so(
    looks: list[tuple[int, int | None]], rows: list[tuple[int, int, int]]
) -> None:
    log = ThreadLogWriter()
    log.add(0, PID, GIL_WATCHED)
    now, held = 0, []
    for pause, holder in looks:
        now += pause
        if holder:
            log.add(now * MS, holder, GIL_HELD)
            held.append((now, holder))
        log.add(now * MS, 0, TICK)
    # Rows of one thread follow each other, with gaps; one of a process that is not watched.
    ends = {100: 0, 101: 0}
    table = []
    for tid, length, gap in rows:
        start = ends[tid] + gap
        ends[tid] = start + length
        table.append((start, length, tid))
    samples = conform(
        model.SAMPLES,
        {
            "ts_ns": [EPOCH_NS + start * MS for start, _, _ in table] + [EPOCH_NS],
            "duration_ns": [length * MS for _, length, _ in table] + [MS],
            "pid": [PID] * len(table) + [PID + 1],
            "tid": [tid for _, _, tid in table] + [300],
        },
    )
    done = ThreadStates(log.take(), EPOCH_NS).apply(samples, STACK_NS, {})
    times = [sum(pause for pause, _ in looks[: n + 1]) for n in range(len(looks))]
    following = dict(zip(times, times[1:] + times[-1:], strict=True))
    expected: list[int | None] = [
        sum(
            min(following[when] - when, 200) * MS
            for when, holder in held
            if holder == tid and start <= when < start + length
        )
        for start, length, tid in table
    ]
    assert done["gil_ns"].to_list() == [*expected, None]


def test_time_of_threads_that_were_never_read_is_unseen() -> None:
    log = ThreadLogWriter()
    log.add(0, PID, POLLED)
    log.add(0, -PID, 70 * MS)
    for look in range(6):
        log.add(look * LOOK_MS * MS, 0, TICK)
        log.add(look * LOOK_MS * MS, 100, 0)
    log.add(100 * MS, -PID, 100 * MS)
    # Threads 201 and 202 began and ended between two looks.
    states = ThreadStates(log.take(), EPOCH_NS).apply(
        samples((201, 2, 10), (202, 42, 5)), STACK_NS, {}
    )
    assert states["state"].null_count() == 2
    assert states["unseen_ns"].to_list() == [20 * MS, 10 * MS]
