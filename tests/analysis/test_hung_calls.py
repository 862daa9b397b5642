from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.stacks import Frame
from tests.analysis.sampled import Sample, tables
from tests.analysis.test_lock_waits import (
    ANYIO,
    EVENT,
    GET,
    ITEM,
    KINDS,
    PYTHON,
    RUN,
    SITE,
    THREAD,
    WAIT,
    WORKER,
    app,
    row,
)

HANDLER = Frame("ThreadingMixIn.process_request_thread", PYTHON + "socketserver.py", 691)
REQUEST = (*THREAD, RUN, HANDLER)
READ = Frame("SocketIO.readinto", PYTHON + "socket.py", 706)
ASKS = (*REQUEST, app("do_GET", 12), app("ask", 9))
READS = (*ASKS, READ)
COMPUTES = (*REQUEST, app("do_GET", 13))


def hung(*samples: Sample) -> list[dict[str, Any]]:
    return tables(samples).frame("hung_calls").to_dicts()


def test_a_request_that_has_not_come_back_at_the_end_is_told_with_its_place() -> None:
    assert hung(
        row(COMPUTES, 0, 500, state="running"),
        row(READS, 500, 4000, state="idle", thread_name="Thread-7", unseen_ns=0),
        row(READS, 4003, 9000, state="idle", thread_name="Thread-7", unseen_ns=0),
        row((*THREAD, RUN, WORKER), 0, 9500, tid=2, state="idle"),
    ) == [
        {
            "pid": 1,
            "tid": 1,
            "thread_name": "Thread-7",
            "kind": "io",
            "function": "ask",
            "file": "/srv/app/main.py",
            "line": 9,
            "waits_in": "SocketIO.readinto",
            "since_ns": 500_000_000,
            "hung_ns": 8_500_000_000,
            "throughout": False,
        }
    ]


FLASK = Frame("Flask.wsgi_app", SITE + "flask/app.py", 1)
DJANGO = Frame("BaseHandler._get_response", SITE + "django/core/handlers/base.py", 1)
GUNICORN = Frame("ThreadWorker.handle_request", SITE + "gunicorn/workers/gthread.py", 1)
CELERY = Frame("build_tracer.<locals>.trace_task", SITE + "celery/app/trace.py", 1)
VIEW = app("view", 3)

FRAMEWORKS = {
    "Flask": ((FLASK, VIEW, READ), True),
    "Django": ((DJANGO, VIEW), True),
    "gunicorn": ((GUNICORN, VIEW), True),
    "Celery": ((CELERY, VIEW), True),
    "FastAPI": ((*THREAD, ANYIO, app("read_item", 7), READ), True),
    "the next request": ((*REQUEST, READ), False),
    "a consumer": ((*THREAD, RUN, app("consume", 4), READ), False),
    "a job of a pool": ((*THREAD, RUN, WORKER, ITEM, app("consume", 4), READ), False),
    "an idle worker": ((*THREAD, ANYIO, GET, WAIT), False),
    "who starts the server": ((app("<module>", 9), HANDLER, EVENT, WAIT), False),
    "a connection": ((*REQUEST, *KINDS["pool"][0][-5:]), True),
}


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_only_what_a_request_or_job_asked_for_can_hang(name: str) -> None:
    frames, hangs = FRAMEWORKS[name]
    assert bool(hung(row(frames, 0, 9000, state="idle", unseen_ns=0))) is hangs


def test_many_short_calls_are_no_long_one() -> None:
    # No look fell between the calls, but the thread used CPU time there.
    short = row(READS, 0, 7000, state="idle", unseen_ns=3_000_000)
    assert hung(short, row(READS, 7000, 12_000, state="idle", unseen_ns=2_000_000)) == []
    (last,) = hung(short, row(READS, 7000, 12_000, state="idle", unseen_ns=0))
    assert last["hung_ns"] == 5_000_000_000
    # Nobody knows what a thread did that nobody watched, or that was not seen for long.
    assert hung(row(READS, 0, 9000, state="idle")) == []
    (after,) = hung(
        row(READS, 0, 2000, state="idle", unseen_ns=0),
        row(READS, 6000, 9000, state="idle", unseen_ns=0),
    )
    assert after["hung_ns"] == 3_000_000_000


STACKS = (ASKS, READS, COMPUTES, (*REQUEST, READ), (*THREAD, RUN, WORKER))
STEP = st.tuples(
    st.integers(0, len(STACKS) - 1),
    st.sampled_from([200, 700, 1500]),
    st.sampled_from(["idle", "idle", "running", None]),
    st.sampled_from([0, 0, 0, 1, None]),
)


@given(st.lists(st.lists(STEP, min_size=1, max_size=6), min_size=1, max_size=4))
def test_what_hangs_is_what_a_walk_over_each_threads_looks_finds(
    threads: list[list[tuple[int, int, str | None, int | None]]],
) -> None:
    samples, looks = [], {}
    for tid, steps in enumerate(threads, 1):
        at = 0
        for stack, length, state, unseen_ns in steps:
            end = at + length
            samples.append(row(STACKS[stack], at, end, tid=tid, state=state, unseen_ns=unseen_ns))
            at += length
        looks[tid] = (steps, at)
    over = max(at for _, at in looks.values())
    expected = {}
    for tid, (steps, at) in looks.items():
        last = steps[-1][0]
        stay = []
        for stack, length, state, unseen_ns in reversed(steps):
            if stack != last or state != "idle" or unseen_ns != 0:
                break
            stay.append(length)
        length = sum(stay)
        # Those with code of a request's own: it waits in C, or in the socket's frame.
        if last in (0, 1, 2) and length >= 1000 and over - at <= 1000:
            expected[tid] = (length * 1_000_000, len(stay) == len(steps))
    found = {one["tid"]: (one["hung_ns"], one["throughout"]) for one in hung(*samples)}
    assert found == expected


def test_samples_without_times_tell_nothing() -> None:
    assert hung(Sample(READS, count=5), replace(row(READS, 0, 9000), ts_ns=None)) == []
