"""Attributes of spans: decoded once, promoted once, and written as JSON.

The attributes of a service repeat: the same key with the same value arrives thousands of times. So
the encoded form of an attribute (protobuf bytes or JSON text) is the key of a cache of what it
means, and a span's promoted columns are cached by the encoded attributes that they depend on.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from perfkit import semconv
from perfkit.long_values import MOST_BYTES, beginning
from perfkit.semconv import Value

CACHE_ENTRIES = 1 << 14
CACHE_BYTES = 8 << 20
CACHE_ENTRY_BYTES = 8 << 10
"""Bounds of a cache: entries, encoded bytes of all and of one entry. Our own numbers."""

UNCACHED = -1
"""Token of a semantic attribute that is too long to be kept."""


ADDRESSES = frozenset(semconv.PATH)
"""Semantic attributes that fill no column by themselves, and whose values differ by request."""


class DamagedAttribute(ValueError):
    """An attribute that cannot be decoded."""


UNDECODABLE = "\ud800"
"""Key of an attribute that cannot be decoded, and is left out: half a character is no text."""


Attribute = tuple[str, str, int]
"""Key, its part of a JSON object, and a token: 0, or a number that stands for a semantic attribute.

A plain tuple, because unpacking a named one is three times slower, and this is the inner loop.
"""


class Resolved(NamedTuple):
    """What the semantic attributes of a span say: values of `RESOLVED_COLUMNS`, and the rest."""

    columns: tuple[Value, ...]
    leftover: dict[str, str]
    """Key -> JSON fragment of semantic attributes that filled no column."""


Resolve = Callable[[str, str, int | None, dict[str, Value]], Resolved]
"""(kind, recorded status, process, semantic attributes) -> columns."""

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
    """Write one member of a JSON object; of a value that is too long its beginning."""
    text = json_text(beginning(value) if isinstance(value, str) else value)
    if len(text) > MOST_BYTES and not isinstance(value, str):  # becomes a text
        text = json_text(beginning(text.strip('"')))
    return f"{json_text(key)}:{text}"


def json_object(fragments: Iterable[str]) -> str | None:
    """Join members to a JSON object; null when there are none."""
    joined = ",".join(fragments)
    return f"{{{joined}}}" if joined else None


class AttributeCache(dict[bytes, Attribute]):
    """Encoded attribute -> decoded one. `cache[raw]` decodes what is not known yet.

    `decode` turns the encoded form into key and value and raises DamagedAttribute. `resolve` may
    look at no other attributes than the `semantic` ones.
    """

    def __init__(
        self,
        decode: Callable[[bytes], tuple[str, Value]],
        *,
        semantic: frozenset[str] = semconv.SEMANTIC,
        resolve: Resolve | None = None,
    ) -> None:
        super().__init__()
        self._decode = decode
        self._semantic = semantic
        self._resolve = resolve or resolve_span
        self._tokens = itertools.count(1)
        self._bytes = 0
        self._resolved: dict[ResolveKey, Resolved] = {}
        self._addressed: dict[tuple[str, str, str], int] = {}
        """Key, endpoint and host that addresses say -> their token."""

    def __missing__(self, raw: bytes) -> Attribute:
        try:
            key, value = self._decode(raw)
        except DamagedAttribute:
            return UNDECODABLE, "", 0
        text = fragment(key, value)
        semantic = key in self._semantic
        if len(raw) > CACHE_ENTRY_BYTES:
            return key, text, UNCACHED if semantic else 0
        if len(self) >= CACHE_ENTRIES or self._bytes > CACHE_BYTES:
            self.clear()
            self._addressed.clear()
            self._bytes = 0
        self._bytes += len(raw)
        attribute = self[raw] = (key, text, self._token(key, value) if semantic else 0)
        return attribute

    def _token(self, key: str, value: Value) -> int:
        """Return a number for what an attribute means; addresses that mean the same share theirs.

        Each request may have an address of its own, and what it means would be asked for each.
        """
        if key not in ADDRESSES:
            return next(self._tokens)
        said = (key, *semconv.said_by_address(value))
        token = self._addressed.get(said)
        if token is None:
            token = self._addressed[said] = next(self._tokens)
        return token

    def undecodable(self, encoded: Iterable[bytes]) -> int:
        """Count the attributes that cannot be decoded."""
        return sum(self[raw][0] == UNDECODABLE for raw in encoded)

    def values_of(self, encoded: Iterable[bytes]) -> dict[str, Value]:
        """Decode attributes to key -> value, as far as possible; of equal keys the last wins."""
        values: dict[str, Value] = {}
        for raw in encoded:
            with contextlib.suppress(DamagedAttribute):
                key, value = self._decode(raw)
                values[key] = beginning(value) if isinstance(value, str) else value
        return values

    def object_of(self, encoded: Iterable[bytes]) -> str | None:
        """Decode attributes to the text of a JSON object; of equal keys the last wins."""
        members = self._members(encoded)
        members.pop(UNDECODABLE, None)
        return json_object(members.values())

    def identity_of(self, encoded: Iterable[bytes]) -> str | None:
        """Return the same with its keys in order, which is equal for equal attributes.

        Raises DamagedAttribute: without one that tells them apart two would be the same.
        """
        members = self._members(encoded)
        if UNDECODABLE in members:
            raise DamagedAttribute
        return json_object(members[key] for key in sorted(members))

    def _members(self, encoded: Iterable[bytes]) -> dict[str, str]:
        return {key: text for key, text, _ in map(self.__getitem__, encoded)}

    def parted(self, encoded: Iterable[bytes]) -> tuple[tuple[int, ...], dict[str, str]]:
        """Return the tokens of the semantic attributes, and by key the fragments of the others and
        of addresses. `UNDECODABLE` is a key too if there is any such."""
        rest: dict[str, str] = {}
        tokens: list[int] = []
        for raw in encoded:
            key, text, token = self[raw]
            if token:
                tokens.append(token)
            if not token or key in ADDRESSES:
                rest[key] = text
        return tuple(tokens), rest

    def resolve(self, key: ResolveKey, encoded: Iterable[bytes]) -> Resolved:
        """Return what the attributes of a span say; `key` is made of their tokens.

        Addresses are not left over: spans that mean the same have others. The same key always gets
        the same answer, so it is kept.
        """
        resolved = self._resolved.get(key)
        if resolved is None:
            kind, status, pid, tokens = key
            semantic = [raw for raw in encoded if self[raw][2]]
            resolved = self._resolve(kind, status, pid, self.values_of(semantic))
            for address in ADDRESSES:
                resolved.leftover.pop(address, None)
            if UNCACHED not in tokens:
                if len(self._resolved) >= CACHE_ENTRIES:
                    self._resolved.clear()
                self._resolved[key] = resolved
        return resolved


ResolveKey = tuple[str, str, int | None, tuple[int, ...]]
"""Kind, recorded status, process of the resource, and the tokens of the semantic attributes."""


def resolve_span(kind: str, status: str, pid: int | None, attributes: dict[str, Value]) -> Resolved:
    """Compute the columns that attributes fill; takes the promoted ones out of `attributes`.

    `pid` is used when the attributes do not say the process.
    """
    effective = semconv.status(status, attributes, kind)
    adjusted_count = semconv.adjusted_count(attributes)
    promoted = semconv.promote(attributes, kind)
    if promoted["pid"] is None:
        promoted["pid"] = pid
    columns = (kind, effective, adjusted_count, *(promoted[name] for name in _PROMOTED))
    return Resolved(columns, {key: fragment(key, value) for key, value in attributes.items()})
