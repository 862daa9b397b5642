"""What a recorder writes before it becomes Parquet: it survives a crash of the recorder.

The journal folder of a capture holds segments of received bodies (`otlp-N.journal`) and segments of
stacks: py-spy's trace `stacks-N.json`, with `stacks-N.meta`, which says when the trace began on the
clocks and where it is to be cut, and `stacks-N.threads`, which says when threads ran (format:
`formats/threadlog.py`). `compact.py` turns both into parts.

A segment of bodies is a file of records. A record is a header (magic, kind, encoding, length,
CRC-32 of the payload) and the payload as it was received. Reading stops at the first record that is
cut or damaged, which after a crash is the last one.
"""

from __future__ import annotations

import json
import math
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from perfkit.errors import InputError
from perfkit.manifest import atomic_write, sync_directory

JOURNAL_DIR = "journal"
RESERVE_NAME = "reserve"
"""A file that only holds back space while recording."""

_HEADER = struct.Struct("<4sBBHII")
_MAGIC = b"pkj1"
SEGMENT_BYTES = 64 << 20
_MAX_START_NS = 6_000_000
_MAX_MEMBERS = 100


class Kind(IntEnum):
    """What a record holds."""

    TRACES_PROTOBUF = 1
    TRACES_JSON = 2
    METRICS_PROTOBUF = 3
    METRICS_JSON = 4
    METRICS_ROWS = 5
    """Rows of the table `metrics`, as a JSON object of columns: what perfkit measures itself."""


class Record(NamedTuple):
    """One received body, as it came."""

    kind: Kind
    gzipped: bool
    body: bytes

    def content(self, limit_bytes: int | None = None) -> bytes:
        """Return the body, inflated if need be.

        Raises InputError for a body that is no gzip or cut off, and TooLarge when it would inflate
        to more than `limit_bytes`.
        """
        return _inflate(self.body, limit_bytes) if self.gzipped else self.body


class TooLarge(InputError):
    """A compressed body inflates to more than is allowed."""


def _inflate(body: bytes, limit_bytes: int | None) -> bytes:
    parts: list[bytes] = []
    left = -1 if limit_bytes is None else limit_bytes
    rest = body
    # gzip allows several members, and zeros at the end; each copies what is left of the body.
    while not parts or rest.strip(b"\0"):
        if len(parts) == _MAX_MEMBERS:
            raise InputError(f"gzip of more than {_MAX_MEMBERS} members")
        member = zlib.decompressobj(wbits=31)
        try:
            # One byte more than allowed is enough to know that it is too much.
            parts.append(member.decompress(rest, 0 if left < 0 else left + 1))
        except zlib.error as error:
            raise InputError(f"not gzip, or damaged ({error})") from error
        if left >= 0:
            left -= len(parts[-1])
            if left < 0:
                raise TooLarge(f"inflates to more than {limit_bytes} bytes")
        if not member.eof:
            raise InputError("gzip is cut off")
        rest = member.unused_data
    return b"".join(parts)


def entry(record: Record) -> tuple[bytes, bytes]:
    """Return a record as a segment has it: header and payload."""
    crc = zlib.crc32(record.body)
    head = _HEADER.pack(_MAGIC, record.kind, record.gzipped, 0, len(record.body), crc)
    return head, record.body


class Full(NamedTuple):
    """A segment to which nothing is appended any more."""

    path: Path
    file: FileIO

    def finish(self) -> Path:
        """Make it durable and close it; returns what can now be compacted."""
        os.fdatasync(self.file.fileno())
        self.file.close()
        return self.path


