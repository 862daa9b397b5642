"""Spans of Jaeger's JSON, gathered from many traces and files, and made columns all at once.

What repeats is read once: a list of tags, the processes of a trace. Ids and times are converted in
columns; only spans with events, links or something unusual are looked at one by one.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl

from perfkit import ids, model
from perfkit.batch import Batch
from perfkit.capture import CaptureWriter
from perfkit.formats.attributes import (
    RESOLVED_COLUMNS,
    UNDECODABLE,
    json_object,
)
from perfkit.formats.spans import (
    EVENT_COLUMNS,
    LINK_COLUMNS,
    MAX_DURATION_NS,
    MAX_TIME_NS,
    Origin,
)
from perfkit.importers import id_columns
from perfkit.importers.jaeger_document import (
    Number,
    Process,
    Span,
    Trace,
    origin_of,
    processes_of,
    tags,
    tags_of,
)
from perfkit.importers.rows import WallTimes

_MAX_INT = 2**63 - 1
_MAX_US = _MAX_INT // 1000
_KEPT_IDS = 1 << 10
_LEFT_OUT = "tags that cannot be decoded"

_Row = tuple[Any, ...]

_DESCRIBED = (*RESOLVED_COLUMNS, "status_message", "scope", "attributes")


class _Descriptions(dict[bytes, int]):
    """The text of a span's tags -> number of the row of what they say."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[_Row] = []
        """Values of _DESCRIBED."""
        self.left_out: dict[int, int] = {}
        """Row -> how many of its tags cannot be decoded."""

    def __missing__(self, text: bytes) -> int:
        encoded = tags_of(text)
        number = len(self.rows)
        tokens, rest = tags().parted(encoded)
        if rest.pop(UNDECODABLE, None) is not None:
            self.left_out[number] = tags().undecodable(encoded)
        resolved = tags().resolve(("unspecified", "unset", None, tokens), encoded)
        others = json_object((rest | resolved.leftover).values())
        self.rows.append((*resolved.columns, others))
        self[text] = number
        return number


class _Origins:
    """Where spans come from, numbered."""

    def __init__(self) -> None:
        self.rows: list[Origin] = []
        self._numbers: dict[Origin, int] = {}
        self._of_processes: dict[bytes, dict[str, int]] = {}

    def of(self, trace: Trace) -> list[int]:
        """Return one for each span of a trace."""
        text = bytes(trace.processes)
        known = self._of_processes.get(text)
        if known is None:
            known = {name: self._of(process) for name, process in processes_of(trace).items()}
            self._of_processes[text] = known
        spans = trace.spans or ()
        found = [known.get(span.processID or "") for span in spans]
        if None not in found:
            return found  # type: ignore[return-value]
        return [
            self._unlisted(span, trace) if number is None else number
            for span, number in zip(spans, found, strict=True)
        ]

    def _unlisted(self, span: Span, trace: Trace) -> int:
        process = span.process
        if process is None and trace.cut:
            process = Process(span.processID)
        return self._of(process)

    def _of(self, process: Process | None) -> int:
        found = origin_of(process)
        number = self._numbers.setdefault(found, len(self.rows))
        if number == len(self.rows):
            self.rows.append(found)
        return number


