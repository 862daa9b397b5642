"""The attributes of many spans at once: decoded, promoted and written as JSON, each only once.

The vectorised counterpart of `attributes.AttributeCache`, which it asks for what it has not seen.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.formats.attributes import (
    ADDRESSES,
    UNCACHED,
    UNDECODABLE,
    AttributeCache,
    Resolved,
)
from perfkit.formats.otlp_spans import KINDS, STATUSES, trace_state_fragment
from perfkit.formats.spans import Origin
from perfkit.formats.wire_walk import Bools, Buffer, Hashes, Ints, distinct

_RANDOM = np.random.default_rng()
_MAX_REST = 32
"""Spans with more attributes that fill no column are written one by one."""


class SpanAttributes:
    """Attributes in the order of their spans."""

    def __init__(
        self,
        buffer: Buffer,
        starts: Ints,
        lengths: Ints,
        places: Ints,
        counts: Ints,
        cache: AttributeCache,
    ) -> None:
        """`counts` says how many each span has, `places` each one's place in the order of spans."""
        self._cache = cache
        self._span_of = np.repeat(np.arange(len(counts)), counts)
        code, firsts = distinct(buffer.hashes(starts, lengths))
        self._code = np.empty_like(code)
        self._code[places] = code
        self._raw = list(buffer.slices(starts[firsts], lengths[firsts]))
        self._known = [cache[raw] for raw in self._raw]
        self._token = np.array([known[2] for known in self._known], dtype=np.int64)
        addresses, undecodable = (
            np.array([known[0] in keys for known in self._known], dtype=np.bool_)
            for keys in (ADDRESSES, (UNDECODABLE,))
        )
        self._fills_none = ((self._token == 0) | addresses) & ~undecodable
        self._undecodable = undecodable

    def undecodable(self, good: Bools) -> int:
        """Count the attributes that cannot be decoded of the spans that are good."""
        return int(good[self._span_of[self._undecodable[self._code]]].sum())

    def resolve(
        self, kind: Ints, status: Ints, origin: Ints, origins: list[Origin]
    ) -> tuple[list[Resolved], Ints]:
        """Say what the attributes of each span mean together; equal ones are asked for once."""
        token, count = self._token, len(kind)
        chosen = np.flatnonzero(token[self._code])
        first = np.searchsorted(self._span_of[chosen], np.arange(count + 1))
        place = np.arange(len(chosen)) - first[self._span_of[chosen]]
        # A sum of random numbers, one for each attribute and its place among those of its span.
        weight = (place.astype(np.uint64) << np.uint64(1)) | np.uint64(1)
        values = self._words()[self._code[chosen]] * weight
        until = np.append(np.uint64(0), np.cumsum(values, dtype=np.uint64))
        hashed = until[first[1:]] - until[first[:-1]]
        pids = np.array([one.pid or 0 for one in origins], dtype=np.int64)[origin]
        for part in (kind, status, pids):
            hashed = (hashed ^ part.astype(np.uint64)) * _random_words(1)[0]
        numbers, firsts = distinct(hashed)
        resolved = []
        for row in firsts.tolist():
            codes = self._code[chosen[first[row] : first[row + 1]]].tolist()
            tokens = tuple(int(token[one]) for one in codes)
            key = (
                KINDS.get(int(kind[row]), "unspecified"),
                STATUSES.get(int(status[row]), "unset"),
                origins[origin[row]].pid,
                tokens,
            )
            resolved.append(self._cache.resolve(key, [self._raw[one] for one in codes]))
        return resolved, numbers

    def _words(self) -> Hashes:
        """Return a random number for each attribute, the same for those that mean the same."""
        alone = self._token == UNCACHED
        meaning = np.where(alone, -1 - np.arange(len(self._token)), self._token)
        different, numbers = np.unique(meaning, return_inverse=True)
        return _random_words(len(different))[numbers]

    def rest(
        self, resolved: list[Resolved], resolved_code: Ints, states: pl.Series, state_code: Ints
    ) -> pl.Series:
        """Write the attributes that fill no column as JSON objects."""
        known, count = self._known, len(resolved_code)
        keys: dict[str, int] = {}
        key_of = np.array([keys.setdefault(one[0], len(keys)) for one in known], dtype=np.int64)
        chosen = np.flatnonzero(self._fills_none[self._code])
        span = self._span_of[chosen]
        first = np.searchsorted(span, np.arange(count + 1))
        place = np.arange(len(chosen)) - first[span]
        width = int(min(place.max() + 1, _MAX_REST)) if len(chosen) else 0
        matrix = np.full((count, width), -1)
        fits = place < _MAX_REST
        matrix[span[fits], place[fits]] = self._code[chosen[fits]]
        fragments = pl.Series([one[1] for one in known], dtype=pl.String)
        parts = [spread(fragments, matrix[:, column]) for column in range(width)]
        written = pl.Series([trace_state_fragment(state) for state in states], dtype=pl.String)
        parts.append(spread(written, state_code))
        leftovers = [",".join(one.leftover.values()) or None for one in resolved]
        parts.append(spread(pl.Series(leftovers, dtype=pl.String), resolved_code))
        frame = pl.DataFrame([part.alias(str(number)) for number, part in enumerate(parts)])
        members = pl.concat_str(pl.all(), separator=",", ignore_nulls=True)
        whole = pl.concat_str(pl.lit("{"), members, pl.lit("}"))
        joined = frame.select(
            pl.when(pl.any_horizontal(pl.all().is_not_null())).then(whole)
        ).to_series()
        unusual = self._repeats(matrix, key_of, span[~fits], keys.get("w3c.tracestate"))
        if unusual.size:
            texts = [
                self._object(chosen[first[row] : first[row + 1]], states, state_code[row],
                             resolved[resolved_code[row]])
                for row in unusual.tolist()
            ]  # fmt: skip
            joined = joined.scatter(unusual, texts)
        return joined

    def _repeats(self, matrix: Ints, key_of: Ints, more: Ints, reserved: int | None) -> Ints:
        """Return the spans with a key twice, with very many attributes, or with a reserved key."""
        named = np.where(matrix >= 0, key_of[matrix] if key_of.size else matrix, -1)
        unusual = np.zeros(len(matrix), dtype=np.bool_)
        unusual[more] = True
        if reserved is not None:
            unusual |= (named == reserved).any(axis=1)
        named.sort(axis=1)
        unusual |= ((named[:, 1:] == named[:, :-1]) & (named[:, 1:] >= 0)).any(axis=1)
        return np.flatnonzero(unusual)

    def _object(
        self,
        attributes: Ints,
        states: pl.Series,
        state: int,
        resolved: Resolved,
    ) -> str:
        members = (self._known[code] for code in self._code[attributes].tolist())
        rest = {key: text for key, text, _ in members}
        if state >= 0:
            rest["w3c.tracestate"] = trace_state_fragment(states[int(state)])
        rest.update(resolved.leftover)
        return "{" + ",".join(rest.values()) + "}"


def _random_words(count: int) -> Hashes:
    """Return odd numbers that nobody can foresee."""
    return _RANDOM.integers(0, 2**64, count, dtype=np.uint64) | np.uint64(1)


def spread(values: pl.Series, numbers: Ints) -> pl.Series:
    """Return values by their numbers; -1 gives null."""
    last = len(values)
    return values.extend_constant(None, 1).gather(np.where(numbers < 0, last, numbers))
