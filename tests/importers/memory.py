"""A capture writer that keeps its tables in memory, for tests of importers."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from perfkit import model
from perfkit.batch import Columns
from perfkit.capture import CaptureInfo, CaptureWriter
from perfkit.importers import import_files
from perfkit.parts import conform
from perfkit.stacks import StackTable


class MemoryWriter(CaptureWriter):
    """Takes batches as a real writer does, with its check of every column, and writes nothing."""

    def __init__(self) -> None:
        self.info = CaptureInfo(id="0", created_ns=0)
        self.stacks = StackTable()
        self.frames: dict[str, list[pl.DataFrame]] = {}

    def append(self, table: str, columns: Columns | pl.DataFrame) -> None:
        frame = conform(model.BY_NAME[table], columns)
        self.frames.setdefault(table, []).append(frame)
        self.info.rows[table] = self.info.rows.get(table, 0) + frame.height

    def _gather(self, table: str, columns: Columns) -> None:
        self.append(table, columns)  # every batch is checked at once

    def flush(self) -> None:
        stacks, frames = self.stacks.take_new()
        self.append("stacks", stacks)
        self.append("frames", frames)

    def written(self, table: str) -> pl.LazyFrame:
        return self.table(table).lazy()

    def replace(self, table: str, frame: pl.DataFrame) -> None:
        self.frames[table], self.info.rows[table] = [frame], frame.height

    def close(self) -> None:
        self.flush()

    def table(self, name: str) -> pl.DataFrame:
        """Return all rows that a table was given."""
        return pl.concat([model.BY_NAME[name].empty(), *self.frames.get(name, [])])

    def lost(self) -> dict[str, int]:
        """Return what was refused, as reason -> count."""
        return {loss.why: loss.count for loss in self.info.lost}


def imported(*paths: Path, **options: object) -> MemoryWriter:
    """Import files into memory."""
    writer = MemoryWriter()
    import_files(paths, writer, **options)
    return writer


def by_name(writer: MemoryWriter) -> dict[str, dict[str, object]]:
    """Return the spans as name -> row; of equal names the last."""
    return {row["name"]: row for row in writer.table("spans").to_dicts()}
