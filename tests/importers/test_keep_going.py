"""What `--keep-going` keeps of files that are cut off, or damaged in the middle."""

from __future__ import annotations

import json
import random
from pathlib import Path

import msgspec
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from perfkit.errors import InputError, PerfkitError
from perfkit.importers import IMPORTERS, mapped
from tests.importers.memory import MemoryWriter, imported

SAMPLES = Path(__file__).resolve().parent / "samples"
NOW_NS = 1_795_871_323_000_000_000


def kept(path: Path, format: str, table: str) -> int:
    """Return how many rows are kept; 0 when the file is refused."""
    try:
        writer = imported(path, format=format, started_at_ns=NOW_NS, keep_going=True)
    except PerfkitError:
        return 0
    return writer.info.rows.get(table, 0)


@pytest.mark.parametrize(
    ("name", "format", "table"),
    [
        ("otlp.json", "otlp-json", "spans"),
        ("otlp.pb", "otlp-protobuf", "spans"),
        ("perf-script.txt", "perf-script", "samples"),
        ("datadog.json", "datadog-json", "spans"),
        ("datadog-v04.msgpack", "datadog-json", "spans"),
        ("datadog-v05.msgpack", "datadog-json", "spans"),
        ("jaeger.json", "jaeger-json", "spans"),
        ("prometheus.json", "prometheus-json", "metrics"),
        ("sentry.envelope", "sentry-json", "spans"),
        ("skywalking-agent.jsonl", "skywalking-json", "spans"),
        ("xray.jsonl", "xray-json", "spans"),
    ],
)
def test_what_is_before_the_end_of_a_cut_file_is_kept(
    name: str, format: str, table: str, tmp_path: Path
) -> None:
    data = (SAMPLES / name).read_bytes()
    whole = imported(SAMPLES / name, started_at_ns=NOW_NS).info.rows[table]
    path = tmp_path / name
    counts = []
    for end in (*range(1, len(data), len(data) // max(40, 8 * whole)), len(data)):
        path.write_bytes(data[:end])
        counts.append(kept(path, format, table))
    assert counts == sorted(counts)
    assert counts[-1] == whole
    assert len(set(counts)) >= whole  # one after the other, none at once


# Of these what is needed to read the others comes last, or all is in one piece.
NOTHING_BEFORE = {"cpuprofile", "otlp-frames.json.zst"}


@pytest.mark.parametrize("format", [importer.NAME for importer in IMPORTERS])
def test_every_format_keeps_what_is_whole_and_names_the_place(
    format: str, samples: dict[str, list[Path]], tmp_path: Path
) -> None:
    for sample in samples[format]:
        data = sample.read_bytes()
        path = written(tmp_path, data[: len(data) - max(2, len(data) // 50)])
        if {format, sample.name} & NOTHING_BEFORE:
            with pytest.raises(InputError, match=r"input.*(byte \d+|can be kept)"):
                imported(path, format=format, keep_going=True)
            continue
        writer = imported(path, format=format, started_at_ns=NOW_NS, keep_going=True)
        assert sum(writer.info.rows.values())


def page_of_datadog(count: int) -> dict[str, object]:
    def span(number: int) -> dict[str, object]:
        return {"trace_id": "1", "span_id": str(number), "parent_id": str(number - 1),
                "name": "web.request", "resource": "GET /", "service": "shop",
                "start": NOW_NS / 1e9 + number, "duration": 0.5}  # fmt: skip

    spans = {str(number): span(number) for number in range(1, count + 1)}
    return {"trace": {"root_id": "1", "spans": spans}, "orphaned": []}


@pytest.mark.parametrize("indent", [None, 2])
def test_a_page_of_datadog_that_is_cut_off_keeps_its_spans(
    indent: int | None, tmp_path: Path
) -> None:
    data = json.dumps(page_of_datadog(4), indent=indent).encode()
    counts = []
    for end in range(400, len(data), 15):
        path = written(tmp_path, data[:end])
        with pytest.raises(InputError, match=rf"input.*byte {end}\b"):
            imported(path, format="datadog-json")
        counts.append(kept(path, "datadog-json", "spans"))
    assert counts == sorted(counts)
    assert {2, 3, 4} <= set(counts)


def test_a_list_of_request_records_that_is_cut_off_keeps_the_others(tmp_path: Path) -> None:
    records = [{"timestamp": NOW_NS / 1e9, "request": {"path": f"/{n}", "duration_ms": 5}}
               for n in range(4)]  # fmt: skip
    path = written(tmp_path, json.dumps(records).encode()[:-10])
    with pytest.raises(InputError, match=r"input, byte \d+: cut off"):
        imported(path)
    assert kept(path, "request-records", "spans") == 3


def test_a_trace_without_its_services_keeps_its_processes_apart(tmp_path: Path) -> None:
    trace = json.loads((SAMPLES / "jaeger.json").read_bytes())["data"][0]
    trace["processes"] = trace.pop("processes")  # last, as Jaeger writes it
    whole = json.dumps(trace).encode()
    path = written(tmp_path, whole[: whole.index(b'"processes"')])
    writer = imported(path, keep_going=True)
    known = imported(written(tmp_path, whole)).table("spans")
    services = {span["spanID"]: span["processID"] for span in trace["spans"]}
    assert writer.table("spans")["service"].to_list() == list(services.values())
    same = ["span_id", "parent_id", "name", "start_ns", "duration_ns", "attributes"]
    assert known.select(same).equals(writer.table("spans").select(same))
    assert any("numbers of their processes" in note for note in writer.info.notes)


def test_a_span_of_packed_chunks_that_names_no_text_is_passed_over(tmp_path: Path) -> None:
    def span(number: int, service: int = 0) -> list[object]:
        return [service, 0, 0, 1, number, 0, NOW_NS + number, 5, 0, {}, {}, 0]

    chunks = [[span(1), span(2)], [span(3), span(4, service=9), span(5)], [span(6)]]
    path = written(tmp_path, msgspec.msgpack.encode([["web", "runtime-id"], chunks]))
    with pytest.raises(InputError, match="out of range"):
        imported(path)
    writer = imported(path, keep_going=True)
    assert writer.table("spans")["span_id"].to_list() == [1, 2, 3, 5, 6]
    assert sum(loss.count for loss in writer.info.lost) == 1


def test_a_log_that_is_cut_off_keeps_its_entries(tmp_path: Path) -> None:
    lines = (SAMPLES / "postgresql.log").read_bytes()
    whole = imported(SAMPLES / "postgresql.log").info.rows["spans"]
    (tmp_path / "cut.log").write_bytes(lines[:-20])
    assert kept(tmp_path / "cut.log", "postgresql-log", "spans") >= whole - 1


def spans(services: int, each: int) -> dict[str, object]:
    def span(number: int) -> dict[str, object]:
        link = {"traceId": "01" * 16, "spanId": "02" * 8, "traceState": "a=b", "attributes": []}
        text = {"key": "sql", "value": {"stringValue": 'like "{\\"traceId\\": [{"'}}
        return {
            "traceId": f"{number // 10 + 1:032x}",
            "spanId": f"{number + 1:016x}",
            "parentSpanId": "",
            "name": f"s{number}",
            "kind": 2,
            "startTimeUnixNano": str(NOW_NS + number),
            "endTimeUnixNano": str(NOW_NS + number + 5),
            "attributes": [text],
            "links": [link],
        }

    def group(service: int) -> dict[str, object]:
        name = {"key": "service.name", "value": {"stringValue": f"svc{service}"}}
        own = [span(service * each + number) for number in range(each)]
        return {
            "resource": {"attributes": [name]},
            "scopeSpans": [{"scope": {"name": "lib"}, "spans": own}],
        }

    return {"resourceSpans": [group(service) for service in range(services)]}


@pytest.mark.parametrize("seed", range(9))
def test_json_that_is_damaged_in_the_middle_loses_what_is_there_only(
    seed: int, tmp_path: Path
) -> None:
    document = json.dumps(spans(4, 100)).encode()
    undamaged = imported(written(tmp_path, document)).table("spans")
    drawn = random.Random(seed)
    damaged = bytearray(document)
    at = drawn.randrange(500, len(damaged) - 500)
    if seed % 3 == 0:
        damaged[at : at + 40] = drawn.randbytes(40)
    elif seed % 3 == 1:
        del damaged[at : at + 25]
    else:
        damaged[at] = ord("x") if damaged[at] == ord('"') else ord('"')
    with pytest.raises(InputError, match=r"not (valid|OTLP) JSON"):
        imported(written(tmp_path, bytes(damaged)))
    writer = imported(written(tmp_path, bytes(damaged)), format="otlp-json", keep_going=True)
    found = writer.table("spans")
    assert found.height >= undamaged.height - 2
    assert found.join(undamaged, on=found.columns, how="anti", nulls_equal=True).height == 0
    assert any("damaged" in note for note in writer.info.notes)
    assert any(loss.what == "document that is damaged" for loss in writer.info.lost)


def written(folder: Path, data: bytes) -> Path:
    path = folder / "input"
    path.write_bytes(data)
    return path


def test_a_large_document_with_a_bad_span_keeps_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perfkit.importers.otlp_json._LARGE_BYTES", 1)
    document = json.dumps(spans(2, 50)).encode().replace(b'"name": "s60"', b'"name": [60]')
    with pytest.raises(InputError, match="Expected"):
        imported(written(tmp_path, document))
    writer = imported(written(tmp_path, document), keep_going=True)
    assert writer.info.rows["spans"] == 99
    assert writer.info.rows["span_links"] == 99
    assert [loss.count for loss in writer.info.lost] == [1]


def test_protobuf_with_a_bad_span_keeps_the_others(tmp_path: Path) -> None:
    message = TracesData()
    for service in ("a", "b"):
        group = message.resource_spans.add()
        attribute = group.resource.attributes.add(key="service.name")
        attribute.value.string_value = service
        scope = group.scope_spans.add()
        for number in range(5):
            scope.spans.add(
                trace_id=bytes([1] * 16), span_id=bytes([ord(service), *[number] * 7]),
                name=f"name-{number}", start_time_unix_nano=NOW_NS, end_time_unix_nano=NOW_NS + 1,
            )  # fmt: skip
    data = message.SerializeToString()
    at = data.index(b"name-3")
    damaged = data[:at] + b"\xff\xfe" + data[at + 2 :]  # no UTF-8
    wrong = data[: at - 1] + bytes([120]) + data[at:]  # a length beyond its span
    for one in (damaged, wrong):
        writer = imported(written(tmp_path, one), format="otlp-protobuf", keep_going=True)
        services = writer.table("spans")["service"].value_counts().sort("service").rows()
        assert services in ([("a", 4), ("b", 5)], [("a", 5), ("b", 5)])
        assert writer.info.lost or services == [("a", 5), ("b", 5)]
    writer = imported(written(tmp_path, wrong), format="otlp-protobuf", keep_going=True)
    assert any("byte" in note for note in writer.info.notes)


def test_perf_script_passes_over_the_sample_with_the_damage(tmp_path: Path) -> None:
    text = (SAMPLES / "perf-script.txt").read_text()
    whole = imported(SAMPLES / "perf-script.txt", started_at_ns=NOW_NS).info.rows["samples"]
    lines = text.splitlines()
    at = next(n for n, line in enumerate(lines[3:], 3) if line[:1].isspace())
    lines[at] = "\t\ufffd no address"
    path = written(tmp_path, "\n".join(lines).encode())
    with pytest.raises(InputError, match=f"line {at + 1}: no frame"):
        imported(path, format="perf-script", started_at_ns=NOW_NS)
    writer = imported(path, format="perf-script", started_at_ns=NOW_NS, keep_going=True)
    assert writer.info.rows["samples"] == whole - 1
    assert writer.lost() == {"no frame of perf script": 1}
    assert any(f"line {at + 1}" in note for note in writer.info.notes)


MAPPING = "trace_id=Trace,span_id=Span,name=Name,start_ns=Start:ms,duration_ns=Took:ms"


def mapped_rows(path: Path, *, keep_going: bool) -> MemoryWriter:
    return imported(path, mapping=mapped.parse(MAPPING), keep_going=keep_going)


def test_mapped_lines_that_are_damaged_are_passed_over(tmp_path: Path) -> None:
    rows = [f"{n + 1},{n + 1},n{n},{NOW_NS // 10**6 + n}.5,{n}" for n in range(20)]
    header = "Trace,Span,Name,Start,Took"
    good = mapped_rows(
        written(tmp_path, "\n".join([header, *rows]).encode()), keep_going=False
    ).table("spans")
    path = written(tmp_path, "\n".join([header, *rows[:9], "1,2,3,4,5,6,7", *rows[9:]]).encode())
    with pytest.raises(InputError):
        mapped_rows(path, keep_going=False)
    writer = mapped_rows(path, keep_going=True)
    assert writer.table("spans").equals(good)
    assert any("line 11: 7 values under 5 columns" in note for note in writer.info.notes)
    lines = [json.dumps(dict(zip(header.split(","), row.split(","), strict=True))) for row in rows]
    path = written(tmp_path, "\n".join([*lines[:5], '{"Trace":', *lines[5:]]).encode())
    writer = mapped_rows(path, keep_going=True)
    assert writer.table("spans").equals(good)
    assert any("line 6" in note for note in writer.info.notes)
