"""CPU time shared out to stacks, against a loop over rows and a simulated program."""

from __future__ import annotations

import random
from collections import defaultdict
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perfkit import model
from perfkit.formats import cputime
from perfkit.formats.threadlog import POLLED, RUNS, SLEEPS, TICK, ThreadLogWriter
from perfkit.formats.threadstates import ThreadStates
from perfkit.parts import conform

MS = 1_000_000
EPOCH_NS = 1_790_000_000_000_000_000
LOOK_MS, STACK_MS = 20, 10
SLEEP, COMPUTE = 1, 2

ROW = st.tuples(
    st.integers(0, 2),  # thread
    st.integers(0, 3),  # stack
    st.integers(1, 100),  # length
    st.floats(0, 1),  # share that was placed
    st.floats(0, 1),  # share that the clock went on
    st.integers(0, 30),  # asked
    st.floats(0, 1),  # share of that in which it ran
    st.floats(0, 1),  # obtainable
)
Row = tuple[int, int, int, float, float, int, float, float]


def rows_of(values: list[Row]) -> cputime.Rows:
    """Return rows with whole numbers where there are such."""
    thread, stack, length, placed, cpu, asked, running, free = (
        np.array([value[n] for value in values]) for n in range(8)
    )
    return cputime.Rows(
        thread.astype(np.int64),
        stack.astype(np.int64),
        length.astype(np.int64) * MS,
        np.rint(placed * length * MS).astype(np.int64),
        asked.astype(np.int64),
        np.floor(asked * running).astype(np.int64),
        cpu * length * MS,
        cpu * length * MS * 2.0,
        free.astype(np.float64),
    )


def slow_allot(rows: cputime.Rows) -> tuple[list[float], list[float]]:
    """Do what `allot` does, one thread and one row after the other."""
    count = len(rows.thread)
    share = []
    for n in range(count):
        same = [m for m in range(count) if rows.stack[m] == rows.stack[n]]
        ran = sum(int(rows.running[m]) for m in same)
        asked = sum(rows.asked[m] * max(rows.obtainable[m], 0.02) for m in same)
        share.append(min(1.0, (ran + 1) / (asked + 1)))
    ran_ns, unseen_ns = slow_round(rows, share)
    longest: dict[int, int] = defaultdict(int)
    for n in range(count):
        longest[int(rows.thread[n])] += int(rows.length_ns[n])
    used = sum(rows.cpu_ns)
    if sum(unseen_ns) > 0.5 * used > 0.25 * max(longest.values()):
        return slow_round(rows, [1.0] * count)
    return ran_ns, unseen_ns


def slow_round(rows: cputime.Rows, share: list[float]) -> tuple[list[float], list[float]]:
    count = len(rows.thread)
    enough = [
        share[n]
        for n in range(count)
        if sum(rows.asked[m] for m in range(count) if rows.stack[m] == rows.stack[n]) >= 5
    ]
    best = max([0.4, *enough])
    ran, unseen = [0.0] * count, [0.0] * count
    for thread in set(rows.thread.tolist()):
        mine = [n for n in range(count) if rows.thread[n] == thread]
        waits = [n for n in mine if share[n] < 0.2]
        left = sum(rows.cpu_ns[n] for n in mine)
        runs = [n for n in mine if n not in waits and share[n] >= 0.5 * best]
        partly = [n for n in mine if n not in waits and n not in runs]
        for members in (runs, partly):
            most = {}
            for n in members:
                fair = rows.length_ns[n] * rows.obtainable[n] * (1 if n in runs else share[n])
                fair = max(min(fair, rows.near_ns[n]), rows.ran_ns[n])
                most[n] = fair if waits else rows.length_ns[n]
            placed = {n: min(rows.ran_ns[n], most[n]) for n in members}
            spare = {n: most[n] - placed[n] for n in members}
            given = 0.0
            for n in members:
                if left < sum(placed.values()):
                    ran[n] = placed[n] * left / sum(placed.values())
                elif sum(spare.values()):
                    up = min(1.0, (left - sum(placed.values())) / sum(spare.values()))
                    ran[n] = placed[n] + spare[n] * up
                else:
                    ran[n] = placed[n]
                given += ran[n]
            left = max(left - given, 0.0)
        where = waits if sum(rows.cpu_ns[n] for n in waits) >= 1.0 else mine
        for n in where:
            unseen[n] = left * rows.cpu_ns[n] / max(1.0, sum(rows.cpu_ns[m] for m in where))
    return ran, unseen


# The second row's clock goes on by less than any clock counts.
@example([(0, 0, 1, 0.0, 0.5, 0, 0.0, 0.0)] * 5 + [(0, 1, 1, 0.0, 5e-324, 30, 0.0, 1.0)])
@given(st.lists(ROW, min_size=1, max_size=12))
def test_time_is_shared_out_as_by_hand_and_none_is_lost(values: list[Row]) -> None:
    rows = rows_of(values)
    ran, unseen = cputime.allot(rows)
    slow_ran, slow_unseen = slow_allot(rows)
    assert ran == pytest.approx(slow_ran, rel=1e-6, abs=10)
    assert unseen == pytest.approx(slow_unseen, rel=1e-6, abs=10)
    assert (ran <= rows.length_ns + 10).all()
    for thread in set(rows.thread.tolist()):
        mine = rows.thread == thread
        used = rows.cpu_ns[mine].sum()
        assert (ran + unseen)[mine].sum() == pytest.approx(used, rel=1e-6, abs=10)


