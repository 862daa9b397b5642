"""A small capture with everything that exporters write: spans, events, links, stacks, metrics."""

from __future__ import annotations

import json
from pathlib import Path

from perfkit.analysis.session import Tables
from perfkit.capture import Capture, CaptureWriter
from perfkit.stacks import Frame
from tests.analysis.build import S, span_columns

T = 1_795_416_395_000_000_000
MS = 1_000_000
HOSTILE = "=cmd|' /C calc'!A0\n;<script>alert(1)</script>&\x1b[31m\u202e\x00"


def spans(name: str) -> list[S]:
    """A request that makes two calls at once and a query, and a request of another service."""
    shop = {"service": "shop", "instance": "shop-1", "pid": 42}
    return [
        S(1, T, T + 100 * MS, kind="server", name=name, endpoint="POST /buy", http_method="POST",
          http_status=500, status="error", status_message="no stock", thread_id=7,
          attributes='{"user":7,"flags":[true,1.5,null],"http.route":"/buy"}',
          resource='{"host.name":"h1","otel.scope.version":"1.2"}', scope="web", **shop),
        S(2, T + 10 * MS, T + 60 * MS, 1, kind="client", name="call a", peer="pay:80", **shop),
        S(3, T + 20 * MS, T + 70 * MS, 1, kind="client", name="call b", peer="stock:80", **shop),
        S(4, T + 75 * MS, T + 95 * MS, 1, kind="client", name="query", db_system="postgresql",
          db_statement="SELECT 1", peer="postgresql/shop", db_rows=3,
          attributes='{"db.namespace":"shop"}', **shop),
        S(5, T + 200 * MS, None, kind="server", service="pay", name="GET /p", endpoint="GET /p",
          http_method="GET", trace=2, adjusted_count=4.0),
    ]  # fmt: skip


def write(path: Path, *, hostile: bool = False) -> Path:
    name = HOSTILE if hostile else "POST /buy"
    with CaptureWriter(path, command=["test"]) as writer:
        writer.append("spans", span_columns(spans(name)))
        writer.append(
            "span_events",
            {"trace_hi": [0], "trace_lo": [1], "span_id": [1], "ts_ns": [T + 5 * MS],
             "name": ["exception"], "attributes": ['{"exception.type":"Empty"}']},
        )  # fmt: skip
        writer.append(
            "span_links",
            {"trace_hi": [0], "trace_lo": [2], "span_id": [5], "linked_trace_hi": [0],
             "linked_trace_lo": [1], "linked_span_id": [1], "attributes": [None]},
        )  # fmt: skip
        _add_samples(writer, name)
        writer.append(
            "metrics",
            {
                "ts_ns": [T, T + 1000 * MS, T, T, T, T],
                "name": ["process.memory.usage"] * 2 + ["jobs", "jobs", "wait", "done"],
                "unit": ["By", "By", "1", "1", "s", "1"],
                "value": [1e8, 1.5e8, 3.0, 4.0, 2.5, 9.0],
                "count": [None, None, None, None, 10, None],
                "kind": ["gauge", "gauge", "counter", "counter", "histogram", "delta"],
                "service": ["shop"] * 6,
                "instance": ["shop-1"] * 6,
                "attributes": [None, None, '{"q":"a"}', '{"q":"b"}', None, None],
            },
        )
    return path


def _add_samples(writer: CaptureWriter, name: str) -> None:
    main, handle = Frame("main", "/app/main.py", 3), Frame("handle", "/app/app.py", 10)
    stacks = [
        writer.stacks.intern(
            (main, handle, Frame(name if "=" in name else "work", "/app/w.py", 9))
        ),
        writer.stacks.intern((main, handle, Frame("wait", "/usr/lib/python3.11/threading.py", 5))),
        writer.stacks.intern((main,)),
    ]
    # Thread 7: work 30 ms, wait 50 ms, nobody looks for 20 ms, work 10 ms. Thread 8: main 40 ms.
    rows = [
        (T, 10, 7, 0, "running"),
        (T + 10 * MS, 20, 7, 0, "running"),
        (T + 30 * MS, 50, 7, 1, "idle"),
        (T + 100 * MS, 10, 7, 0, "running"),
        (T + 5 * MS, 40, 8, 2, "running"),
    ]
    writer.append(
        "samples",
        {
            "ts_ns": [row[0] for row in rows],
            "duration_ns": [row[1] * MS for row in rows],
            "count": [row[1] // 10 for row in rows],
            "pid": [42] * len(rows),
            "tid": [row[2] for row in rows],
            "thread_name": [f"worker-{row[2]}" for row in rows],
            "stack_id": [stacks[row[3]] for row in rows],
            "state": [row[4] for row in rows],
        },
    )


def tables(path: Path) -> Tables:
    return Tables(Capture.open(path))


def scrubbed(content: bytes) -> str:
    """Return a file without what changes from release to release."""
    from perfkit import __version__

    return content.decode().replace(__version__, "VERSION")


def loads(content: bytes) -> list[object]:
    return [json.loads(line) for line in content.splitlines()]
