"""Captures from a terse list of spans, for tests of what is derived from spans."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import strategies as st

from perfkit import model
from perfkit.analysis.filters import Filters
from perfkit.analysis.session import Tables
from perfkit.capture import Capture, CaptureInfo, CaptureWriter
from perfkit.parts import conform

DEFAULTS = {"service": "app", "kind": "internal", "adjusted_count": 1.0, "status": "unset"}


class S:
    """A span: id, start, end (None: still open), id of its parent; the rest are columns of `spans`.

    Ids are any small numbers except 0; `trace` tells traces apart.
    """

    def __init__(
        self,
        id: int,
        start: int,
        end: int | None,
        parent: int | None = None,
        trace: int = 1,
        **columns: Any,
    ) -> None:
        self.id, self.start, self.end, self.parent, self.trace = id, start, end, parent, trace
        self.columns = columns

    def __repr__(self) -> str:
        rest = "".join(f", {name}={value!r}" for name, value in self.columns.items())
        return f"S({self.id}, {self.start}, {self.end}, {self.parent}, {self.trace}{rest})"

    def row(self) -> dict[str, Any]:
        return {
            "trace_hi": 0,
            "trace_lo": self.trace,
            "span_id": self.id,
            "parent_id": self.parent,
            "start_ns": self.start,
            "duration_ns": None if self.end is None else self.end - self.start,
            "name": f"s{self.id}",
            **DEFAULTS,
            **self.columns,
        }


def span_columns(spans: Iterable[S]) -> dict[str, list[Any]]:
    """Return the columns of `spans`."""
    rows = [span.row() for span in spans]
    return {name: [row.get(name) for row in rows] for name in model.SPANS.schema}


def write(path: Path, spans: Iterable[S], **tables: Any) -> Path:
    """Write a capture with these spans; other tables as columns."""
    with CaptureWriter(path, command=["test"]) as writer:
        writer.append("spans", span_columns(spans))
        for name, columns in tables.items():
            writer.append(name, columns)
    return path


class Memory(Capture):
    """A capture that exists only in memory, for generated inputs."""

    def __init__(self, tables: dict[str, Any]) -> None:
        super().__init__(Path("memory"), CaptureInfo("test", 0, cores=4))
        self._frames = {
            name: conform(model.BY_NAME[name], columns).lazy() for name, columns in tables.items()
        }

    def table(self, name: str) -> pl.LazyFrame:
        return self._frames.get(name, model.BY_NAME[name].empty().lazy())


def analyse(spans: Iterable[S], filters: Filters | None = None, **tables: Any) -> Tables:
    """Return the tables of a capture in memory with these spans; other tables as columns."""
    return Tables(Memory({"spans": span_columns(spans), **tables}), filters)


def by_id(tables: Tables, name: str) -> dict[int, dict[str, Any]]:
    """Return the rows of a table that has one row a span, by span id."""
    ids = tables.frame("tree")["span_id"]
    return dict(zip(ids, tables.frame(name).iter_rows(named=True), strict=True))


KINDS = ("internal", "internal", "server", "client", "consumer", "producer")


@st.composite
def families(draw: st.DrawFn) -> list[S]:
    """One request whose calls follow each other, run side by side, or both; some call in turn."""
    spans = [S(1, 0, 60)]
    for number in range(2, draw(st.integers(3, 12))):
        parent = draw(st.sampled_from([1, 1, 1, 2, 3]))
        parent = parent if parent < number else 1
        start = draw(st.integers(0, 50))
        spans.append(S(number, start, start + draw(st.integers(1, 15)), parent))
    return spans


@st.composite
def traces(draw: st.DrawFn, *, damaged: bool = False, max_size: int = 14) -> list[S]:
    """Spans of one or two traces with many equal times; children may stick out of their parents.

    Damaged ones have missing parents, cycles, open spans and negative durations too.
    """
    count = draw(st.integers(0, max_size))
    spans = []
    for number in range(1, count + 1):
        above = st.integers(1, count + 1) if damaged else st.integers(0, number - 1)
        parent = draw(above | st.none()) or None
        start = draw(st.integers(0, 25))
        ends = st.integers(start, 30)
        if damaged:
            ends |= st.integers(start - 3, start) | st.none()
        spans.append(
            S(
                number,
                start,
                draw(ends),
                parent,
                draw(st.integers(1, 2)) if damaged else 1,
                kind=draw(st.sampled_from(KINDS)),
                service=draw(st.sampled_from(["app", "app", "other"])),
                adjusted_count=draw(st.sampled_from([1.0, 1.0, 3.0])),
                db_system=draw(st.sampled_from([None, None, "sqlite"])),
                db_statement=draw(st.sampled_from(["SELECT 1 FROM a", "SELECT 1 FROM b"])),
                status=draw(st.sampled_from(["unset", "ok", "error"])),
            )
        )
    return spans
