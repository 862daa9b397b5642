"""A small capture of a made-up service, written as a real writer writes one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from perfkit.analysis.filters import Filters
from perfkit.analysis.session import Tables
from perfkit.capture import Capture, CaptureWriter
from perfkit.stacks import Frame

START = 1_795_416_395_000_000_000
MS = 1_000_000
S = 1_000_000_000
PID = 4242
THREADS = (5001, 5002, 5003, 5004)
SERVICE = "gateway"
QUERIES = (
    "SELECT id, name FROM tools WHERE name = 'search'",
    "SELECT value FROM settings WHERE key = 'limit'",
)


class _Spans:
    """Collects spans as rows; `hostile` puts a name into all that is text."""

    def __init__(self, hostile: str | None) -> None:
        self.rows: list[dict[str, Any]] = []
        self.hostile = hostile

    def add(self, trace: int, parent: int | None, start: int, length: int, **columns: Any) -> int:
        span_id = len(self.rows) + 1
        texts = dict.fromkeys(("name", "service", "endpoint", "tool", "peer", "db_statement"))
        row = {
            "trace_hi": 7,
            "trace_lo": trace + 1,
            "span_id": span_id,
            "parent_id": parent,
            "parent_inferred": False,
            "service": SERVICE,
            "scope": "made-up",
            "kind": "internal",
            "start_ns": START + start,
            "duration_ns": length,
            "status": "unset",
            "adjusted_count": 1.0,
            "pid": PID,
            **columns,
        }
        if self.hostile is not None:
            row |= {key: self.hostile for key in texts if row.get(key) is not None}
            row["attributes"] = json.dumps({self.hostile: self.hostile})
        self.rows.append(row)
        return span_id


def spans(requests: int, hostile: str | None) -> list[dict[str, Any]]:
    """Requests on four threads: searches repeat a query, every tenth of them fails."""
    made = _Spans(hostile)
    for number in range(requests):
        thread = THREADS[number % len(THREADS)]
        begin = (number // len(THREADS)) * 300 * MS + (number % len(THREADS)) * 20 * MS
        _request(made, number, begin, thread)
    return made.rows


def _request(made: _Spans, number: int, begin: int, thread: int) -> None:
    search = number % 3 != 0
    on = {"thread_id": thread}
    length = (200 + number % 7 * 5) * MS if search else 40 * MS
    entry = made.add(
        number,
        None,
        begin,
        length,
        name="POST /tools/invoke" if search else "GET /items/{id}",
        kind="server",
        endpoint="POST /tools/invoke" if search else "GET /items/{id}",
        http_method="POST" if search else "GET",
        http_status=500 if number % 10 == 1 and search else 200,
        status="error" if number % 10 == 1 and search else "ok",
        tool="search" if search else None,
        attributes=json.dumps({"user.id": number, "password": "hunter2"}),
        **on,
    )
    made.add(number, entry, begin + MS, 5 * MS, name="auth.check", **on)
    if not search:
        _query(made, number, entry, begin + 10 * MS, 20 * MS, 1, on)
        return
    call = made.add(
        number, entry, begin + 10 * MS, 150 * MS, name="tool search", tool="search", **on
    )
    for repeat in range(8):
        _query(made, number, call, begin + (12 + 10 * repeat) * MS, 8 * MS, 0, on)
    made.add(
        number,
        call,
        begin + 100 * MS,
        50 * MS,
        name="GET",
        kind="client",
        peer="search.internal:9200",
        **on,
    )
    made.add(number, entry, begin + 165 * MS, 20 * MS, name="serialise", **on)


def _query(
    made: _Spans, trace: int, parent: int, start: int, length: int, which: int, on: dict[str, Any]
) -> None:
    made.add(
        trace,
        parent,
        start,
        length,
        name="SELECT",
        kind="client",
        db_system="sqlite",
        db_statement=QUERIES[which],
        **on,
    )


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: [row.get(key) for row in rows] for key in keys}


def add_samples(writer: CaptureWriter, requests: int, hostile: str | None) -> None:
    name = hostile or "serialise"
    root = Frame("run", "/srv/app/main.py", 10)
    stacks = [
        writer.stacks.intern(
            (root, Frame("handle", "/srv/app/app.py", 40), Frame(name, "/srv/app/json_out.py", 7))
        ),
        writer.stacks.intern(
            (
                root,
                Frame("handle", "/srv/app/app.py", 40),
                Frame(
                    "do_execute", "/usr/lib/python3/site-packages/sqlalchemy/engine/default.py", 900
                ),
            )
        ),
    ]
    rows = [
        {
            "ts_ns": START + (number // len(THREADS)) * 300 * MS + part * 20 * MS,
            "duration_ns": 20 * MS,
            "count": 2,
            "pid": PID,
            "tid": THREADS[number % len(THREADS)],
            "thread_name": f"worker-{number % len(THREADS)}",
            "stack_id": stacks[part % 2],
            "state": ("running", "idle")[part % 2],
        }
        for number in range(requests)
        for part in range(10)
    ]
    writer.append("samples", _columns(rows))


def add_metrics(writer: CaptureWriter, seconds: float) -> None:
    rows: list[dict[str, Any]] = []
    for step in range(int(seconds * 2) + 1):
        ts_ns = START + step * S // 2
        shown = [("system.cpu.utilization", "1", 0.25 + 0.5 * core, core) for core in (0, 1)]
        shown.append(("process.cpu.utilization", "1", 0.8, None))
        shown.append(("process.memory.usage", "By", 100e6 + 1e6 * step, None))
        rows += [
            {
                "ts_ns": ts_ns,
                "name": name,
                "unit": unit,
                "value": value,
                "kind": "gauge",
                "service": SERVICE if core is None else None,
                "instance": f"pid {PID}" if core is None else "host-a",
                "attributes": None if core is None else json.dumps({"cpu.logical_number": core}),
            }
            for name, unit, value, core in shown
        ]
    writer.append("metrics", _columns(rows))


def write_capture(
    path: Path,
    *,
    requests: int = 60,
    with_spans: bool = True,
    with_samples: bool = True,
    with_metrics: bool = True,
    hostile: str | None = None,
) -> Path:
    with CaptureWriter(path, command=["perfkit", "record", "--token", "s3cr3t-value"]) as writer:
        writer.info.id = "00112233445566aa"
        writer.info.created_ns = START
        writer.info.host, writer.info.system, writer.info.cores = "host-a", "Linux", 2
        writer.info.git_commit = None
        if with_spans:
            writer.append("spans", _columns(spans(requests, hostile)))
            writer.info.sources.append({"name": "otlp", "bodies": 3})
        if with_samples:
            add_samples(writer, requests, hostile)
            writer.info.sources.append({"name": "py-spy", "rate_hz": 100})
        if with_metrics:
            add_metrics(writer, requests / len(THREADS) * 0.3)
            writer.info.sources.append({"name": "resources", "interval_s": 0.5})
        if hostile:
            writer.lose("spans", 3, hostile)
            writer.note(hostile)
            writer.info.host = hostile
    return path


def open_tables(path: Path, **filters: Any) -> Tables:
    return Tables(Capture.open(path), Filters(**filters))
