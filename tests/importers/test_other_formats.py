from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import polars as pl
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData

from perfkit.errors import InputError
from perfkit.importers import otlp_frames, otlp_protobuf
from tests.importers.memory import imported

SAMPLES = Path(__file__).resolve().parent / "samples"
START = 1_700_000_000_000_000_000


def test_otlp_lines_of_all_signals() -> None:
    writer = imported(SAMPLES / "otlp-lines.jsonl")
    assert writer.info.rows["spans"] == 2
    assert writer.info.rows["metrics"] == 3
    assert writer.lost() == {
        "metric point whose value is no finite number": 1,
        "logs, which perfkit does not read": 1,
    }


def test_an_error_in_lines_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes((SAMPLES / "otlp-lines.jsonl").read_bytes()[:-20])
    with pytest.raises(InputError, match=r"x\.jsonl, line 5: not valid JSON"):
        imported(path)


def test_a_template_with_placeholders_says_so(shared_data: Path) -> None:
    with pytest.raises(InputError, match="not valid JSON") as caught:
        imported(shared_data / "otlp_json" / "traces.json")
    assert caught.value.hint is not None
    assert "fill in the placeholder START_TIME" in caught.value.hint


def test_every_otlp_file_of_the_shared_data(shared_data: Path) -> None:
    for binary in sorted((shared_data / "otlp_protobuf").glob("*.binpb")):
        text = shared_data / "otlp_json" / binary.name.removesuffix(".binpb")
        from_binary, from_text = imported(binary), imported(text)
        assert from_binary.info.rows == from_text.info.rows
        for table in from_binary.info.rows:
            assert from_binary.table(table).equals(from_text.table(table))
    lines = imported(shared_data / "otlp_json" / "otlp2jaeger-multi-in.json.txt")
    whole = imported(shared_data / "otlp_json" / "otlp2jaeger-multi-in-combined.json")
    assert lines.table("spans").equals(whole.table("spans"))


def metrics() -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add()
    group.resource.attributes.add(key="service.name").value.string_value = "shop"
    metric = group.scope_metrics.add().metrics.add(name="cpu", unit="1", description="d")
    metric.gauge.data_points.add(time_unix_nano=START, as_double=0.5)
    return request


@pytest.mark.parametrize("shape", ["gauge", "sum", "histogram", "summary"])
def test_metrics_are_told_from_traces(shape: str, tmp_path: Path) -> None:
    request = metrics()
    metric = request.resource_metrics[0].scope_metrics[0].metrics[0]
    metric.ClearField("gauge")
    getattr(metric, shape).data_points.add(time_unix_nano=START)
    path = tmp_path / "x"
    path.write_bytes(request.SerializeToString())
    assert imported(path).table("metrics")["name"].to_list() == ["cpu"]


def test_logs_are_refused(tmp_path: Path) -> None:
    logs = LogsData()
    group = logs.resource_logs.add()
    group.resource.attributes.add(key="a").value.string_value = "b"
    group.scope_logs.add().log_records.add(time_unix_nano=START).body.string_value = "hello"
    path = tmp_path / "x"
    path.write_bytes(logs.SerializeToString())
    with pytest.raises(InputError, match="OTLP logs, which perfkit does not read"):
        imported(path)


def test_joined_bodies_are_read_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = (SAMPLES / "otlp.pb").read_bytes()
    path = tmp_path / "x.pb"
    path.write_bytes(body * 5)
    monkeypatch.setattr(otlp_protobuf, "_PIECE_BYTES", len(body) + 1)
    assert imported(path).info.rows["spans"] == 10
    path.write_bytes(body * 5 + body[:100])
    with pytest.raises(InputError, match=rf"x\.pb, byte {5 * len(body)}: cut off"):
        imported(path)
    path.write_bytes(body * 3 + b"\x0a\x04abcd" + body)
    with pytest.raises(InputError, match=rf"x\.pb, byte {2 * len(body)}: not OTLP"):
        imported(path)
    path.write_bytes(body + b"\xff" * 20)
    with pytest.raises(InputError, match=rf"x\.pb, byte {len(body)}: "):
        imported(path)


def test_spans_without_anything_but_ids_are_traces(tmp_path: Path) -> None:
    request = ExportTraceServiceRequest()
    part = request.resource_spans.add().scope_spans.add()
    part.spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, name="x", start_time_unix_nano=START)
    path = tmp_path / "x"
    path.write_bytes(request.SerializeToString())
    assert imported(path).table("spans")["name"].to_list() == ["x"]


def test_psutil_readings() -> None:
    metrics = imported(SAMPLES / "psutil.jsonl").table("metrics")
    assert metrics.height == 4 * 11
    first = {(row["name"], row["attributes"]): row for row in metrics.to_dicts()[:11]}
    cpu = first["process.cpu.utilization", None]
    assert cpu["value"] == pytest.approx(0.18)
    assert cpu["ts_ns"] == pytest.approx(1_795_416_393_144_431_600, abs=1000)  # it is a float
    assert first["process.memory.usage", None]["value"] == 304_283_648
    written = first["process.disk.io", '{"disk.io.direction":"write"}']
    assert (written["kind"], written["unit"]) == ("counter", "By")


