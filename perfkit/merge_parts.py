"""Compaction of a capture: many small parts become few, and filters skip most of its spans."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from perfkit import layout, model
from perfkit.capture import Capture
from perfkit.errors import CaptureError
from perfkit.manifest import WriterLock
from perfkit.parts import FLUSH_ROWS, write_frame, write_part
from perfkit.remote import url_of
from perfkit.replacement import FOLDER, RECORD, Record, carry_out, decide, read_record

_BUCKET_SPANS = 1_000_000
"""A bucket is worked on in memory: up to about 1 GiB."""
_GROUP_ROWS = 8 * 1024
"""Row groups of spans: small, since a filter reads those that its rows lie in."""
_KEYS = {"stacks": "stack_id", "frames": "frame_id"}


@dataclass(frozen=True)
class Compaction:
    """What a compaction did."""

    parts_before: int
    parts_after: int
    bytes_before: int
    bytes_after: int
    waits: bool
    """Whether the old parts are still in their place, because somebody reads them."""


def compact(path: Path, progress: Callable[[str], None] = lambda _: None) -> Compaction:
    """Merge the parts of the capture at `path`. Raises CaptureError when it is being written."""
    if url_of(path) is not None:
        raise CaptureError(
            f"{url_of(path)}: is only read", hint="compact it before you copy it there"
        )
    capture = Capture.open(path)
    lock = WriterLock(path)
    try:
        if not lock.acquire():
            raise CaptureError(
                f"{path}: is being written", hint="wait until the recording has ended"
            )
        lock.sign()
        if read_record(path) is not None:
            raise CaptureError(
                f"{path}: is compacted already, but its parts cannot change places while another "
                "perfkit reads them",
                hint="the next command that opens it when that has ended does it",
            )
        carry_out(path)  # the folder of one that was killed may be as large as the capture
        return _compact(capture, progress)
    finally:
        lock.release()


def _compact(capture: Capture, progress: Callable[[str], None]) -> Compaction:
    before = _parts(capture.path)
    bytes_before = _size(capture.path, before)
    folder = f"{FOLDER}{secrets.token_hex(4)}"
    staging = capture.path / folder
    comes: list[str] = []
    goes: list[str] = []
    try:
        for table in model.BY_NAME:
            old = [part for part in before if part.startswith(f"{table}/")]
            writes = _spans if table == "spans" else _rows
            if old and not _is_compact(capture.path, table, old):
                progress(f"compacting {table}")
                comes += [f"{table}/{name}" for name in writes(capture, table, old, staging)]
                goes += old
        kept = sorted(set(before) - set(goes))
        bytes_after = _size(capture.path, kept) + _size(staging, comes)
        if goes:
            decide(capture.path, Record(folder, comes, goes))
    finally:
        if not (capture.path / RECORD).exists():
            shutil.rmtree(staging, ignore_errors=True)
    waits = bool(goes) and not capture.settle()
    return Compaction(len(before), len(kept) + len(comes), bytes_before, bytes_after, waits)


def _spans(capture: Capture, table: str, old: list[str], staging: Path) -> Iterator[str]:
    """Write the spans by bucket; yields the names of the parts."""
    rows = capture.table(table)
    buckets = _buckets(capture)
    divided = staging / "divided"
    if buckets > 1:
        rows.with_columns(bucket=layout.bucket(buckets)).sink_parquet(
            pl.PartitionBy(divided, key="bucket", include_key=False),
            compression="lz4",
            mkdir=True,
        )
    for number in range(buckets):
        files = sorted((divided / f"bucket={number}").glob("*.parquet"))
        if buckets > 1 and not files:
            continue
        spans = pl.concat(pl.scan_parquet(file) for file in files) if buckets > 1 else rows
        placed, index = layout.laid_out(spans.collect(), number, buckets)
        name = f"part-{capture.info.id}-b{number:05d}-{secrets.token_hex(4)}"
        metadata = {layout.INDEX_KEY: index.encoded()}
        write_frame(staging, table, name, placed, metadata, _GROUP_ROWS)
        for file in files:
            file.unlink()
        yield f"{name}.parquet"


def _rows(capture: Capture, table: str, old: list[str], staging: Path) -> Iterator[str]:
    """Write the rows of a table in parts of about a million; yields the names of the parts."""
    waiting: list[pl.DataFrame] = []
    frames = [pl.read_parquet(capture.path / part) for part in old] if table in _KEYS else None
    if frames is not None:
        merged = pl.concat(frames, how="diagonal").unique(_KEYS[table], keep="any")
        yield from _written(capture, table, [merged], staging)
        return
    for part in old:
        waiting.append(pl.read_parquet(capture.path / part))
        if sum(frame.height for frame in waiting) >= FLUSH_ROWS:
            yield from _written(capture, table, waiting, staging)
            waiting = []
    yield from _written(capture, table, waiting, staging)


def _written(
    capture: Capture, table: str, frames: list[pl.DataFrame], staging: Path
) -> Iterator[str]:
    if frames:
        name = f"part-{capture.info.id}-m-{secrets.token_hex(4)}"
        write_part(staging, table, name, pl.concat(frames, how="diagonal"))
        yield f"{name}.parquet"


def _buckets(capture: Capture) -> int:
    spans = int(capture.table("spans").select(pl.len()).collect().item())
    return max(1, -(-spans // _BUCKET_SPANS))


def _is_compact(path: Path, table: str, parts: list[str]) -> bool:
    """Whether there is nothing to gain."""
    if table == "spans":
        indices = [layout.read_index(pl.read_parquet_metadata(path / part)) for part in parts]
        buckets = {index.buckets if index else 0 for index in indices}
        numbers = {index.bucket for index in indices if index}
        return 0 not in buckets and len(buckets) == 1 and len(numbers) == len(parts)
    rows = [pl.scan_parquet(path / part).select(pl.len()).collect().item() for part in parts]
    return len(parts) == 1 or min(rows) >= FLUSH_ROWS


def _parts(path: Path) -> list[str]:
    """Return all parts by their path in the capture, in the order of their names."""
    return sorted(
        f"{table}/{part.name}"
        for table in model.BY_NAME
        for part in (path / table).glob("part-*.parquet")
    )


def _size(path: Path, parts: list[str]) -> int:
    return sum((path / part).stat().st_size for part in parts)
