from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from unittest.mock import patch

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit import model
from perfkit.errors import InputError
from perfkit.formats import chrometrace
from perfkit.parts import conform
from perfkit.stacks import StackTable

SAMPLES = Path(__file__).resolve().parent.parent / "importers" / "samples"
ANCHOR = 1_700_000_000_000_000_000

Stack = tuple[tuple[str, str, int], ...]
HEADER = st.tuples(
    st.integers(1, 3), st.integers(10, 12), st.sampled_from(["main", 'a "b): c', ""])
)
FRAMES = st.lists(
    st.tuples(
        st.sampled_from(["f", "g", "h (x)"]), st.sampled_from(["a.py", ""]), st.integers(0, 2)
    ),
    max_size=4,
)


def events_of(observations: list[tuple[int, int, Stack]]) -> list[dict[str, Any]]:
    """Write observations (ts, pthread, stack from the root) as py-spy does: changes only."""
    events: list[dict[str, Any]] = []
    before: dict[int, Stack] = {}

    def event(phase: str, ts: int, tid: int, frame: tuple[str, str, int]) -> None:
        name, file, line = frame
        args = {"filename": file, "line": line}
        events.append({"args": args, "name": name, "ph": phase, "pid": 7, "tid": tid, "ts": ts})

    for ts, tid, stack in observations:
        old = before.get(tid, ())
        same = 0
        while same < min(len(old), len(stack)) and old[same] == stack[same]:
            same += 1
        for frame in reversed(old[same:]):
            event("E", ts, tid, frame)
        for frame in stack[same:]:
            event("B", ts, tid, frame)
        before[tid] = stack
    end = max((ts for ts, _, _ in observations), default=0) + 10
    for tid, stack in before.items():
        for frame in reversed(stack):
            event("E", end, tid, frame)
    return events


def headed(pid: int, tid: int, name: str, frames: list[tuple[str, str, int]]) -> Stack:
    thread = f"thread ({tid}): {name}" if name else f"thread ({tid})"
    return ((f'process {pid}:"x"', "", 0), (thread, "", 0), *frames)


@st.composite
def observations(draw: st.DrawFn) -> list[tuple[int, int, Stack]]:
    found = []
    ts = draw(st.integers(0, 100))
    for _ in range(draw(st.integers(0, 15))):
        ts += draw(st.integers(1, 50))
        header = draw(HEADER)
        found.append((ts, draw(st.integers(100, 102)), headed(*header, draw(FRAMES))))
    return found


def rounds_of(pids: list[int]) -> list[int]:
    """Number the rounds: one begins when a process comes that was already seen in the last one."""
    numbers: list[int] = []
    in_round: set[int] = set()
    for pid in pids:
        numbers.append(numbers[-1] + (pid in in_round) if numbers else 0)
        in_round = {pid} if pid in in_round else in_round | {pid}
    return numbers


def last_seen(pids: list[int], n: int, times: list[int], missed: int) -> int:
    """Return until when the process of look `n` had its stack; `times` ends with the file's."""
    rounds = rounds_of(pids)
    for later in range(n + 1, len(pids)):
        if pids[later] == pids[n] or rounds[later] - rounds[n] > missed:
            return times[later]
    return times[-1]


