from __future__ import annotations

import json
import os
from pathlib import Path

import polars as pl
import pytest

from perfkit.errors import InputError
from tests.importers.memory import by_name, imported

SAMPLES = Path(__file__).resolve().parent / "samples"
START = 1_700_000_000_000_000_000


def write(path: Path, records: object) -> Path:
    file = path / "requests.json"
    file.write_text(json.dumps(records))
    return file


def record(**fields: object) -> dict[str, object]:
    return {"trace_id": "t", "request": {"method": "GET", "path": "/", "duration_ms": 10}} | fields


def test_the_sample_laid_from_a_given_start() -> None:
    writer = imported(SAMPLES / "request-records.jsonl", started_at_ns=START)
    spans = by_name(writer)
    first, second = spans["POST /tools/invoke"], spans["GET /users/42"]
    assert (first["endpoint"], first["tool"], first["kind"]) == (
        *("POST /tools/invoke", "search", "server"),
    )
    assert (first["start_ns"], first["duration_ns"]) == (START, 120_500_000)
    # One after the other.
    assert (second["start_ns"], second["endpoint"]) == (START + 120_500_000, "GET /users/{id}")
    # End to end, and what does not fit so overlaps instead of reaching beyond the request.
    laid = [
        (spans[name]["start_ns"] - START, spans[name]["duration_ns"])
        for name in ("auth", "db.query", "tool")
    ]
    assert laid == [(0, 3_100_000), (3_100_000, 80_000_000), (60_500_000, 60_000_000)]
    assert {spans[name]["parent_id"] for name in ("auth", "db.query", "tool")} == {first["span_id"]}
    metrics = writer.table("metrics").select("name", "value", "unit").rows()
    assert metrics == [
        ("process.cpu.utilization", pytest.approx(0.452), "1"),
        ("process.memory.usage", 512 * 2**20, "By"),
        ("db.client.connection.count", 15.0, "{connection}"),
    ]
    notes = " ".join(writer.info.notes)
    assert "has no times" in notes
    assert "which is an assumption" in notes


def test_without_a_start_the_last_request_ends_when_the_file_was_written(tmp_path: Path) -> None:
    path = write(tmp_path, [record(), record()])
    os.utime(path, ns=(START, START))
    spans = imported(path).table("spans")
    assert spans["start_ns"].to_list() == [START - 20_000_000, START - 10_000_000]
    assert spans["span_id"].n_unique() == 2


@pytest.mark.parametrize(
    "timestamp",
    ["2023-11-14T22:13:20Z", "2023-11-14 22:13:20", 1_700_000_000, 1_700_000_000_000.0, START],
)
def test_times_that_are_there_are_used(timestamp: object, tmp_path: Path) -> None:
    writer = imported(write(tmp_path, [record(timestamp=timestamp), record()]))
    assert writer.table("spans")["start_ns"].to_list() == [START]
    assert writer.lost() == {"record without a time, while others have one": 1}


@pytest.mark.parametrize("shape", ["object", "array", "lines", "indented"])
def test_every_shape_of_the_file(shape: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    records = [record(service="shop")] * (1 if shape in ("object", "indented") else 3)
    path.write_text(
        {
            "object": json.dumps(records[0]),
            "indented": json.dumps(records[0], indent=2),
            "array": json.dumps(records),
            "lines": "\n".join(json.dumps(one) for one in records),
        }[shape]
    )
    spans = imported(path).table("spans")
    assert spans.height == len(records)
    assert spans["service"].unique().to_list() == ["shop"]
    assert spans.select(pl.struct("trace_hi", "trace_lo").n_unique()).item() == 1


def test_implausible_durations_are_refused(tmp_path: Path) -> None:
    good, path = record(), {"duration_ms": 1e30}
    spans = [{"name": "x", "duration_ms": -1}]
    writer = imported(write(tmp_path, [good, record(request=path), record(spans=spans)]))
    assert writer.info.rows["spans"] == 1
    assert writer.lost() == {"record with an implausible duration": 2}


def test_an_error_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(record()) + "\n\n" + '{"request": {"duration_ms": "long"}}\n')
    with pytest.raises(InputError, match=r"r\.jsonl, line 3: not a record of a request: Expected"):
        imported(path)
