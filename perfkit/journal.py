"""An append-only journal of raw OTLP bodies: what was acknowledged survives a crash.

A segment is a file of records. A record is a header (magic, kind, encoding, length, CRC-32 of the
payload) and the payload as it was received. Reading stops at the first record that is cut or
damaged, which after a crash is the last one.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from enum import IntEnum
from io import FileIO
from pathlib import Path
from typing import NamedTuple

_HEADER = struct.Struct("<4sBBHII")
_MAGIC = b"pkj1"
SEGMENT_BYTES = 64 << 20


class Kind(IntEnum):
    """What a record holds."""

    TRACES_PROTOBUF = 1
    TRACES_JSON = 2
    METRICS_PROTOBUF = 3
    METRICS_JSON = 4


class Record(NamedTuple):
    """One received body."""

    kind: Kind
    gzipped: bool
    body: bytes


class Journal:
    """Appends records to numbered segments in `directory`. Not thread-safe: the caller locks."""

    def __init__(self, directory: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        directory.mkdir(parents=True, exist_ok=True)
        self._number = max((_number(path) for path in segments(directory)), default=0)
        self._file = self._next_segment()

    def append(self, record: Record) -> None:
        """Write a record to the operating system. Durable only after `sync`."""
        if self._file.tell() >= self._segment_bytes:
            self.rotate()
        crc = zlib.crc32(record.body)
        header = _HEADER.pack(_MAGIC, record.kind, record.gzipped, 0, len(record.body), crc)
        start = self._file.tell()
        try:
            self._write_all(header + record.body)
        except OSError:
            # A half-written record would hide every later one from the reader.
            os.truncate(self._file.fileno(), start)
            self._file.seek(start)
            raise

    def sync(self) -> None:
        """Make everything appended so far durable."""
        os.fdatasync(self._file.fileno())

    def rotate(self) -> None:
        """Close the current segment, which can then be compacted, and begin the next."""
        self.sync()
        self._file.close()
        self._file = self._next_segment()

    @property
    def current(self) -> Path:
        """The segment that is being written: not to be compacted."""
        return self._directory / f"otlp-{self._number:06d}.journal"

    def close(self) -> None:
        """Sync and close."""
        self.sync()
        self._file.close()

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def _next_segment(self) -> FileIO:
        self._number += 1
        return FileIO(self._directory / f"otlp-{self._number:06d}.journal", "x")


def _number(path: Path) -> int:
    return int(path.stem.rsplit("-", 1)[1])


def segments(directory: Path) -> list[Path]:
    """Return the segments of a journal directory, oldest first."""
    return sorted(directory.glob("otlp-??????.journal"))


def read_segment(path: Path) -> Iterator[Record]:
    """Yield the whole records of a segment. Stops, without an error, where the file is cut."""
    with path.open("rb") as file:
        while len(header := file.read(_HEADER.size)) == _HEADER.size:
            magic, kind, gzipped, _, length, crc = _HEADER.unpack(header)
            if magic != _MAGIC or kind not in Kind.__members__.values():
                return
            body = file.read(length)
            if len(body) < length or zlib.crc32(body) != crc:
                return
            yield Record(Kind(kind), bool(gzipped), body)
