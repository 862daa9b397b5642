"""OTLP in JSON, one request a line, as the collector's file exporter writes it.

Spans, events, links and metric points, for any OpenTelemetry backend (the collector's
`otlpjsonfile` receiver, Jaeger) and for `perfkit import`, which reads back the same tables. What a
capture does not keep is not there: the buckets of histograms, and the types of attributes that
JSON has no word for. https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import polars as pl

from perfkit.errors import InputError
from perfkit.exporters.base import Source
from perfkit.exporters.otlp_metrics import metric_requests
from perfkit.exporters.otlp_values import key_values, span_attributes, trace_state
from perfkit.ids import span_hex, trace_hex
from perfkit.model import KINDS, STATUSES

NAME = "otlp-json"
SUFFIX = ".otlp.jsonl"
TITLE = "spans and metrics as OTLP JSON lines, for OpenTelemetry backends"
VIEWS: tuple[str, ...] = ()
TABLES = False

SPANS_A_LINE = 1000
_RESOURCE = ("service", "instance", "pid", "resource")
_KIND = {name: number for number, name in enumerate(KINDS)}
_STATUS = {name: number for number, name in enumerate(STATUSES)}

Children = dict[tuple[int, int, int], list[dict[str, Any]]]
"""Trace and span -> its events, or its links."""


def export(source: Source) -> Iterator[bytes]:
    """Yield the lines: first the spans, then the metrics."""
    empty = True
    for request in (*_span_requests(source), *metric_requests(source.tables["metrics"].collect())):
        empty = False
        yield msgspec.json.encode(request) + b"\n"
    if empty:
        raise InputError(
            "there is nothing to export: no spans and no metrics",
            hint="loosen the filters, or record with --otlp",
        )


def _span_requests(source: Source) -> Iterator[dict[str, Any]]:
    spans = source.tables["spans"].collect()
    events = _children(source.tables["span_events"].collect(), _event)
    links = _children(source.tables["span_links"].collect(), _link)
    for group in spans.partition_by(*_RESOURCE, "scope", maintain_order=True):
        for piece in group.iter_slices(SPANS_A_LINE):
            rows = list(piece.iter_rows(named=True))
            resource, scope = origin(rows[0])
            yield {
                "resourceSpans": [
                    {
                        "resource": resource,
                        "scopeSpans": [
                            {"scope": scope, "spans": [_span(row, events, links) for row in rows]}
                        ],
                    }
                ]
            }


def origin(row: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the resource and the scope of a span."""
    attributes = msgspec.json.decode(row["resource"]) if row["resource"] else {}
    version = attributes.pop("otel.scope.version", None)
    scope_attributes = attributes.pop("otel.scope.attributes", None)
    attributes["service.name"] = row["service"]
    if row["instance"] is not None:
        attributes["service.instance.id"] = row["instance"]
    if row["pid"] is not None:
        attributes["process.pid"] = row["pid"]
    scope: dict[str, Any] = {}
    if row["scope"]:
        scope["name"] = row["scope"]
    if version:
        scope["version"] = str(version)
    if isinstance(scope_attributes, dict) and scope_attributes:
        scope["attributes"] = key_values(scope_attributes)
    return {"attributes": key_values(attributes)}, scope


def _span(row: dict[str, Any], events: Children, links: Children) -> dict[str, Any]:
    attributes = span_attributes(row)
    state = trace_state(attributes, row["adjusted_count"])
    span: dict[str, Any] = {
        "traceId": trace_hex(row["trace_hi"], row["trace_lo"]),
        "spanId": span_hex(row["span_id"]),
        "name": row["name"] or "",
        "kind": _KIND.get(row["kind"], 0),
        "startTimeUnixNano": str(row["start_ns"]),
        "attributes": key_values(attributes),
    }
    if row["parent_id"] is not None:
        span["parentSpanId"] = span_hex(row["parent_id"])
    if row["duration_ns"] is not None:
        span["endTimeUnixNano"] = str(row["start_ns"] + row["duration_ns"])
    if state:
        span["traceState"] = state
    if code := _STATUS.get(row["status"], 0):
        span["status"] = {"code": code}
        if row["status_message"]:
            span["status"]["message"] = row["status_message"]
    key = (row["trace_hi"], row["trace_lo"], row["span_id"])
    if key in events:
        span["events"] = events[key]
    if key in links:
        span["links"] = links[key]
    return span


def _children(frame: pl.DataFrame, write: Any) -> Children:
    children: Children = {}
    for row in frame.iter_rows(named=True):
        key = (row["trace_hi"], row["trace_lo"], row["span_id"])
        children.setdefault(key, []).append(write(row))
    return children


def _event(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "timeUnixNano": str(row["ts_ns"]),
        "name": row["name"] or "",
        "attributes": _attributes(row),
    }


def _link(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "traceId": trace_hex(row["linked_trace_hi"], row["linked_trace_lo"]),
        "spanId": span_hex(row["linked_span_id"]),
        "attributes": _attributes(row),
    }


def _attributes(row: dict[str, Any]) -> list[dict[str, Any]]:
    return key_values(msgspec.json.decode(row["attributes"])) if row["attributes"] else []