def test_odd_psutil_readings(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text(
        '{"t": 1795416393, "cpu": true, "rss": null, "fds": "3", "rd": 1e30, "threads": 2}\n'
        '{"t": -1, "cpu": 1}\n{"cpu": 1}\n'
    )
    writer = imported(path)
    assert writer.table("metrics")["name"].to_list() == ["process.thread.count"]
    assert writer.lost() == {"reading without a plausible time": 2}


def test_pyspy_chrometrace_is_anchored_to_the_files_time_or_the_users(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_bytes((SAMPLES / "pyspy-chrometrace.json").read_bytes())
    os.utime(path, ns=(START, START))
    guessed = imported(path)
    end = pl.col("ts_ns") + pl.col("duration_ns")
    assert guessed.table("samples").select(end.max()).item() == START
    assert any("approximate" in note for note in guessed.info.notes)
    said = imported(path, started_at_ns=START)
    assert said.table("samples")["ts_ns"].min() >= START
    assert said.info.notes == []
    assert set(said.table("samples")["stack_id"]) <= set(said.table("stacks")["stack_id"])
    assert set(said.table("stacks")["frame_id"]) == set(said.table("frames")["frame_id"])


def test_collapsed_stacks() -> None:
    writer = imported(SAMPLES / "pyspy-raw.txt")
    samples = writer.table("samples")
    assert samples["count"].sum() == 83 + 2 + 20 + 3 + 41
    assert samples["ts_ns"].null_count() == samples["duration_ns"].null_count() == samples.height
    assert set(samples["pid"]) == {14472, 14477}
    assert "(no Python frames)" in set(writer.table("frames")["function"])


def test_a_bad_line_of_collapsed_stacks_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"a;b 1\n\na;b\xff 2\n")
    with pytest.raises(InputError, match="x, line 3: not a stack and its count"):
        imported(path)


def test_the_folder_of_one_run_is_one_capture(shared_data: Path) -> None:
    writer = imported(shared_data / "contextforge")
    assert writer.info.rows["spans"] == 4793 + 1009
    assert writer.info.rows["metrics"] == 219 * 11 + 388
    assert {source["format"] for source in writer.info.sources} == {
        *("otlp-protobuf", "mcp-gateway-db", "psutil-jsonl", "pyspy-chrometrace", "collapsed"),
        "speedscope",
    }
    assert writer.lost() == {}


def test_go_writes_its_fields_in_an_order_of_its_own() -> None:
    """Go's profiles begin with their time; value types come after it."""
    assert gzip.decompress((SAMPLES / "go.pprof").read_bytes())[:1] == b"\x48"
    assert imported(SAMPLES / "go.pprof").info.sources[0]["format"] == "pprof"


def framed(*bodies: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(body)) + body for body in bodies)


def body(number: int, spans: int = 3) -> bytes:
    """Return a request whose spans say when they began and which request they are of."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.add(key="service.name").value.string_value = "shop"
    scope = group.scope_spans.add()
    for at in range(spans):
        scope.spans.add(
            trace_id=bytes([number + 1] * 16), span_id=bytes([number + 1] * 7 + [at + 1]),
            name=f"s{number}.{at}", start_time_unix_nano=START + number,
            end_time_unix_nano=START + 9,
        )  # fmt: skip
    return request.SerializeToString()


@pytest.mark.parametrize("packed", [False, True])
def test_rotated_files_of_the_collector(packed: bool, tmp_path: Path) -> None:
    """As its file exporter names them: the times of rotation before the ending."""
    bodies = [body(number) for number in range(6)]
    if packed:
        zstd = pytest.importorskip("backports.zstd", reason="the extra zstd is not installed")
        bodies = [zstd.compress(one) for one in bodies]
    for at, name in enumerate(("-2026-11-28T13-42-44.123", "-2026-11-28T14-02-01.007", "")):
        (tmp_path / f"traces{name}.pb").write_bytes(framed(*bodies[2 * at : 2 * at + 2]))
    copy = (tmp_path / "traces-2026-11-28T14-02-01.007.pb").read_bytes()
    (tmp_path / "traces-2026-11-28T14-02-01.007.pb.gz").write_bytes(gzip.compress(copy))
    for given in (tmp_path, tmp_path / "traces*"):
        writer = imported(given)
        names = writer.table("spans")["name"].to_list()
        assert names == [f"s{number}.{at}" for number in range(6) for at in range(3)]
        assert writer.lost() == {"a copy of another": 1}


def test_damaged_frames_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "x"
    bad = bytearray(body(1))
    bad[bad.index(b"s1.1") - 1] = 0x7F  # a name that is longer than its span
    path.write_bytes(framed(body(0), bytes(bad), body(2)))
    with pytest.raises(InputError, match=r"x, byte \d+"):
        imported(path)
    writer = imported(path, keep_going=True)
    names = writer.table("spans")["name"].to_list()
    assert [name for name in names if name[1] != "1"] == [
        "s0.0",
        "s0.1",
        "s0.2",
        "s2.0",
        "s2.1",
        "s2.2",
    ]
    assert {"s1.0", "s1.2"} <= set(names)
    # Cut off in a message: what is whole of it is kept, however far that is.
    whole = framed(body(0), body(1))
    counts = []
    for end in [*range(len(framed(body(0))) - 5, len(whole), 3), len(whole)]:
        path.write_bytes(whole[:end])
        counts.append(imported(path, format="otlp-frames", keep_going=True).info.rows["spans"])
    assert counts == sorted(counts)
    assert set(counts) == {2, 3, 4, 5, 6}


def test_a_frame_that_grows_beyond_measure_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zstd = pytest.importorskip("backports.zstd", reason="the extra zstd is not installed")
    monkeypatch.setattr(otlp_frames, "_MAX_FRAME_BYTES", 1 << 20)
    path = tmp_path / "x"
    path.write_bytes(framed(zstd.compress(body(0)), zstd.compress(bytes(3 << 20)), body(1)))
    with pytest.raises(InputError, match="when decompressed"):
        imported(path)
    assert imported(path, keep_going=True).info.rows["spans"] == 6
