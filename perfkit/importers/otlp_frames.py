"""OTLP as the collector's file exporter writes it in its framed forms: protobuf, or compressed.

Each message stands behind its length in four bytes, big-endian: protobuf always, JSON when it is
compressed with zstd. Uncompressed JSON is one document a line, as the importer `otlp-json` reads.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path

from perfkit.capture import CaptureWriter
from perfkit.errors import InputError
from perfkit.formats import otlp, otlp_columns
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
_ZSTD = b"\x28\xb5\x2f\xfd"


def sniff(head: bytes, path: Path) -> bool:
    """Recognise a plausible length with a compressed or a protobuf message behind it."""
    if len(head) < 12 or head[0]:
        return False  # bare protobuf begins with 0x0a
    (length,) = _LENGTH.unpack_from(head)
    if not 8 <= length <= _MAX_FRAME_BYTES:
        return False
    message = head[4 : 4 + length]
    return message.startswith(_ZSTD) or otlp_protobuf.sniff(message, path)


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all messages."""
    for offset, message in _messages(source):
        try:
            _take(message, writer)
        except InputError as error:
            raise source.error(error.message, offset=offset, hint=error.hint) from error


def _take(message: bytes, writer: CaptureWriter) -> None:
    if otlp_json.is_document(message):
        for batch in otlp.from_json(message):
            writer.add(batch)
        return
    signal = otlp_protobuf.signal(message)
    if signal == "logs":
        writer.lose("rejected", 1, "message of logs")
    elif signal == "metrics":
        writer.add(otlp.metrics_from_protobuf(message))
    else:
        for spans, others in otlp_columns.read([message]):
            writer.append("spans", spans)
            writer.add(others)


def _messages(source: Source) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, message), decompressed."""
    content = source.contents()
    at = 0
    while at < len(content):
        if at + 4 > len(content):
            raise source.error("cut off in the length of a message", offset=at)
        (length,) = _LENGTH.unpack_from(content, at)
        if length > _MAX_FRAME_BYTES:
            raise source.error("a message of an implausible length", offset=at)
        if at + 4 + length > len(content):
            raise source.error("cut off in the middle of a message", offset=at)
        message = bytes(content[at + 4 : at + 4 + length])
        if message.startswith(_ZSTD):
            packed = io.BytesIO(message)
            message = b"".join(compression.inflate(packed, f"{source}, message at byte {at}"))
        yield at, message
        at += 4 + length
        source.share(at / len(content))
