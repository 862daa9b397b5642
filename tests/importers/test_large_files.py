"""Large documents: the same rows as in one piece, in bounded memory, compressed or not."""

from __future__ import annotations

import gc
import gzip
import json
import mmap
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from perfkit.errors import InputError
from perfkit.formats import otlp
from perfkit.importers import base, jaeger_json, otlp_json
from tests.importers.conftest import SAMPLES
from tests.importers.memory import MemoryWriter, imported

SPAN_TABLES = ("spans", "span_events", "span_links", "metrics")


def document(spans: int) -> dict[str, Any]:
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": [text("service.name", f"service-{group}")]},
                "scopeSpans": [{"scope": {"name": "s"}, "spans": [span(n, group)
                                                                   for n in range(spans)]}],
            }
            for group in range(3)
        ],
        "resourceLogs": [],
    }  # fmt: skip


def text(key: str, value: str) -> dict[str, Any]:
    return {"key": key, "value": {"stringValue": value}}


def span(number: int, group: int) -> dict[str, Any]:
    return {
        "traceId": f"{number + 1:032x}",
        "spanId": f"{group * 1000 + number + 1:016x}",
        "name": f"work {number % 3}",
        "startTimeUnixNano": str(1_700_000_000_000_000_000 + number),
        "endTimeUnixNano": 1_700_000_000_000_001_000 + number,
        "attributes": [text("http.route", "/a"), text("own", str(number))],
        "events": [{"timeUnixNano": "1700000000000000001", "name": "e"}],
    }


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp_json, "_LARGE_BYTES", 0)
    monkeypatch.setattr(otlp, "_PIECE_SPANS", 7)


def assert_same(one: MemoryWriter, other: MemoryWriter) -> None:
    for table in SPAN_TABLES:
        assert one.table(table).equals(other.table(table)), table
    assert one.lost() == other.lost()


