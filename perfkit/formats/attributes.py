"""Attributes of spans: decoded once, promoted once, and written as JSON.

The attributes of a service repeat: the same key with the same value arrives thousands of times. So
the encoded form of an attribute (protobuf bytes or JSON text) is the key of a cache of what it
means, and a span's promoted columns are cached by the encoded attributes that they depend on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from perfkit import semconv
from perfkit.semconv import Value

CACHE_ENTRIES = 1 << 14
CACHE_ENTRY_BYTES = 512
"""Bounds of each cache: at most 16,384 entries of at most 512 encoded bytes. Our own numbers."""


class DamagedAttribute(ValueError):
    """An attribute that cannot be decoded."""


class Attribute(NamedTuple):
    """One decoded attribute; `fragment` is its part of a JSON object."""

    key: str
    fragment: str
    semantic: bool
    value: Value


class Resolved(NamedTuple):
    """What the semantic attributes of a span say: values of `RESOLVED_COLUMNS`, and the rest."""

    columns: tuple[Value, ...]
    leftover: dict[str, str]
    """Key -> JSON fragment of semantic attributes that filled no column."""


_PROMOTED = ("endpoint", "peer", *semconv.PROMOTED)
RESOLVED_COLUMNS = ("kind", "status", "adjusted_count", *_PROMOTED)


def json_text(value: Value) -> str:
    """Write a value as compact JSON; bytes as base64, non-finite numbers as OTLP/JSON names."""
    return msgspec.json.encode(_finite(value)).decode()


def _finite(value: Value) -> Value:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    return value


def fragment(key: str, value: Value) -> str:
    """Write one member of a JSON object."""
    return f"{json_text(key)}:{json_text(value)}"


def json_object(fragments: Iterable[str]) -> str | None:
    """Join members to a JSON object; null when there are none."""
    joined = ",".join(fragments)
    return f"{{{joined}}}" if joined else None


class AttributeCache(dict[bytes, Attribute]):
    """Encoded attribute -> decoded one. `cache[raw]` decodes what is not known yet.

    `decode` turns the encoded form into key and value and raises DamagedAttribute.
    """

    def __init__(self, decode: Callable[[bytes], tuple[str, Value]]) -> None:
        super().__init__()
        self._decode = decode

    def __missing__(self, raw: bytes) -> Attribute:
        key, value = self._decode(raw)
        attribute = Attribute(key, fragment(key, value), key in semconv.SEMANTIC, value)
        if len(raw) <= CACHE_ENTRY_BYTES:
            if len(self) >= CACHE_ENTRIES:
                self.clear()
            self[raw] = attribute
        return attribute

    def values_of(self, encoded: Iterable[bytes]) -> dict[str, Value]:
        """Decode attributes to key -> value; of equal keys the last wins."""
        return {self[raw].key: self[raw].value for raw in encoded}

    def object_of(self, encoded: Iterable[bytes], *, sort: bool = False) -> str | None:
        """Decode attributes to the text of a JSON object; of equal keys the last wins."""
        members = {self[raw].key: self[raw].fragment for raw in encoded}
        return (
            json_object(members[key] for key in sorted(members))
            if sort
            else json_object(members.values())
        )


ResolveKey = tuple[str, str, tuple[bytes, ...]]


class ResolveCache(dict[ResolveKey, Resolved]):
    """(kind, recorded status, encoded semantic attributes) -> columns."""

    def __init__(self, attributes: AttributeCache) -> None:
        super().__init__()
        self._attributes = attributes

    def __missing__(self, key: ResolveKey) -> Resolved:
        kind, status, encoded = key
        resolved = resolve(kind, status, self._attributes.values_of(encoded))
        if sum(map(len, encoded)) <= CACHE_ENTRY_BYTES:
            if len(self) >= CACHE_ENTRIES:
                self.clear()
            self[key] = resolved
        return resolved


def resolve(kind: str, status: str, attributes: dict[str, Value]) -> Resolved:
    """Compute the columns that attributes fill; takes the promoted ones out of `attributes`."""
    effective = semconv.status(status, attributes, kind)
    adjusted_count = semconv.adjusted_count(attributes)
    promoted = semconv.promote(attributes, kind)
    columns = (kind, effective, adjusted_count, *(promoted[name] for name in _PROMOTED))
    return Resolved(columns, {key: fragment(key, value) for key, value in attributes.items()})
