"""Received bodies, as a journal has them, to rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from perfkit import journal, long_values, model
from perfkit.batch import Batch
from perfkit.errors import InputError
from perfkit.manifest import CUT
from perfkit.parts import conform

_CHUNK_ROWS = 1 << 18
_CHUNK_BYTES = 4 << 20
"""So much of the bodies is decoded at a time: what still fits into a processor's cache."""
_MAX_INFLATED_BYTES = 1 << 30
_SAYS_PROBABILITY = r'"w3c\.tracestate":"(?:[^"]*,)?\s*ot=(?:[^",]*;)?(?:th|p):'


def decode(record: journal.Record) -> Batch:
    """Decode one received body; what cannot be decoded comes back as rejected, not as an error."""
    from perfkit.formats import otlp

    decoders: dict[journal.Kind, Callable[[bytes], Batch]] = {
        journal.Kind.TRACES_PROTOBUF: otlp.traces_from_protobuf,
        journal.Kind.TRACES_JSON: otlp.traces_from_json,
        journal.Kind.METRICS_PROTOBUF: otlp.metrics_from_protobuf,
        journal.Kind.METRICS_JSON: otlp.metrics_from_json,
        journal.Kind.METRICS_ROWS: lambda body: Batch({"metrics": json.loads(body)}),
    }
    try:
        return decoders[record.kind](record.content(_MAX_INFLATED_BYTES))
    except (InputError, ValueError) as error:
        batch = Batch()
        batch.reject(f"undecodable body: {str(error).splitlines()[0][:100]}")
        return batch


class _Joined:
    """Rows of many bodies, joined until they are worth a part: small frames cost most."""

    def __init__(self) -> None:
        self._columns: dict[tuple[str, tuple[str, ...]], dict[str, list[Any]]] = {}
        self._frames: list[pl.DataFrame] = []

    def add(self, batch: Batch) -> Iterator[tuple[str, pl.DataFrame]]:
        """Take the rows of a batch; yield what is enough by now."""
        for table, columns in batch.tables.items():
            key = (table, tuple(columns))
            joined = self._columns.setdefault(key, {name: [] for name in columns})
            for name, values in columns.items():
                joined[name].extend(values)
            if len(next(iter(joined.values()), ())) >= _CHUNK_ROWS:
                yield table, conform(model.BY_NAME[table], self._columns.pop(key))

    def add_spans(self, frame: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
        """Take rows of `spans`; yield what is enough by now."""
        self._frames.append(frame)
        if sum(frame.height for frame in self._frames) >= _CHUNK_ROWS:
            yield "spans", pl.concat(self._frames)
            self._frames = []

    def rest(self) -> Iterator[tuple[str, pl.DataFrame]]:
        """Yield what is left."""
        if self._frames:
            yield "spans", pl.concat(self._frames)
        for (table, _), columns in self._columns.items():
            yield table, conform(model.BY_NAME[table], columns)


def body_frames(segment: Path, rejected: dict[str, int]) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield the rows of received bodies, at most about `_CHUNK_ROWS` at a time."""
    for table, frame in _body_frames(segment, rejected):
        shorter, cut = long_values.shortened(frame)
        if cut:
            rejected[CUT] = rejected.get(CUT, 0) + cut
        yield table, shorter


def _body_frames(segment: Path, rejected: dict[str, int]) -> Iterator[tuple[str, pl.DataFrame]]:
    joined = _Joined()
    for batch, spans in _decoded(journal.read_segment(segment)):
        for reason, count in batch.rejected.items():
            rejected[reason] = rejected.get(reason, 0) + count
        yield from joined.add(batch)
        if spans is not None:
            yield from joined.add_spans(spans)
    yield from joined.rest()


def _decoded(
    records: Iterable[journal.Record],
) -> Iterator[tuple[Batch, pl.DataFrame | None]]:
    """Decode records: spans in protobuf many bodies at a time, everything else one by one."""
    bodies: list[bytes] = []
    size_bytes = 0
    for record in records:
        if record.kind is not journal.Kind.TRACES_PROTOBUF:
            yield decode(record), None
            continue
        try:
            bodies.append(record.content(_MAX_INFLATED_BYTES))
        except InputError:
            yield decode(record), None  # which says what is wrong with it
            continue
        size_bytes += len(bodies[-1])
        if size_bytes >= _CHUNK_BYTES:
            yield from _decoded_spans(bodies)
            bodies, size_bytes = [], 0
    if bodies:
        yield from _decoded_spans(bodies)


def _decoded_spans(bodies: list[bytes]) -> Iterator[tuple[Batch, pl.DataFrame]]:
    from perfkit.formats import otlp_columns

    def alone(body: bytes) -> Batch:
        return decode(journal.Record(journal.Kind.TRACES_PROTOBUF, False, body))

    for frame, batch in otlp_columns.read(bodies, alone):
        yield batch, frame


def weighed(spans: pl.DataFrame, ratio: float) -> pl.DataFrame:
    """Let spans that say nothing of how they were sampled stand for 1 / `ratio` spans."""
    says = pl.col("attributes").str.contains(_SAYS_PROBABILITY).fill_null(False)
    unsaid = (pl.col("adjusted_count") == 1.0) & ~says
    count = pl.when(unsaid).then(1.0 / ratio).otherwise("adjusted_count")
    return spans.with_columns(adjusted_count=count)
