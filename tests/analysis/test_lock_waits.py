from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.code.waiting import waits
from perfkit.analysis.waits import lock_waits
from perfkit.stacks import Frame
from tests.analysis.sampled import Sample, Span, span, tables, tree_frame
from tests.analysis.test_loop_blocking import CALLBACK, LOOP, SELECT

PYTHON = "/usr/lib/python3.11/"
SITE = "/srv/venv/lib/python3.11/site-packages/"
MS = 1_000_000

THREAD = (
    Frame("Thread._bootstrap", PYTHON + "threading.py", 1002),
    Frame("Thread._bootstrap_inner", PYTHON + "threading.py", 1045),
)
RUN = Frame("Thread.run", PYTHON + "threading.py", 982)
WORKER = Frame("_worker", PYTHON + "concurrent/futures/thread.py", 83)
ITEM = Frame("_WorkItem.run", PYTHON + "concurrent/futures/thread.py", 58)
ANYIO = Frame("WorkerThread.run", SITE + "anyio/_backends/_asyncio.py", 1113)
GET = Frame("Queue.get", PYTHON + "queue.py", 171)
WAIT = Frame("Condition.wait", PYTHON + "threading.py", 327)
EVENT = Frame("Event.wait", PYTHON + "threading.py", 629)
RESULT = Frame("Future.result", PYTHON + "concurrent/futures/_base.py", 451)
SEMAPHORE = Frame("Semaphore.acquire", PYTHON + "threading.py", 507)
BATCH = Frame("BatchProcessor.worker", SITE + "opentelemetry/sdk/_shared_internal/__init__.py", 159)
CHECKOUT = (
    Frame("Engine.connect", SITE + "sqlalchemy/engine/base.py", 3279),
    Frame("QueuePool._do_get", SITE + "sqlalchemy/pool/impl.py", 155),
    Frame("Queue.get", SITE + "sqlalchemy/util/queue.py", 199),
)
EXECUTE = Frame("DefaultDialect.do_execute", SITE + "sqlalchemy/engine/default.py", 952)


def app(function: str, line: int) -> Frame:
    return Frame(function, "/srv/app/main.py", line)


SERVE = (*THREAD, RUN, WORKER, ITEM, app("call", 5), app("route", 9), app("stock", 20))

KINDS: dict[str, tuple[tuple[Frame, ...], str | None, str | None, str | None]] = {
    # frames, kind, function of the site, what is waited in
    "pool": ((*SERVE, *CHECKOUT, WAIT), "pool", "stock", "QueuePool._do_get"),
    "queue": ((*SERVE, GET, WAIT), "queue", "stock", "Queue.get"),
    "event": ((*SERVE, EVENT, WAIT), "condition", "stock", "Event.wait"),
    "future": ((*SERVE, RESULT, WAIT), "condition", "stock", "Future.result"),
    "semaphore": ((*SERVE, SEMAPHORE, WAIT), "lock", "stock", "Semaphore.acquire"),
    "database": ((*SERVE, EXECUTE), "io", "stock", "DefaultDialect.do_execute"),
    "own code": (SERVE, "call", "stock", "stock"),
    "idle executor": ((*THREAD, RUN, WORKER), "idle", None, None),
    "idle anyio worker": ((*THREAD, ANYIO, GET, WAIT), "idle", None, None),
    "idle exporter": ((*THREAD, RUN, BATCH, EVENT, WAIT), "idle", None, None),
    "idle main thread": ((app("<module>", 3), app("main", 8), EVENT, WAIT), "idle", None, None),
    "idle loop": (SELECT, "idle", None, None),
    "loop at work": (LOOP, None, None, None),
    "on the loop": ((*CALLBACK, app("handle", 1), EVENT, WAIT), "condition", "handle", None),
    "library on the loop": ((*CALLBACK, EXECUTE), "io", "DefaultDialect.do_execute", None),
}


@pytest.mark.parametrize("name", KINDS)
def test_how_a_stack_waits(name: str) -> None:
    frames, kind, site, resource = KINDS[name]
    paths = tables([Sample(frames, 0, 1)]).frame("call_paths")
    leaf = waits(paths).row(len(frames) - 1, named=True)
    assert leaf["kind"] == kind
    if site is not None:
        assert paths["function"][leaf["site"]] == site
    if resource is not None:
        assert paths["function"][leaf["resource"]] == resource


def row(frames: tuple[Frame, ...], start_ms: int, end_ms: int, **more: Any) -> Sample:
    return Sample(frames, start_ms * MS, (end_ms - start_ms) * MS, **more)


def lock_table(samples: list[Sample], spans: list[Span] | None = None) -> pl.DataFrame:
    return tables(samples, derived={"tree": tree_frame(spans or [])}).frame("lock_waits")


