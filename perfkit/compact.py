"""Turns journal segments into Parquet parts."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from perfkit import journal, model
from perfkit.batch import Batch
from perfkit.errors import InputError

if TYPE_CHECKING:
    from perfkit.capture import Capture

JOURNAL_DIR = "journal"


def decode(record: journal.Record) -> Batch:
    """Decode one received body; what cannot be decoded comes back as rejected, not as an error."""
    from perfkit.formats import otlp

    decoders = {
        journal.Kind.TRACES_PROTOBUF: otlp.traces_from_protobuf,
        journal.Kind.TRACES_JSON: otlp.traces_from_json,
        journal.Kind.METRICS_PROTOBUF: otlp.metrics_from_protobuf,
        journal.Kind.METRICS_JSON: otlp.metrics_from_json,
    }
    try:
        body = gzip.decompress(record.body) if record.gzipped else record.body
        return decoders[record.kind](body)
    except (InputError, OSError, EOFError, zlib.error) as error:
        batch = Batch()
        batch.reject(f"undecodable body: {str(error).splitlines()[0][:100]}")
        return batch


def segment_frames(path: Path) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield (table, rows) of a segment, one frame a table, and raise nothing on damaged bodies."""
    from perfkit.capture import conform

    frames: dict[str, list[pl.DataFrame]] = {}
    for record in journal.read_segment(path):
        for table, columns in decode(record).tables.items():
            frames.setdefault(table, []).append(conform(model.BY_NAME[table], columns))
    for table, parts in frames.items():
        yield table, pl.concat(parts)


def compact_segment(capture: Path, writer_id: str, segment: Path) -> dict[str, int]:
    """Write a segment's rows as parts, then remove it; returns rows by table.

    The parts' names come from the segment's, so doing it again after a crash changes nothing.
    """
    from perfkit.capture import write_part

    rows = {
        table: write_part(capture, table, f"part-{writer_id}-{segment.stem}", frame)
        for table, frame in segment_frames(segment)
    }
    segment.unlink()
    return rows


def compact_leftovers(capture: Capture, *, write: bool) -> dict[str, list[pl.LazyFrame]]:
    """Compact every segment of a capture whose writer is gone.

    With `write` false (a read-only disk) the rows are returned instead of written.
    """
    extra: dict[str, list[pl.LazyFrame]] = {}
    for segment in journal.segments(capture.path / JOURNAL_DIR):
        if write:
            rows = compact_segment(capture.path, capture.info.id, segment)
            for table, count in rows.items():
                capture.info.rows[table] = capture.info.rows.get(table, 0) + count
        else:
            for table, frame in segment_frames(segment):
                extra.setdefault(table, []).append(frame.lazy())
    return extra
