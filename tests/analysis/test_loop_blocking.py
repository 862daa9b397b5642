from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.session import Tables
from perfkit.analysis.waits import loop_blocking
from perfkit.capture import Capture, CaptureWriter
from perfkit.importers import import_files
from perfkit.stacks import Frame
from tests.analysis.sampled import Sample, Span, span, tables, tree_frame

PYTHON = "/usr/lib/python3.11/"
SITE = "/srv/venv/lib/python3.11/site-packages/"
MS = 1_000_000

MAIN = Frame("<module>", "/srv/app/main.py", 1)
RUNNER = Frame("Runner.run", PYTHON + "asyncio/runners.py", 118)
LOOP = (
    MAIN,
    RUNNER,
    Frame("BaseEventLoop.run_until_complete", PYTHON + "asyncio/base_events.py", 641),
    Frame("BaseEventLoop.run_forever", PYTHON + "asyncio/base_events.py", 608),
    Frame("BaseEventLoop._run_once", PYTHON + "asyncio/base_events.py", 1936),
)
SELECT = (*LOOP, Frame("EpollSelector.select", PYTHON + "selectors.py", 468))
CALLBACK = (*LOOP, Frame("Handle._run", PYTHON + "asyncio/events.py", 84))
ASGI = Frame("run_asgi", SITE + "uvicorn/protocols/http/h11_impl.py", 410)
HANDLER = Frame("handle", "/srv/app/main.py", 20)
READ = Frame("SyncStream.read", SITE + "httpcore/_backends/sync.py", 128)
SLEEP = Frame("pause", "/srv/app/main.py", 30)


def row(frames: tuple[Frame, ...], start_ms: float, end_ms: float, **more: Any) -> Sample:
    return Sample(frames, int(start_ms * MS), int((end_ms - start_ms) * MS), **more)


def blocking(samples: list[Sample], spans: list[Span] | None = None) -> pl.DataFrame:
    return tables(samples, derived={"tree": tree_frame(spans or [])}).frame("loop_blocking")


def found(table: pl.DataFrame) -> list[tuple[str, float]]:
    return [
        (function, duration / MS)
        for function, duration in table.select("function", "duration_ns").rows()
    ]


@pytest.mark.parametrize("state", ["running", "idle", None])
def test_a_callback_that_stays_blocks_the_loop_whether_it_works_or_waits(state: str | None) -> None:
    table = blocking(
        [
            row(SELECT, 0, 10, state="idle"),
            row((*CALLBACK, ASGI, HANDLER, READ), 10, 70, state=state),
            row((*CALLBACK, ASGI, HANDLER), 70, 80, state=state),
            row(SELECT, 80, 90, state="idle"),
        ]
    )
    assert table.columns == list(loop_blocking.COLUMNS)
    only = table.row(0, named=True)
    assert found(table) == [("handle", 70)]
    assert (only["file"], only["line"]) == ("/srv/app/main.py", 20)
    assert (only["leaf_function"], only["leaf_line"]) == ("SyncStream.read", 128)
    assert (only["start_ns"], only["unchanged_ns"]) == (10 * MS, 60 * MS)
    assert only["running_ns"] == (70 * MS if state == "running" else 0)
    assert only["unknown_ns"] == (70 * MS if state is None else 0)
    assert only["observations"] == 2


@pytest.mark.parametrize("start", ["Thread.start", "start"])
def test_a_thread_that_is_started_needs_a_core_and_is_no_call_that_must_wait(start: str) -> None:
    threading = PYTHON + "threading.py"
    wait = Frame("Condition.wait", threading, 327)
    begins = Frame(start, threading, 969)
    own_start = Frame("start", "/srv/app/main.py", 40)
    for above, waiting_ms in [((begins,), 0), ((own_start,), 50), ((), 50)]:
        table = blocking([row((*CALLBACK, ASGI, HANDLER, *above, wait), 0, 50, state="idle")])
        assert table["duration_ns"].to_list() == [50 * MS]
        assert table["waiting_ns"].to_list() == [waiting_ms * MS]


def test_an_idle_loop_does_not_block() -> None:
    assert blocking([row(SELECT, 0, 5000, state="idle"), row(LOOP, 5000, 5100)]).is_empty()


def test_threads_without_a_loop_do_not_block() -> None:
    assert blocking([row((MAIN, HANDLER, READ), 0, 5000)]).is_empty()


def test_short_runs_are_left_out() -> None:
    assert blocking([row((*CALLBACK, HANDLER), 0, 19.9)]).is_empty()
    assert found(blocking([row((*CALLBACK, HANDLER), 0, 20)])) == [("handle", 20)]


def test_a_break_between_rows_ends_a_run() -> None:
    table = blocking([row((*CALLBACK, HANDLER), 0, 30), row((*CALLBACK, HANDLER), 35, 65)])
    assert found(table) == [("handle", 30), ("handle", 30)]
    idle = [
        row((*CALLBACK, HANDLER), 0, 15),
        row(SELECT, 15, 16),
        row((*CALLBACK, HANDLER), 16, 30),
    ]
    assert blocking(idle).is_empty()


