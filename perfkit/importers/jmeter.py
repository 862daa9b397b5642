"""JMeter's results (`.jtl`) as CSV: one row a sample. `timeStamp` is its start in ms."""

from __future__ import annotations

from pathlib import Path

from perfkit.capture import CaptureWriter
from perfkit.importers import load_tests, tables
from perfkit.importers.base import Format, Source
from perfkit.importers.rows import SpanRows, scaled

NAME = "jmeter"
FORMAT = Format(
    title="JMeter results, CSV (`.jtl`)",
    made_by="`jmeter -n -t PLAN -l results.jtl`",
    recognised_by="columns `timeStamp`, `elapsed`, `label`",
    gives="spans of requests, as the client saw them",
    lacks="what the server did; HTTP method",
)

_MS = 10**6


def sniff(head: bytes, path: Path) -> bool:
    """Recognise its columns."""
    del path
    return {"timeStamp", "elapsed", "label"} <= set(tables.header(head))


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all samples."""
    with SpanRows(source, writer) as rows:
        for place, row in tables.rows(source, "timeStamp", "elapsed", "label"):
            code = row.get("responseCode", "")
            failed = row.get("success", "true").lower() == "false"
            message = row.get("failureMessage") or row.get("responseMessage")
            load_tests.add(
                rows,
                "jmeter",
                f"{source.content_name} {place.rpartition(' ')[2]} "
                f"{row['timeStamp']} {row['elapsed']}",
                row["label"],
                scaled(row["timeStamp"], _MS),
                scaled(row["elapsed"], _MS),
                url=row.get("URL") if row.get("URL") != "null" else None,
                status=int(code) if code.isascii() and code.isdigit() and len(code) == 3 else None,
                failed=failed,
                message=message if failed else None,
                attributes={
                    "thread.name": row.get("threadName"),
                    "jmeter.latency_ms": tables.number(row.get("Latency")),
                    "jmeter.connect_ms": tables.number(row.get("Connect")),
                },
            )
