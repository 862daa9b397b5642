"""One request reported by two instrumentations of one service: keep one report, flag the other.

Nested: a server span directly under a server span of the same service instance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from perfkit.analysis.forest import Bools, Ints


@dataclass(frozen=True)
class Reports:
    """What was found: parents after moving and cutting, who was cut off, who is a duplicate."""

    parent: Ints
    cut: Bools
    duplicate: Bools


def find(spans: pl.DataFrame, parent: Ints, start: Ints, end: Ints) -> Reports:
    """Find the server spans that report a request a second time."""
    return Reports(parent, np.zeros(len(parent), dtype=np.bool_), _nested(spans, parent))


def _nested(spans: pl.DataFrame, parent: Ints) -> Bools:
    """Return the server spans that repeat the server span right above them."""
    result = np.zeros(len(parent), dtype=np.bool_)
    served = (spans["kind"] == "server").fill_null(False).to_numpy()
    inner = np.flatnonzero(served & (parent >= 0))
    inner = inner[served[parent[inner]]]
    if inner.size:
        columns = ["service", "instance", "endpoint", "http_method"]
        below, above = spans[columns][inner], spans[columns][parent[inner]]
        equal = {name: below[name].eq_missing(above[name]).to_numpy() for name in columns}
        methods_known = below["http_method"].is_not_null().to_numpy()
        same_request = equal["endpoint"] | (equal["http_method"] & methods_known)
        result[inner] = equal["service"] & equal["instance"] & same_request
    return result