class Spans:
    """Gathers spans of traces; `finish` gives them to a capture."""

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._trace_texts: list[str] = []
        self._described: list[int] = []
        self._origin: list[int] = []
        self._sizes: list[int] = []
        self._sampled: list[float | None] = []
        self._descriptions = _Descriptions()
        self._origins = _Origins()

    def __len__(self) -> int:
        return len(self._spans)

    def add(self, trace: Trace, sampled: float | None = None) -> None:
        """Take spans of one trace, which stands for `sampled`; null where all spans are here.

        Raises msgspec.DecodeError, and takes none, where tags are no list or processes are none.
        """
        spans = trace.spans or []
        known, whole = self._descriptions, trace.traceID or ""
        described = [known[bytes(span.tags)] for span in spans]
        self._origin += self._origins.of(trace)
        self._described += described
        self._spans += spans
        self._trace_texts += [span.traceID or whole for span in spans]
        self._sizes.append(len(spans))
        self._sampled.append(sampled)

    def mark(self) -> tuple[int, int]:
        """Return how far it has come, for `back_to`."""
        return len(self._spans), len(self._sizes)

    def back_to(self, mark: tuple[int, int]) -> None:
        """Forget what was added since a mark."""
        spans, traces = mark
        for of_spans in (self._spans, self._trace_texts, self._described, self._origin):
            del of_spans[spans:]
        for of_traces in (self._sizes, self._sampled):
            del of_traces[traces:]

    def finish(self, writer: CaptureWriter, times: WallTimes) -> None:
        """Give everything to a capture, and say of what times it was."""
        batch = Batch()
        frame = self.frame(batch)
        if frame.height:
            start = pl.col("start_ns")
            times.seen(*frame.select(start.min(), start.max().alias("last")).row(0))
            writer.append("spans", frame)
        writer.add(batch)

    def frame(self, batch: Batch) -> pl.DataFrame:
        """Return the spans that are good; events, links and what is refused go to `batch`."""
        if not self._spans:
            return model.SPANS.empty()
        rows = self._own_columns()
        refused = rows.select(_refusal().alias("why")).to_series()
        good = refused.is_null()
        self._add_events(rows, good, batch)
        rows = self._with_parents(rows, good, batch)
        described = pl.Series(self._described, dtype=pl.Int64)
        origins = pl.Series(self._origin, dtype=pl.Int64)
        if not good.all():
            for why, count in refused.drop_nulls().value_counts(sort=True).iter_rows():
                batch.reject(why, count)
            rows = rows.filter(good)
            described, origins = described.filter(good), origins.filter(good)
        for number, count in self._descriptions.left_out.items():
            if spans := int((described == number).sum()):
                batch.reject(_LEFT_OUT, count * spans)
        if lost := self._lost_of_processes(good):
            batch.reject(_LEFT_OUT, lost)
        told = self._described_columns()[described]
        whole = rows.hstack(told).hstack(self._origin_columns()[origins])
        whole = whole.with_columns(
            pid=pl.coalesce("pid", "origin_pid"), parent_inferred=pl.lit(value=False)
        )
        return self._sampled_together(whole, good).select(model.SPANS.schema.keys())

    def _lost_of_processes(self, good: pl.Series) -> int:
        """Count tags of processes that cannot be decoded: each trace says them again."""
        lost = [origin.left_out for origin in self._origins.rows]
        if not any(lost):
            return 0
        trace = np.repeat(np.arange(len(self._sizes)), self._sizes)
        seen = pl.DataFrame({"trace": trace, "origin": self._origin}).filter(good).unique()
        return sum(lost[number] for number in seen["origin"])

    def _own_columns(self) -> pl.DataFrame:
        """Return ids, name and times of all spans."""
        spans = self._spans
        high, low = id_columns.trace_ids(self._trace_texts)
        return pl.DataFrame(
            {
                "trace_hi": high,
                "trace_lo": low,
                "span_id": id_columns.span_ids([span.spanID for span in spans]),
                "name": pl.Series([span.operationName or "" for span in spans], dtype=pl.String),
                "start_ns": _in_ns([span.startTime for span in spans]),
                "duration_ns": _in_ns([span.duration for span in spans]),
            }
        )

    def _add_events(self, rows: pl.DataFrame, good: pl.Series, batch: Batch) -> None:
        """Add the events of good spans."""
        found: list[_Row] = []
        for place, span in enumerate(self._spans):
            if span.logs and good[place]:
                found += _events(span, rows.row(place)[:3], batch)
        batch.add_rows("span_events", EVENT_COLUMNS, found)

    def _with_parents(self, rows: pl.DataFrame, good: pl.Series, batch: Batch) -> pl.DataFrame:
        """Add the column of parents, and the links of good spans."""
        texts, unusual = self._parent_texts()
        parents = id_columns.span_ids(texts)
        links: list[_Row] = []
        found = [
            _parent(self._spans[place], rows.row(place)[:3], links) if good[place] else None
            for place in unusual
        ]
        if unusual:
            parents = parents.scatter(unusual, pl.Series(found, dtype=pl.Int64))
        batch.add_rows("span_links", LINK_COLUMNS, links)
        return rows.with_columns(parent_id=parents)

    def _parent_texts(self) -> tuple[list[str | None], list[int]]:
        """Return the text of each parent's id, and the places of spans with other references."""
        texts: list[str | None] = []
        unusual: list[int] = []
        for place, (span, trace) in enumerate(zip(self._spans, self._trace_texts, strict=True)):
            references = span.references
            if not references:
                texts.append(span.parentSpanID)
                continue
            first = references[0]
            if (
                len(references) == 1
                and first.refType == "CHILD_OF"
                and first.traceID == trace
                and span.parentSpanID is None
            ):
                texts.append(first.spanID)
            else:
                texts.append(None)
                unusual.append(place)
        return texts, unusual

    def _described_columns(self) -> pl.DataFrame:
        rows = zip(*self._descriptions.rows, strict=True)
        return pl.DataFrame(
            [
                pl.Series(name, values, dtype=model.SPANS.schema[name])
                for name, values in zip(_DESCRIBED, rows, strict=True)
            ]
        )

    def _origin_columns(self) -> pl.DataFrame:
        origins = self._origins.rows
        named = [
            pl.Series(name, [getattr(one, name) for one in origins], dtype=model.SPANS.schema[name])
            for name in ("service", "instance", "resource")
        ]
        pids = pl.Series(
            "origin_pid", [one.pid for one in origins], dtype=model.SPANS.schema["pid"]
        )
        return pl.DataFrame([*named, pids])

    def _sampled_together(self, rows: pl.DataFrame, good: pl.Series) -> pl.DataFrame:
        """Let all spans of a trace stand for as many as any of them does."""
        if all(one in (None, 1.0) for one in self._sampled) and (rows["adjusted_count"] == 1).all():
            return rows
        trace = pl.Series(np.repeat(np.arange(len(self._sizes)), self._sizes))
        given = pl.Series(self._sampled, dtype=pl.Float64).gather(trace).filter(good)
        together = pl.coalesce(given, pl.col("adjusted_count").max().over(trace.filter(good)))
        own = pl.col("adjusted_count")
        return rows.with_columns(
            adjusted_count=pl.when(together != 1).then(together).otherwise(own)
        )


