"""The observability tables of the MCP gateway (ContextForge), in whatever database they are.

- A request is a span `http.request`, never a trace: a trace whose id was reused has several.
- Parents are not recorded: a span's parent is the smallest one around it in its trace, marked as
  inferred.
- Times are UTC: naive text in SQLite, with their zone in PostgreSQL.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Protocol

from perfkit import ids, model
from perfkit.batch import Batch
from perfkit.capture import CaptureWriter
from perfkit.formats import times
from perfkit.formats.attributes import fragment, json_object, resolve_span
from perfkit.formats.nesting import enclosing
from perfkit.formats.spans import Origin, SpanBatch, origin, problem
from perfkit.semconv import Value

SPANS = "observability_spans"
_TRACES, _EVENTS = "observability_traces", "observability_events"
_METRICS = "observability_metrics"
_REQUEST = "http.request"
_SCOPE = "observability"
_BATCH_SPANS = 20_000

Row = Mapping[str, Value]

# Table -> (its column with the id, the table with the names, attribute for the name, MCP method).
_OPERATIONS = {
    "tool_metrics": ("tool_id", "tools", "gen_ai.tool.name", "tools/call"),
    "resource_metrics": ("resource_id", "resources", "mcp.resource.uri", "resources/read"),
    "prompt_metrics": ("prompt_id", "prompts", "gen_ai.prompt.name", "prompts/get"),
}
_NAME_COLUMNS = ("custom_name", "original_name", "name", "uri")
_METRIC_COLUMNS = (*("ts_ns", "name", "unit", "kind", "value", "count", "service", "attributes"),)


class Database(Protocol):
    """A database that may have the gateway's tables."""

    INSERTED: str
    """The column by which equal rows are in the order of their insertion."""

    def has(self, table: str) -> bool:
        """Whether there is such a table."""

    def rows(self, table: str, order: str = "1", columns: str = "*") -> Iterator[Row]:
        """Yield the rows of a table, which may be absent in another version of the gateway.

        All three arguments go into the SQL as they are: they are constants of this module.
        """


def read(database: Database, writer: CaptureWriter) -> None:
    """Read spans, events and metrics."""
    names: dict[str, str] = {}
    services = _read_spans(database, writer, names)
    _read_events(database, writer)
    _read_operations(database, writer, names, services)
    _read_metrics(database, writer, services)


def _read_spans(database: Database, writer: CaptureWriter, names: dict[str, str]) -> list[str]:
    """Read all spans; fills `names` with what ids are called and returns the services seen."""
    traces = {str(row["trace_id"]): row for row in database.rows(_TRACES)}
    rows = SpanBatch()
    origins: dict[str, Origin] = {}
    ambiguous = 0
    with_spans: set[str] = set()
    spans = database.rows(SPANS, f"trace_id, start_time, {database.INSERTED}")
    for trace_id, group in groupby(spans, key=lambda row: str(row.get("trace_id"))):
        with_spans.add(trace_id)
        trace = traces.get(trace_id, {})
        ambiguous += _Trace(trace_id, trace, list(group), origins).add_to(rows, names)
        if len(rows.spans) >= _BATCH_SPANS:
            writer.add(rows.finish())
            rows = SpanBatch()
    for trace_id in sorted(traces.keys() - with_spans):
        _Trace(trace_id, traces[trace_id], [_as_span(traces[trace_id])], origins).add_to(
            rows, names
        )
    writer.add(rows.finish())
    if ambiguous:
        writer.note(
            f"{ambiguous} spans lie inside several requests of their trace; each was given to the "
            "shortest span around it"
        )
    writer.note("the gateway's database does not record parents: they are inferred from times")
    return sorted({found.service for found in origins.values()})


def _as_span(trace: Row) -> Row:
    """Make a span of a trace that has none."""
    return {
        **{key: trace.get(key) for key in ("start_time", "end_time", "duration_ms", "status")},
        "span_id": trace["trace_id"],
        "name": trace.get("name"),
        "kind": "server",
        "status_message": trace.get("status_message"),
        "attributes": json.dumps(
            {
                "http.method": trace.get("http_method"),
                "http.url": trace.get("http_url"),
                "http.status_code": trace.get("http_status_code"),
            }
        ),
    }


