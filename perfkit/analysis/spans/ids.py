"""Spans found by trace id and span id, many at once."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import polars as pl

from perfkit.analysis.vector.forest import Ints
from perfkit.analysis.vector.lookup import Keys, Places


class Columns(Protocol):
    """Spans by column: a frame, or `Recorded`."""

    def __getitem__(self, name: str, /) -> pl.Series: ...


class Traces(NamedTuple):
    """The trace of each span: a hash of its id, and the lower half of the id itself."""

    key: Keys
    low: Keys

    @classmethod
    def of(cls, spans: Columns) -> Traces:
        """Take the traces of spans."""
        high, low = numbers(spans["trace_hi"]), numbers(spans["trace_lo"])
        return cls(_mixed(_mixed(high) + low), low)

    def span_key(self, span_id: Keys) -> Keys:
        """Return hashes of the spans with these ids in these traces."""
        return _mixed(self.key + span_id)

    def of_rows(self, rows: Ints) -> Traces:
        """Return the traces of some of the spans."""
        return Traces(self.key[rows], self.low[rows])


class Ids(NamedTuple):
    """Where each span is, by its ids."""

    traces: Traces
    places: Places

    @classmethod
    def of(cls, spans: Columns) -> Ids:
        """Note where spans are."""
        traces = Traces.of(spans)
        return cls(traces, Places(traces.span_key(numbers(spans["span_id"]))))

    def find(self, traces: Traces, key: Keys) -> Ints:
        """Return the first span in each trace with that key; -1 where there is none.

        Equal in the hash of the trace and in one half of it is equal in the other half, since
        different numbers have different hashes; and so is the span's id then.
        """
        if not len(self.traces.key):
            return np.full(len(key), -1)
        found = self.places.of(key)
        same = (self.traces.key[found] == traces.key) & (self.traces.low[found] == traces.low)
        return np.where(same, found, -1)


def numbers(column: pl.Series) -> Keys:
    """Return ids as numbers."""
    return (column.fill_null(0) if column.null_count() else column).to_numpy().view(np.uint64)


def _mixed(number: Keys) -> Keys:
    """Return 64-bit hashes; different numbers have different ones (Stafford's "Mix13")."""
    mixed = number ^ (number >> np.uint64(30))
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed
