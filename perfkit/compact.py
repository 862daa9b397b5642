"""Turns what a recorder left in a capture's journal into Parquet parts.

Parts take their names from the segment, so doing one again after a crash changes nothing.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from perfkit import journal, model
from perfkit.batch import Batch
from perfkit.capture import conform, write_part
from perfkit.errors import InputError
from perfkit.journal import JOURNAL_DIR, RESERVE_NAME, StackMeta, StackSegment
from perfkit.stacks import StackTable

if TYPE_CHECKING:
    from perfkit.capture import Capture

_CHUNK_ROWS = 1 << 18
_MAX_INFLATED_BYTES = 1 << 30


@dataclass
class Compacted:
    """Rows written by table, and what could not be decoded, as reason -> count."""

    rows: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)


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


class SegmentCompactor:
    """Compacts the segments of one capture, which share their stacks."""

    def __init__(self, capture: Path, writer_id: str) -> None:
        self._capture = capture
        self._writer_id = writer_id
        self._stacks = StackTable()

    def compact(self, segment: Path) -> Compacted:
        """Write a segment's rows as parts, then remove it. Raises OSError on a full disk."""
        done = Compacted()
        try:
            for number, (table, frame) in enumerate(self.frames(segment, done.rejected)):
                if frame.is_empty():
                    continue
                name = f"part-{self._writer_id}-{segment.stem}-{number:02d}"
                rows = write_part(self._capture, table, name, frame)
                done.rows[table] = done.rows.get(table, 0) + rows
        except BaseException:
            # The next segment must not count on stacks that were not written.
            self._stacks = StackTable()
            raise
        if segment.suffix == ".json":
            StackSegment(segment).remove()
        else:
            segment.unlink()
        return done

    def frames(self, segment: Path, rejected: dict[str, int]) -> Iterator[tuple[str, pl.DataFrame]]:
        """Yield (table, rows) of a segment; what is damaged is counted in `rejected`."""
        if segment.suffix == ".json":
            try:
                yield from self._stack_frames(StackSegment(segment), rejected)
            except InputError as error:
                rejected[f"stacks: {error.message}"] = 1
        else:
            yield from _body_frames(segment, rejected)

    def _stack_frames(
        self, segment: StackSegment, rejected: dict[str, int]
    ) -> Iterator[tuple[str, pl.DataFrame]]:
        from perfkit.formats import chrometrace
        from perfkit.formats.threadstates import ThreadStates

        meta = StackMeta.load(segment.meta)
        trace = chrometrace.load(segment.trace.read_bytes())
        anchor_ns = meta.anchor_wall_ns(trace.length_ns)
        batch = chrometrace.to_batch(trace, self._stacks, anchor_wall_ns=anchor_ns, pid=meta.pid)
        _count(rejected, batch.rejected)
        samples = conform(model.SAMPLES, batch.tables.get("samples", {}))
        offset_ns = meta.wall_ns - meta.monotonic_ns
        samples = _name_threads(_cut(samples, meta, offset_ns))
        with contextlib.suppress(FileNotFoundError):
            samples = ThreadStates(segment.threads.read_bytes(), offset_ns).apply(samples)
        if not meta.idle:
            samples = samples.filter(pl.col("state").ne_missing("idle"))
        stacks, frames = self._stacks.take_new()
        # Stacks before the samples that name them: a crash leaves no sample without its stack.
        yield "frames", conform(model.FRAMES, frames)
        yield "stacks", conform(model.STACKS, stacks)
        yield "samples", samples


def _name_threads(samples: pl.DataFrame) -> pl.DataFrame:
    """Give a thread its name from the start: py-spy learns it only after its first look."""
    name = pl.col("thread_name")
    return samples.with_columns(name.fill_null(name.drop_nulls().first().over("pid", "tid")))