@given(observations(), st.booleans(), st.integers(0, 5))
def test_intervals_are_those_that_were_observed(
    seen: list[tuple[int, int, Stack]], wrapped: bool, missed: int
) -> None:
    events = events_of(seen)
    data = json.dumps({"traceEvents": events} if wrapped else events).encode()
    stacks = StackTable()
    with patch.object(chrometrace, "_MISSED_ROUNDS", missed):
        batch = parse(data, stacks, anchor_wall_ns=ANCHOR)
    assert batch.rejected == {}
    # Slowly and obviously: a stack lasts until its own process is seen again on this pthread. Of
    # processes that share it each round of looks names all; one that is missed too often is gone.
    end = max((ts for ts, _, _ in seen), default=0) + 10
    expected: dict[tuple[int, int, str | None, tuple[Any, ...]], int] = {}
    for pthread in {tid for _, tid, _ in seen}:
        mine = [(ts, stack) for ts, tid, stack in seen if tid == pthread]
        looks = [look for n, look in enumerate(mine) if n == 0 or look[1] != mine[n - 1][1]]
        pids = [int(stack[0][0].split()[1][0]) for _, stack in looks]
        for n, (ts, stack) in enumerate(looks):
            until = last_seen(pids, n, [ts for ts, _ in looks] + [end], missed)
            thread = stack[1][0]
            name = thread.partition("): ")[2] or None
            frames = tuple((f, file, line or None) for f, file, line in stack[2:])
            frames = frames or (("(no Python frames)", "", None),)
            key = (pids[n], int(thread[8:10]), name, frames)
            expected[key] = expected.get(key, 0) + (until - ts) * 1000
    rows = batch.tables.get("samples", {})
    paths = paths_of(stacks)
    found: dict[Any, int] = {}
    for pid, tid, name, stack_id, length in zip(
        *(rows.get(c, []) for c in ("pid", "tid", "thread_name", "stack_id", "duration_ns")),
        strict=True,
    ):
        key = (pid, tid, name, paths[stack_id])
        found[key] = found.get(key, 0) + length
    assert found == {key: length for key, length in expected.items() if length}


def paths_of(stacks: StackTable) -> dict[int, tuple[Any, ...]]:
    nodes, frames = stacks.take_new()
    named = dict(
        zip(
            frames["frame_id"],
            zip(frames["function"], frames["file"], frames["line"], strict=True),
            strict=True,
        )
    )
    paths: dict[Any, tuple[Any, ...]] = {None: ()}
    for stack_id, parent, frame in zip(
        nodes["stack_id"], nodes["parent_id"], nodes["frame_id"], strict=True
    ):
        paths[stack_id] = (*paths[parent], named[frame])
    return paths


def samples(batch: Any) -> list[dict[str, Any]]:
    return conform(model.SAMPLES, batch.tables["samples"]).sort("ts_ns", "tid").to_dicts()


def parse(data: bytes, stacks: StackTable, **options: Any) -> Any:
    return chrometrace.to_batch(chrometrace.load(data), stacks, **options)


def parsed(events: list[dict[str, Any]], **options: Any) -> Any:
    return parse(json.dumps(events).encode(), StackTable(), **options)


