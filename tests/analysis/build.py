"""Captures from a terse list of spans, for tests of what is derived from spans."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perfkit import model
from perfkit.analysis.filters import Filters
from perfkit.analysis.session import Tables
from perfkit.capture import Capture, CaptureWriter


@dataclass
class S:
    """A span: id, start, end (None: still open), id of the parent; the rest are columns of `spans`.

    Ids are any small numbers except 0; `trace` tells traces apart.
    """

    id: int
    start: int
    end: int | None
    parent: int | None = None
    trace: int = 1
    columns: dict[str, Any] = field(default_factory=dict)

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


DEFAULTS = {"service": "app", "kind": "internal", "adjusted_count": 1.0, "status": "unset"}


def span_columns(spans: Iterable[S]) -> dict[str, list[Any]]:
    """Return the columns of `spans`."""
    columns: dict[str, list[Any]] = {name: [] for name in model.SPANS.schema}
    for span in spans:
        row = {
            "trace_hi": 0,
            "trace_lo": span.trace,
            "span_id": span.id,
            "parent_id": span.parent,
            "start_ns": span.start,
            "duration_ns": None if span.end is None else span.end - span.start,
            "name": f"s{span.id}",
            **DEFAULTS,
            **span.columns,
        }
        for name, values in columns.items():
            values.append(row.get(name))
    return columns


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
        from perfkit.capture import CaptureInfo, conform

        super().__init__(Path("memory"), CaptureInfo("test", 0, cores=4))
        self._frames = {
            name: conform(model.BY_NAME[name], columns).lazy() for name, columns in tables.items()
        }

    def table(self, name: str) -> Any:
        return self._frames.get(name, model.BY_NAME[name].empty().lazy())


def analyse(spans: Iterable[S], filters: Filters | None = None, **tables: Any) -> Tables:
    """Return the tables of a capture in memory with these spans; other tables as columns."""
    return Tables(Memory({"spans": span_columns(spans), **tables}), filters)
