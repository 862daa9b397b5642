"""OTLP spans to rows of `spans`, `span_events` and `span_links`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from typing import Any

from perfkit import model, semconv
from perfkit.batch import Batch
from perfkit.formats.attributes import UNDECODABLE, AttributeCache, fragment
from perfkit.formats.spans import MAX_TIME_NS, MIN_TIME_NS, Origin, SpanBatch, origin, problem

NOT_NANOSECONDS = "span whose start is not in nanoseconds since 1970"
LEFT_OUT = "attributes that cannot be decoded"
"""They cost no span: what else it says is still true."""

_KIND_NAMES = model.KINDS
KINDS: dict[object, str] = dict(enumerate(_KIND_NAMES))
KINDS |= {f"SPAN_KIND_{name.upper()}": name for name in _KIND_NAMES}
KINDS |= {str(number): name for number, name in enumerate(_KIND_NAMES)}
"""Number, name, or number as text -> value of `spans.kind`."""
STATUSES: dict[object, str] = dict(enumerate(model.STATUSES))
STATUSES |= {f"STATUS_CODE_{name.upper()}": name for name in model.STATUSES}
STATUSES |= {str(number): name for number, name in enumerate(model.STATUSES)}


@dataclass(frozen=True)
class Edge:
    """How protobuf and JSON differ: ids, text, and what is kept encoded. The fields are equal."""

    text: Callable[[Any], str]
    trace_id: Callable[[Any], tuple[int, int]]
    span_id: Callable[[Any], int | None]
    encoded: Callable[[Any], Sequence[bytes]]
    header: Callable[..., tuple[str, str, list[bytes]]]
    present: Callable[[Any, str], bool]
    """Whether a message has a value for an optional member."""
    attributes: AttributeCache


def decode_origin(edge: Edge, raw_resource: bytes, raw_scope: bytes = b"") -> Origin:
    """Decode a resource and a scope. Raises InputError."""
    cache = edge.attributes
    _, _, of_resource = edge.header(raw_resource, scope=False)
    attributes = cache.values_of(of_resource)
    name, version, of_scope = edge.header(raw_scope, scope=True)
    if version:
        attributes["otel.scope.version"] = version
    if of_scope:
        attributes["otel.scope.attributes"] = cache.values_of(of_scope)
    return origin(attributes, name, cache.undecodable((*of_resource, *of_scope)))


@lru_cache(maxsize=1024)
def _sampled_count(trace_state: str) -> float | None:
    return semconv.sampled_count(trace_state)


def trace_state_fragment(trace_state: str) -> str:
    """Write a trace state as a member of the JSON of the other attributes."""
    return fragment("w3c.tracestate", trace_state)


class SpanRows:
    """Collects the rows of one body. Bad spans and attributes are counted as rejected."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._rows = SpanBatch()

    def add(self, spans: Sequence[Any], source: Origin) -> None:
        """Take the spans of one scope."""
        rows, reject = self._rows, self._rows.batch.reject
        before = len(rows.spans)
        if spans and source.left_out:
            reject(LEFT_OUT, source.left_out)
        text = self._edge.text
        trace_id, span_id = self._edge.trace_id, self._edge.span_id
        for span in spans:
            try:
                start_ns = int(span.start_time_unix_nano or 0)
                end_ns = int(span.end_time_unix_nano or 0)
            except (ValueError, OverflowError):
                reject("span whose time is no number")
                continue
            trace = trace_id(span.trace_id)
            own_id = span_id(span.span_id)
            # A start of zero is how protobuf says that there is none.
            refusal = problem(trace, own_id, start_ns or -1, end_ns or None)
            if refusal is not None:
                reject(refusal)
                continue
            if start_ns < MIN_TIME_NS:
                reject(NOT_NANOSECONDS)
                continue
            columns, attributes, message = self._describe(span, source.pid)
            if span.events or span.links:
                self.add_events(span, trace, own_id)
            rows.resolved.append(columns)
            rows.spans.append(
                (
                    *(*trace, own_id, span_id(span.parent_span_id)),
                    *(text(span.name), start_ns, end_ns - start_ns if end_ns else None),
                    *(message, attributes),
                )
            )
            if (
                span.dropped_attributes_count
                or span.dropped_events_count
                or span.dropped_links_count
            ):
                self._count_dropped(span)
        rows.origins.extend(repeat(source, len(rows.spans) - before))

    def _describe(
        self, span: Any, pid: int | None
    ) -> tuple[tuple[Any, ...], str | None, str | None]:
        """Return the columns that the attributes fill, the other attributes, and the message."""
        cache = self._edge.attributes
        encoded = self._edge.encoded(span.attributes)
        tokens, rest = cache.parted(encoded)
        if rest.pop(UNDECODABLE, None) is not None:
            self.reject(LEFT_OUT, cache.undecodable(encoded))
        status = span.status
        code = status.code if status else 0
        columns, leftover = cache.resolve(
            (KINDS.get(span.kind, "unspecified"), STATUSES.get(code, "unset"), pid, tokens),
            encoded,
        )
        trace_state = self._edge.text(span.trace_state)
        if trace_state:
            rest["w3c.tracestate"] = trace_state_fragment(trace_state)
            count = _sampled_count(trace_state) if "ot=" in trace_state else None
            if count is not None:
                columns = (*columns[:2], count, *columns[3:])
        if leftover:
            rest.update(leftover)
        attributes = "{" + ",".join(rest.values()) + "}" if rest else None
        return columns, attributes, (self._edge.text(status.message) or None) if code else None

    def _count_dropped(self, span: Any) -> None:
        for what, count in (
            ("attributes", span.dropped_attributes_count),
            ("events", span.dropped_events_count),
            ("links", span.dropped_links_count),
        ):
            if count:
                self._rows.batch.reject(f"{what} that the sender had dropped", count)

    def reject(self, reason: str, count: int) -> None:
        """Count something that was refused."""
        self._rows.batch.reject(reason, count)

    def add_events(self, span: Any, trace: tuple[int, int], own_id: int | None) -> None:
        """Take the events and links of a span."""
        edge = self._edge
        events, links = [], []
        for event in span.events or ():
            try:
                ts_ns = int(event.time_unix_nano or 0)
            except (ValueError, OverflowError):
                ts_ns = -1
            if not 0 < ts_ns < MAX_TIME_NS:
                self._rows.batch.reject("event without a plausible time")
                continue
            attributes = self._object_of(event)
            events.append((*trace, own_id, ts_ns, edge.text(event.name), attributes))
        for link in span.links or ():
            linked = edge.span_id(link.span_id)
            linked_trace = edge.trace_id(link.trace_id)
            if linked is None or linked_trace == (0, 0):
                self._rows.batch.reject("link without ids")
                continue
            links.append((*trace, own_id, *linked_trace, linked, self._object_of(link)))
        self._rows.events += events
        self._rows.links += links

    def _object_of(self, owner: Any) -> str | None:
        cache, encoded = self._edge.attributes, self._edge.encoded(owner.attributes)
        if lost := cache.undecodable(encoded):
            self.reject(LEFT_OUT, lost)
        return cache.object_of(encoded)

    def finish(self) -> Batch:
        """Return everything as columns."""
        return self._rows.finish()