@pytest.mark.parametrize("sample", ["otlp.json", "spans"])
@pytest.mark.parametrize("packed", [False, True])
def test_otlp_json_in_pieces_is_what_it_is_in_one(
    tmp_path: Path, sample: str, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (
        json.dumps(document(20)).encode() if sample == "spans" else (SAMPLES / sample).read_bytes()
    )
    path = tmp_path / ("x.json.gz" if packed else "x.json")
    path.write_bytes(gzip.compress(content) if packed else content)
    whole = imported(path)
    monkeypatch.setattr(otlp_json, "_LARGE_BYTES", 0)
    monkeypatch.setattr(otlp, "_PIECE_SPANS", 7)
    assert_same(imported(path), whole)


@pytest.mark.usefixtures("small_pieces")
def test_of_a_large_document_with_a_span_that_is_none_the_others_are_kept(
    tmp_path: Path,
) -> None:
    broken = document(20)
    broken["resourceSpans"][1]["scopeSpans"][0]["spans"][3]["name"] = 7
    path = tmp_path / "x.json"
    path.write_text(json.dumps(broken))
    with pytest.raises(InputError, match=r"x\.json, byte \d+: not OTLP JSON"):
        imported(path)
    assert imported(path, keep_going=True).table("spans").height == 59


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("cut", [1, 100, -2])
def test_a_large_document_that_is_cut_off_says_so(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(json.dumps(document(3)).encode()[:cut])
    with pytest.raises(InputError, match="not valid JSON"):
        imported(path, format="otlp-json")


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b'{"resourceSpans":[]}\n{"resourceSpans":[]}', True),
        (b'\n \r\n{"resourceSpans":[]} \r\n\n\n{"resourceSpans":[]}\n', True),
        (b'{"resourceSpans":[]}\n', False),
        (b'{"resourceSpans":[]}', False),
        (b'{\n"resourceSpans":[]}\n', False),
        (b'{"resourceSpans":[\n{}]}\n', False),
        (b"", False),
    ],
)
@pytest.mark.parametrize("chunk_bytes", [1, 5, 1 << 20])
def test_documents_by_line_are_told_from_one_document(
    tmp_path: Path, content: bytes, lines: bool, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perfkit.importers.base.compression.CHUNK_BYTES", chunk_bytes)
    path = tmp_path / "x.json"
    path.write_bytes(content)
    assert otlp_json._one_document_a_line(base.Source(path)) == lines


def test_a_compressed_document_is_not_inflated_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    lines = "".join(f"{n * 0x9E3779B97F4A7C15:032x} some text\n" for n in range(1 << 15)).encode()
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(32):
            file.write(lines)
    tracemalloc.start()
    try:
        content = base.Source(path).contents()
        by_line = otlp_json._one_document_a_line(base.Source(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(content, mmap.mmap)
    assert len(content) > 40 << 20
    assert not by_line
    assert peak < 8 << 20
    assert content[-10:] == b"some text\n"


def test_no_room_to_decompress_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.json.gz"
    path.write_bytes(gzip.compress((SAMPLES / "jaeger.json").read_bytes()))

    def full() -> Any:
        return open("/dev/full", "w+b")

    monkeypatch.setattr("perfkit.importers.base.tempfile.TemporaryFile", full)
    with pytest.raises(InputError, match=r"x\.json\.gz: no room to decompress it") as caught:
        imported(path)
    assert "TMPDIR" in str(caught.value.hint)


def test_an_import_leaves_the_collection_of_garbage_as_it_was(tmp_path: Path) -> None:
    before = gc.get_threshold()
    imported(SAMPLES / "jaeger.json")
    assert gc.get_threshold() == before
    broken = tmp_path / "x.json"
    broken.write_text('{"data": [')
    with pytest.raises(InputError):
        imported(broken, format="jaeger-json")
    assert gc.get_threshold() == before
    assert gc.isenabled()


def test_a_large_sampled_trace_of_which_no_span_can_be_taken_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaeger_json, "_LARGE_BYTES", 0)
    trace = json.loads((SAMPLES / "jaeger.json").read_text())
    for span in trace["data"][0]["spans"]:
        span["startTime"] = -5
    path = tmp_path / "x.json"
    path.write_text(json.dumps(trace))
    with pytest.raises(InputError, match="nothing"):
        imported(path)


def test_a_large_trace_of_jaeger_is_read_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = json.loads((SAMPLES / "jaeger.json").read_text())
    spans = trace["data"][0]["spans"]
    sampler = [{"key": "sampler.type", "type": "string", "value": "probabilistic"},
               {"key": "sampler.param", "type": "float64", "value": 0.25}]  # fmt: skip
    spans[-1]["tags"] = sampler  # which holds for those before, too
    path = tmp_path / "x.json"
    path.write_text(json.dumps(trace))
    single = tmp_path / "one.json"
    single.write_text(json.dumps(trace["data"][0]))
    whole = [imported(path), imported(single)]
    assert 4.0 in whole[0].table("spans")["adjusted_count"].to_list()
    monkeypatch.setattr(jaeger_json, "_LARGE_BYTES", 0)
    monkeypatch.setattr(jaeger_json, "_BATCH_SPANS", 1)
    assert_same(imported(path), whole[0])
    assert_same(imported(single), whole[1])


def test_a_line_beyond_measure_is_a_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "MAX_LINE_BYTES", 3 << 20)
    path = tmp_path / "x.jsonl"
    line = b'{"t": 1795871323, "cpu": 1}\n'
    path.write_bytes(line + b'{"t": "' + b"9" * (5 << 20) + b'"}\n' + line * 2 + b"x" * (4 << 20))
    with pytest.raises(InputError, match=r"x\.jsonl, line 2: a line of more than 3 MiB"):
        imported(path)
    writer = imported(path, keep_going=True)
    assert writer.info.rows["metrics"] == 3
    assert writer.lost() == {"a line of more than N MiB": 2}


def test_what_does_not_fit_into_the_memory_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Any:
        raise MemoryError

    monkeypatch.setattr(jaeger_json, "_parts", full)
    with pytest.raises(InputError, match=r"jaeger\.json: as jaeger-json it does not fit") as caught:
        imported(SAMPLES / "jaeger.json")
    assert "more memory" in str(caught.value.hint)
