"""The plain way from OTLP protobuf to `spans`: protobuf's own parser, and loops over everything.

It makes the same rows as perfkit of what `bench.generate` writes, which `bench.ingest` checks; of
the semantic conventions it knows no more than that.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import polars as pl
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from perfkit import model


def frame(bodies: Iterable[bytes]) -> pl.DataFrame:
    """Return the rows of request bodies."""
    columns: dict[str, list[Any]] = {name: [] for name in model.SPANS.schema}
    for body in bodies:
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _attributes(group.resource.attributes)
            service = resource.pop("service.name", "unknown_service")
            instance = resource.pop("service.instance.id", None)
            pid = resource.pop("process.pid", None)
            other = json.dumps(resource) if resource else None
            for scope in group.scope_spans:
                before = len(columns["name"])
                for span in scope.spans:
                    _add(columns, span, pid)
                count = len(columns["name"]) - before
                columns["service"] += [service] * count
                columns["instance"] += [instance] * count
                columns["scope"] += [scope.scope.name or None] * count
                columns["resource"] += [other] * count
    schema = model.SPANS.schema
    return pl.DataFrame([pl.Series(name, columns[name], dtype) for name, dtype in schema.items()])


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def _add(columns: dict[str, list[Any]], span: Any, pid: int | None) -> None:
    attributes = _attributes(span.attributes)
    kind = model.KINDS[span.kind]
    method = attributes.pop("http.request.method", None)
    peer = endpoint = None
    if kind == "client":
        if (peer := attributes.get("server.address")) and "server.port" in attributes:
            peer = f"{peer}:{attributes['server.port']}"
    elif (route := attributes.get("http.route")) is not None:
        endpoint = f"{method} {route}"
    trace, start_ns, end_ns = span.trace_id, span.start_time_unix_nano, span.end_time_unix_nano
    columns["trace_hi"].append(int.from_bytes(trace[:8], "big", signed=True))
    columns["trace_lo"].append(int.from_bytes(trace[8:], "big", signed=True))
    columns["span_id"].append(int.from_bytes(span.span_id, "big", signed=True))
    columns["parent_id"].append(int.from_bytes(span.parent_span_id, "big", signed=True) or None)
    columns["parent_inferred"].append(False)
    columns["name"].append(span.name)
    columns["kind"].append(kind)
    columns["start_ns"].append(start_ns)
    columns["duration_ns"].append(end_ns - start_ns if end_ns else None)
    columns["status"].append(model.STATUSES[span.status.code])
    columns["status_message"].append(span.status.message or None)
    columns["endpoint"].append(endpoint)
    columns["http_method"].append(method)
    columns["http_status"].append(attributes.pop("http.response.status_code", None))
    columns["tool"].append(attributes.pop("gen_ai.tool.name", None))
    columns["tool_arguments"].append(attributes.pop("gen_ai.tool.call.arguments", None))
    columns["peer"].append(peer)
    columns["db_system"].append(attributes.pop("db.system.name", None))
    columns["db_statement"].append(attributes.pop("db.query.text", None))
    columns["db_rows"].append(attributes.pop("db.response.returned_rows", None))
    columns["thread_id"].append(attributes.pop("thread.id", None))
    columns["pid"].append(attributes.pop("process.pid", pid))
    columns["adjusted_count"].append(float(attributes.pop("SampleRate", 1.0)))
    columns["attributes"].append(json.dumps(attributes) if attributes else None)