def burst_program(
    sleep_ms: float, compute_ms: float, *, skew_ms: float, seed: int
) -> tuple[pl.DataFrame, bytes, float]:
    """Simulate a thread that sleeps and computes in turn, py-spy, and the watcher of its clock.

    Returns samples, log, and CPU time in ms. `skew_ms` is how late samples are dated.
    """
    rng = random.Random(seed)
    length = 20_000.0
    bursts, now = [], 0.0
    while now < length:
        begin = now + sleep_ms * rng.uniform(0.8, 1.2)
        now = begin + compute_ms
        bursts.append((begin, now))
    begins = np.array([begin for begin, _ in bursts])

    def clock(at: float) -> tuple[float, bool]:
        place = int(np.searchsorted(begins, at, side="right"))
        if not place:
            return 0.0, False
        into = at - begins[place - 1]
        return (place - 1) * compute_ms + min(into, compute_ms), into < compute_ms

    changes: list[tuple[float, int]] = []
    at = 0.0
    while at < length:
        stack = COMPUTE if clock(at)[1] else SLEEP
        if not changes or changes[-1][1] != stack:
            changes.append((at, stack))
        at += STACK_MS * rng.uniform(0.6, 1.4)
    late = np.log(2) * STACK_MS - skew_ms
    starts = [at - late for at, _ in changes] + [length - late]
    samples = conform(
        model.SAMPLES,
        {
            "ts_ns": [EPOCH_NS + round(at * MS) for at in starts[:-1]],
            "duration_ns": [round((b - a) * MS) for a, b in pairwise(starts)],
            "pid": [7] * len(changes),
            "tid": [70] * len(changes),
            "stack_id": [stack for _, stack in changes],
        },
    )
    log = ThreadLogWriter()
    log.add(-MS, 7, POLLED)
    log.add(-MS, 70, 0)
    last = 0.0
    for look in range(1, round(length / LOOK_MS) + 1):
        at = look * LOOK_MS + rng.uniform(0, 2)
        used, runs = clock(at)
        log.add(round(at * MS), 70, round(used * MS))
        if used != last and used - last < 0.9 * LOOK_MS:
            log.add(round(at * MS), 70, RUNS if runs else SLEEPS)
        log.add(round(at * MS), 0, TICK)
        last = used
    return samples, log.take(), last


@pytest.mark.parametrize("skew_ms", [0, 1, -1])
@pytest.mark.parametrize(("sleep_ms", "compute_ms"), [(10, 3), (60, 3), (15, 2), (40, 30)])
def test_code_between_looks_is_charged_to_itself(
    sleep_ms: float, compute_ms: float, skew_ms: float
) -> None:
    samples, log, used_ms = burst_program(sleep_ms, compute_ms, skew_ms=skew_ms, seed=1)
    done = ThreadStates(log, EPOCH_NS).apply(samples, STACK_MS * MS, {})
    assert done["duration_ns"].sum() == samples["duration_ns"].sum()
    ran = {
        stack: done.filter(state="running", stack_id=stack)["duration_ns"].sum() / MS / used_ms
        for stack in (SLEEP, COMPUTE)
    }
    unseen = done["unseen_ns"].sum() / MS / used_ms
    assert ran[SLEEP] < 0.05
    assert ran[COMPUTE] > 0.8
    assert sum(ran.values()) + unseen == pytest.approx(1, abs=0.05)


def test_a_line_is_judged_by_all_stacks_that_it_ends() -> None:
    samples, log, used_ms = burst_program(30, 3, skew_ms=0, seed=3)
    sleeps = pl.col("stack_id") == SLEEP
    # As if each sleep had a caller of its own, so that nobody was asked often in any one of them.
    callers = samples.with_columns(
        stack_id=pl.when(sleeps).then(pl.int_range(pl.len()) + 100).otherwise("stack_id")
    )
    innermost = {stack: SLEEP if stack != COMPUTE else COMPUTE for stack in callers["stack_id"]}
    done = ThreadStates(log, EPOCH_NS).apply(callers, STACK_MS * MS, innermost)
    ran = done.filter(pl.col("state") == "running", pl.col("stack_id") != COMPUTE)
    assert ran["duration_ns"].sum() / MS < 0.05 * used_ms


def test_a_stack_that_is_never_seen_leaves_its_time_unseen() -> None:
    samples, log, used_ms = burst_program(30, 3, skew_ms=0, seed=2)
    whole = samples.head(1).with_columns(duration_ns=samples["duration_ns"].sum())
    done = ThreadStates(log, EPOCH_NS).apply(whole, STACK_MS * MS, {})
    assert done.select("state", "stack_id").rows() == [("idle", SLEEP)]
    assert done["unseen_ns"].sum() / MS == pytest.approx(used_ms, rel=0.01)


def test_a_log_that_asked_nobody_is_read_as_before() -> None:
    log = ThreadLogWriter()
    for at_ms, busy_ms in ((0, 0), (20, 0), (40, 15), (60, 35), (80, 35)):
        log.add(at_ms * MS, 70, busy_ms * MS)
    samples = conform(
        model.SAMPLES,
        {"ts_ns": [EPOCH_NS], "duration_ns": [80 * MS], "pid": [7], "tid": [70], "stack_id": [1]},
    )
    done = ThreadStates(log.take(), EPOCH_NS).apply(samples, STACK_MS * MS, {}).sort("ts_ns")
    assert done["state"].to_list() == ["idle", "running", "idle"]
    assert done["duration_ns"].to_list() == [25 * MS, 35 * MS, 20 * MS]
    assert done["unseen_ns"].sum() == 0
