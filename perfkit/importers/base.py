"""What an importer is, and the file that it reads.

Each importer is one module of this package, listed in `IMPORTERS`.
"""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from perfkit.capture import CaptureWriter
from perfkit.errors import InputError

HEAD_BYTES = 64 << 10
_GZIP = b"\x1f\x8b"
_CHUNK_BYTES = 1 << 20

# Bounds against decompression bombs. Telemetry compresses 10 to 50 times; gzip's limit is 1030.
MAX_RATIO = 200
MAX_RATIO_FROM_BYTES = 64 << 20
MAX_BYTES = 8 << 30


class Importer(Protocol):
    """A module that reads the files of one format."""

    NAME: str
    """Short name for messages and `--format`, e.g. `jaeger-json`."""

    def sniff(self, head: bytes, path: Path) -> bool:
        """Whether a file with these first 64 KiB (decompressed) is of this format."""

    def read(self, source: Source, writer: CaptureWriter) -> None:
        """Read a whole file into a capture. Raises InputError naming the place in the file."""


@dataclass(frozen=True)
class Source:
    """One file to import, decompressed on the way when it is gzip."""

    path: Path
    started_at_ns: int | None = None
    """Unix time of the file's beginning as the user says it, for formats without wall time."""

    @property
    def modified_ns(self) -> int:
        """When the file was last written."""
        return self.path.stat().st_mtime_ns

    @property
    def compressed(self) -> bool:
        """Whether the file is gzip."""
        with self.path.open("rb") as file:
            return file.read(2) == _GZIP

    def head(self) -> bytes:
        """Return the first 64 KiB; of a damaged gzip what can be read."""
        with self.path.open("rb") as file:
            if file.read(2) != _GZIP:
                file.seek(0)
                return file.read(HEAD_BYTES)
        out = b""
        try:
            for chunk in self._inflated():
                out += chunk
                if len(out) >= HEAD_BYTES:
                    break
        except InputError:
            pass
        return out[:HEAD_BYTES]

    def contents(self) -> bytes | mmap.mmap:
        """Return the whole content: mapped, so that a large file does not fill the memory."""
        if self.compressed:
            return b"".join(self._inflated())
        if not self.path.stat().st_size:
            return b""
        with self.path.open("rb") as file:
            # Never closed here: parsers keep views of it. It goes away with the last of them.
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def read(self) -> bytes:
        """Return the whole content."""
        return bytes(self.contents())

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield (line number from 1, line without its end), blank lines left out."""
        number = 0
        pieces: list[bytes] = []  # of a line that goes on; joined once, however long it gets
        for chunk in self.chunks():
            first, *others = chunk.split(b"\n")
            pieces.append(first)
            for following in others:
                number += 1
                line = b"".join(pieces)
                if line.strip():
                    yield number, line.rstrip(b"\r")
                pieces = [following]
        line = b"".join(pieces)
        if line.strip():
            yield number + 1, line.rstrip(b"\r")

    def chunks(self) -> Iterator[bytes]:
        """Yield the content in pieces."""
        if self.compressed:
            yield from self._inflated()
            return
        with self.path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk

    def _inflated(self) -> Iterator[bytes]:
        """Decompress in pieces. Raises InputError on damage, truncation and bombs."""
        taken = given = 0
        with self.path.open("rb") as file:
            inflater = zlib.decompressobj(wbits=31)
            pending = b""
            while True:
                pending = pending or _read(file)
                if inflater.eof:  # the next of several members, or padding
                    pending = pending.lstrip(b"\0")
                    if not pending:
                        if not (pending := _read(file)):
                            return
                        continue
                    inflater = zlib.decompressobj(wbits=31)
                if not pending:
                    raise self.error("cut off: the gzip stream has no end", offset=taken)
                try:
                    chunk = inflater.decompress(pending, _CHUNK_BYTES)
                except zlib.error as error:
                    raise self.error(f"damaged gzip ({error})", offset=taken) from error
                rest = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
                taken += len(pending) - len(rest)
                pending = rest
                given += len(chunk)
                if given > MAX_BYTES or (
                    given > MAX_RATIO_FROM_BYTES and given > taken * MAX_RATIO
                ):
                    raise self.error(
                        f"grows {given // max(taken, 1)} times when decompressed, which looks "
                        "like a decompression bomb",
                        hint="if the file is good, decompress it and import the result",
                    )
                if chunk:
                    yield chunk

    def error(
        self, message: str, *, offset: int | None = None, hint: str | None = None
    ) -> InputError:
        """Make an error about this file; `offset` is in bytes."""
        where = f"{self.path}, byte {offset}" if offset is not None else str(self.path)
        return InputError(message, where=where, hint=hint)


def _read(file: IO[bytes]) -> bytes:
    return file.read(_CHUNK_BYTES)