def _cut(samples: pl.DataFrame, meta: StackMeta, offset_ns: int) -> pl.DataFrame:
    """Drop what lies before and after the part of the trace that counts."""
    start, end = pl.col("ts_ns"), pl.col("ts_ns") + pl.col("duration_ns")
    if meta.from_monotonic_ns is not None:
        start = pl.max_horizontal(start, pl.lit(meta.from_monotonic_ns + offset_ns))
    if meta.until_monotonic_ns is not None:
        end = pl.min_horizontal(end, pl.lit(meta.until_monotonic_ns + offset_ns))
    cut = samples.with_columns(ts_ns=start, duration_ns=end - start)
    return cut.filter(pl.col("duration_ns") > 0)


def _body_frames(segment: Path, rejected: dict[str, int]) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield the rows of received bodies, at most about `_CHUNK_ROWS` at a time."""
    # Columns of many bodies are joined before they become a frame: small frames cost most.
    waiting: dict[tuple[str, tuple[str, ...]], dict[str, list[Any]]] = {}
    for record in journal.read_segment(segment):
        batch = decode(record)
        _count(rejected, batch.rejected)
        for table, columns in batch.tables.items():
            key = (table, tuple(columns))
            joined = waiting.setdefault(key, {name: [] for name in columns})
            for name, values in columns.items():
                joined[name].extend(values)
            if len(next(iter(joined.values()), ())) >= _CHUNK_ROWS:
                yield table, conform(model.BY_NAME[table], waiting.pop(key))
    for (table, _), columns in waiting.items():
        yield table, conform(model.BY_NAME[table], columns)


def _count(total: dict[str, int], part: dict[str, int]) -> None:
    for reason, count in part.items():
        total[reason] = total.get(reason, 0) + count


def leftovers(capture: Path) -> list[Path]:
    """Return the segments that wait to be compacted, stacks first."""
    directory = capture / JOURNAL_DIR
    return [*sorted(directory.glob("stacks-??????.json")), *journal.segments(directory)]


def compact_leftovers(capture: Capture, *, write: bool) -> dict[str, list[pl.LazyFrame]]:
    """Compact every segment of a capture whose writer is gone.

    With `write` false (a read-only or full disk) the rows are returned instead of written.
    """
    segments = SegmentCompactor(capture.path, capture.info.id)
    extra: dict[str, list[pl.LazyFrame]] = {}
    _count_losses(capture, _unwritten(capture.path, remove=write))
    for segment in leftovers(capture.path):
        if write:
            try:
                done = segments.compact(segment)
            except OSError:
                write = False
            else:
                _count(capture.info.rows, done.rows)
                _count_losses(capture, done.rejected)
                continue
        rejected: dict[str, int] = {}
        for table, frame in segments.frames(segment, rejected):
            extra.setdefault(table, []).append(frame.lazy())
        _count_losses(capture, rejected)
    if write:
        _tidy(capture.path)
    return extra


def _tidy(capture: Path) -> None:
    """Remove what a killed writer left and nobody needs."""
    directory = capture / JOURNAL_DIR
    (directory / RESERVE_NAME).unlink(missing_ok=True)
    for temporary in [*capture.glob(".*.tmp"), *capture.glob("*/.*.tmp")]:
        temporary.unlink(missing_ok=True)
    if directory.is_dir() and not any(directory.iterdir()):
        directory.rmdir()


def _unwritten(capture: Path, *, remove: bool) -> dict[str, int]:
    """Count the segments of stacks whose trace was never written; forget them with `remove`."""
    lost = 0
    for meta in (capture / JOURNAL_DIR).glob("stacks-??????.meta"):
        segment = StackSegment(meta.with_suffix(".json"))
        if segment.trace.exists():
            continue
        lost += 1
        if remove:
            segment.remove()
    return {"stacks: py-spy was killed before it wrote a segment": lost} if lost else {}


def _count_losses(capture: Capture, rejected: dict[str, int]) -> None:
    for reason, count in rejected.items():
        capture.info.lose("rejected", count, reason)
