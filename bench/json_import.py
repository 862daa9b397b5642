"""Import of Jaeger's JSON and of OTLP JSON, beside Python's own parser with and without loops."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench import jaeger
from bench.generate import SPANS_PER_BODY, Bodies, json_of
from bench.measure import Cost, Row, isolated
from bench.spans import import_otlp

BODIES = 400
_GIB = 1 << 30


def write_otlp_json(directory: str) -> int:
    """Write the generated requests as one document of many resources; returns its spans."""
    bodies = Bodies()
    groups = (
        group
        for number in range(BODIES)
        for group in json.loads(json_of(bodies.body(number)))["resourceSpans"]
    )
    with (Path(directory) / "one.json").open("w") as file:
        file.write('{"resourceSpans":[')
        for number, group in enumerate(groups):
            file.write("," * (number > 0) + json.dumps(group, separators=(",", ":")))
        file.write("]}")
    return BODIES * SPANS_PER_BODY


def parse(directory: str) -> int:
    """Parse every file with Python's own parser and do nothing else; returns how many."""
    return sum(1 for _ in _documents(directory))


def loop_otlp(directory: str) -> int:
    """Make a Parquet file of them by loops over spans and attributes; returns the spans."""
    return _write(directory, _otlp_rows)


def loop_jaeger(directory: str) -> int:
    """Make a Parquet file of them by loops over spans and tags; returns the spans."""
    return _write(directory, _jaeger_rows)


def _documents(directory: str) -> Iterator[dict[str, Any]]:
    for path in sorted(Path(directory).glob("*.json")):
        yield json.loads(path.read_text())


def _write(directory: str, rows_of: Callable[[dict[str, Any]], Iterator[dict[str, Any]]]) -> int:
    import polars as pl

    rows = [row for document in _documents(directory) for row in rows_of(document)]
    frame = pl.DataFrame(rows, infer_schema_length=None)
    frame.write_parquet(Path(directory).with_suffix(".parquet"), compression_level=3)
    return len(rows)


def _otlp_rows(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for group in document["resourceSpans"]:
        for part in group["scopeSpans"]:
            for span in part["spans"]:
                attributes = {
                    pair["key"]: next(iter(pair["value"].values())) for pair in span["attributes"]
                }
                start = int(span["startTimeUnixNano"])
                yield {
                    "trace_id": span["traceId"],
                    "span_id": span["spanId"],
                    "parent_id": span.get("parentSpanId"),
                    "name": span["name"],
                    "kind": span["kind"],
                    "start_ns": start,
                    "duration_ns": int(span["endTimeUnixNano"]) - start,
                    "route": attributes.pop("http.route", None),
                    "method": attributes.pop("http.request.method", None),
                    "statement": attributes.pop("db.query.text", None),
                    "attributes": json.dumps(attributes),
                }


def _jaeger_rows(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for trace in document["data"]:
        for span in trace["spans"]:
            tags = {tag["key"]: tag["value"] for tag in span["tags"]}
            above = span["references"]
            yield {
                "trace_id": span["traceID"],
                "span_id": span["spanID"],
                "parent_id": above[0]["spanID"] if above else None,
                "name": span["operationName"],
                "service": trace["processes"][span["processID"]]["serviceName"],
                "kind": tags.pop("span.kind", None),
                "start_ns": span["startTime"] * 1000,
                "duration_ns": span["duration"] * 1000,
                "statement": tags.pop("db.statement", None),
                "attributes": json.dumps(tags),
            }


def rows() -> list[Row]:
    """Measure documents of some hundred thousand spans."""
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for what, writes, loops, goal in (
            ("Jaeger JSON, two or three tags a span", jaeger.write_files, loop_jaeger, 52),
            ("OTLP JSON, ten attributes a span, one document", write_otlp_json, loop_otlp, 40),
        ):
            files = Path(folder) / writes.__name__
            files.mkdir()
            spans = isolated(writes, str(files)).value
            parsed = isolated(parse, str(files))
            looped = isolated(loops, str(files))
            taken = isolated(import_otlp, str(files), str(files.with_suffix(".perfkit")))
            assert looped.value == taken.value == spans
            found.append(_row(what, spans, taken, looped, parsed, goal))
        return found


def _row(what: str, spans: int, taken: Cost, looped: Cost, parsed: Cost, goal: int) -> Row:
    def rate(cost: Cost) -> float:
        return spans / cost.cpu_s / 1000

    return Row(
        f"import {what}",
        f"{rate(taken):.0f} k spans/CPU s, {taken.peak_bytes / _GIB:.2f} GiB",
        f"`json.loads` and loops {rate(looped):.0f} k, {looped.peak_bytes / _GIB:.2f} GiB; "
        f"`json.loads` alone {rate(parsed):.0f} k spans/CPU s",
        f"{looped.cpu_s / taken.cpu_s:.1f}× faster",
        f"{goal} k/CPU s",
        rate(taken) >= goal,
    )
