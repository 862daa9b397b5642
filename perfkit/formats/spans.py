"""What the sources of spans share: which spans are refused, where they come from, their rows."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any

from perfkit import semconv
from perfkit.batch import Batch
from perfkit.formats.attributes import RESOLVED_COLUMNS, fragment, json_object
from perfkit.semconv import Value

MAX_DURATION_NS = 366 * 86_400 * 10**9
"""A span longer than a year is taken for damaged. Our own number."""
MAX_TIME_NS = 2**63 - MAX_DURATION_NS
MIN_TIME_NS = 10**17
"""March 1973. What is smaller in a format of nanoseconds was meant as µs, ms or s."""

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
class Origin:
    """What all spans of one process and one instrumentation scope share."""

    service: str
    instance: str | None = None
    scope: str | None = None
    resource: str | None = None
    pid: int | None = None
    left_out: int = 0
    """Attributes of the resource or the scope that could not be decoded."""


def origin(
    attributes: MutableMapping[str, Value], scope: str | None = None, left_out: int = 0
) -> Origin:
    """Make an origin from the attributes of a resource, which it takes."""
    instance = semconv.instance(attributes)
    pid = semconv.promote(dict(attributes), "internal")["pid"]
    service = attributes.pop("service.name", None)
    if instance is not None:
        attributes.pop("service.instance.id", None)
    if pid is not None:
        attributes.pop("process.pid")
    return Origin(
        service=str(service) if service not in (None, "") else "unknown_service",
        instance=instance,
        scope=scope or None,
        resource=json_object(fragment(key, value) for key, value in attributes.items()),
        pid=pid if isinstance(pid, int) else None,
        left_out=left_out,
    )


def problem(
    trace: tuple[int, int], span_id: int | None, start_ns: int, end_ns: int | None
) -> str | None:
    """Say why a span cannot be taken; null for a good one. `end_ns` is null while it is open."""
    if span_id is None or trace == (0, 0):
        return "span without ids"
    if not 0 <= start_ns < MAX_TIME_NS:
        return "span without a plausible start time"
    if end_ns is not None and end_ns < start_ns:
        return "span that ends before it starts"
    if end_ns is not None and end_ns - start_ns > MAX_DURATION_NS:
        return "span longer than a year"
    return None


@dataclass
class SpanBatch:
    """Rows of the three tables of spans, as tuples; `finish` makes them columns."""

    batch: Batch = field(default_factory=Batch)
    spans: list[tuple[Any, ...]] = field(default_factory=list)
    """Values of `SPAN_COLUMNS`."""
    resolved: list[tuple[Any, ...]] = field(default_factory=list)
    """Values of `RESOLVED_COLUMNS`, one for each of `spans`."""
    origins: list[Origin] = field(default_factory=list)
    """One for each of `spans`."""
    inferred: set[int] = field(default_factory=set)
    """Positions in `spans` whose parent was inferred."""
    events: list[tuple[Any, ...]] = field(default_factory=list)
    links: list[tuple[Any, ...]] = field(default_factory=list)

    def finish(self) -> Batch:
        """Return everything as columns."""
        self.batch.add_rows("spans", SPAN_COLUMNS, self.spans)
        self.batch.add_rows("spans", RESOLVED_COLUMNS, self.resolved)
        self.batch.add_rows("span_events", EVENT_COLUMNS, self.events)
        self.batch.add_rows("span_links", LINK_COLUMNS, self.links)
        if self.spans:
            spans = self.batch.tables["spans"]
            for name in ("service", "instance", "scope", "resource"):
                spans[name] = [getattr(source, name) for source in self.origins]
            spans["parent_inferred"] = [False] * len(self.spans)
            for position in self.inferred:
                spans["parent_inferred"][position] = True
        return self.batch
