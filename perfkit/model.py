"""The tables of a capture: the single source of truth for names, types and meaning.

All times are integer nanoseconds since the Unix epoch. Ids are signed 64-bit integers inside and
hexadecimal at every edge. A value that a source cannot say is null, never a guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import polars as pl

KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
"""Values of `spans.kind`, in the order of OpenTelemetry's numbers."""

STATUSES = ("unset", "ok", "error")
"""Values of `spans.status`, in the order of OpenTelemetry's numbers."""


@dataclass(frozen=True)
class Column:
    """One column: its name, its Polars type, and what it means."""

    name: str
    dtype: pl.DataType
    doc: str


@dataclass(frozen=True)
class Table:
    """One table of a capture; `row` says what one row is, `time` which column orders it."""

    name: str
    row: str
    time: str | None
    columns: tuple[Column, ...]

    @cached_property
    def schema(self) -> dict[str, pl.DataType]:
        """Column names and types, in order."""
        return {column.name: column.dtype for column in self.columns}

    @cached_property
    def _empty(self) -> pl.DataFrame:
        return pl.DataFrame(schema=self.schema)

    def empty(self) -> pl.DataFrame:
        """Return the table with no rows."""
        return self._empty.clone()


_I64, _I32, _F64, _STR, _BOOL = pl.Int64(), pl.Int32(), pl.Float64(), pl.String(), pl.Boolean()

SPANS = Table(
    "spans",
    "one timed operation",
    "start_ns",
    (
        Column("trace_hi", _I64, "upper half of the 128-bit trace id"),
        Column("trace_lo", _I64, "lower half of the trace id"),
        Column("span_id", _I64, "id of the span; never null (importers make one up if they must)"),
        Column("parent_id", _I64, "span id of the parent in the same trace; null for a root"),
        Column("parent_inferred", _BOOL, "the parent was inferred from times, not recorded"),
        Column("service", _STR, "service.name of the resource"),
        Column("instance", _STR, "service.instance.id, or host and pid: tells replicas apart"),
        Column("scope", _STR, "instrumentation scope that made the span"),
        Column("name", _STR, "span name"),
        Column("kind", _STR, "one of: " + ", ".join(KINDS)),
        Column("start_ns", _I64, "start, Unix time in ns"),
        Column("duration_ns", _I64, "length in ns; null while the span was still open"),
        Column("status", _STR, "one of: " + ", ".join(STATUSES) + "; see semconv.status"),
        Column("status_message", _STR, "what the status says"),
        Column("endpoint", _STR, "method and route of a served request, e.g. `POST /tools/{id}`"),
        Column("http_method", _STR, "HTTP method"),
        Column("http_status", _I32, "HTTP response status"),
        Column("tool", _STR, "name of the MCP or GenAI tool that the span invokes"),
        Column("tool_arguments", _STR, "arguments of the tool call, as recorded"),
        Column("peer", _STR, "whom a client span calls: service, or host and port"),
        Column("db_system", _STR, "database product of a database span, e.g. `postgresql`"),
        Column(
            "db_statement",
            _STR,
            "text of the query, as recorded; a MongoDB filter follows command and collection",
        ),
        Column("db_rows", _I64, "rows returned, where the instrumentation says it"),
        Column("thread_id", _I64, "OS thread that ran the span"),
        Column("pid", _I64, "process that ran the span"),
        Column("adjusted_count", _F64, "how many spans this one stands for; 1 when not sampled"),
        Column("attributes", _STR, "all other attributes, as a JSON object; null when none"),
        Column("resource", _STR, "all other resource attributes, as a JSON object"),
    ),
)

SPAN_EVENTS = Table(
    "span_events",
    "one event inside a span: an exception, a retry, a message",
    "ts_ns",
    (
        Column("trace_hi", _I64, "upper half of the trace id of the span"),
        Column("trace_lo", _I64, "lower half of the trace id of the span"),
        Column("span_id", _I64, "the span"),
        Column("ts_ns", _I64, "when, Unix time in ns"),
        Column("name", _STR, "event name, e.g. `exception`"),
        Column("attributes", _STR, "attributes as a JSON object"),
    ),
)

