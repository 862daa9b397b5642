"""Turns what a recorder left in a capture's journal into Parquet parts.

Parts take their names from the segment, so doing one again after a crash changes nothing.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from perfkit import journal, model, tail_sampling
from perfkit.bodies import body_frames, weighed
from perfkit.errors import InputError
from perfkit.journal import JOURNAL_DIR, RESERVE_NAME, StackMeta, StackSegment
from perfkit.manifest import CaptureInfo
from perfkit.parts import conform, write_part
from perfkit.stacks import StackTable
from perfkit.tail_sampling import TailPolicy, TailSampler


@dataclass
class Compacted:
    """What came of a segment."""

    rows: dict[str, int] = field(default_factory=dict)
    """Rows written, by table."""
    rejected: dict[str, int] = field(default_factory=dict)
    """What could not be decoded, as reason -> count."""
    size_bytes: int = 0
    """Size of the parts."""
    sampled_out: int = 0
    """Spans that tail sampling dropped."""


@dataclass(frozen=True)
class Part:
    """A part that was written."""

    path: Path
    table: str
    rows: int
    size_bytes: int
    written_ns: int
    generation: int
    """That of the stacks: samples name stacks and frames of parts of their own generation."""


class SegmentCompactor:
    """Compacts the segments of one capture, which share their stacks and their sampling."""

    def __init__(self, capture: Path, info: CaptureInfo) -> None:
        self._capture = capture
        self._writer_id = info.id
        self._stacks = StackTable()
        self.generation = 0
        sampling = info.sampling
        self._head_ratio: float | None = sampling.get("head_ratio")
        self._tail: TailSampler | None = None
        if "tail_ratio" in sampling:
            self._tail = TailSampler(TailPolicy(sampling["tail_ratio"], sampling["tail_slow_ns"]))
        self._open: dict[int, Path] = {}
        """Segments of which something is not yet decided, by number."""
        self._part_numbers: Counter[str] = Counter()
        self.parts: list[Part] = []
        """What was written, oldest first."""

    def renew_stacks(self) -> None:
        """Begin a new generation: what is written from now on names no stack of an earlier part."""
        self._stacks = StackTable()
        self.generation += 1

    def compact(self, segment: Path) -> Compacted:
        """Write a segment's rows as parts, then remove it. Raises OSError on a full disk."""
        # After a crash: rows that had been sampled may now be decided otherwise.
        for part in self._capture.glob(f"*/part-{self._writer_id}-{segment.stem}-*.parquet"):
            part.unlink()
        done = Compacted()
        self._write(self.rows(segment, done.rejected), done)
        if segment.suffix == ".json":
            StackSegment(segment).remove()
        return done

    def finish(self) -> Compacted:
        """Write what sampling still held back. Raises OSError on a full disk."""
        done = Compacted()
        self._write(self.rest(), done)
        return done

    def rows(
        self, segment: Path, rejected: dict[str, int]
    ) -> Iterator[tuple[Path, str, pl.DataFrame]]:
        """Yield (segment, table, rows) to be written now; some are of earlier segments."""
        number = int(segment.stem.rsplit("-", 1)[1])
        if segment.suffix != ".json":
            self._open[number] = segment
        for table, frame in self.frames(segment, rejected):
            if self._tail is not None and table in tail_sampling.TABLES:
                self._tail.add(table, frame.with_columns(segment=pl.lit(number)))
            else:
                yield segment, table, frame
        yield from self._decided(final=False)

    def rest(self) -> Iterator[tuple[Path, str, pl.DataFrame]]:
        """Yield what sampling held back, when there is no further segment."""
        yield from self._decided(final=True)

    def _decided(self, *, final: bool) -> Iterator[tuple[Path, str, pl.DataFrame]]:
        if self._tail is None:
            return
        for table, kept in self._tail.decide(time.time_ns(), final=final).items():
            for (number,), rows in kept.partition_by("segment", as_dict=True).items():
                yield self._open[number], table, rows.drop("segment")

    def _write(self, rows: Iterator[tuple[Path, str, pl.DataFrame]], done: Compacted) -> None:
        dropped = self._tail.dropped_spans if self._tail else 0
        try:
            for segment, table, frame in rows:
                if not frame.is_empty():
                    self._write_part(segment.stem, table, frame, done)
        except BaseException:
            # The next segment must not count on stacks that were not written; and what sampling
            # held stays in segments that are not removed.
            self.renew_stacks()
            self._open.clear()
            if self._tail is not None:
                self._tail = self._tail.renewed()
            raise
        held: set[int] = set()
        if self._tail is not None:
            done.sampled_out = self._tail.dropped_spans - dropped
            held = self._tail.segments
        for number in self._open.keys() - held:
            self._open.pop(number).unlink()

    def _write_part(self, stem: str, table: str, frame: pl.DataFrame, done: Compacted) -> None:
        name = f"part-{self._writer_id}-{stem}-{self._part_numbers[stem]:02d}"
        self._part_numbers[stem] += 1
        rows = write_part(self._capture, table, name, frame)
        path = self._capture / table / f"{name}.parquet"
        size_bytes = path.stat().st_size
        self.parts.append(Part(path, table, rows, size_bytes, time.time_ns(), self.generation))
        done.rows[table] = done.rows.get(table, 0) + rows
        done.size_bytes += size_bytes

    def frames(self, segment: Path, rejected: dict[str, int]) -> Iterator[tuple[str, pl.DataFrame]]:
        """Yield (table, rows) of a segment; what is damaged is counted in `rejected`."""
        if segment.suffix == ".json":
            try:
                yield from self._stack_frames(StackSegment(segment), rejected)
            except InputError as error:
                rejected[f"stacks: {error.message}"] = 1
        else:
            for table, frame in body_frames(segment, rejected):
                sampled = table == "spans" and self._head_ratio is not None
                yield table, weighed(frame, self._head_ratio or 1.0) if sampled else frame

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
        offset_ns = meta.offset_ns
        samples = _name_threads(_cut(samples, meta, offset_ns))
        _count_nameless(samples, rejected)
        with contextlib.suppress(FileNotFoundError):
            states = ThreadStates(segment.threads.read_bytes(), offset_ns)
            samples = states.apply(samples, 10**9 // meta.rate, self._stacks.innermost())
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


def _count_nameless(samples: pl.DataFrame, rejected: dict[str, int]) -> None:
    """Count the threads of processes of which py-spy read no name at all, though there are several.

    It reads all names of a process or none: one that is no valid text (a lone surrogate) hides the
    others. So does a program whose threads are not those of `threading`.
    """
    processes = samples.group_by("pid").agg(
        threads=pl.col("tid").n_unique(), named=pl.col("thread_name").is_not_null().any()
    )
    nameless = processes.filter(~pl.col("named"), pl.col("threads") > 1)
    if nameless.height:
        reason = "names of threads: py-spy reads none of a process where one is no valid text"
        rejected[reason] = rejected.get(reason, 0) + int(nameless["threads"].sum())


def _cut(samples: pl.DataFrame, meta: StackMeta, offset_ns: int) -> pl.DataFrame:
    """Drop what lies before and after the part of the trace that counts."""
    start, end = pl.col("ts_ns"), pl.col("ts_ns") + pl.col("duration_ns")
    if meta.from_monotonic_ns is not None:
        start = pl.max_horizontal(start, pl.lit(meta.from_monotonic_ns + offset_ns))
    if meta.until_monotonic_ns is not None:
        end = pl.min_horizontal(end, pl.lit(meta.until_monotonic_ns + offset_ns))
    cut = samples.with_columns(ts_ns=start, duration_ns=end - start)
    return cut.filter(pl.col("duration_ns") > 0)


def _count(total: dict[str, int], part: dict[str, int]) -> None:
    for reason, count in part.items():
        total[reason] = total.get(reason, 0) + count


def leftovers(capture: Path) -> list[Path]:
    """Return the segments that wait to be compacted, stacks first."""
    directory = capture / JOURNAL_DIR
    return [*sorted(directory.glob("stacks-??????.json")), *journal.segments(directory)]


@dataclass(frozen=True)
class Waiting:
    """What waits in a journal and is read from there."""

    rows: dict[str, list[pl.LazyFrame]] = field(default_factory=dict)
    """By table."""
    superseded: tuple[str, ...] = ()
    """How names of parts begin whose rows are among these."""


def compact_leftovers(capture: Path, info: CaptureInfo, *, write: bool) -> Waiting:
    """Compact every segment of a capture whose writer is gone; counts in `info` what is lost.

    With `write` false (a read-only or full disk) the rows are returned instead of written.
    """
    segments = SegmentCompactor(capture, info)
    info.lose_rejected(_unwritten(capture, remove=write))
    found = leftovers(capture)
    while write and found:
        try:
            done = segments.compact(found[0])
            if len(found) == 1:
                rest = segments.finish()
                _count(done.rows, rest.rows)
        except OSError:
            write = False
        else:
            found.pop(0)
            _count(info.rows, done.rows)
            info.lose_rejected(done.rejected)
    if not write:
        return _read_leftovers(capture, info, segments)
    _tidy(capture)
    return Waiting()


def read_living(capture: Path, info: CaptureInfo) -> Waiting:
    """Return the rows that a living writer has journaled and not yet compacted.

    Raises OSError when it compacts a segment away meanwhile: then try again.
    """
    return _read_leftovers(capture, info, SegmentCompactor(capture, info))


def _read_leftovers(capture: Path, info: CaptureInfo, segments: SegmentCompactor) -> Waiting:
    """Read the segments instead of compacting them."""
    rejected: dict[str, int] = {}
    found = leftovers(capture)
    rows: dict[str, list[pl.LazyFrame]] = {}
    for segment in found:
        for _, table, frame in segments.rows(segment, rejected):
            rows.setdefault(table, []).append(frame.lazy())
    for _, table, frame in segments.rest():
        rows.setdefault(table, []).append(frame.lazy())
    info.lose_rejected(rejected)
    # What was already compacted of them is in them too.
    return Waiting(rows, tuple(f"part-{info.id}-{segment.stem}-" for segment in found))


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
