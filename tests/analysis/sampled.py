"""Captures in memory, and generated samples, for the tests of tables made from samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import strategies as st

from perfkit import model
from perfkit.analysis.filters import Filters
from perfkit.analysis.session import Tables
from perfkit.capture import Capture, CaptureInfo
from perfkit.parts import conform
from perfkit.stacks import Frame, StackTable

Row = Mapping[str, Any]


class MemoryCapture(Capture):
    """A capture whose tables are frames."""

    def __init__(self, tables: Mapping[str, pl.DataFrame], info: CaptureInfo) -> None:
        super().__init__(Path("memory.perfkit"), info)
        self._tables = tables

    def table(self, name: str) -> pl.LazyFrame:
        return self._tables.get(name, model.BY_NAME[name].empty()).lazy()


@dataclass(frozen=True)
class Sample:
    """One row of `samples` with its frames, from the root to the leaf."""

    frames: tuple[Frame, ...]
    ts_ns: int | None = None
    duration_ns: int | None = None
    pid: int | None = 1
    tid: int | None = 1
    state: str | None = None
    count: int | None = 1
    thread_name: str | None = None
    unseen_ns: int | None = None


def rows(table: str, values: Sequence[Row]) -> pl.DataFrame:
    """Return rows as a frame of the table's schema."""
    names = sorted({name for row in values for name in row})
    columns = {name: [row.get(name) for row in values] for name in names}
    return conform(model.BY_NAME[table], columns) if columns else model.BY_NAME[table].empty()


def tables(
    samples: Sequence[Sample] = (),
    *,
    spans: Sequence[Row] = (),
    metrics: Sequence[Row] = (),
    derived: Mapping[str, pl.DataFrame] | None = None,
    sources: Sequence[str] = ("py-spy",),
    cores: int = 4,
    filters: Filters | None = None,
) -> Tables:
    """Return the tables of a capture in memory; `derived` are taken as computed already."""
    stacks = StackTable()
    sample_rows = [
        {
            "ts_ns": sample.ts_ns,
            "duration_ns": sample.duration_ns,
            "count": sample.count,
            "pid": sample.pid,
            "tid": sample.tid,
            "thread_name": sample.thread_name,
            "stack_id": stacks.intern(sample.frames),
            "state": sample.state,
            "unseen_ns": sample.unseen_ns,
        }
        for sample in samples
    ]
    stack_columns, frame_columns = stacks.take_new()
    info = CaptureInfo(
        id="memory", created_ns=0, cores=cores, sources=[{"name": name} for name in sources]
    )
    frames = {
        "samples": rows("samples", sample_rows),
        "stacks": conform(model.STACKS, stack_columns),
        "frames": conform(model.FRAMES, frame_columns),
        "spans": rows("spans", spans),
        "metrics": rows("metrics", metrics),
    }
    result = Tables(MemoryCapture(frames, info), filters)
    for name, frame in (derived or {}).items():
        result._frames[name] = frame
    return result


FRAMES = (
    Frame("main", "/srv/app/main.py", 3),
    Frame("main", "/srv/app/main.py", 9),
    Frame("handle", "/srv/app/main.py", 20),
    Frame("Condition.wait", "/usr/lib/python3.11/threading.py", 327),
    Frame("execute", "/srv/v/lib/python3.11/site-packages/sqlalchemy/engine/base.py", 7),
    Frame("memcpy", "", None),
)
"""Two lines of one function, an innermost frame that waits, a library, and native code."""

paths = st.lists(st.sampled_from(FRAMES), min_size=1, max_size=6).map(tuple)
states = st.sampled_from(["running", "idle", None])


@st.composite
def sample_lists(draw: st.DrawFn, *, timed: bool | None = None) -> list[Sample]:
    """Draw samples: with times and durations, with counts only, or both in one capture."""
    kinds = st.just(timed) if timed is not None else st.booleans()
    samples = []
    for _ in range(draw(st.integers(0, 25))):
        has_time = draw(kinds)
        samples.append(
            Sample(
                draw(paths),
                ts_ns=draw(st.integers(0, 60)) if has_time else None,
                duration_ns=draw(st.integers(0, 20)) if has_time else None,
                pid=draw(st.sampled_from([1, 2])),
                tid=draw(st.sampled_from([1, 2, None])),
                state=draw(states),
                count=draw(st.sampled_from([1, 1, 3, None])),
                thread_name=draw(st.sampled_from([None, "worker"])),
                unseen_ns=draw(st.sampled_from([None, 0, 2])) if has_time else None,
            )
        )
    return samples


Span = dict[str, Any]
"""A row of `tree`, as far as tables made from samples look at it."""

_TREE: dict[str, pl.DataType] = {
    **dict.fromkeys(
        ("row", "parent_row", "request_row", "entry_row", "start_ns", "end_ns", "duration_ns"),
        pl.Int64(),
    ),
    **dict.fromkeys(("skew_ns", "trace_hi", "trace_lo", "pid", "thread_id"), pl.Int64()),
    **dict.fromkeys(
        ("service", "instance", "name", "category", "peer", "component", "db_system"),
        pl.String(),
    ),
    **dict.fromkeys(
        ("entry_endpoint", "entry_tool"),
        pl.String(),
    ),
    "duplicate": pl.Boolean(),
    "adjusted_count": pl.Float64(),
}


def span(row: int, start: int, end: int, parent: int | None = None, **more: Any) -> Span:
    """Return a span of process 1 and thread 1."""
    values: Span = {"row": row, "parent_row": parent, "start_ns": start, "end_ns": max(start, end)}
    values |= {"pid": 1, "thread_id": 1, "service": "shop", "entry_endpoint": "GET /"}
    values |= {"skew_ns": 0, "trace_hi": 0, "trace_lo": 1, "duplicate": False}
    return values | {"adjusted_count": 1.0} | more


def tree_frame(spans: Sequence[Span]) -> pl.DataFrame:
    """Return `tree`; roots are requests and entries unless a span says otherwise."""
    for each in spans:
        each["duration_ns"] = each["end_ns"] - each["start_ns"]
        parent = each["parent_row"]
        each.setdefault("entry_row", each["row"] if parent is None else spans[parent]["entry_row"])
        each.setdefault("request_row", each["entry_row"])
    return pl.DataFrame({name: [each.get(name) for each in spans] for name in _TREE}, schema=_TREE)
