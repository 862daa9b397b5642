"""k6's results as JSON lines (`--out json=FILE`) or CSV (`--out csv=FILE`): points of metrics.

A point of `http_req_duration` is a request, written when it ended; the other metrics are kept as
they are, but for the parts of a request's time, which are left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from perfkit.capture import CaptureWriter
from perfkit.formats import times
from perfkit.importers import json_stream, load_tests, tables
from perfkit.importers.base import Format, Source
from perfkit.importers.rows import MetricRows, SpanRows, scaled
from perfkit.importers.tables import number

NAME = "k6-json"
FORMAT = Format(
    title="k6 results, JSON lines or CSV",
    made_by="`k6 run --out json=results.json …`, `k6 run --out csv=results.csv …`",
    recognised_by="lines with `type` `Metric` or `Point` and `metric`; the columns of the CSV",
    gives="spans of requests as the client saw them, metrics",
    lacks="what the server did; of CSV units, and times finer than `K6_CSV_TIME_FORMAT` (seconds)",
)

_REQUEST = "http_req_duration"
_HEADER = b"metric_name,timestamp,metric_value"
_DIGITS_OF_SECONDS = 10
_PARTS = ("http_req_", "iteration_duration", "group_duration", "data_", "http_reqs")
_UNITS = {"time": "ms", "data": "By", "default": "1"}


class _Data(msgspec.Struct):
    time: str | None = None
    value: float | None = None
    tags: dict[str, Any] | None = None
    type: str | None = None
    contains: str | None = None


class _Line(msgspec.Struct):
    metric: str = ""
    type: str = ""
    data: _Data | None = None


_line = msgspec.json.Decoder(_Line)


def sniff(head: bytes, path: Path) -> bool:
    """Recognise the first line."""
    del path
    if head.startswith(_HEADER):
        return True
    line = head.lstrip().split(b"\n", 1)[0].replace(b" ", b"")
    return (
        line.startswith(b"{")
        and b'"metric":"' in line
        and (b'"type":"Metric"' in line or b'"type":"Point"' in line)
    )


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all points."""
    if source.head().startswith(_HEADER):
        _read_csv(source, writer)
        return
    described: dict[str, _Data] = {}
    with SpanRows(source, writer) as spans, MetricRows(source, writer) as metrics:
        for place, raw in json_stream.lines(source):
            try:
                line = _line.decode(raw)
            except json_stream.BAD_JSON as error:
                source.pass_over(json_stream.refuse("a line of k6", place, error))
                continue
            data = line.data or _Data()
            if line.type == "Metric":
                described[line.metric] = data
            elif line.metric == _REQUEST:
                _request(spans, data, place, times.from_text(data.time or ""))
            elif not line.metric.startswith(_PARTS) and data.value is not None:
                about = described.get(line.metric, _Data())
                kind = "delta" if about.type == "counter" else "gauge"
                unit = _UNITS.get(about.contains or "", "1")
                metrics.add(times.from_text(data.time or ""), f"k6.{line.metric}", unit,
                            data.value, kind=kind, service="k6")  # fmt: skip


def _read_csv(source: Source, writer: CaptureWriter) -> None:
    coarse = False
    with SpanRows(source, writer) as spans, MetricRows(source, writer) as metrics:
        for place, row in tables.rows(source, *_HEADER.decode().split(",")):
            name, at, value = row["metric_name"], row["timestamp"], number(row["metric_value"])
            ts_ns = _moment(at)
            if name == _REQUEST:
                coarse = coarse or len(at) <= _DIGITS_OF_SECONDS
                _request(spans, _Data(str(at), value, dict(row)), place, ts_ns)
            elif not name.startswith(_PARTS) and value is not None:
                metrics.add(ts_ns, f"k6.{name}", "1", value, service="k6")
    if coarse:
        writer.note(
            f"{source.name} has times in whole seconds: requests seem to end at once; "
            "K6_CSV_TIME_FORMAT=unix_micro makes k6 write finer ones"
        )


def _moment(text: str) -> int | None:
    """Read a time as `K6_CSV_TIME_FORMAT` may have it: s, ms, µs or ns since 1970, or RFC 3339."""
    if not text.isdigit() or not text.isascii():
        return times.from_text(text)
    unit = 10 ** max(0, 3 * ((21 - len(text)) // 3))
    return scaled(text, unit)


def _request(spans: SpanRows, data: _Data, place: str, end_ns: int | None) -> None:
    tags = data.tags or {}
    duration_ns = scaled(data.value, 10**6)
    start_ns = end_ns - duration_ns if end_ns is not None and duration_ns is not None else None
    error = tags.get("error")
    url = str(tags.get("url") or "")
    load_tests.add(
        spans,
        "k6",
        f"{spans.source.content_name} {place.rpartition(' ')[2]} {data.time} {data.value}",
        str(tags.get("name") or url),
        start_ns,
        duration_ns,
        method=str(tags.get("method") or "") or None,
        url=url,
        status=scaled(tags.get("status"), 1) or None,
        failed=tags.get("expected_response") == "false" or bool(error),
        message=str(error) if error else None,
        attributes={
            "k6.scenario": tags.get("scenario") or None,
            "k6.group": tags.get("group") or None,
        },
    )