class Journal:
    """Appends records to numbered segments in `directory`. Not thread-safe: the caller locks."""

    def __init__(self, directory: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        directory.mkdir(parents=True, exist_ok=True)
        self._number = max((_number(path) for path in segments(directory)), default=0)
        self._file = self._next_segment()
        self._number += 1
        self._next: FileIO | None = None
        self._bytes = 0

    def append(self, record: Record) -> None:
        """Write a record to the operating system. Durable only after `sync`."""
        self.append_entry(entry(record))

    def append_entry(self, parts: tuple[bytes, bytes]) -> None:
        """Do the same with what `entry` returned."""
        try:
            self._write_all(parts)
        except OSError:
            # A half-written record would hide every later one from the reader.
            os.truncate(self._file.fileno(), self._bytes)
            self._file.seek(self._bytes)
            raise
        self._bytes += sum(map(len, parts))

    def sync(self) -> None:
        """Make everything appended so far durable."""
        os.fdatasync(self._file.fileno())

    def open_next(self) -> None:
        """Open the next segment, for `switch`: on a full disk the journal stays as it was."""
        self._next = self._next_segment()

    def switch(self) -> Full:
        """Begin the next segment, which is open; takes no time. The caller finishes the old one."""
        assert self._next is not None
        full = Full(self.current, self._file)
        self._file, self._next, self._bytes = self._next, None, 0
        self._number += 1
        return full

    @property
    def current(self) -> Path:
        """The segment that is being written: not to be compacted."""
        return self._path(self._number)

    @property
    def current_bytes(self) -> int:
        """Size of the segment that is being written."""
        return self._bytes

    @property
    def full(self) -> bool:
        """Whether the current segment has reached its size and should be rotated."""
        return self._bytes >= self._segment_bytes

    def close(self) -> None:
        """Sync and close."""
        self.sync()
        self._file.close()

    def _write_all(self, parts: tuple[bytes, bytes]) -> None:
        left = [memoryview(part) for part in parts]
        while left:
            written = os.writev(self._file.fileno(), left)
            while left and written >= len(left[0]):
                written -= len(left.pop(0))
            if left:
                left[0] = left[0][written:]

    def _path(self, number: int) -> Path:
        return self._directory / f"otlp-{number:06d}.journal"

    def _next_segment(self) -> FileIO:
        file = FileIO(self._path(self._number + 1), "x")
        # A file is only durable together with its name.
        sync_directory(self._directory)
        return file


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


@dataclass(frozen=True)
class StackSegment:
    """The files of one run of py-spy; `trace` is what names it."""

    trace: Path

    @classmethod
    def numbered(cls, directory: Path, number: int) -> StackSegment:
        """Return the segment with a number."""
        return cls(directory / f"stacks-{number:06d}.json")

    @property
    def threads(self) -> Path:
        """The log of when threads ran."""
        return self.trace.with_suffix(".threads")

    @property
    def meta(self) -> Path:
        """Its `StackMeta`."""
        return self.trace.with_suffix(".meta")

    def remove(self) -> None:
        """Remove all files; the trace last, because it is what a recovery looks for."""
        for path in (self.meta, self.threads, self.trace):
            path.unlink(missing_ok=True)


@dataclass(frozen=True)
class StackMeta:
    """When a trace began, and which part of it counts: where two overlap, both are cut."""

    pid: int
    rate: int
    wall_ns: int
    monotonic_ns: int
    from_monotonic_ns: int | None = None
    until_monotonic_ns: int | None = None
    stopped_monotonic_ns: int | None = None
    """When py-spy said that it stopped, right before the last time stamp in its trace."""
    clock_began_monotonic_ns: int | None = None
    """When it was 0 in the trace; null where that was not found."""
    idle: bool = True
    """Whether the time in which threads waited is kept."""

    @property
    def offset_ns(self) -> int:
        """What turns the monotonic clock into Unix time, as both were read when it began."""
        return self.wall_ns - self.monotonic_ns

    def anchor_wall_ns(self, trace_length_ns: int) -> int:
        """Return the Unix time at which a stack seen at the trace's time 0 began.

        py-spy's clock starts some ms after its `exec`, the later the busier the machine. Where it
        was not found when, its last time stamp says how many, if it ended in an orderly way. And
        py-spy looks at random moments, 1/rate apart on average, so it sees a change ln(2)/rate too
        late at the median.
        """
        unseen_ns = round(math.log(2) / self.rate * 1e9)
        if self.clock_began_monotonic_ns is not None:
            return self.clock_began_monotonic_ns + self.offset_ns - unseen_ns
        late_ns = 0
        if self.stopped_monotonic_ns is not None:
            late_ns = self.stopped_monotonic_ns - trace_length_ns - self.monotonic_ns
        # More than that is our own lateness in reading what it said.
        return self.wall_ns + min(max(late_ns, 0), _MAX_START_NS) - unseen_ns

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        with atomic_write(path) as file:
            file.write(json.dumps(asdict(self)).encode("ascii"))

    @classmethod
    def load(cls, path: Path) -> StackMeta:
        """Read it. Raises InputError when it is missing or damaged."""
        try:
            return cls(**json.loads(path.read_text(encoding="ascii")))
        except (OSError, ValueError, TypeError) as error:
            raise InputError("does not say when it began", where=str(path)) from error


def divided(first: StackMeta, second: StackMeta, cut_ns: int) -> tuple[StackMeta, StackMeta]:
    """Return two overlapping traces cut at `cut_ns` of the monotonic clock.

    It is one moment of Unix time too, though each reads its offset by itself and they differ:
    otherwise a thread would be in two places at once there.
    """
    until_ns = cut_ns + second.offset_ns - first.offset_ns
    return replace(first, until_monotonic_ns=until_ns), replace(second, from_monotonic_ns=cut_ns)
