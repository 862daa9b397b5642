"""What a reading becomes: rows of the table `metrics`, each of a metric that is declared once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

COLUMNS = ("ts_ns", "name", "unit", "value", "kind", "service", "instance", "attributes")
"""Columns of `metrics` that a reading fills, in the order of a row."""

Attribute = tuple[str, str | int]
Row = tuple[Any, ...]


@dataclass(frozen=True)
class Metric:
    """One metric: its name, its UCUM unit, its kind, and what it means; see docs/metrics.md."""

    name: str
    unit: str
    kind: str
    """`gauge`: as it is now; `counter`: a sum since the process, the group or the machine began."""
    doc: str
    attributes: tuple[str, ...] = ()
    """Names of the attributes that tell its series apart."""
    source: str = ""
    """Where the kernel says it."""


def gauge(name: str, unit: str, doc: str, *attributes: str, source: str) -> Metric:
    """Declare a value as it is now."""
    return Metric(name, unit, "gauge", doc, attributes, source)


def counter(name: str, unit: str, doc: str, *attributes: str, source: str) -> Metric:
    """Declare a sum that only grows."""
    return Metric(name, unit, "counter", doc, attributes, source)


class Rows:
    """Collects the rows of one moment; `instance` is set by whoever measures."""

    def __init__(self, ts_ns: int, clock_s: float) -> None:
        """`ts_ns` is Unix time, `clock_s` the monotonic clock, against which rates are taken."""
        self.ts_ns = ts_ns
        self.clock_s = clock_s
        self.rows: list[Row] = []
        self.instance = ""

    @classmethod
    def now(cls) -> Rows:
        """Begin a reading."""
        return cls(time.time_ns(), time.monotonic())

    def add(self, metric: Metric, value: float, *attributes: Attribute) -> None:
        """Add a row."""
        text = _json(attributes) if attributes else None
        self.rows.append(
            (self.ts_ns, metric.name, metric.unit, value, metric.kind, None, self.instance, text)
        )

    def encode(self) -> bytes:
        """Return the rows as a JSON object of columns, for the journal."""
        columns = zip(*self.rows, strict=True)
        return json.dumps(dict(zip(COLUMNS, columns, strict=False))).encode()


@lru_cache(maxsize=4096)
def _json(attributes: tuple[Attribute, ...]) -> str:
    return json.dumps(dict(attributes), sort_keys=True)


class Deltas:
    """Remembers counters, and says by how much they grew since the last reading."""

    def __init__(self) -> None:
        self._last: dict[Hashable, tuple[float, float]] = {}

    def since(self, key: Hashable, clock_s: float, value: float) -> tuple[float, float] | None:
        """Return (seconds, growth); None at the first reading and after the counter went back."""
        before = self._last.get(key)
        self._last[key] = (clock_s, value)
        if before is None or clock_s <= before[0] or value < before[1]:
            return None
        return clock_s - before[0], value - before[1]


class Allowance:
    """Lets a costly reading happen only as often as its share of a core allows."""

    def __init__(self, ratio: float) -> None:
        """`ratio` is the part of one core that the readings may take on average."""
        self._ratio = ratio
        self._due_s = 0.0

    def read(self, reading: Callable[[Rows], None], rows: Rows) -> None:
        """Do the reading if it is due."""
        now = time.monotonic()
        if now < self._due_s:
            return
        began = time.thread_time()
        try:
            reading(rows)
        finally:
            self._due_s = now + (time.thread_time() - began) / self._ratio
