"""A capture on disk: writing it in whole parts, and reading it lazily.

Layout of `NAME.perfkit/`::

    capture.json              who, when, where, how; what was lost and why (class `CaptureInfo`)
    <table>/part-<writer>-<n>.parquet
    journal/otlp-*.journal    received OTLP bodies that are not yet compacted into parts
    writer.lock               held while a writer is alive

A part appears whole or not at all (temporary name, fsync, rename), so a capture whose writer was
killed at any moment opens. Part names carry the writer's id, so two captures merge by putting their
parts together.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from perfkit import model
from perfkit.batch import Batch, Columns
from perfkit.errors import CaptureError
from perfkit.layout import Wanted
from perfkit.long_values import shortened
from perfkit.manifest import CUT, INFO_NAME, WriterLock, create
from perfkit.manifest import CaptureInfo as CaptureInfo
from perfkit.manifest import Loss as Loss
from perfkit.manifest import atomic_write as atomic_write
from perfkit.parts import conform, scan_part, write_part
from perfkit.remote import RemoteParts, read_info, url_of
from perfkit.replacement import Reading, Record, carry_out, read_record
from perfkit.stacks import StackTable

if TYPE_CHECKING:
    from perfkit.compact import Waiting

SUFFIX = ".perfkit"
_BUFFERED_ROWS = 1 << 18  # of one table: 1 M wide spans take more than 1 GB before they are written
_FEW_ROWS = 4096  # a frame for each batch of fewer costs more than its rows
_LIVE_TRIES = 3
_MOMENT_S = 0.05
_KILLED = "The writer of this capture was killed: what it had not yet written is missing."


class CaptureWriter:
    """Writes one capture. Batches go in, Parquet parts come out; not thread-safe.

    Use as a context manager: leaving it flushes and finishes the capture, also after an error, so
    that nothing that was received is lost.
    """

    def __init__(self, path: Path, *, command: list[str] | None = None) -> None:
        self.path = path
        self.info, self._lock = create(path, command)
        self.stacks = StackTable()
        self._buffers: dict[str, list[pl.DataFrame]] = {}
        self._buffered_rows: dict[str, int] = {}
        self._gathered: dict[str, dict[str, list[Any]]] = {}
        self._part = 0

    def __enter__(self) -> CaptureWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, batch: Batch) -> None:
        """Take the rows of a batch and count what its parser rejected."""
        for table, columns in batch.tables.items():
            if isinstance(columns, dict) and batch.rows(table) < _FEW_ROWS:
                self._gather(table, columns)
            else:
                self.append(table, columns)
        for reason, count in batch.rejected.items():
            self.lose("rejected", count, reason)

    def append(self, table: str, columns: Columns | pl.DataFrame) -> None:
        """Take rows for `table`. Columns that are left out become null."""
        self._frame_gathered(table)
        self._buffer(table, conform(model.BY_NAME[table], columns))

    def _gather(self, table: str, columns: Mapping[str, list[Any]]) -> None:
        """Put a few rows to those that came before, when both have the same columns."""
        gathered = self._gathered.get(table)
        if gathered is None or gathered.keys() != columns.keys():
            self._frame_gathered(table)
            gathered = self._gathered[table] = {name: [] for name in columns}
        for name, values in columns.items():
            gathered[name].extend(values)
        if len(next(iter(gathered.values()), ())) >= _FEW_ROWS:
            self._frame_gathered(table)

    def _frame_gathered(self, table: str) -> None:
        gathered = self._gathered.pop(table, None)
        if gathered is not None:
            self._buffer(table, conform(model.BY_NAME[table], gathered))

    def _buffer(self, table: str, frame: pl.DataFrame) -> None:
        if not frame.height:
            return
        frame, cut = shortened(frame)
        if cut:
            self.info.lose_rejected({CUT: cut})
        self._buffers.setdefault(table, []).append(frame)
        self._buffered_rows[table] = self._buffered_rows.get(table, 0) + frame.height
        if self._buffered_rows[table] >= _BUFFERED_ROWS:
            self._flush_table(table)

    def lose(self, what: str, count: int, why: str) -> None:
        """Remember that something is missing: it is shown under capture health."""
        self.info.lose(what, count, why)

    def note(self, text: str) -> None:
        """Remember a remark for the reader of the report."""
        self.info.note(text)

    def flush(self) -> None:
        """Write everything that is buffered as parts."""
        stacks, frames = self.stacks.take_new()
        self.append("stacks", stacks)
        self.append("frames", frames)
        for table in list(self._gathered):
            self._frame_gathered(table)
        for table in list(self._buffers):
            self._flush_table(table)
        self.save_info()

    def written(self, table: str) -> pl.LazyFrame:
        """Return the rows of a table that were flushed so far."""
        parts = sorted((self.path / table).glob("part-*"))
        return pl.scan_parquet(parts) if parts else model.BY_NAME[table].empty().lazy()

    def replace(self, table: str, frame: pl.DataFrame) -> None:
        """Put rows in the place of all that were flushed of a table."""
        parts = sorted((self.path / table).glob("part-*"))
        self.info.rows[table] = 0
        self.append(table, frame)
        self._flush_table(table)
        for part in parts:
            part.unlink()
        self.save_info()

    def save_info(self) -> None:
        """Write `capture.json`."""
        self.info.save(self.path / INFO_NAME)

    def close(self) -> None:
        """Flush, mark the capture as finished, and release it."""
        try:
            self.flush()
            self.info.finished_ns = time.time_ns()
            self.save_info()
        finally:
            self._lock.release()

    def _flush_table(self, table: str) -> None:
        frames = self._buffers.get(table)
        if not frames:
            return
        self._part += 1
        name = f"part-{self.info.id}-{self._part:06d}"
        rows = write_part(self.path, table, name, pl.concat(frames))
        # Only forgotten once it is on disk: a full disk must not lose what is buffered.
        self._buffers[table] = []
        self._buffered_rows[table] = 0
        self.info.rows[table] = self.info.rows.get(table, 0) + rows


class Capture:
    """A capture, read lazily: `capture.table("spans")` is a Polars LazyFrame over all its parts."""

    def __init__(self, path: Path, info: CaptureInfo) -> None:
        self.path = path
        self.info = info
        self._extra: dict[str, list[pl.LazyFrame]] = {}
        self.superseded: tuple[str, ...] = ()
        """How names of parts begin whose rows are read from the journal instead."""
        self.living = False
        """Whether it is still being written."""
        self._wanted: Wanted | None = None
        self._remote: RemoteParts | None = None
        self._reading: Reading | None = None
        self._decided: Record | None = None
        """The compaction whose parts are not in their place while this is read."""

    @classmethod
    def open(cls, path: Path, *, live: bool = False) -> Capture:
        """Open the capture at `path`; compacts first what a killed writer left in its journal.

        A path may be the URL of one in object storage, which is only read. With `live`, what a
        living writer has journaled so far is in it too, read into memory.
        """
        from perfkit.compact import leftovers

        url = url_of(path)
        if url is not None:
            capture = cls(path, read_info(url))
            capture._remote = RemoteParts(url)
            return capture
        if not path.exists():
            raise CaptureError(
                f"{path}: no such capture",
                hint="nothing matches this pattern, so the shell left it as it is: were the runs "
                "recorded, or fetched, into this folder?"
                if "*" in path.name
                else "make one with `perfkit record` or `perfkit import`",
            )
        info_path = path / INFO_NAME
        if not info_path.is_file():
            raise CaptureError(
                f"{path}: not a capture (no capture.json in it)",
                hint=f"to read files of another tool: perfkit import {path} -o NEW{SUFFIX}",
            )
        reading = Reading(path)
        capture = cls(path, CaptureInfo.load(info_path))
        capture._reading = reading
        if not capture.finished or leftovers(path) or read_record(path) is not None:
            capture._recover()
        capture._decided = read_record(path)
        if live and capture.living:
            capture._read_living()
        return capture

    @property
    def finished(self) -> bool:
        """Whether the writer closed the capture in an orderly way."""
        return self.info.finished_ns is not None

    def table(self, name: str) -> pl.LazyFrame:
        """Return a captured table; empty, with its schema, when the capture has no rows for it."""
        table = model.BY_NAME[name]
        frames = [scan_part(part, table, self._wanted) for part in self.parts(name)]
        frames += self._extra.get(name, [])
        if not frames:
            return table.empty().lazy()
        merged = pl.concat(frames)
        key = {"stacks": "stack_id", "frames": "frame_id"}.get(name)
        # Writers intern for themselves, so merged captures repeat stacks and frames.
        return merged.unique(key, keep="any") if key else merged

    def parts(self, name: str) -> Sequence[Path | str]:
        """Return the Parquet files of a table, or their URLs."""
        if self._remote is not None:
            return self._remote.of(name)
        for _ in range(_LIVE_TRIES):
            record = self._record()
            parts = _listed(self.path, name, record)
            if self._record() == record:
                break
        return [part for part in parts if not part.name.startswith(self.superseded)]

    def _record(self) -> Record | None:
        """Return the compaction that counts though its parts are not in their place."""
        held = self._reading is not None and self._reading.holds
        return self._decided if held else read_record(self.path)

    def settle(self) -> bool:
        """Carry out the compaction that is decided, if there is one; false while others read.

        The caller has the writer's lock.
        """
        if self._reading is not None and not self._reading.alone():
            return False
        try:
            carry_out(self.path)
        finally:
            if self._reading is not None:
                self._reading.share()
        return True

    @property
    def is_plain(self) -> bool:
        """Whether its rows are those of its parts, all of them and nothing else."""
        return self._wanted is None and not self._extra

    def restricted(self, wanted: Wanted) -> Capture:
        """Return the capture with only those spans that may belong to what is wanted.

        Whole traces are left out, those of compacted parts; how many depends on the layout.
        """
        restricted = copy.copy(self)
        restricted._wanted = wanted
        return restricted

    def has(self, name: str) -> bool:
        """Whether the capture has any row in a table."""
        return not self.table(name).head(1).collect().is_empty()

    def _read_living(self) -> None:
        from perfkit.compact import read_living

        for _ in range(_LIVE_TRIES):
            # The writer may compact a segment away while it is read.
            with contextlib.suppress(FileNotFoundError):
                self._take(read_living(self.path, self.info))
                return
        self.superseded = ()  # its parts alone, then

    def _take(self, waiting: Waiting) -> None:
        self._extra, self.superseded = waiting.rows, waiting.superseded

    def _recover(self) -> None:
        """Compact the journal of a writer that is gone; leave that of a living one alone."""
        from perfkit.compact import compact_leftovers

        try:
            lock = WriterLock(self.path)
        except OSError:  # a capture on a read-only disk
            self._take(compact_leftovers(self.path, self.info, write=False))
            return
        try:
            while not lock.acquire_from_dead():
                if read_record(self.path) is None:
                    self.living = not self.finished
                    return
                time.sleep(_MOMENT_S)  # a compaction is just moving its files
            with contextlib.suppress(OSError):
                self.settle()
            # Another process may have changed it while we waited.
            self.info = CaptureInfo.load(self.path / INFO_NAME)
            before = asdict(self.info)
            if not self.finished:
                self.info.note(_KILLED)
            self._take(compact_leftovers(self.path, self.info, write=True))
            if asdict(self.info) != before:
                # A full disk: the same is done at the next opening.
                with contextlib.suppress(OSError):
                    self.info.save(self.path / INFO_NAME)
        finally:
            lock.release()


def _listed(path: Path, table: str, record: Record | None) -> list[Path]:
    """Return the parts of a table that count, wherever they are by now."""
    if record is None:
        return sorted((path / table).glob("part-*"))
    comes = [path / record.folder / part for part in record.comes]
    # Looked for before the others: one that is moved meanwhile is among those.
    waiting = [part for part in comes if part.parent.name == table and part.exists()]
    gone = {path / part for part in record.goes}
    placed = [part for part in sorted((path / table).glob("part-*")) if part not in gone]
    names = {part.name for part in placed}
    return [*placed, *(part for part in waiting if part.name not in names)]