class _Trace:
    """The spans of one trace id."""

    def __init__(
        self, trace_id: str, trace: Row, spans: list[Row], origins: dict[str, Origin]
    ) -> None:
        self._id = ids.trace_id_from_text(trace_id)
        self._trace = trace
        self._spans = spans
        text = str(trace.get("resource_attributes") or "")
        if text not in origins:
            origins[text] = origin(_object(text) or {}, _SCOPE)
        self._origin = origins[text]

    def add_to(self, rows: SpanBatch, names: dict[str, str]) -> int:
        """Add the spans; returns how many lie inside several requests."""
        kept: list[tuple[Row, int, int, int | None]] = []
        for span in self._spans:
            own_id = ids.span_id_from_text(_text(span.get("span_id")))
            start_ns, end_ns = _times(span)
            refusal = problem(self._id, own_id, start_ns, end_ns)
            if refusal is not None or own_id is None:
                rows.batch.reject(refusal or "span without ids")
            else:
                kept.append((span, own_id, start_ns, end_ns))
        requests = {at for at, (span, *_) in enumerate(kept) if span.get("name") == _REQUEST}
        parents, ambiguous = enclosing([(start, end) for _, _, start, end in kept], requests)
        for (span, own_id, start_ns, end_ns), parent in zip(kept, parents, strict=True):
            recorded = ids.span_id_from_text(_text(span.get("parent_span_id")))
            if recorded is None and parent is not None:
                rows.inferred.add(len(rows.spans))
                recorded = kept[parent][1]
            attributes = self._attributes(rows.batch, span, alone=len(requests) <= 1)
            _remember_names(span, attributes, names)
            kind = _text(span.get("kind"))
            status = _text(span.get("status"))
            resolved = resolve_span(
                kind if kind in model.KINDS else "unspecified",
                status if status in model.STATUSES else "unset",
                self._origin.pid,
                attributes,
            )
            rows.spans.append(
                (
                    *(*self._id, own_id, recorded, _text(span.get("name")) or "", start_ns),
                    end_ns - start_ns if end_ns is not None else None,
                    _text(span.get("status_message")),
                    json_object(resolved.leftover.values()),
                )
            )
            rows.resolved.append(resolved.columns)
            rows.origins.append(self._origin)
        return ambiguous

    def _attributes(self, batch: Batch, span: Row, *, alone: bool) -> dict[str, Value]:
        attributes = _object(span.get("attributes"))
        if attributes is None:
            batch.reject("attributes that are no JSON object")
            attributes = {}
        for column in ("resource_name", "resource_type", "resource_id"):
            if span.get(column) is not None:
                attributes.setdefault(column.replace("_", "."), span[column])
        if span.get("resource_type") == "tool" and span.get("resource_name"):
            attributes.setdefault("tool.name", span["resource_name"])
        if span.get("name") == _REQUEST and alone:
            # With several requests in the trace nothing says to which of them these belong.
            for attribute, column in (
                ("enduser.id", "user_email"),
                ("user_agent.original", "user_agent"),
                ("client.address", "ip_address"),
            ):
                if self._trace.get(column) is not None:
                    attributes.setdefault(attribute, self._trace[column])
        return attributes


def _remember_names(span: Row, attributes: Mapping[str, Value], names: dict[str, str]) -> None:
    if span.get("resource_id") and span.get("resource_name"):
        names[str(span["resource_id"])] = str(span["resource_name"])
    for what in ("tool", "resource", "prompt"):
        own_id, name = attributes.get(f"{what}.id"), attributes.get(f"{what}.name")
        if own_id and name:
            names[str(own_id)] = str(name)


