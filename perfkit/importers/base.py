"""What an importer is, and the file that it reads.

Each importer is one module of this package, listed in `IMPORTERS`.
"""

from __future__ import annotations

import contextlib
import functools
import io
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from perfkit.capture import CaptureWriter
from perfkit.errors import InputError
from perfkit.importers import compression, places

HEAD_BYTES = 64 << 10
MARK = b"\xef\xbb\xbf"
"""What programs of Windows put before UTF-8; no format begins so, and none of them means it."""
MAX_LINE_BYTES = 256 << 20
"""Of a record that is a line: longer ones would fill the memory."""


class Importer(Protocol):
    """A module that reads the files of one format."""

    NAME: str
    """Short name for messages and `--format`, e.g. `jaeger-json`."""

    FORMAT: Format
    """What users read of it in the documentation."""

    def sniff(self, head: bytes, path: Path) -> bool:
        """Whether a file with these first 64 KiB (decompressed) is of this format."""

    def read(self, source: Source, writer: CaptureWriter) -> None:
        """Read a whole file into a capture. Raises InputError naming the place in the file.

        What was read before a damaged place is in the capture when it raises.
        """


@dataclass(frozen=True)
class Format:
    """What a format is, for its users: the rows of docs/formats.md."""

    title: str
    """The tool and its format."""
    made_by: str
    """How to make such a file, a command if there is one."""
    recognised_by: str
    gives: str
    """Which tables it fills."""
    lacks: str
    """What it cannot say, so that it is null or assumed."""
    tried: str = ""
    """Versions of the tools whose own output was last read by it; empty when it was none."""


