"""Decompression in pieces, with bounds: gzip, zstd, bzip2 and xz, told apart by their first bytes.

Python has zstd from 3.14 on; before that it comes with the extra `perfkit[zstd]`. Text in UTF-16,
as Windows' PowerShell writes what is sent into a file (`>`), is unpacked to UTF-8 in the same way.
"""

from __future__ import annotations

import bz2
import codecs
import importlib
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any, Protocol

from perfkit.errors import InputError

CHUNK_BYTES = 1 << 20

# Bounds against decompression bombs. Telemetry compresses 10 to 50 times; gzip's limit is 1030.
MAX_RATIO = 200
MAX_RATIO_FROM_BYTES = 64 << 20
MAX_BYTES = 8 << 30
_MAX_MEMORY_BYTES = 256 << 20
_MAX_LAYERS = 3


class _Decompressor(Protocol):
    """What bz2, lzma and zstd have in common: one compressed stream."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Gzip:
    """Gzip with the interface of the others."""

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(wbits=31)
        self._problem: zlib.error | None = None

    @property
    def eof(self) -> bool:
        return self._inflater.eof

    @property
    def needs_input(self) -> bool:
        return not self._inflater.unconsumed_tail and self._problem is None

    @property
    def unused_data(self) -> bytes:
        return self._inflater.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        if self._problem is not None:
            raise self._problem
        before = self._inflater.copy()
        taken = self._inflater.unconsumed_tail + data
        try:
            return self._inflater.decompress(taken, max_length)
        except zlib.error as error:
            self._problem = error
            return _before_damage(before, taken, max_length)


def _before_damage(inflater: Any, data: bytes, max_length: int) -> bytes:
    """Return what comes before a damage, which zlib itself would not give: byte after byte."""
    out = bytearray()
    for at in range(len(data)):
        try:
            out += inflater.decompress(data[at : at + 1])
        except zlib.error:
            break
        if len(out) >= max_length:
            break
    return bytes(out[:max_length])


def _zstd() -> _Decompressor:
    for name in ("compression.zstd", "backports.zstd"):
        try:
            module: Any = importlib.import_module(name)
        except ImportError:
            continue
        # A frame may ask for a window of 2 GB; the tools' own limit is 2**27 bytes.
        options = {module.DecompressionParameter.window_log_max: 27}
        decompressor: _Decompressor = module.ZstdDecompressor(options=options)
        return decompressor
    raise InputError(
        "compressed with zstd, which this Python cannot read",
        hint="pip install 'perfkit[zstd]', or decompress it first: zstd -d FILE",
    )


_FORMATS: tuple[tuple[bytes, str, Callable[[], _Decompressor]], ...] = (
    (b"\x1f\x8b", "gzip", _Gzip),
    (b"\x28\xb5\x2f\xfd", "zstd", _zstd),
    (b"BZh", "bzip2", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\x00", "xz", lambda: lzma.LZMADecompressor(memlimit=_MAX_MEMORY_BYTES)),
)
MAGIC_BYTES = max(len(magic) for magic, _, _ in _FORMATS)

_UTF16 = "UTF-16"
_BYTE_ORDERS = {codecs.BOM_UTF16_LE: "little", codecs.BOM_UTF16_BE: "big"}


def name(head: bytes) -> str | None:
    """Return how a file with these first bytes is packed; null for not at all."""
    found = next((found for magic, found, _ in _FORMATS if head.startswith(magic)), None)
    return found or (_UTF16 if _is_utf16(head) else None)


def _is_utf16(head: bytes) -> bool:
    """Whether a byte order mark is followed by ASCII, as every text of ours begins."""
    order: Any = _BYTE_ORDERS.get(head[:2])
    return order is not None and 0 < int.from_bytes(head[2:4], order) < 0x80


def inflate(
    file: IO[bytes], where: str, on_bytes: Callable[[int], None] | None = None
) -> Iterator[bytes]:
    """Decompress in pieces of at most 1 MiB. Raises InputError on damage, truncation and bombs.

    So is what comes out of it compressed: pprof's files are gzip by themselves, and may be packed
    as others are. `on_bytes` hears how many compressed bytes were taken so far.
    """
    outer = given = 0

    def on_outer(taken: int) -> None:
        nonlocal outer
        outer = taken
        if on_bytes is not None:
            on_bytes(taken)

    stream = Stream(_inflate_once(file, where, on_outer))
    for _ in range(_MAX_LAYERS):
        head = stream.read(MAGIC_BYTES)
        stream.put_back(head)
        if name(head) is None:
            break
        stream = Stream(_inflate_once(stream, where, None))
    else:
        raise InputError(f"compressed more than {_MAX_LAYERS} times", where=where)
    for chunk in stream:
        given += len(chunk)
        check(given, outer, where)
        yield chunk


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def _inflate_once(
    file: _Readable, where: str, on_bytes: Callable[[int], None] | None
) -> Iterator[bytes]:
    pending = file.read(CHUNK_BYTES)
    found = name(pending)
    if found == _UTF16:
        yield from _utf8(pending, file, where, on_bytes)
        return
    make = next(make for _, one, make in _FORMATS if one == found)
    taken = given = 0
    stream = make()
    while True:
        if stream.eof:  # the next of several members, or padding
            rest = stream.unused_data
            taken -= len(rest)
            pending = (rest or file.read(CHUNK_BYTES)).lstrip(b"\0")
            while not pending:
                if not (pending := file.read(CHUNK_BYTES)):
                    return
                pending = pending.lstrip(b"\0")
            stream = make()
        elif stream.needs_input:
            pending = pending or file.read(CHUNK_BYTES)
            if not pending:
                raise InputError(
                    f"cut off: the {found} stream has no end", where=f"{where}, byte {taken}"
                )
        else:
            pending = b""
        taken += len(pending)
        try:
            chunk = stream.decompress(pending, CHUNK_BYTES)
        except Exception as error:  # each library has its own; zstd's is not known before
            raise InputError(
                f"damaged {found} ({error})", where=f"{where}, byte {taken - len(pending)}"
            ) from error
        pending = b""
        given += len(chunk)
        check(given, taken, where)
        if on_bytes is not None:
            on_bytes(taken)
        if chunk:
            yield chunk


def _utf8(
    first: bytes, file: _Readable, where: str, on_bytes: Callable[[int], None] | None
) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(_UTF16)()
    taken, pending = 0, first
    while True:
        rest = len(decoder.getstate()[0])
        try:
            yield decoder.decode(pending, final=not pending).encode()
        except UnicodeDecodeError as error:
            yield _before_error(error).encode()
            reason = f"damaged {_UTF16}" if pending else f"cut off: {_UTF16} ends within a letter"
            at = taken - rest + error.start
            raise InputError(reason, where=f"{where}, byte {at}") from error
        if not pending:
            return
        taken += len(pending)
        if on_bytes is not None:
            on_bytes(taken)
        pending = file.read(CHUNK_BYTES)


def _before_error(error: UnicodeDecodeError) -> str:
    return error.object[: error.start].decode(error.encoding).lstrip("\ufeff")


class Stream:
    """A file to read from, made of pieces."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def __iter__(self) -> Iterator[bytes]:
        """Yield what is left of it, in pieces as they come."""
        if self._rest:
            yield self._rest
        yield from self._chunks

    def put_back(self, data: bytes) -> None:
        """Let what was read be read again."""
        self._rest = data + self._rest

    def read(self, size: int, /) -> bytes:
        """Return so many bytes, fewer at the end."""
        pieces = [self._rest]
        have = len(self._rest)
        while have < size and (chunk := next(self._chunks, None)) is not None:
            pieces.append(chunk)
            have += len(chunk)
        data = b"".join(pieces)
        self._rest = data[size:]
        return data[:size]


def check(given: int, taken: int, where: str) -> None:
    """Raise InputError when so many bytes out of so many look like a decompression bomb."""
    if given > MAX_BYTES or (given > MAX_RATIO_FROM_BYTES and given > taken * MAX_RATIO):
        raise InputError(
            f"grows {given // max(taken, 1)} times when decompressed, which looks like a "
            "decompression bomb",
            where=f"{where}, byte {taken}",
            hint="if the file is good, decompress it and import the result",
        )
