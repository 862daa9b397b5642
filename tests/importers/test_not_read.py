"""Files that no importer reads are refused with what they are and what to do."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from perfkit.errors import InputError, UnknownFormat, UsageError
from perfkit.importers import mapped
from tests.importers.memory import imported

LINE = json.dumps({"timestamp": "2026-11-28T12:48:43Z", "path": "/", "trace_id": "1"})


def refused(path: Path, data: bytes) -> UnknownFormat:
    path.write_bytes(data)
    with pytest.raises(UnknownFormat) as error:
        imported(path)
    assert str(path) in error.value.message
    return error.value


@pytest.mark.parametrize(
    ("data", "what", "hint"),
    [
        ('{\n "log": {"version": "1.2", "creator": {}, "entries": []}}', "HAR", "perfkit record"),
        ('{"traces": [{"traceID": "1", "rootServiceName": "a"}]}', "Tempo", "/api/traces/"),
        (f"2026-11-28T12:48:43.1Z stdout F {LINE}\n" * 2, "before it", "sed"),
        (f"web-1  | {LINE}", "before it", "sed"),
        (json.dumps({"log": LINE + "\n", "stream": "stdout"}), "Docker", "jq"),
        ("PERFILE2\0\0", "perf's own", "perf script"),
        ("FLR\0\0\2", "Flight Recorder", "collapsed"),
        ('<?xml version="1.0"?><!DOCTYPE svg PUBLIC "a" "b"><svg>', "picture", "collapsed"),
        ("Span #0\n    Trace ID       : 01\n", "debug", "exporters"),
        ("just some words\nand more\n", "not recognised", "known formats"),
        *(
            ('{"a":' * deep + "1" + "}" * deep, "not recognised", "--map")
            for deep in (99, 400, 900)
        ),
        ("a, b\nwords, and, more\nx\n", "not recognised", "known formats"),
    ],
)
def test_what_it_is_and_what_to_do(data: str, what: str, hint: str, tmp_path: Path) -> None:
    error = refused(tmp_path / "in", data.encode())
    assert what in error.message
    assert hint in (error.hint or "")


@pytest.mark.parametrize("form", ["csv", "semicolons", "jsonl", "parquet"])
def test_a_table_is_refused_with_a_mapping_that_reads_it(form: str, tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "Trace ID": ["1", "2"],
            "spanId": ["1", "2"],
            "startTime": ["2026-11-28T12:48:43Z"] * 2,
            "duration_ms": [1, 2],
            "took": [1, 2],
        }
    )
    path = tmp_path / "in"
    if form == "jsonl":
        frame.write_ndjson(path)
    elif form == "parquet":
        frame.write_parquet(path)
    else:
        frame.write_csv(path, separator=";" if form == "semicolons" else ",")
    error = refused(path, path.read_bytes())
    assert "columns Trace ID, spanId, startTime, duration_ms, took" in error.message
    proposal = (error.hint or "").split("'")[1]
    writer = imported(path, mapping=mapped.parse(proposal))
    assert writer.table("spans")["duration_ns"].to_list() == [1_000_000, 2_000_000]


def test_a_length_without_its_unit_is_not_guessed(tmp_path: Path) -> None:
    error = refused(tmp_path / "in", b"trace,span,start,took\n1,1,2026-11-28T12:48:43Z,5\n")
    with pytest.raises(UsageError, match="no unit 'UNIT'"):
        mapped.parse((error.hint or "").split("'")[1])


def test_log_lines_of_loki(tmp_path: Path) -> None:
    path = tmp_path / "in"
    answer = {"status": "success", "data": {"resultType": "streams", "result": []}}
    path.write_text(json.dumps(answer))
    with pytest.raises(InputError) as error:
        imported(path)
    assert "logcli" in (error.value.hint or "")