def test_a_loop_that_is_not_python_has_its_callbacks_at_once() -> None:
    native = (MAIN, RUNNER)
    table = blocking(
        [row(native, 0, 100), row((*native, ASGI, HANDLER), 100, 150), row(native, 150, 200)]
    )
    assert found(table) == [("handle", 50)]


def test_the_function_is_the_programs_own_and_its_callers_are_named() -> None:
    table = blocking([row((*CALLBACK, ASGI, HANDLER, SLEEP, READ), 0, 50)])
    assert found(table) == [("pause", 50)]
    assert table["called_by"][0] == "handle"
    only_library = blocking([row((*CALLBACK, ASGI, READ), 0, 50)])
    assert found(only_library) == [("run_asgi", 50)]


def test_a_callback_in_c_is_seen_as_the_handle() -> None:
    assert found(blocking([row(CALLBACK, 0, 50)])) == [("Handle._run", 50)]


def test_requests_that_come_and_go_show_that_the_loop_turned() -> None:
    #           0    20   40   60   80   100
    # handle    [------------------------)
    # request 0 [---------)
    # request 1           [--------------)
    busy = [row((*CALLBACK, HANDLER), 0, 100)]
    spans = [span(0, 0, 40 * MS), span(1, 40 * MS, 100 * MS)]
    assert found(blocking(busy, spans)) == [("handle", 60), ("handle", 40)]
    children = [span(0, 0, 100 * MS), span(1, 40 * MS, 60 * MS, 0)]
    assert found(blocking(busy, children)) == [("handle", 100)]
    elsewhere = [span(0, 0, 100 * MS), span(1, 40 * MS, 60 * MS, thread_id=2)]
    assert found(blocking(busy, elsewhere)) == [("handle", 100)]


def test_requests_without_a_thread_cut_where_there_is_one_loop_and_one_service() -> None:
    busy = [row((*CALLBACK, HANDLER), 0, 100), row((MAIN,), 0, 100, tid=2)]
    spans = [span(0, 0, 40 * MS, thread_id=None), span(1, 40 * MS, 100 * MS, thread_id=None)]
    assert found(blocking(busy, spans)) == [("handle", 60), ("handle", 40)]
    second_loop = [*busy, row((*CALLBACK, HANDLER), 0, 100, tid=3)]
    assert found(blocking(second_loop, spans)) == [("handle", 100), ("handle", 100)]


stacks = {
    "idle": SELECT,
    "handle": (*CALLBACK, ASGI, HANDLER),
    "read": (*CALLBACK, ASGI, HANDLER, READ),
    "pause": (*CALLBACK, ASGI, SLEEP),
}
SITES = {"idle": None, "handle": "handle", "read": "handle", "pause": "pause"}


@given(
    st.lists(st.tuples(st.sampled_from(sorted(stacks)), st.integers(1, 30)), max_size=12),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 60)), max_size=4),
)
def test_runs_equal_a_walk_by_milliseconds(
    drawn: list[tuple[str, int]], requests: list[tuple[int, int]]
) -> None:
    samples, seen = [], []
    for name, length in drawn:
        samples.append(row(stacks[name], len(seen), len(seen) + length))
        seen += [SITES[name]] * length
    turns = {start for start, _ in requests} | {start + length for start, length in requests}
    expected: list[list[Any]] = []
    for moment, site in enumerate(seen):
        if moment and site == seen[moment - 1] and moment not in turns:
            expected[-1][1] += 1
        else:
            expected.append([site, 1])
    spans = [span(n, start * MS, (start + end) * MS) for n, (start, end) in enumerate(requests)]
    kept = [(site, length) for site, length in expected if site and length >= 20]
    table = blocking(samples, spans)
    assert sorted(found(table)) == sorted(kept)
    assert table["duration_ns"].is_sorted(descending=True)


def test_stacks_of_a_real_gateway(shared_data: Path, tmp_path: Path) -> None:
    """It builds TLS contexts on a uvloop event loop; py-spy saw one take most of a second."""
    capture = tmp_path / "gateway.perfkit"
    with CaptureWriter(capture, command=[]) as writer:
        import_files([shared_data / "contextforge" / "pyspy-chrometrace.json"], writer)
    table = Tables(Capture.open(capture)).frame("loop_blocking")
    longest = table.row(0, named=True)
    assert longest["leaf_function"] == "create_default_context"
    assert longest["function"].endswith("get_httpx_client_factory")
    assert longest["duration_ns"] == longest["unknown_ns"] == 653_708_000
    by_leaf = table.group_by("leaf_function").agg(pl.col("duration_ns").sum())
    assert by_leaf.sort("duration_ns")["leaf_function"][-1] == "create_default_context"
