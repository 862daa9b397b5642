"""OTLP spans to rows of `spans`, `span_events` and `span_links`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from typing import Any

from perfkit import model, semconv
from perfkit.batch import Batch
from perfkit.formats.attributes import (
    RESOLVED_COLUMNS,
    AttributeCache,
    DamagedAttribute,
    fragment,
    json_object,
)

MAX_DURATION_NS = 366 * 86_400 * 10**9
"""A span longer than a year is taken for damaged. Our own number."""
_MAX_TIME_NS = 2**63 - MAX_DURATION_NS

_KIND_NAMES = model.KINDS
KINDS: dict[object, str] = dict(enumerate(_KIND_NAMES))
KINDS |= {f"SPAN_KIND_{name.upper()}": name for name in _KIND_NAMES}
KINDS |= {str(number): name for number, name in enumerate(_KIND_NAMES)}
"""Number, name, or number as text -> value of `spans.kind`."""
STATUSES: dict[object, str] = dict(enumerate(model.STATUSES))
STATUSES |= {f"STATUS_CODE_{name.upper()}": name for name in model.STATUSES}
STATUSES |= {str(number): name for number, name in enumerate(model.STATUSES)}

SPAN_COLUMNS = (
    *("trace_hi", "trace_lo", "span_id", "parent_id"),
    *("name", "start_ns", "duration_ns", "status_message", "attributes"),
)
EVENT_COLUMNS = ("trace_hi", "trace_lo", "span_id", "ts_ns", "name", "attributes")
LINK_COLUMNS = (
    *("trace_hi", "trace_lo", "span_id"),
    *("linked_trace_hi", "linked_trace_lo", "linked_span_id", "attributes"),
)


@dataclass(frozen=True)
class Edge:
    """How protobuf and JSON differ: ids, and what is kept encoded. The field names are equal."""

    trace_id: Callable[[Any], tuple[int, int]]
    span_id: Callable[[Any], int | None]
    encoded: Callable[[Any], Sequence[bytes]]
    header: Callable[..., tuple[str, str, list[bytes]]]
    attributes: AttributeCache


@dataclass(frozen=True)
class Origin:
    """What all spans of one scope of one resource share."""

    service: str
    instance: str | None
    scope: str | None
    resource: str | None
    pid: int | None


def origin(edge: Edge, raw_resource: bytes, raw_scope: bytes = b"") -> Origin:
    """Decode a resource and a scope. Raises InputError or DamagedAttribute."""
    _, _, encoded = edge.header(raw_resource, scope=False)
    attributes = edge.attributes.values_of(encoded)
    instance = semconv.instance(attributes)
    pid = semconv.promote(dict(attributes), "internal")["pid"]
    service = attributes.pop("service.name", None)
    if instance is not None:
        attributes.pop("service.instance.id", None)
    if pid is not None:
        attributes.pop("process.pid")
    name, version, encoded = edge.header(raw_scope, scope=True)
    if version:
        attributes["otel.scope.version"] = version
    if encoded:
        attributes["otel.scope.attributes"] = edge.attributes.values_of(encoded)
    rest = json_object(fragment(key, value) for key, value in attributes.items())
    return Origin(
        service=str(service) if service not in (None, "") else "unknown_service",
        instance=instance,
        scope=name or None,
        resource=rest,
        pid=pid if isinstance(pid, int) else None,
    )


@lru_cache(maxsize=1024)
def _sampled_count(trace_state: str) -> float:
    return semconv.adjusted_count({}, trace_state)


class SpanRows:
    """Collects the rows of one body. Bad spans are counted in `batch.rejected`."""

    def __init__(self, edge: Edge) -> None:
        self.batch = Batch()
        self._edge = edge
        self._spans: list[tuple[Any, ...]] = []
        self._columns: list[tuple[Any, ...]] = []
        self._origins: list[tuple[int, Origin]] = []
        self._events: list[tuple[Any, ...]] = []
        self._links: list[tuple[Any, ...]] = []

    def add(self, spans: Iterable[Any], source: Origin) -> None:
        """Take the spans of one scope."""
        before = len(self._spans)
        trace_id, span_id = self._edge.trace_id, self._edge.span_id
        for span in spans:
            try:
                start_ns = int(span.start_time_unix_nano or 0)
                end_ns = int(span.end_time_unix_nano or 0)
            except (ValueError, OverflowError):
                self.batch.reject("span whose time is no number")
                continue
            trace_hi, trace_lo = trace = trace_id(span.trace_id)
            own_id = span_id(span.span_id)
            if (
                own_id is None
                or not (trace_hi or trace_lo)
                or not 0 < start_ns < _MAX_TIME_NS
                or (end_ns and not 0 <= end_ns - start_ns <= MAX_DURATION_NS)
            ):
                self.batch.reject(_problem(trace, own_id, start_ns, end_ns))
                continue
            try:
                columns, attributes, message = self._describe(span, source.pid)
                if span.events or span.links:
                    self._add_events(span, trace, own_id)
            except DamagedAttribute:
                self.batch.reject("span with an attribute that cannot be decoded")
                continue
            self._columns.append(columns)
            self._spans.append(
                (
                    *(trace_hi, trace_lo, own_id, span_id(span.parent_span_id)),
                    *(span.name or "", start_ns, end_ns - start_ns if end_ns else None),
                    *(message, attributes),
                )
            )
            if (
                span.dropped_attributes_count
                or span.dropped_events_count
                or span.dropped_links_count
            ):
                self._count_dropped(span)
        self._origins.append((len(self._spans) - before, source))

    def _describe(
        self, span: Any, pid: int | None
    ) -> tuple[tuple[Any, ...], str | None, str | None]:
        """Return the columns that the attributes fill, the other attributes, and the message.

        Raises DamagedAttribute.
        """
        cache = self._edge.attributes
        encoded = self._edge.encoded(span.attributes)
        rest: dict[str, str] = {}
        tokens: list[int] = []
        for raw in encoded:
            key, text, token = cache[raw]
            if token:
                tokens.append(token)
            else:
                rest[key] = text
        status = span.status
        code = status.code if status else 0
        columns, leftover = cache.resolve(
            (KINDS.get(span.kind, "unspecified"), STATUSES.get(code, "unset"), pid, tuple(tokens)),
            encoded,
        )
        trace_state = span.trace_state
        if trace_state:
            rest["w3c.tracestate"] = fragment("w3c.tracestate", trace_state)
            if "ot=" in trace_state:
                columns = (*columns[:2], _sampled_count(trace_state), *columns[3:])
        if leftover:
            rest.update(leftover)
        attributes = "{" + ",".join(rest.values()) + "}" if rest else None
        return columns, attributes, (status.message or None) if code else None

    def _count_dropped(self, span: Any) -> None:
        for what, count in (
            ("attributes", span.dropped_attributes_count),
            ("events", span.dropped_events_count),
            ("links", span.dropped_links_count),
        ):
            if count:
                self.batch.reject(f"{what} that the sender had dropped", count)

    def _add_events(self, span: Any, trace: tuple[int, int], own_id: int | None) -> None:
        edge = self._edge
        events, links = [], []
        for event in span.events or ():
            try:
                ts_ns = int(event.time_unix_nano or 0)
            except (ValueError, OverflowError):
                ts_ns = -1
            if not 0 < ts_ns < _MAX_TIME_NS:
                self.batch.reject("event without a plausible time")
                continue
            text = edge.attributes.object_of(edge.encoded(event.attributes))
            events.append((*trace, own_id, ts_ns, event.name or "", text))
        for link in span.links or ():
            linked = edge.span_id(link.span_id)
            linked_trace = edge.trace_id(link.trace_id)
            if linked is None or linked_trace == (0, 0):
                self.batch.reject("link without ids")
                continue
            text = edge.attributes.object_of(edge.encoded(link.attributes))
            links.append((*trace, own_id, *linked_trace, linked, text))
        self._events += events
        self._links += links

    def finish(self) -> Batch:
        """Return everything as columns."""
        for table, names, rows in (
            ("spans", SPAN_COLUMNS, self._spans),
            ("span_events", EVENT_COLUMNS, self._events),
            ("span_links", LINK_COLUMNS, self._links),
        ):
            if rows:
                self.batch.tables[table] = _columns(names, rows)
        if self._spans:
            spans = self.batch.tables["spans"]
            spans |= _columns(RESOLVED_COLUMNS, self._columns)
            for name in ("service", "instance", "scope", "resource"):
                spans[name] = [
                    value
                    for count, source in self._origins
                    for value in repeat(getattr(source, name), count)
                ]
            spans["parent_inferred"] = [False] * len(self._spans)
        return self.batch


def _columns(names: tuple[str, ...], rows: list[tuple[Any, ...]]) -> dict[str, list[Any]]:
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def _problem(trace: tuple[int, int], own_id: int | None, start_ns: int, end_ns: int) -> str:
    """Say why a span cannot be taken."""
    if own_id is None or trace == (0, 0):
        return "span without ids"
    if not 0 < start_ns < _MAX_TIME_NS:
        return "span without a plausible start time"
    if end_ns < start_ns:
        return "span that ends before it starts"
    return "span longer than a year"
