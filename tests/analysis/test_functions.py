from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given

from perfkit.analysis.code import functions, threads
from tests.analysis.sampled import FRAMES, Sample, sample_lists, tables
from tests.analysis.test_code_tree import slow_wakeups


def weight(sample: Sample) -> int:
    return 1 if sample.count is None else sample.count


@given(sample_lists())
def test_functions_equal_a_walk_over_every_sample(samples: list[Sample]) -> None:
    expected: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    woken = slow_wakeups(samples)
    for sample in samples:
        duration = sample.duration_ns or 0
        ran = duration if sample.state == "running" else 0
        woke = ran if sample.frames in woken else 0
        running = ran - woke
        for key in {(frame.function, frame.file) for frame in sample.frames}:
            expected[key]["total_ns"] += duration
            expected[key]["running_total_ns"] += running
            expected[key]["total_samples"] += weight(sample)
        leaf = expected[sample.frames[-1].function, sample.frames[-1].file]
        leaf["self_ns"] += duration
        leaf["running_self_ns"] += running
        leaf["woken_self_ns"] += woke + (sample.unseen_ns or 0)
        leaf["samples"] += weight(sample)
    table = tables(samples).frame("functions")
    assert table.columns == list(functions.COLUMNS)
    assert table.height == len(expected)
    timed = any(sample.duration_ns is not None for sample in samples)
    sampled = sum((s.duration_ns or 0) if timed else weight(s) for s in samples)
    running = sum(values["running_self_ns"] for values in expected.values())
    for row in table.iter_rows(named=True):
        values = expected[row["function"], row["file"]]
        for name in functions.COLUMNS:
            if name.endswith("_ns"):
                assert row[name] == (values[name] if timed else None), name
            elif name.endswith("samples"):
                assert row[name] == values[name], name
        own, total = ("self_ns", "total_ns") if timed else ("samples", "total_samples")
        if sampled:
            assert row["self_ratio"] == pytest.approx(values[own] / sampled)
            assert row["total_ratio"] == pytest.approx(values[total] / sampled)
        else:
            assert row["self_ratio"] is None
        if running:
            assert row["running_ratio"] == pytest.approx(values["running_self_ns"] / running)
        else:
            assert row["running_ratio"] is None


def test_idle_time_does_not_look_like_work() -> None:
    waiting = (FRAMES[0], FRAMES[3])
    table = tables(
        [Sample(waiting, 0, 90, state="idle"), Sample((FRAMES[2],), 90, 10, state="running")]
    ).frame("functions")
    assert table["function"].to_list() == ["Condition.wait", "handle", "main"]
    assert table["self_ratio"].to_list() == [0.9, 0.1, 0.0]
    assert table["running_ratio"].to_list() == [0.0, 1.0, 0.0]


@given(sample_lists())
def test_threads_equal_a_loop_over_samples(samples: list[Sample]) -> None:
    expected: dict[tuple[int | None, int | None], dict[str, int]] = defaultdict(
        lambda: defaultdict(int)
    )
    for sample in samples:
        thread = expected[sample.pid, sample.tid]
        waits = sample.frames[-1].function == "Condition.wait"
        state = sample.state or ("idle" if waits else "unknown")
        thread[f"{state}_ns"] += sample.duration_ns or 0
        thread["unseen_ns"] += sample.unseen_ns or 0
        thread["samples"] += weight(sample)
    table = tables(samples).frame("threads")
    assert table.columns == list(threads.COLUMNS)
    assert table.height == len(expected)
    timed = any(sample.duration_ns is not None for sample in samples)
    for row in table.iter_rows(named=True):
        thread = expected[row["pid"], row["tid"]]
        for name in ("running_ns", "unseen_ns", "idle_ns", "unknown_ns"):
            assert row[name] == (thread[name] if timed else None)
        assert row["samples"] == thread["samples"]
        leaves = {
            s.frames[-1].function for s in samples if (s.pid, s.tid) == (row["pid"], row["tid"])
        }
        assert row["top_function"] in leaves


def test_a_thread_is_named_by_its_latest_name_and_its_busiest_function() -> None:
    table = tables(
        [
            Sample((FRAMES[3],), 0, 1000, state="idle", thread_name="old"),
            Sample((FRAMES[0],), 1000, 5, state="running", thread_name="new"),
            Sample((FRAMES[2],), 1005, 9, state="running", thread_name=None),
        ]
    ).frame("threads")
    assert table.row(0, named=True) == {
        "pid": 1,
        "tid": 1,
        "thread_name": "new",
        "running_ns": 14,
        "unseen_ns": 0,
        "idle_ns": 1000,
        "unknown_ns": 0,
        "samples": 3,
        "top_function": "handle",
    }


def test_empty_tables_have_their_columns() -> None:
    empty = tables()
    assert empty.frame("functions").columns == list(functions.COLUMNS)
    assert empty.frame("threads").columns == list(threads.COLUMNS)