SPAN_LINKS = Table(
    "span_links",
    "one link from a span to another, causally related but not its parent (follows-from)",
    None,
    (
        Column("trace_hi", _I64, "upper half of the trace id of the span"),
        Column("trace_lo", _I64, "lower half of the trace id of the span"),
        Column("span_id", _I64, "the span"),
        Column("linked_trace_hi", _I64, "upper half of the trace id of the linked span"),
        Column("linked_trace_lo", _I64, "lower half of the trace id of the linked span"),
        Column("linked_span_id", _I64, "the linked span"),
        Column("attributes", _STR, "attributes as a JSON object"),
    ),
)

SAMPLES = Table(
    "samples",
    "one stack seen on one thread for a while",
    "ts_ns",
    (
        Column("ts_ns", _I64, "when the stack was first seen; null when the source has no times"),
        Column("duration_ns", _I64, "how long it stayed; null when the source has only counts"),
        Column("count", _I64, "how many observations this row stands for"),
        Column("pid", _I64, "process"),
        Column("tid", _I64, "OS thread id"),
        Column("thread_name", _STR, "name of the thread"),
        Column("stack_id", _I64, "the stack, see table `stacks`"),
        Column("state", _STR, "`running`, `idle`, or null when not known"),
        Column(
            "unseen_ns",
            _I64,
            "CPU time that the thread used meanwhile in code that no look saw, such as computing "
            "for a moment between two looks that found it waiting here; null where not known",
        ),
        Column(
            "gil_ns",
            _I64,
            "for how long of it the thread held the interpreter's lock (GIL): the looks, about 50 "
            "a second, that found it so, each counted until the next one: only sums over many rows "
            "are right; null where the lock was not watched",
        ),
    ),
)

STACKS = Table(
    "stacks",
    "one call path, as a link to its caller's path",
    None,
    (
        Column("stack_id", _I64, "hash of the path from the root, equal in every capture"),
        Column("parent_id", _I64, "path of the caller; null at the root"),
        Column("frame_id", _I64, "the innermost frame, see table `frames`"),
        Column("depth", _I32, "0 at the root"),
    ),
)

FRAMES = Table(
    "frames",
    "one code location",
    None,
    (
        Column("frame_id", _I64, "hash of function, file and line, equal in every capture"),
        Column("function", _STR, "function, qualified where the source says it"),
        Column("file", _STR, "file as the source names it"),
        Column("line", _I32, "line number; null when unknown"),
        Column("module", _STR, "dotted module or library name, guessed from the file"),
        Column("category", _STR, "`app`, `library`, `stdlib`, `native` or `thread`"),
    ),
)

METRICS = Table(
    "metrics",
    "one observation of one series",
    "ts_ns",
    (
        Column("ts_ns", _I64, "when, Unix time in ns"),
        Column("name", _STR, "OpenTelemetry semantic convention, e.g. `process.cpu.utilization`"),
        Column("unit", _STR, "UCUM unit as in OpenTelemetry: `By`, `s`, `1`, `{thread}` ..."),
        Column("value", _F64, "the value; for a histogram the sum of what was observed"),
        Column("count", _I64, "for a histogram how many observations; else null"),
        Column("kind", _STR, "`gauge`, `counter` or `histogram` (both cumulative), `delta`"),
        Column("service", _STR, "service.name, or null for the host"),
        Column("instance", _STR, "which replica or process"),
        Column("attributes", _STR, "attributes as a JSON object with sorted keys; null when none"),
    ),
)

TABLES: tuple[Table, ...] = (SPANS, SPAN_EVENTS, SPAN_LINKS, SAMPLES, STACKS, FRAMES, METRICS)
BY_NAME: dict[str, Table] = {table.name: table for table in TABLES}