def test_waits_for_a_connection_are_added_up() -> None:
    #          0    10   20   30   40
    # thread 1 [work     |wait----)
    # thread 2 [wait-----|-work---)
    # thread 3 [idle---------|wait)
    checkout = KINDS["pool"][0]
    table = lock_table(
        [
            row(SERVE, 0, 20, state="running"),
            row(checkout, 20, 40, state="idle"),
            row(checkout, 0, 5, tid=2, state="running"),
            row(checkout, 5, 20, tid=2, state="idle"),
            row(SERVE, 20, 40, tid=2, state="running"),
            row((*THREAD, RUN, WORKER), 0, 30, tid=3, state="idle"),
            row(checkout, 30, 40, tid=3, state="idle"),
        ],
        [span(0, 0, 40 * MS, thread_id=1), span(1, 10 * MS, 40 * MS, thread_id=2)],
    )
    assert table.rows(named=True) == [
        {
            "kind": "pool",
            "function": "stock",
            "file": "/srv/app/main.py",
            "line": 20,
            "waits_in": "QueuePool._do_get",
            "waits_in_module": "sqlalchemy.pool.impl",
            "wait_ns": 50 * MS,
            "waits": 3,
            "spells": 1,
            "max_spell_ns": 40 * MS,
            "max_wait_ns": 20 * MS,
            "threads": 3,
            "max_waiting": 2,
            "request_ns": 30 * MS,
            "share_ratio": pytest.approx(50 / 90),
            "confidence": 0.95,
        }
    ]


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 5)), min_size=1, max_size=12))
def test_spells_equal_a_look_at_every_moment(drawn: list[tuple[int, int]]) -> None:
    checkout = KINDS["pool"][0]
    waits = [(at * 50, (at + lasts) * 50) for at, lasts in drawn]
    table = lock_table(
        [row(checkout, *each, tid=tid, state="idle") for tid, each in enumerate(waits)]
    )
    busy = {moment for start, end in waits for moment in range(start, end)}
    # A spell begins where nobody waited in the 100 ms before.
    spells = sum(
        all(moment - back not in busy for back in range(1, lock_waits.SPELL_GAP_NS // MS + 1))
        for moment in busy
    )
    assert table["spells"].to_list() == [spells]
    longest, began = 0, 0
    for moment in sorted(busy):
        if all(moment - back not in busy for back in range(1, lock_waits.SPELL_GAP_NS // MS + 1)):
            began = moment
        longest = max(longest, moment + 1 - began)
    assert table["max_spell_ns"].to_list() == [longest * MS]


def test_reading_counts_only_while_the_thread_does_not_run() -> None:
    reading = KINDS["database"][0]
    table = lock_table([row(reading, 0, 30, state="running"), row(reading, 30, 40, state="idle")])
    assert table.select("kind", "wait_ns").rows() == [("io", 10 * MS)]


def test_nothing_to_say_gives_the_columns() -> None:
    assert lock_table([]).columns == list(lock_waits.COLUMNS)
    busy = lock_table([row(SERVE, 0, 50, state="running")])
    assert busy.columns == list(lock_waits.COLUMNS)
    assert busy.is_empty()


ENTER = (*SERVE[:-1], app("reserve", 30), app("acquire", 50))
HOLD = (*SERVE[:-1], app("reserve", 34), EXECUTE)
AFTER = (*SERVE[:-1], app("elsewhere", 70))
WITH = (*SERVE[:-1], app("reserve", 30))
DONE = (*SERVE[:-1], app("reserve", 41))


def with_lock(
    seed: int,
    *,
    locked: bool,
    threads: int = 3,
    rounds: int = 12,
    enter: tuple[Frame, ...] = ENTER,
    after: tuple[Frame, ...] = AFTER,
) -> list[Sample]:
    """Simulate threads that work, take a lock (or sleep as long as it might have), and work.

    Samples are exact. The thread that waits is seen in `acquire`, the one that holds the lock
    further down in its caller.
    """
    chance = random.Random(seed)
    now = dict.fromkeys(range(threads), 0)
    free_at = 0
    samples = []

    def add(thread: int, frames: tuple[Frame, ...], length: int, state: str) -> None:
        if length:
            samples.append(row(frames, now[thread], now[thread] + length, tid=thread, state=state))
            now[thread] += length

    for _ in range(rounds * threads):
        thread = min(now, key=lambda each: now[each])
        if locked:
            add(thread, enter, max(0, free_at - now[thread]), "idle")
        else:
            add(thread, enter, chance.randint(20, 80), "idle")
        add(thread, HOLD, chance.randint(20, 60), "idle")
        free_at = now[thread]
        add(thread, after, chance.randint(5, 60), "running")
    return samples


@pytest.mark.parametrize("seed", range(8))
def test_a_bare_lock_is_told_from_sleep_by_what_the_others_do(seed: int) -> None:
    table = lock_table(with_lock(seed, locked=True))
    found = table.filter(pl.col("kind") == "lock").rows(named=True)
    assert len(found) == 1
    assert (found[0]["function"], found[0]["line"]) == ("acquire", 50)
    assert found[0]["confidence"] > 0.85
    expected = sum(
        sample.duration_ns or 0 for sample in with_lock(seed, locked=True) if sample.frames == ENTER
    )
    assert found[0]["wait_ns"] == expected
    asleep = lock_table(with_lock(seed, locked=False))
    assert "lock" not in asleep["kind"].to_list()


@pytest.mark.parametrize("seed", range(8))
def test_a_lock_ends_before_its_function_does(seed: int) -> None:
    inline: dict[str, Any] = {"enter": WITH, "after": DONE, "threads": 6, "rounds": 20}
    samples = with_lock(seed, locked=True, **inline)
    found = lock_table(samples).filter(pl.col("kind") == "lock").rows(named=True)
    assert [(each["function"], each["line"]) for each in found] == [("reserve", 30)]
    assert found[0]["confidence"] > 0.85
    # Where it is also seen running it computes, and its threads wait for the interpreter.
    waits = [each for each in samples if each.frames == WITH]
    computes = [each for each in samples if each.frames != WITH]
    computes += [replace(each, state="running") for each in waits[::4]]
    computes += [each for place, each in enumerate(waits) if place % 4]
    confidence = lock_table(computes).filter(pl.col("kind") == "lock")["confidence"]
    assert confidence.is_empty() or confidence[0] < found[0]["confidence"] - 0.2
    asleep = lock_table(with_lock(seed, locked=False, **inline))
    assert "lock" not in asleep["kind"].to_list()


def test_an_idle_frame_alone_is_no_lock() -> None:
    assert lock_table([row(SERVE, 0, 900, state="idle")]).is_empty()


def test_unknown_states_halve_the_confidence() -> None:
    known = lock_table(with_lock(1, locked=True, rounds=40))
    blind = lock_table(
        [
            Sample(each.frames, each.ts_ns, each.duration_ns, tid=each.tid)
            for each in with_lock(1, locked=True, rounds=40)
        ]
    )
    certain = [
        table.filter(pl.col("function") == "acquire")["confidence"][0] for table in (known, blind)
    ]
    assert certain[1] == pytest.approx(certain[0] / 2)


def slow_confidence(samples: list[Sample]) -> float:
    """Look at every millisecond, for a lock that `acquire` takes for its caller `reserve`."""
    waiting: dict[int, int] = defaultdict(int)
    holding: dict[int, int] = defaultdict(int)
    runs, last = 0, {}
    for sample in sorted(samples, key=lambda each: each.ts_ns or 0):
        start = (sample.ts_ns or 0) // MS
        for moment in range(start, start + (sample.duration_ns or 0) // MS):
            waiting[moment] += sample.frames == ENTER
            holding[moment] += sample.frames == HOLD
        if sample.frames == ENTER:
            runs += last.get(sample.tid) != start
            last[sample.tid] = start + (sample.duration_ns or 0) // MS
    waited = sum(1 for count in waiting.values() if count)
    held = sum(1 for count in holding.values() if count)
    alone = sum(1 for count in holding.values() if count == 1)
    covered = sum(1 for moment, count in waiting.items() if count and holding[moment] == 1)
    if not waited or not held:
        return 0.0
    return covered / waited * alone / held * runs / (runs + 1)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([1, 2, 3]),
            st.sampled_from([ENTER, HOLD, AFTER]),
            st.integers(1, 60),
        ),
        max_size=25,
    )
)
def test_the_confidence_equals_a_look_at_every_millisecond(
    drawn: list[tuple[int, tuple[Frame, ...], int]],
) -> None:
    now: dict[int, int] = defaultdict(int)
    samples = []
    for thread, frames, length in drawn:
        samples.append(row(frames, now[thread], now[thread] + length, tid=thread, state="idle"))
        now[thread] += length
    table = lock_table(samples).filter(pl.col("function") == "acquire")
    runs: list[int] = []
    for thread in now:
        mine = [each for each in samples if each.tid == thread]
        for before, each in zip([None, *mine], mine, strict=False):
            if each.frames == ENTER:
                length = (each.duration_ns or 0) // MS
                if before is not None and before.frames == ENTER:
                    runs[-1] += length
                else:
                    runs.append(length)
    expected = slow_confidence(samples)
    if max(runs, default=0) < 20 or expected < lock_waits.MIN_LOCK_CONFIDENCE:
        assert table.is_empty()
    else:
        assert table["confidence"].to_list() == [pytest.approx(expected)]
        assert table["waits"].to_list() == [len(runs)]
        assert table["max_wait_ns"].to_list() == [max(runs) * MS]