def _refusal() -> pl.Expr:
    """Say why a span cannot be taken, as `formats.spans.problem` does; null for a good one."""
    no_trace = (pl.col("trace_hi") == 0) & (pl.col("trace_lo") == 0)
    start, duration = pl.col("start_ns"), pl.col("duration_ns")
    return (
        pl.when(pl.col("span_id").is_null() | no_trace)
        .then(pl.lit("span without ids"))
        .when((start < 0) | (start >= MAX_TIME_NS))
        .then(pl.lit("span without a plausible start time"))
        .when(duration < 0)
        .then(pl.lit("span that ends before it starts"))
        .when(duration > MAX_DURATION_NS)
        .then(pl.lit("span longer than a year"))
    )


def _in_ns(values: Sequence[Number | None]) -> pl.Series:
    """Return times of microseconds; what is none, or too large, is out of every range."""
    try:
        times = pl.Series(values, dtype=pl.Int64, strict=True)
    except TypeError:  # not all are integers
        pass
    else:
        if times.is_between(-_MAX_US, _MAX_US).all():
            return times * 1000
    return pl.Series(
        [None if one is None else max(-1, min(_ns(one), _MAX_INT)) for one in values],
        dtype=pl.Int64,
    )


def _ns(microseconds: Number) -> int:
    """Return ns; -1, which is refused as a time, for what is no number."""
    try:
        if isinstance(microseconds, int):
            return microseconds * 1000
        return round(float(microseconds) * 1000)
    except (ValueError, OverflowError):
        return -1


def _events(span: Span, own: _Row, batch: Batch) -> Iterator[_Row]:
    for log in span.logs or ():
        ts_ns = _ns(log.timestamp)
        if not 0 <= ts_ns < MAX_TIME_NS:
            batch.reject("event without a plausible time")
            continue
        encoded = [bytes(raw) for raw in log.fields or ()]
        if lost := tags().undecodable(encoded):
            batch.reject(_LEFT_OUT, lost)
        name = tags().values_of(encoded).get("event")
        yield (*own, ts_ns, str(name or "log"), tags().object_of(encoded))


@functools.lru_cache(_KEPT_IDS)
def _trace_id(text: str) -> tuple[int, int]:
    return ids.trace_id_from_text(text)


def _parent(span: Span, own: _Row, links: list[_Row]) -> int | None:
    """Return the parent's id. References that are no parent, and every FOLLOWS_FROM, are links."""
    trace_id = own[:2]
    parent_id = follows = None
    for reference in span.references or ():
        target = ids.span_id_from_text(reference.spanID)
        if target is None:
            continue
        trace = _trace_id(reference.traceID) if reference.traceID else trace_id
        child_of = reference.refType == "CHILD_OF"
        if child_of and trace == trace_id and parent_id is None:
            parent_id = target
            continue
        links.append((*own, *trace, target, None))
        if not child_of and trace == trace_id and follows is None:
            follows = target
    if parent_id is None:
        parent_id = follows
    return parent_id if parent_id is not None else ids.span_id_from_text(span.parentSpanID)
