"""OTLP protobuf spans to columns, many bodies at once: what `otlp.traces_from_protobuf` says, fast.

Spans are cut out by protobuf's parser and walked by NumPy (`wire_walk`). What repeats (attributes,
names, what the attributes of a span say together) is told apart by hashes and decoded once by the
same code that reads single bodies, which is also the oracle of the tests. Whatever is damaged or
unusual raises NotPlain: then the bodies are to be read one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import polars as pl

from perfkit import model, semconv
from perfkit.batch import Batch
from perfkit.errors import InputError
from perfkit.formats import otlp
from perfkit.formats import otlp_wire as wire
from perfkit.formats.attributes import RESOLVED_COLUMNS
from perfkit.formats.otlp_spans import (
    KINDS,
    LEFT_OUT,
    NOT_NANOSECONDS,
    SpanRows,
)
from perfkit.formats.span_attributes import SpanAttributes, spread
from perfkit.formats.spans import MAX_DURATION_NS, MAX_TIME_NS, MIN_TIME_NS, Origin
from perfkit.formats.wire_fields import FIXED64, LENGTH, VARINT, Field, fields
from perfkit.formats.wire_walk import (
    Bools,
    Buffer,
    Fields,
    Ints,
    NotPlain,
    Values,
    distinct,
)

_RESOURCE_SPANS, _SCOPE_SPANS, _SPANS = 1, 2, 2
_TRACE_ID, _SPAN_ID, _TRACE_STATE, _PARENT_ID, _NAME, _KIND, _START, _END = range(1, 9)
_ATTRIBUTES, _DROPPED_ATTRIBUTES, _EVENTS, _DROPPED_EVENTS = 9, 10, 11, 12
_LINKS, _DROPPED_LINKS, _STATUS = 13, 14, 15
_MESSAGE, _CODE = 2, 3
_IN_ORDER = (
    *((_TRACE_ID, LENGTH), (_SPAN_ID, LENGTH), (_TRACE_STATE, LENGTH), (_PARENT_ID, LENGTH)),
    *((_NAME, LENGTH), (_KIND, VARINT), (_START, FIXED64), (_END, FIXED64)),
)
"""Fields before the attributes, in the order in which they are usually written."""
_TEXTS = (_TRACE_ID, _SPAN_ID, _TRACE_STATE, _PARENT_ID, _NAME, _STATUS)
_WIRE = dict.fromkeys((*_TEXTS, _ATTRIBUTES, _EVENTS, _LINKS), LENGTH)
_WIRE |= dict.fromkeys((_START, _END), FIXED64)
_WIRE |= dict.fromkeys((_KIND, 10, 12, 14), VARINT)
_MAX_KEPT_ORIGIN = 1 << 14


@dataclass(frozen=True)
class Spans:
    """Rows of `spans`, and a batch with the rows of events and links and what was rejected."""

    frame: pl.DataFrame
    others: Batch


class _Singles:
    """The fields of which a message has one at most: where each begins and its length."""

    def __init__(self, count: int, numbers: Sequence[int]) -> None:
        self.start = {number: np.full(count, -1) for number in numbers}
        self.length = {number: np.zeros(count, dtype=np.int64) for number in numbers}

    def put(self, number: int, values: Values) -> None:
        """Remember values of one of ours; of equal ones the last counts."""
        self.start[number][values.message] = values.start
        self.length[number][values.message] = values.length

    def take(self, fields: Fields, message: Ints) -> None:
        """Remember those that are among ours; `message` says whose they are."""
        for number in self.start:
            mine = fields.number == number
            if mine.any():
                if (fields.wire[mine] != _WIRE.get(number, LENGTH)).any():
                    raise NotPlain
                self.put(number, Values(message[mine], fields.start[mine], fields.length[mine]))

    def has(self, number: int) -> Bools:
        """Return which messages have the field."""
        found: Bools = self.start[number] >= 0
        return found


class _Repeated:
    """The attributes of spans, as they are found."""

    def __init__(self, count: int) -> None:
        self._counts = np.zeros(count, dtype=np.int64)
        self._found: list[tuple[Values, Ints]] = []

    def put(self, values: Values) -> None:
        """Take one attribute of each of some spans: the next one of theirs."""
        self._found.append((values, self._counts[values.message]))
        self._counts[values.message] += 1

    def finish(self, buffer: Buffer) -> SpanAttributes:
        """Put them in order: the attributes of a span follow each other."""
        begins = np.cumsum(self._counts) - self._counts
        none = np.empty(0, dtype=np.int64)
        places = [begins[values.message] + place for values, place in self._found]
        return SpanAttributes(
            buffer,
            np.concatenate([none, *(values.start for values, _ in self._found)]),
            np.concatenate([none, *(values.length for values, _ in self._found)]),
            np.concatenate([none, *places]),
            self._counts,
            otlp.PROTOBUF.attributes,
        )


def read(
    bodies: Sequence[bytes], decode: Callable[[bytes], Batch] = otlp.traces_from_protobuf
) -> Iterator[tuple[pl.DataFrame, Batch]]:
    """Yield what request bodies hold: rows of `spans`, and a batch of everything else.

    `decode` reads a body that is not plain; then the batch has its rows of `spans` too. Raises what
    `decode` raises.
    """
    try:
        spans = traces(bodies)
    except NotPlain:
        if len(bodies) > 1:
            half = len(bodies) // 2
            yield from read(bodies[:half], decode)
            yield from read(bodies[half:], decode)
        else:
            yield model.SPANS.empty(), decode(bodies[0])
    else:
        yield spans.frame, spans.others


def traces(bodies: Sequence[bytes]) -> Spans:
    """Read ExportTraceServiceRequests. Raises NotPlain."""
    buffer = Buffer(bodies)
    origins: list[Origin] = []
    lengths: list[Ints] = []
    firsts: list[int] = []
    try:
        for body, base in zip(bodies, buffer.starts.tolist(), strict=True):
            for group in wire.split_traces(body).resource_spans:
                for scope in group.scope_spans:
                    origin = _origin(group.resource, scope.scope)  # damaged it refuses all
                    if count := len(scope.spans):
                        lengths.append(np.fromiter(map(len, scope.spans), np.int64, count))
                        origins.append(origin)
            firsts += (base + first for first in _first_spans(body))
    except InputError as error:
        raise NotPlain from error
    if not lengths:
        return Spans(model.SPANS.empty(), Batch())
    if len(firsts) != len(lengths):
        raise NotPlain
    rows = np.array([len(one) for one in lengths])
    length = np.concatenate(lengths)
    start = buffer.in_a_row(np.array(firsts), length, rows, _SPANS)
    of_origin = np.repeat(np.arange(len(origins)), rows)
    try:
        return _Reader(buffer, (start, start + length), of_origin, origins).read()
    except InputError as error:
        raise NotPlain from error


def _first_spans(body: bytes) -> Iterator[int]:
    """Yield where the first span begins, its tag, in each list that has any."""
    for group in fields(body, Field(0, LENGTH, 0, 0, len(body))):
        for scope in fields(body, group) if _is_list(group, _RESOURCE_SPANS) else ():
            for span in fields(body, scope) if _is_list(scope, _SCOPE_SPANS) else ():
                if _is_list(span, _SPANS):
                    yield span.start
                    break


def _is_list(field: Field, number: int) -> bool:
    return field.number == number and field.wire_type == LENGTH


def _origin(resource: bytes, scope: bytes) -> Origin:
    short = len(resource) + len(scope) <= _MAX_KEPT_ORIGIN
    return _kept_origin(resource, scope) if short else otlp.origin_of(resource, scope)


_kept_origin = lru_cache(maxsize=256)(otlp.origin_of)


class _Reader:
    """Reads the spans of some bodies; the steps need each other, so they are one object."""

    def __init__(
        self, buffer: Buffer, spans: tuple[Ints, Ints], origin: Ints, origins: list[Origin]
    ) -> None:
        """`spans` are where they begin and end."""
        self._buffer = buffer
        self._starts, self._ends = spans
        self._origin = origin
        self._origins = origins
        self._count = len(origin)
        self._rows = SpanRows(otlp.PROTOBUF)
        self._walk()

    def _walk(self) -> None:
        buffer, ends, at = self._buffer, self._ends, self._starts.copy()
        self._fields = _Singles(self._count, (*range(1, 9), *range(10, 16)))
        attributes = _Repeated(self._count)
        for number, kind in _IN_ORDER:
            if (values := buffer.take(at, ends, number, kind)) is not None:
                self._fields.put(number, values)
        for values in buffer.take_repeated(at, ends, _ATTRIBUTES):
            attributes.put(values)
        # What else there is, in any order: most spans have no more.
        rest = np.flatnonzero(at < ends)
        for found in buffer.walk(at[rest], ends[rest]):
            span = rest[found.message]
            mine = found.number == _ATTRIBUTES
            if mine.any():
                if (found.wire[mine] != LENGTH).any():
                    raise NotPlain
                attributes.put(Values(span[mine], found.start[mine], found.length[mine]))
            if not mine.all():
                if ((found.number == _STATUS) & self._fields.has(_STATUS)[span]).any():
                    raise NotPlain  # two of them would have to be merged
                self._fields.take(found, span)
        self._attributes = attributes.finish(buffer)

    def read(self) -> Spans:
        """Return the rows of all spans that can be taken."""
        self._read_ids_and_times()
        good = self._check()
        self._add_events(good)
        self._count_dropped(good)
        kind, code, message = self._kinds_and_status()
        states, state_code = self._texts(_TRACE_STATE)
        resolved, resolved_code = self._attributes.resolve(kind, code, self._origin, self._origins)
        columns: dict[str, pl.Series] = {
            "trace_hi": pl.Series(self._trace_hi),
            "trace_lo": pl.Series(self._trace_lo),
            "span_id": pl.Series(self._span_id),
            "parent_id": _or_null(self._parent_id, self._parent_id != 0),
            "parent_inferred": pl.Series([False]).new_from_index(0, self._count),
            "name": spread(*self._texts(_NAME)).fill_null(""),
            "start_ns": pl.Series(self._start_ns),
            "duration_ns": _or_null(self._end_ns - self._start_ns, self._end_ns != 0),
            "status_message": message,
        }
        for name in ("service", "instance", "scope", "resource"):
            values = [getattr(one, name) for one in self._origins]
            columns[name] = pl.Series(values, dtype=pl.String).gather(self._origin)
        for place, name in enumerate(RESOLVED_COLUMNS):
            values = [one.columns[place] for one in resolved]
            series = pl.Series(values, dtype=model.SPANS.schema[name])
            columns[name] = series.gather(resolved_code)
        if any("ot=" in state for state in states):
            counts = [semconv.sampled_count(state) for state in states]
            said = spread(pl.Series(counts, dtype=pl.Float64), state_code)
            columns["adjusted_count"] = said.zip_with(said.is_not_null(), columns["adjusted_count"])
        columns["attributes"] = self._attributes.rest(resolved, resolved_code, states, state_code)
        frame = pl.DataFrame([columns[name].alias(name) for name in model.SPANS.schema])
        frame = frame.filter(pl.Series(good)) if not good.all() else frame
        return Spans(frame, self._rows.finish())

    def _read_ids_and_times(self) -> None:
        buffer, fields = self._buffer, self._fields
        for number, size in ((_TRACE_ID, 16), (_SPAN_ID, 8), (_PARENT_ID, 8)):
            lengths = fields.length[number]
            if not ((lengths == size) | (lengths == 0)).all():
                raise NotPlain

        def word(number: int, offset: int = 0) -> Ints:
            at = np.maximum(fields.start[number], 0) + offset
            return np.where(fields.length[number] > 0, buffer.big_endian(at), 0)

        self._trace_hi, self._trace_lo = word(_TRACE_ID), word(_TRACE_ID, 8)
        self._span_id, self._parent_id = word(_SPAN_ID), word(_PARENT_ID)
        times = []
        for number in (_START, _END):
            value = buffer.fixed64(np.maximum(fields.start[number], 0))
            value = np.where(fields.has(number), value, np.uint64(0))
            times.append(np.minimum(value, np.uint64(2**63 - 1)).astype(np.int64))
        self._start_ns, self._end_ns = times

    def _check(self) -> Bools:
        """Count the spans that `formats.spans.problem` refuses; return which are taken."""
        start, end = self._start_ns, self._end_ns
        length = end - start
        good = np.ones(self._count, dtype=np.bool_)
        for reason, bad in (
            (
                "span without ids",
                (self._span_id == 0) | ((self._trace_hi == 0) & (self._trace_lo == 0)),
            ),
            ("span without a plausible start time", (start == 0) | (start >= MAX_TIME_NS)),
            ("span that ends before it starts", (end != 0) & (length < 0)),
            ("span longer than a year", (end != 0) & (length > MAX_DURATION_NS)),
            (NOT_NANOSECONDS, start < MIN_TIME_NS),
        ):
            self._reject(reason, int((bad & good).sum()))
            good &= ~bad
        of_origins = sum(origin.left_out for origin in self._origins)
        self._reject(LEFT_OUT, self._attributes.undecodable(good) + of_origins)
        return good

    def _reject(self, reason: str, count: int) -> None:
        if count:
            self._rows.reject(reason, count)

    def _add_events(self, good: Bools) -> None:
        """Read events and links by protobuf's parser: few spans have any."""
        with_more = self._fields.has(_EVENTS) | self._fields.has(_LINKS)
        chosen = np.flatnonzero(with_more)
        starts, ends = self._starts[chosen], self._ends[chosen]
        for row, raw in zip(chosen, self._buffer.slices(starts, ends - starts), strict=True):
            trace = (int(self._trace_hi[row]), int(self._trace_lo[row]))
            span = wire.parse_span(raw)
            if good[row]:
                self._rows.add_events(span, trace, int(self._span_id[row]))

    def _count_dropped(self, good: Bools) -> None:
        for what, number in (
            ("attributes", _DROPPED_ATTRIBUTES),
            ("events", _DROPPED_EVENTS),
            ("links", _DROPPED_LINKS),
        ):
            count = int(self._fields.length[number][good].sum())
            self._reject(f"{what} that the sender had dropped", count)

    def _kinds_and_status(self) -> tuple[Ints, Ints, pl.Series]:
        kind = np.minimum(self._fields.length[_KIND], len(KINDS))
        has_status = np.flatnonzero(self._fields.has(_STATUS))
        status = _Singles(len(has_status), (_MESSAGE, _CODE))
        starts = self._fields.start[_STATUS][has_status]
        ends = starts + self._fields.length[_STATUS][has_status]
        for found in self._buffer.walk(starts, ends):
            expected = np.where(found.number == _CODE, VARINT, LENGTH)
            ours = (found.number == _CODE) | (found.number == _MESSAGE)
            if (ours & (found.wire != expected)).any():
                raise NotPlain
            for number in (_MESSAGE, _CODE):
                mine = found.number == number
                status.start[number][found.message[mine]] = found.start[mine]
                status.length[number][found.message[mine]] = found.length[mine]
        code: Ints = np.zeros(self._count, dtype=np.int64)
        code[has_status] = np.minimum(status.length[_CODE], len(model.STATUSES))
        texts, own = self._texts_at(status.start[_MESSAGE], status.length[_MESSAGE])
        numbers = np.full(self._count, -1)
        numbers[has_status] = np.where(code[has_status] > 0, own, -1)
        return kind, code, spread(texts, numbers)

    def _texts(self, number: int) -> tuple[pl.Series, Ints]:
        """Return the distinct texts of a field, and which of them each span has; -1 for none."""
        return self._texts_at(self._fields.start[number], self._fields.length[number])

    def _texts_at(self, starts: Ints, lengths: Ints) -> tuple[pl.Series, Ints]:
        there = np.flatnonzero(lengths > 0)
        code, firsts = distinct(self._buffer.hashes(starts[there], lengths[there]))
        raws = self._buffer.slices(starts[there][firsts], lengths[there][firsts])
        numbers = np.full(len(starts), -1)
        numbers[there] = code
        return pl.Series([wire.text(raw) for raw in raws], dtype=pl.String), numbers


def _or_null(values: Ints, present: Bools) -> pl.Series:
    series = pl.Series(values)
    return series if present.all() else series.set(pl.Series(~present), None)
