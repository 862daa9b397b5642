"""Trace and span ids: hexadecimal at every edge, signed 64-bit integers inside."""

from __future__ import annotations

import base64
import uuid
from hashlib import blake2b
from struct import Struct

_SIGN = 1 << 63
_WRAP = 1 << 64
_HALF, _HALVES = Struct(">q"), Struct(">qq")


def signed(unsigned: int) -> int:
    """Return the low 64 bits of an integer as a signed one."""
    value = unsigned & (_WRAP - 1)
    return value - _WRAP if value >= _SIGN else value


def span_id_from_bytes(raw: bytes) -> int | None:
    """Return a span id; null when it is empty or all zero, as OpenTelemetry defines "no id"."""
    if len(raw) == 8:
        return _HALF.unpack(raw)[0] or None
    return _HALF.unpack(raw[-8:].rjust(8, b"\0"))[0] or None


def trace_id_from_bytes(raw: bytes) -> tuple[int, int]:
    """Return (high, low); a short id fills the low half."""
    return _HALVES.unpack(raw if len(raw) == 16 else raw[-16:].rjust(16, b"\0"))


def span_id_from_text(text: str | None) -> int | None:
    """Read a span id: 16 hex digits, a UUID (folded to 64 bits), base64, or other text (hashed)."""
    if not text:
        return None
    if len(text) <= 16:
        try:
            return signed(int(text, 16)) or None
        except ValueError:
            raw = _from_base64(text, 8)
            return _hash(text, 8)[0] if raw is None else span_id_from_bytes(raw)
    try:
        value = uuid.UUID(text).int
    except ValueError:
        return _hash(text, 8)[0]
    return signed(value ^ (value >> 64)) or None


def trace_id_from_text(text: str) -> tuple[int, int]:
    """Read a trace id: up to 32 hex digits, a UUID with dashes, base64, or other text (hashed)."""
    digits = text.replace("-", "")
    if 0 < len(digits) <= 32:
        try:
            value = int(digits, 16)
        except ValueError:
            pass
        else:
            return signed(value >> 64), signed(value)
    if (raw := _from_base64(text, 16)) is not None:
        return trace_id_from_bytes(raw)
    high, low = _hash(text, 16)
    return high, low


def _from_base64(text: str, size: int) -> bytes | None:
    """Read bytes as protobuf's own JSON has them, which Tempo and Jaeger write; padded only."""
    if len(text) != (size + 2) // 3 * 4 or not text.endswith("="):
        return None
    try:
        raw = base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except ValueError:
        return None
    return raw if len(raw) == size else None


def _hash(text: str, size: int) -> tuple[int, ...]:
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).digest()
    return tuple(
        int.from_bytes(digest[start : start + 8], "big", signed=True) for start in range(0, size, 8)
    )


def span_hex(span_id: int) -> str:
    """Write a span id as 16 hex digits."""
    return f"{span_id & (_WRAP - 1):016x}"


def trace_hex(high: int, low: int) -> str:
    """Write a trace id as 32 hex digits."""
    return f"{high & (_WRAP - 1):016x}{low & (_WRAP - 1):016x}"
