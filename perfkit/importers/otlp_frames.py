"""OTLP as the collector's file exporter writes it in its framed forms: protobuf, or compressed.

Each message stands behind its length in four bytes, big-endian: protobuf always, JSON when it is
compressed with zstd. Uncompressed JSON is one document a line, as the importer `otlp-json` reads.
"""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from pathlib import Path

from perfkit.capture import CaptureWriter
from perfkit.errors import InputError
from perfkit.formats import otlp
from perfkit.formats.wire_fields import Content
from perfkit.importers import compression, otlp_json, otlp_protobuf
from perfkit.importers.base import Format, Source

NAME = "otlp-frames"
FORMAT = Format(
    title="OTLP of the collector's file exporter, framed",
    made_by="the exporter `file` with `format: proto`, or with `compression: zstd`",
    recognised_by="lengths of four bytes before protobuf or zstd",
    gives="spans, span events, span links, metrics",
    lacks="nothing; logs are passed over",
)

_LENGTH = struct.Struct(">I")
_MAX_FRAME_BYTES = 256 << 20
"""Of a message, also when it is decompressed: the collector sends batches of a few MB."""
_ZSTD = b"\x28\xb5\x2f\xfd"


def sniff(head: bytes, path: Path) -> bool:
    """Recognise a plausible length with a compressed or a protobuf message behind it."""
    if len(head) < 12 or head[0] >= 0x0A:
        return False  # bare protobuf begins with 0x0a
    (length,) = _LENGTH.unpack_from(head)
    if not 8 <= length <= _MAX_FRAME_BYTES:
        return False
    message = head[4 : 4 + length]
    return message.startswith(_ZSTD) or otlp_protobuf.sniff(message, path)


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all messages."""
    content = source.contents()
    quiet = replace(source, on_share=None)
    at = 0
    while at < len(content):
        end, problem = _end(content, at)
        message = bytes(content[at + 4 : end])
        with source.record():
            _take(quiet, writer, message, at)
        if problem is not None:
            raise source.error(problem, offset=at)
        at = end
        source.share(at / len(content))


def _end(content: Content, at: int) -> tuple[int, str | None]:
    """Return where the message ends whose length is at `at`, and what is wrong with that."""
    if at + 4 > len(content):
        return len(content), "cut off in the length of a message"
    (length,) = _LENGTH.unpack_from(content, at)
    if length > _MAX_FRAME_BYTES:
        return at + 4, f"a message of an implausible length, {length} bytes"
    if at + 4 + length > len(content):
        return len(content), "cut off in the middle of a message"
    return at + 4 + length, None


def _take(source: Source, writer: CaptureWriter, message: bytes, at: int) -> None:
    """Read the message at `at`, or what is whole of it."""
    plain = _decompressed(message, f"{source}, message at byte {at}")
    packed = plain is not message
    if not plain:
        return
    if otlp_json.is_document(plain):
        try:
            batches = otlp.from_json(plain)
        except InputError as error:
            raise source.error(error.message, offset=at, hint=error.hint) from error
        for batch in batches:
            writer.add(batch)
    elif otlp_protobuf.signal(plain) == "logs":
        writer.lose("rejected", 1, "message of logs")
    else:
        otlp_protobuf.add(source, writer, plain, lambda inner: at if packed else at + 4 + inner)


def _decompressed(message: bytes, where: str) -> bytes:
    if not message.startswith(_ZSTD):
        return message
    plain = bytearray()
    for piece in compression.inflate(io.BytesIO(message), where):
        plain += piece
        if len(plain) > _MAX_FRAME_BYTES:
            limit = f"a message of more than {_MAX_FRAME_BYTES >> 20} MiB when decompressed"
            raise InputError(limit, where=where)
    return bytes(plain)
