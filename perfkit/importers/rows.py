"""Rows of spans, samples and metrics, given one at a time, to a capture in batches.

Used as context managers: what was given before an error is in the capture.
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Mapping
from typing import Any

from perfkit import units
from perfkit.batch import Batch
from perfkit.capture import CaptureWriter
from perfkit.formats.attributes import fragment, json_object, resolve_span
from perfkit.formats.spans import (
    MAX_DURATION_NS,
    MAX_TIME_NS,
    MIN_TIME_NS,
    Origin,
    SpanBatch,
    origin,
    problem,
)
from perfkit.importers.base import Source
from perfkit.long_values import beginning
from perfkit.semconv import Value

_BATCH_ROWS = 50_000
_MAX_DIGITS = 60
_MAX_INT = 2**63 - 1
_LATEST_NS = 4_102_444_800_000_000_000  # the year 2100

_SAMPLE_COLUMNS = (
    *("ts_ns", "duration_ns", "count", "pid", "tid", "thread_name", "stack_id", "state"),
)
_METRIC_COLUMNS = (
    *("ts_ns", "name", "unit", "value", "count", "kind", "service", "instance", "attributes"),
)

Id = tuple[int, int]
"""A trace id, as (high, low)."""


class WallTimes:
    """From when to when the times of a file are, and whether these can be times of a clock."""

    def __init__(self) -> None:
        self._earliest_ns = _MAX_INT
        self._latest_ns = 0

    def seen(self, earliest_ns: int, latest_ns: int) -> None:
        """Take in that there are these times, and others between them."""
        self._earliest_ns = min(self._earliest_ns, earliest_ns)
        self._latest_ns = max(self._latest_ns, latest_ns)

    def judge(self, name: str, writer: CaptureWriter) -> None:
        """Note it where they are not plausible."""
        if self._latest_ns and (self._earliest_ns < MIN_TIME_NS or self._latest_ns > _LATEST_NS):
            strange = self._earliest_ns if self._earliest_ns < MIN_TIME_NS else self._latest_ns
            writer.note(
                f"{name}: times such as {units.timestamp(strange)} are no plausible "
                "wall-clock times; they may be in another unit than the format says"
            )


class _Rows:
    def __init__(self, source: Source, writer: CaptureWriter) -> None:
        self.source = source
        self.writer = writer
        self._times = WallTimes()

    def __exit__(self, *_: object) -> None:
        self.flush()
        self._times.judge(self.source.name, self.writer)

    def _seen(self, ts_ns: int) -> None:
        self._times.seen(ts_ns, ts_ns)

    def flush(self) -> None:
        """Give everything to the capture."""
        raise NotImplementedError


class SpanRows(_Rows):
    """Collects spans with their events and links."""

    def __init__(self, source: Source, writer: CaptureWriter) -> None:
        super().__init__(source, writer)
        self._batch = SpanBatch()

    def __enter__(self) -> SpanRows:
        return self

    def reject(self, reason: str) -> None:
        """Count something that was refused."""
        self._batch.batch.reject(reason)

    def add(
        self,
        trace: Id,
        span_id: int | None,
        parent_id: int | None,
        name: str,
        start_ns: int | None,
        duration_ns: int | None,
        source: Origin,
        attributes: dict[str, Value],
        *,
        kind: str = "unspecified",
        status: str = "unset",
        message: str | None = None,
        inferred: bool = False,
    ) -> bool:
        """Take a span; false when it is refused, which is counted.

        `attributes` by their OpenTelemetry names; those that are None are absent.
        """
        begin_ns = start_ns if start_ns is not None else -1
        end_ns = begin_ns + duration_ns if duration_ns is not None else None
        refusal = problem(trace, span_id, begin_ns, end_ns)
        if refusal is not None:
            self.reject(refusal)
            return False
        present = {
            key: beginning(value) if isinstance(value, str) else value
            for key, value in attributes.items()
            if value is not None
        }
        try:
            resolved = resolve_span(kind, status, source.pid, present)
        except (ValueError, OverflowError, TypeError, RecursionError):
            self.reject("span with an attribute that cannot be read")
            return False
        rows = self._batch
        if inferred:
            rows.inferred.add(len(rows.spans))
        rest = json_object(resolved.leftover.values())
        rows.spans.append(
            (*trace, span_id, parent_id, beginning(name), begin_ns, duration_ns, message, rest)
        )
        rows.resolved.append(resolved.columns)
        rows.origins.append(source)
        self._seen(begin_ns)
        if len(rows.spans) >= _BATCH_ROWS:
            self.flush()
        return True

    def event(
        self, trace: Id, span_id: int, ts_ns: int | None, name: str, attributes: dict[str, Value]
    ) -> None:
        """Take an event of a span."""
        if ts_ns is None or not 0 <= ts_ns < MAX_TIME_NS:
            self.reject("event without a plausible time")
            return
        try:
            text = json_object(fragment(key, value) for key, value in attributes.items())
        except (ValueError, OverflowError, TypeError, RecursionError):
            self.reject("event with an attribute that cannot be read")
            return
        self._batch.events.append((*trace, span_id, ts_ns, name, text))

    def link(self, trace: Id, span_id: int, other_trace: Id, other_id: int) -> None:
        """Take a link to another span that is not the parent."""
        self._batch.links.append((*trace, span_id, *other_trace, other_id, None))

    def flush(self) -> None:
        """Give everything to the capture."""
        self.writer.add(self._batch.finish())
        self._batch = SpanBatch()


class SampleRows(_Rows):
    """Collects samples; their stacks are interned by `writer.stacks`."""

    def __init__(self, source: Source, writer: CaptureWriter) -> None:
        super().__init__(source, writer)
        self._batch = Batch()
        self._rows: list[tuple[Any, ...]] = []

    def __enter__(self) -> SampleRows:
        return self

    def reject(self, reason: str) -> None:
        """Count something that was refused."""
        self._batch.reject(reason)

    def add(
        self,
        stack_id: int,
        *,
        ts_ns: int | None = None,
        duration_ns: int | None = None,
        count: int = 1,
        pid: int | None = None,
        tid: int | None = None,
        thread_name: str | None = None,
        state: str | None = None,
    ) -> bool:
        """Take a sample; false when it is refused, which is counted."""
        if ts_ns is not None and not 0 <= ts_ns < MAX_TIME_NS:
            self.reject("sample without a plausible time")
            return False
        if duration_ns is not None and not 0 <= duration_ns <= MAX_DURATION_NS:
            self.reject("sample with an implausible duration")
            return False
        if not 0 < count < 2**53:
            self.reject("sample with an implausible count")
            return False
        row = (ts_ns, duration_ns, count, an_id(pid), an_id(tid), thread_name, stack_id, state)
        self._rows.append(row)
        if ts_ns is not None:
            self._seen(ts_ns)
        if len(self._rows) >= _BATCH_ROWS:
            self.flush()
        return True

    def flush(self) -> None:
        """Give everything to the capture."""
        self._batch.add_rows("samples", _SAMPLE_COLUMNS, self._rows)
        self.writer.add(self._batch)
        self._batch, self._rows = Batch(), []


class MetricRows(_Rows):
    """Collects observations."""

    def __init__(self, source: Source, writer: CaptureWriter) -> None:
        super().__init__(source, writer)
        self._batch = Batch()
        self._rows: list[tuple[Any, ...]] = []

    def __enter__(self) -> MetricRows:
        return self

    def reject(self, reason: str) -> None:
        """Count something that was refused."""
        self._batch.reject(reason)

    def add(
        self,
        ts_ns: int | None,
        name: str,
        unit: str,
        value: float,
        *,
        kind: str = "gauge",
        count: int | None = None,
        service: str | None = None,
        instance: str | None = None,
        attributes: Mapping[str, Value] | None = None,
    ) -> bool:
        """Take an observation; false when it is refused, which is counted."""
        if ts_ns is None or not 0 <= ts_ns < MAX_TIME_NS:
            self.reject("metric without a plausible time")
            return False
        if not math.isfinite(value) or (count is not None and not 0 <= count < _MAX_INT):
            self.reject("metric that is no finite number")
            return False
        named = attributes or {}
        text = json_object(fragment(key, named[key]) for key in sorted(named))
        self._rows.append((ts_ns, name, unit, value, count, kind, service, instance, text))
        self._seen(ts_ns)
        if len(self._rows) >= _BATCH_ROWS:
            self.flush()
        return True

    def flush(self) -> None:
        """Give everything to the capture."""
        self._batch.add_rows("metrics", _METRIC_COLUMNS, self._rows)
        self.writer.add(self._batch)
        self._batch, self._rows = Batch(), []


def from_process(service: str | None, **attributes: Value) -> Origin:
    """Make an origin; the dots in names of attributes are written as `__`, absent ones left out."""
    named: dict[str, Value] = {
        key.replace("__", "."): value
        for key, value in attributes.items()
        if value is not None and value != ""
    }
    return origin({**named, "service.name": service})


def an_id(value: object) -> int | None:
    """Return a process or thread id; null when it is none."""
    good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_INT
    return value if good and isinstance(value, int) else None


def scaled(value: object, factor: float) -> int | None:
    """Return a number times a factor as an integer; null when it is no number or too large."""
    if isinstance(value, str):
        try:  # exactly: a float of seconds since 1970 is right to 0.2 µs only
            exact = decimal.Decimal(value.strip()) if len(value) < _MAX_DIGITS else None
            result = None if exact is None else round(exact * decimal.Decimal(factor))
        except (ArithmeticError, ValueError):
            return None
        return result if result is not None and abs(result) <= _MAX_INT else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    try:
        result = round(value * factor)
    except OverflowError:
        return None
    return result if abs(result) <= _MAX_INT else None


def anchor(source: Source, writer: CaptureWriter, length_ns: int) -> int:
    """Return when a recording without wall-clock times began: as told, or as its file was written.

    Notes the assumption.
    """
    if source.started_at_ns is not None:
        return source.started_at_ns
    start_ns = max(0, source.modified_ns - length_ns)
    writer.note(
        f"{source.name} has no wall-clock times: it is taken to begin at "
        f"{units.timestamp(start_ns)}, its length before the file was last written, which is "
        "approximate; say --started-at to set it"
    )
    return start_ns