def test_forked_processes_of_equal_thread_identity_each_keep_their_stack() -> None:
    # Every 10 ms each of three is looked at; the third ends after 200 ms.
    seen = [
        (round_ * 10_000 + pid, 100, headed(pid, 10 + pid, "", [("f", "a.py", round_ // 10)]))
        for round_ in range(100)
        for pid in (1, 2, 3)
        if pid < 3 or round_ < 20
    ]
    rows = samples(parsed(events_of(seen), anchor_wall_ns=ANCHOR))
    length = {
        pid: sum(row["duration_ns"] for row in rows if row["pid"] == pid) / 1e6 for pid in (1, 2, 3)
    }
    assert length[1] == pytest.approx(990, abs=1)
    assert length[2] == pytest.approx(990, abs=1)
    assert 190 < length[3] < 320


def test_a_thread_that_died_is_cut_off_at_its_death() -> None:
    seen = [
        (0, 100, headed(1, 10, "worker", [("f", "a.py", 1)])),
        (0, 101, headed(1, 11, "main", [("f", "a.py", 1)])),
        (1000, 101, headed(1, 11, "main", [("g", "a.py", 1)])),
    ]
    rows = samples(
        parsed(
            events_of(seen), anchor_wall_ns=ANCHOR, deaths={10: ANCHOR + 300_000, 11: ANCHOR - 5}
        )
    )
    assert [(row["tid"], row["ts_ns"] - ANCHOR, row["duration_ns"]) for row in rows] == [
        (10, 0, 300_000),
        (11, 0, 1_000_000),  # it began after its death: another thread of the same number
        (11, 1_000_000, 10_000),
    ]


def test_a_thread_that_is_never_closed_ends_with_the_file() -> None:
    events = events_of([(0, 100, headed(1, 10, "a", [("f", "a.py", 1)]))])[:3]
    events += events_of([(500, 101, headed(1, 11, "b", [("f", "a.py", 1)]))])
    rows = samples(parsed(events, anchor_wall_ns=ANCHOR))
    assert [(row["tid"], row["duration_ns"]) for row in rows] == [(10, 510_000), (11, 10_000)]


def test_without_an_anchor_there_is_no_time() -> None:
    events = events_of([(5, 100, (("f", "a.py", 3),))])
    [row] = samples(parsed(events, pid=1, deaths={100: 0}))
    assert (row["ts_ns"], row["duration_ns"], row["count"]) == (None, 10_000, 1)
    # Without the root frames the pthread identity and the event's process are all there is.
    assert (row["pid"], row["tid"], row["thread_name"]) == (7, 100, None)


def test_the_process_is_used_when_events_do_not_say_theirs() -> None:
    events = [
        {key: value for key, value in event.items() if key != "pid"}
        for event in events_of([(5, 100, (("f", "a.py", 3),))])
    ]
    assert samples(parsed(events, pid=42))[0]["pid"] == 42


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_file_that_is_cut_off_gives_what_is_whole(wrapped: bool) -> None:
    events = events_of(
        [(ts, 100, headed(1, 10, "a", [("f}", "{", ts)])) for ts in range(0, 90, 10)]
    )
    data = json.dumps({"traceEvents": events} if wrapped else events).encode()
    assert chrometrace.load(data).truncated is False
    start = data.index(b"}, {") + 1
    everything = chrometrace.load(data).events
    for end in range(start, len(data) - (2 if wrapped else 1)):
        trace = chrometrace.load(data[:end])
        whole = len(re.findall(rb'"ts": \d+}', data[:end]))  # an event ends with its time
        assert trace.truncated
        assert trace.events == everything[:whole]
    batch = parse(data[:-3], StackTable(), anchor_wall_ns=ANCHOR)
    assert batch.rejected == {"end of the file, which is cut off": 1}


@pytest.mark.parametrize("data", [b"", b"[", b"{}", b"[1]", b'[{"ph":"B"}]', b"\xff", b'{"a":[]}'])
def test_what_is_no_trace_is_an_error(data: bytes) -> None:
    with pytest.raises(InputError):
        chrometrace.load(data)


def test_odd_events_are_counted() -> None:
    good = {"name": "f", "ph": "B", "tid": 1, "ts": 0, "pid": 1}
    batch = parsed(
        [
            good,
            good | {"ph": "X"},
            good | {"ts": -1},
            good | {"ts": 1e30},
            good | {"tid": 2**70},
            good | {"tid": 2, "ph": "E"},
            good | {"name": "other", "ph": "E"},
            good | {"ph": "E", "ts": 7, "pid": 2**80},
        ],
        anchor_wall_ns=ANCHOR,
    )
    assert batch.rejected == {
        "event that neither begins nor ends a frame": 1,
        "event with an impossible time or thread": 3,
        "end of a frame that did not begin": 2,
    }
    assert [row["duration_ns"] for row in samples(batch)] == [7000]


def test_a_real_recording_of_a_process_with_a_child_and_threads() -> None:
    data = (SAMPLES / "pyspy-chrometrace.json").read_bytes()
    frame = conform(
        model.SAMPLES,
        parse(data, StackTable(), anchor_wall_ns=ANCHOR).tables["samples"],
    )
    threads = frame.group_by("pid", "tid", "thread_name").agg(pl.len()).sort("tid")
    assert threads.select("pid", "tid", "thread_name").rows() == [
        (14461, 14461, "MainThread"),
        (14463, 14463, "MainThread"),
        (14461, 14464, 'wor: k(1)"'),
    ]


def test_the_gateways_recording_covers_every_thread_without_overlap(shared_data: Path) -> None:
    data = (shared_data / "contextforge" / "pyspy-chrometrace.json").read_bytes()
    trace = chrometrace.load(data)
    assert trace.length_ns == 16_396_537_000
    batch = chrometrace.to_batch(trace, StackTable(), anchor_wall_ns=1_795_416_395_553_000_000)
    frame = conform(model.SAMPLES, batch.tables["samples"]).sort("tid", "ts_ns")
    end = pl.col("ts_ns") + pl.col("duration_ns")
    overlap = frame.select((pl.col("ts_ns") < end.shift().over("tid")).sum()).item()
    assert (batch.rejected, overlap) == ({}, 0)
    assert frame.select(end.max()).item() == 1_795_416_395_553_000_000 + 16_396_537_000
    assert frame.n_unique("tid") == 15
