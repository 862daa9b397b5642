"""Compaction: journal segments become parts, once, whatever happens in between."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from perfkit import bodies, compact, long_values, model
from perfkit.capture import Capture, CaptureInfo, CaptureWriter
from perfkit.compact import SegmentCompactor
from perfkit.formats.threadlog import DIED, POLLED, TICK, ThreadLogWriter
from perfkit.journal import JOURNAL_DIR, Journal, Kind, Record, StackMeta, StackSegment, divided

WALL_NS = 1_790_000_000_000_000_000
MONOTONIC_NS = 77_000_000_000
MS = 1_000_000
# A rate so high that the correction for unseen changes is under 1 µs.
RATE = 10**6
ME = CaptureInfo(id="me", created_ns=0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "x.perfkit"
    with CaptureWriter(target):
        pass
    (target / JOURNAL_DIR).mkdir()
    return target


def trace_body(count: int, first: int = 1) -> bytes:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for number in range(first, first + count):
        scope.spans.add(
            trace_id=number.to_bytes(16, "big"),
            span_id=number.to_bytes(8, "big"),
            name="work",
            start_time_unix_nano=WALL_NS + number,
            end_time_unix_nano=WALL_NS + number + 5,
        )
    return request.SerializeToString()


def segment_of(path: Path, *records: Record) -> Path:
    journal = Journal(path / JOURNAL_DIR)
    for record in records:
        journal.append(record)
    journal.close()
    return journal.current


def spans(count: int, first: int = 1) -> Record:
    return Record(Kind.TRACES_PROTOBUF, False, trace_body(count, first))


def test_bodies_become_rows_and_the_segment_goes(path: Path) -> None:
    metrics = json.dumps({"ts_ns": [WALL_NS], "name": ["load"], "value": [2.0]}).encode()
    segment = segment_of(path, spans(3), Record(Kind.METRICS_ROWS, False, metrics), spans(2, 10))
    done = SegmentCompactor(path, ME).compact(segment)
    assert done.rows == {"spans": 5, "metrics": 1}
    assert done.rejected == {}
    assert not segment.exists()
    capture = Capture.open(path)
    assert capture.table("spans").collect()["span_id"].to_list() == [1, 2, 3, 10, 11]
    assert capture.table("metrics").collect()["value"].to_list() == [2.0]


@pytest.mark.parametrize(
    "bad",
    [
        Record(Kind.TRACES_PROTOBUF, False, b"\xff\xff\xff"),
        Record(Kind.TRACES_JSON, False, b'{"resourceSpans": [{'),
        Record(Kind.TRACES_PROTOBUF, True, b"no gzip"),
        Record(Kind.METRICS_ROWS, False, b"{"),
    ],
    ids=["protobuf", "json", "gzip", "rows"],
)
def test_a_damaged_body_is_counted_and_the_rest_is_kept(path: Path, bad: Record) -> None:
    done = SegmentCompactor(path, ME).compact(segment_of(path, spans(1), bad, spans(1, 5)))
    assert done.rows == {"spans": 2}
    assert sum(done.rejected.values()) == 1
    assert next(iter(done.rejected)).startswith("undecodable body")


def test_long_values_are_cut_and_no_rejected_spans(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_values, "MOST_BYTES", 1000)
    request = ExportTraceServiceRequest.FromString(trace_body(2))
    prompt = request.resource_spans[0].scope_spans[0].spans[1].attributes.add(key="prompt")
    prompt.value.string_value = "x" * 5000
    segment_of(path, Record(Kind.TRACES_PROTOBUF, False, request.SerializeToString()))
    info = CaptureInfo.load(path / "capture.json")
    compact.compact_leftovers(path, info, write=True)
    assert [(loss.what, loss.count) for loss in info.lost] == [("value longer than 1 MiB", 1)]
    attributes = Capture.open(path).table("spans").collect()["attributes"].to_list()
    assert attributes[0] is None
    assert "[cut, it had 5,000 bytes" in attributes[1]


def test_compacting_a_segment_twice_changes_nothing(path: Path) -> None:
    segment = segment_of(path, spans(4))
    copy = shutil.copy(segment, path / "copy")
    SegmentCompactor(path, ME).compact(segment)
    # As after a crash between the last part and the removal of the segment.
    shutil.move(copy, segment)
    SegmentCompactor(path, ME).compact(segment)
    assert Capture.open(path).table("spans").collect().height == 4


def test_large_segments_are_written_in_chunks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_CHUNK_ROWS", 4)
    monkeypatch.setattr(bodies, "_CHUNK_BYTES", 1)
    done = SegmentCompactor(path, ME).compact(
        segment_of(path, *(spans(3, first) for first in (1, 11, 21, 31, 41)))
    )
    assert done.rows == {"spans": 15}
    assert len(list(path.glob("spans/part-*"))) == 3
    assert Capture.open(path).table("spans").collect().height == 15


def event(phase: str, name: str, ts_us: int, tid: int = 9, file: str = "app.py") -> dict[str, Any]:
    args = {"filename": "" if name.startswith("thread") else file, "line": 1}
    return {"args": args, "cat": "py-spy", "name": name, "ph": phase, "pid": 7, "tid": tid} | {
        "ts": ts_us
    }


def stack_segment(
    path: Path,
    events: list[dict[str, Any]],
    log: bytes = b"",
    number: int = 1,
    meta: StackMeta | None = None,
) -> Path:
    files = StackSegment.numbered(path / JOURNAL_DIR, number)
    files.trace.write_text(json.dumps(events))
    files.threads.write_bytes(log)
    (meta or StackMeta(7, RATE, WALL_NS, MONOTONIC_NS)).save(files.meta)
    return files.trace


def two_phases(tid: int = 70) -> list[dict[str, Any]]:
    """One thread: `work` from 0 to 100 ms, `rest` from 100 to 300 ms."""
    root = f"thread ({tid}): main"
    return [
        event("B", root, 0),
        event("B", "work", 0),
        event("E", "work", 100_000),
        event("B", "rest", 100_000),
        event("E", "rest", 300_000),
        event("E", root, 300_000),
    ]


def samples(path: Path) -> list[tuple[str, int, int, str | None]]:
    """Return (function, start ms, duration ms, state) of all samples, rounded to the ms."""
    capture = Capture.open(path)
    functions = (
        capture.table("stacks")
        .join(capture.table("frames"), on="frame_id")
        .select("stack_id", "function")
    )
    frame = capture.table("samples").join(functions, on="stack_id").sort("ts_ns").collect()
    return [
        (
            row["function"],
            round((row["ts_ns"] - WALL_NS) / MS),
            round(row["duration_ns"] / MS),
            row["state"],
        )
        for row in frame.iter_rows(named=True)
    ]


def test_a_trace_becomes_samples_on_the_wall_clock(path: Path) -> None:
    done = SegmentCompactor(path, ME).compact(stack_segment(path, two_phases()))
    assert done.rows == {"frames": 2, "stacks": 2, "samples": 2}
    assert samples(path) == [("work", 0, 100, None), ("rest", 100, 200, None)]
    assert not list((path / JOURNAL_DIR).iterdir())


def test_the_thread_log_gives_states_and_ends_dead_threads(path: Path) -> None:
    log = ThreadLogWriter()
    log.add(MONOTONIC_NS - MS, 7, POLLED)
    # Ran for the first 100 ms, then no more, and was gone after 250 ms.
    for at_ms, busy_ms in ((0, 0), (20, 20), (100, 100), (240, 100)):
        log.add(MONOTONIC_NS + at_ms * MS, 70, busy_ms * MS)
        log.add(MONOTONIC_NS + at_ms * MS, 0, TICK)
    log.add(MONOTONIC_NS + 250 * MS, 70, DIED)
    SegmentCompactor(path, ME).compact(stack_segment(path, two_phases(), log.take()))
    assert samples(path) == [("work", 0, 100, "running"), ("rest", 100, 150, "idle")]


@pytest.mark.parametrize("slow_ns", [0, 61, -61])
def test_overlapping_traces_are_cut_at_one_instant(path: Path, slow_ns: int) -> None:
    # Between its two clocks the first one was held up a little.
    clocks = (WALL_NS, MONOTONIC_NS - slow_ns), (WALL_NS, MONOTONIC_NS)
    one, other = (StackMeta(7, RATE, *clock) for clock in clocks)
    first, second = (
        stack_segment(path, two_phases(), number=number, meta=meta)
        for number, meta in enumerate(divided(one, other, MONOTONIC_NS + 150 * MS), start=1)
    )
    compactor = SegmentCompactor(path, ME)
    compactor.compact(first)
    assert compactor.compact(second).rows == {"samples": 1}, "stacks are written once"
    assert samples(path) == [
        ("work", 0, 100, None),
        ("rest", 100, 50, None),
        ("rest", 150, 150, None),
    ]
    pieces = Capture.open(path).table("samples").sort("ts_ns").collect()
    until = (pieces["ts_ns"] + pieces["duration_ns"])[:-1].to_list()
    assert until[1:] == pieces["ts_ns"][2:].to_list(), "a thread is in one place at a time"


def test_after_a_failed_write_stacks_are_written_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compactor = SegmentCompactor(path, ME)
    segment = stack_segment(path, two_phases())

    def full(capture: Path, table: str, name: str, frame: pl.DataFrame) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(compact, "write_part", full)
        with pytest.raises(OSError, match="No space"):
            compactor.compact(segment)
    assert segment.exists()
    assert compactor.compact(segment).rows == {"frames": 2, "stacks": 2, "samples": 2}


def test_a_trace_without_its_beginning_is_counted(path: Path) -> None:
    segment = stack_segment(path, two_phases())
    StackSegment(segment).meta.unlink()
    done = SegmentCompactor(path, ME).compact(segment)
    assert done.rows == {}
    assert list(done.rejected) == [
        f"stacks: {StackSegment(segment).meta}: does not say when it began"
    ]


def test_a_segment_that_py_spy_never_wrote_is_counted(path: Path) -> None:
    files = StackSegment(stack_segment(path, two_phases()))
    files.trace.unlink()
    segment_of(path, spans(1))
    capture = Capture.open(path)
    (loss,) = capture.info.lost
    assert (loss.count, loss.why) == (1, "stacks: py-spy was killed before it wrote a segment")
    assert not files.meta.exists()


def test_a_trace_that_is_cut_off_gives_what_it_has(path: Path) -> None:
    segment = stack_segment(path, two_phases())
    segment.write_text(segment.read_text()[:-20])
    done = SegmentCompactor(path, ME).compact(segment)
    assert done.rows["samples"] == 2
    assert any("cut off" in reason for reason in done.rejected)


def test_every_row_has_the_schema_of_its_table(path: Path) -> None:
    SegmentCompactor(path, ME).compact(stack_segment(path, two_phases()))
    for table in ("samples", "stacks", "frames"):
        frame = Capture.open(path).table(table).collect()
        assert dict(frame.schema) == model.BY_NAME[table].schema


@pytest.mark.parametrize("writable", [True, False])
def test_what_sampling_held_survives_a_crash(
    path: Path, writable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = CaptureInfo.load(path / "capture.json")
    info.sampling = {"tail_ratio": 1.0, "tail_slow_ns": 10**9}
    info.finished_ns = None
    info.save(path / "capture.json")
    segment = segment_of(path, spans(50), late_spans(50, 100))
    compactor = SegmentCompactor(path, info)
    done = compactor.compact(segment)
    # The late ones may still get company.
    assert done.rows == {"spans": 50}
    assert segment.exists()
    following = segment_of(path, spans(5, 300))
    assert compactor.compact(following).rows == {"spans": 5}
    assert not following.exists()
    assert segment.exists()
    # Killed here: the first segment is done again, and nothing is there twice.
    if not writable:
        monkeypatch.setattr(compact, "write_part", full_disk)
    capture = Capture.open(path)
    expected = [*range(1, 51), *range(100, 150), *range(300, 305)]
    assert sorted(capture.table("spans").collect()["span_id"]) == expected
    assert segment.exists() is not writable


def late_spans(count: int, first: int) -> Record:
    request = ExportTraceServiceRequest.FromString(trace_body(count, first))
    for span in request.resource_spans[0].scope_spans[0].spans:
        span.start_time_unix_nano += 60 * 10**9
        span.end_time_unix_nano += 60 * 10**9
    return Record(Kind.TRACES_PROTOBUF, False, request.SerializeToString())


def full_disk(*_: object) -> int:
    raise OSError(28, "No space left on device")


def test_a_full_disk_loses_nothing_that_sampling_held(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = CaptureInfo.load(path / "capture.json")
    info.sampling = {"tail_ratio": 1.0, "tail_slow_ns": 10**9}
    info.save(path / "capture.json")
    segment = segment_of(path, spans(50), late_spans(50, 100))
    compactor = SegmentCompactor(path, info)
    with monkeypatch.context() as patch:
        patch.setattr(compact, "write_part", full_disk)
        with pytest.raises(OSError, match="No space"):
            compactor.compact(segment)
    assert compactor.compact(segment_of(path, spans(5, 300))).rows == {}
    assert compactor.finish().rows == {"spans": 5}
    assert Capture.open(path).table("spans").collect().height == 105


def test_a_ratio_counts_only_for_spans_that_say_nothing_themselves(path: Path) -> None:
    request = ExportTraceServiceRequest.FromString(trace_body(4))
    plain, threshold, whole, other = request.resource_spans[0].scope_spans[0].spans
    threshold.trace_state = "ot=th:8"
    whole.trace_state = "a=b,ot=rv:1;th:0"
    other.trace_state = "a=ot"
    info = CaptureInfo(id="me", created_ns=0, sampling={"head_ratio": 0.1})
    body = Record(Kind.TRACES_PROTOBUF, False, request.SerializeToString())
    SegmentCompactor(path, info).compact(segment_of(path, body))
    counts = Capture.open(path).table("spans").collect().sort("span_id")["adjusted_count"]
    assert counts.to_list() == [pytest.approx(10), 2.0, 1.0, pytest.approx(10)]
    assert plain.trace_state == ""