@dataclass(frozen=True)
class Source:
    """One file to import, decompressed on the way when it is compressed."""

    path: Path
    started_at_ns: int | None = None
    """Unix time of the file's beginning as the user says it, for formats without wall time."""
    label: str = ""
    """How messages call it, where that is not its path: `logs.zip!a.json`, `standard input`."""
    on_share: Callable[[float], None] | None = None
    """Hears which share of the file, 0 to 1, has been read."""
    on_damage: Callable[[InputError], None] | None = None
    """Hears of a damaged record that is passed over; without it, such a record ends the file."""
    content: bytes | None = None
    """What is in it, where that was read already: the file is small, and not compressed."""

    def __str__(self) -> str:
        return self.label or str(self.path)

    @property
    def name(self) -> str:
        """The last part of its name."""
        return str(self).rpartition("!")[2].rpartition("/")[2]

    @property
    def content_name(self) -> str:
        """Its name without the ending of a compression: ids made of it are those of a copy, too."""
        stem, _, ending = self.name.rpartition(".")
        return stem if ending in ("gz", "zst", "bz2", "xz") else self.name

    @property
    def modified_ns(self) -> int:
        """When the file was last written."""
        return self.path.stat().st_mtime_ns

    @property
    def size_bytes(self) -> int:
        """How large the file is."""
        return self.path.stat().st_size if self.content is None else len(self.content)

    @functools.cached_property
    def compressed(self) -> bool:
        """Whether the file is gzip, zstd, bzip2 or xz."""
        if self.content is not None:
            return False
        with self.path.open("rb") as file:
            return compression.name(file.read(compression.MAGIC_BYTES)) is not None

    def head(self) -> bytes:
        """Return the first 64 KiB; of a damaged compressed file what can be read."""
        if self.content is not None:
            return self.content[:HEAD_BYTES]
        if not self.compressed:
            with self.path.open("rb") as file:
                return file.read(HEAD_BYTES).removeprefix(MARK)
        out = b""
        try:
            for chunk in self._inflated():
                out += chunk
                if len(out) >= HEAD_BYTES:
                    break
        except InputError:
            if not out:
                raise
        return out[:HEAD_BYTES]

    def contents(self) -> bytes | mmap.mmap:
        """Return the whole content: mapped, so that a large file does not fill the memory.

        What is compressed, or has a mark before it, is mapped from a nameless file, in TMPDIR.
        """
        if self.content is not None:
            return self.content
        with self._plain() as file:
            if not os.fstat(file.fileno()).st_size:
                return b""
            # Never closed here: parsers keep views of it. It goes away with the last of them.
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def _plain(self) -> IO[bytes]:
        if not self.compressed:
            plain = self.path.open("rb")
            if plain.read(len(MARK)) != MARK:
                plain.seek(0)
                return plain
            plain.close()
        file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
        try:
            try:
                file.writelines(self.chunks(quietly=True))
            except InputError as error:  # what it gave until then may be enough
                self.pass_over(error)
            file.flush()
        except OSError as error:
            with contextlib.suppress(OSError):  # it tries to write once more
                file.close()
            raise InputError(
                f"no room to decompress it in {tempfile.gettempdir()}: {error.strerror}",
                where=str(self),
                hint="set TMPDIR to a folder with room for it",
            ) from error
        except BaseException:
            file.close()
            raise
        return file

    def read(self) -> bytes:
        """Return the whole content."""
        return bytes(self.contents())

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield (line number from 1, line without its end), blank lines left out.

        A line that is longer than any record is (MAX_LINE_BYTES) counts as damaged.
        """
        number, size = 0, 0
        pieces: list[bytes] = []  # of a line that goes on; joined once, however long it gets
        for chunk in self.chunks():
            first, *others = chunk.split(b"\n")
            size += len(first)
            pieces = [] if size > MAX_LINE_BYTES else [*pieces, first]
            for following in others:
                number += 1
                line = self._line(pieces, size, number)
                if line.strip():
                    yield number, line.rstrip(b"\r")
                pieces, size = [following], len(following)
        line = self._line(pieces, size, number + 1)
        if line.strip():
            yield number + 1, line.rstrip(b"\r")

    def _line(self, pieces: list[bytes], size: int, number: int) -> bytes:
        if size > MAX_LINE_BYTES:
            limit = f"a line of more than {MAX_LINE_BYTES >> 20} MiB"
            self.pass_over(InputError(limit, where=f"{self}, line {number}"))
        return b"".join(pieces)

    def chunks(self, *, quietly: bool = False) -> Iterator[bytes]:
        """Yield the content in pieces; `quietly` is without saying how much has been read."""
        report = None if quietly else self._report
        if self.compressed:
            yield from self._inflated(report)
            return
        taken = 0
        with self._opened() as file:
            if file.read(len(MARK)) != MARK:
                file.seek(0)
            while chunk := file.read(compression.CHUNK_BYTES):
                taken += len(chunk)
                if report is not None:
                    report(taken)
                yield chunk

    def _opened(self) -> IO[bytes]:
        return self.path.open("rb") if self.content is None else io.BytesIO(self.content)

    def pass_over(self, error: InputError) -> None:
        """Go on after a record that is damaged, or raise the error where that is not wanted."""
        if self.on_damage is None:
            raise error
        self.on_damage(self.located(error))

    def located(self, error: InputError) -> InputError:
        """Return an error with the place in the file, where it names none and it can be found."""
        if error.where not in (None, str(self)):
            return error
        message = error.message.removeprefix(f"{self}: ")
        if self.compressed:
            where = f"{self}, at its end" if places.TRUNCATED in message else str(self)
            return InputError(message, where=where, hint=error.hint)
        offset = places.offset(self.contents(), message, error.part)
        return self.error(message, offset=offset, hint=error.hint)

    @contextlib.contextmanager
    def record(self) -> Iterator[None]:
        """Read one record: what is raised of it does not end the file with `--keep-going`."""
        try:
            yield
        except InputError as error:
            self.pass_over(error)

    def share(self, share: float) -> None:
        """Say which share of the content has been read, 0 to 1; for those that map it."""
        if self.on_share is not None:
            self.on_share(share)

    def _report(self, taken: int) -> None:
        if self.on_share is not None:
            self.on_share(taken / max(1, self.size_bytes))

    def _inflated(self, on_bytes: Callable[[int], None] | None = None) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            chunks = compression.inflate(file, str(self), on_bytes)
            yield next(chunks, b"").removeprefix(MARK)
            yield from chunks

    def error(
        self, message: str, *, offset: int | None = None, hint: str | None = None
    ) -> InputError:
        """Make an error about this file; `offset` is in bytes."""
        where = f"{self}, byte {offset}" if offset is not None else str(self)
        return InputError(message, where=where, hint=hint)