def _read_events(database: Database, writer: CaptureWriter) -> None:
    if not database.has(_EVENTS):
        return
    spans = database.rows(SPANS, columns="span_id, trace_id")
    traces = {row["span_id"]: row["trace_id"] for row in spans}
    rows = SpanBatch()
    for event in database.rows(_EVENTS):
        span_id = ids.span_id_from_text(_text(event.get("span_id")))
        ts_ns = _time_ns(event.get("timestamp"))
        trace_id = traces.get(event.get("span_id"))
        if span_id is None or ts_ns is None or trace_id is None:
            rows.batch.reject("event without its span or time")
            continue
        attributes = _object(event.get("attributes")) or {}
        for column in ("severity", "message"):
            attributes.setdefault(column, event.get(column))
        for column in ("exception_type", "exception_message", "exception_stacktrace"):
            attributes.setdefault(column.replace("_", ".", 1), event.get(column))
        text = json_object(
            fragment(key, value) for key, value in attributes.items() if value is not None
        )
        trace = ids.trace_id_from_text(str(trace_id))
        rows.events.append((*trace, span_id, ts_ns, _text(event.get("name")) or "", text))
    writer.add(rows.finish())


def _read_operations(
    database: Database, writer: CaptureWriter, names: dict[str, str], services: list[str]
) -> None:
    """Read the times of single tool calls, resource reads and prompts; they are in seconds."""
    batch = Batch()
    service = services[0] if len(services) == 1 else None
    for table, (id_column, name_table, attribute, method) in _OPERATIONS.items():
        known = _names(database, name_table) | names
        rows = []
        for row in database.rows(table):
            ts_ns, seconds = _time_ns(row.get("timestamp")), row.get("response_time")
            if ts_ns is None or not isinstance(seconds, (int, float)) or seconds < 0:
                batch.reject(f"row of {table} without a time")
                continue
            own_id = str(row.get(id_column))
            members = {attribute: known.get(own_id, own_id), "mcp.method.name": method}
            if not row.get("is_success"):
                members["error.type"] = "_OTHER"
            text = json_object(fragment(key, members[key]) for key in sorted(members))
            shared = ("mcp.server.operation.duration", "s", "delta", float(seconds), 1)
            rows.append((ts_ns, *shared, service, text))
        batch.add_rows("metrics", _METRIC_COLUMNS, rows)
    writer.add(batch)


def _names(database: Database, table: str) -> dict[str, str]:
    return {
        str(row.get("id")): str(next(row[column] for column in _NAME_COLUMNS if row.get(column)))
        for row in database.rows(table)
        if any(row.get(column) for column in _NAME_COLUMNS)
    }


def _read_metrics(database: Database, writer: CaptureWriter, services: list[str]) -> None:
    batch = Batch()
    service = services[0] if len(services) == 1 else None
    rows = []
    for row in database.rows(_METRICS):
        ts_ns, value = _time_ns(row.get("timestamp")), row.get("value")
        if ts_ns is None or not isinstance(value, (int, float)):
            batch.reject(f"row of {_METRICS} without a time or a value")
            continue
        # A histogram's row is one observation.
        histogram = row.get("metric_type") == "histogram"
        kind = (
            "delta" if histogram else "counter" if row.get("metric_type") == "counter" else "gauge"
        )
        attributes = _object(row.get("attributes")) or {}
        for column in ("resource_type", "resource_id"):
            if row.get(column) is not None:
                attributes.setdefault(column.replace("_", "."), row[column])
        text = json_object(fragment(key, attributes[key]) for key in sorted(attributes))
        shared = (_text(row.get("name")) or "", _text(row.get("unit")), kind, float(value))
        rows.append((ts_ns, *shared, 1 if histogram else None, service, text))
    batch.add_rows("metrics", _METRIC_COLUMNS, rows)
    writer.add(batch)


def _object(text: Value) -> dict[str, Value] | None:
    """Parse a JSON column; null when it is no object."""
    if text in (None, ""):
        return {}
    try:
        value = json.loads(str(text))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else {} if value is None else None


def _text(value: Value) -> str | None:
    return None if value is None else str(value)


def _times(span: Row) -> tuple[int, int | None]:
    """Return start and end; -1 for a start that is no time, null for the end of an open span."""
    start_ns = _time_ns(span.get("start_time"))
    end_ns = _time_ns(span.get("end_time"))
    length_ms = span.get("duration_ms")
    if start_ns is None:
        return -1, None
    if end_ns is None and isinstance(length_ms, (int, float)) and 0 <= length_ms < 1e12:
        end_ns = start_ns + round(length_ms * 1e6)
    return start_ns, end_ns


def _time_ns(value: Value) -> int | None:
    return times.from_text(str(value))
